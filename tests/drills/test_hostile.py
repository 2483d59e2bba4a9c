"""Files, names and code that would do harm: none of it runs, and each is named."""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pliant.spaces.presets import preset

PLIANT = Path(sys.executable).with_name("pliant")
MODULES = ("torch", "onnx", "onnxruntime", "numpy", "json", "struct", "pickle", "multiprocessing")
MODULES += ("threading", "signal", "tempfile", "safetensors", "psutil", "pliant", "typing")


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder whose files are called as modules that Pliant imports, and leave a mark if run."""
    folder = tmp_path / "trap"
    folder.mkdir()
    for name in MODULES:
        mark = str(folder / f"{name} ran")
        (folder / f"{name}.py").write_text(f"open({mark!r}, 'w').close()\n")
    return folder


def _marks(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("* ran")]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no switch for the folder")
def test_score_runs_nothing_of_the_current_folder(trap):
    space = preset("digits", channels=1, image_size=8, classes=10)
    (trap / "networks.csv").write_text(f"arch\n{space.smallest()}\n{space.largest()}\n")
    words = "score --space digits --architectures networks.csv --method zen --workers 2"
    done = subprocess.run(
        [PLIANT, *words.split()], cwd=trap, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not _marks(trap)


def test_deploy_runs_nothing_of_the_current_folder(trap, copied):
    words = ["deploy", copied, "--output-dir", "out"]
    done = subprocess.run([PLIANT, *words], cwd=trap, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not _marks(trap)
    assert (trap / "out" / "card.md").is_file()


@pytest.mark.slow
def test_run_runs_nothing_of_the_current_folder(trap, tiny):
    words = ["run", tiny, "--run-dir", "out"]
    done = subprocess.run([PLIANT, *words], cwd=trap, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # this machine may be too slow for the limit
    assert not _marks(trap)
    assert (trap / "out" / "record.sqlite").is_file()


@pytest.mark.parametrize("where", ["file", "function", "forward", "score"])
def test_code_of_a_user_cannot_end_the_command(command, tmp_path, where):
    ends = "import sys; sys.exit(3)"
    (tmp_path / "model.py").write_text(
        f"""
import torch
{ends if where == "file" else ""}
class Network(torch.nn.Conv2d):
    def __init__(self):
        super().__init__(3, 10, 32)
        {ends if where == "function" else ""}
    def forward(self, images):
        {ends if where == "forward" else ""}
        return super().forward(images).flatten(1)
def own(inputs):
    {ends if where == "score" else ""}
    return 1.0
"""
    )
    path = tmp_path / "model.py"
    words = ["score", f"{path}:Network", "--shape", "3x32x32", "--method", f"{path}:own"]
    code, _, error = command(*words, "--workers", "1")
    assert code == 2
    assert "model.py" in error
    assert "sys.exit(3)" in error or "SystemExit(3)" in error


class _Marks:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def _network(dims: tuple[int, ...], location: str | None = None) -> bytes:
    """A convolution whose weights are of these sizes, in another file if one is named."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims)
    if location is None:
        tensor.raw_data = b""
    else:
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("x", "y")
    ]
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [tensor])
    return onnx.helper.make_model(graph).SerializeToString()


def _npy(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _zip(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("SLASH", "/").replace("DOT", "."), content)
    return file.getvalue()


def _objects(mark: Path) -> bytes:
    file = io.BytesIO()
    np.savez(file, train_images=np.array([_Marks(mark)], dtype=object), train_labels=np.zeros(1))
    return file.getvalue()


def _safetensors(header: object, length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


HUGE = "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000000,), }"
MAP = "accelerator map FILE"
HOSTILE: dict[str, tuple[str, str, Callable[[Path], bytes]]] = {
    "pickled images": ("train digits --data FILE", "a.npz", _objects),
    "images beyond all memory": (
        "train digits --data FILE",
        "a.npz",
        lambda _: _zip(train_imagesDOTnpy=_npy(HUGE), train_labelsDOTnpy=_npy(HUGE)),
    ),
    "members outside": ("train digits --data FILE", "a.npz", lambda _: _zip(DOTDOTSLASHx=b"0")),
    "results outside": (
        "device import FILE --out out",
        "a.zip",
        lambda _: _zip(DOTDOTSLASHresultsDOTjson=b"{}"),
    ),
    "pickled start": (
        "run digits --start FILE --run-dir out",
        "a.pth",
        lambda mark: pickle.dumps(_Marks(mark)),
    ),
    "weights of huge header": (
        "run digits --start FILE --run-dir out",
        "a.safetensors",
        lambda _: _safetensors({}, 2**62),
    ),
    "weights beyond their file": (
        "run digits --start FILE --run-dir out",
        "a.safetensors",
        lambda _: _safetensors(
            {"w": {"dtype": "F32", "shape": [9**9], "data_offsets": [0, 9**10]}}
        ),
    ),
    "weights of negative size": (MAP, "a.onnx", lambda _: _network((-4, 3, 3, 3))),
    "a network that is elsewhere": (
        "predict FILE picture.png",
        "a.onnx",
        lambda _: _network((4, 3, 3, 3), "../secret"),
    ),
    "a recipe that is code": ("train FILE", "a.toml", lambda _: b"space = __import__('os')"),
    "a recipe of objects": ("train FILE", "a.toml", lambda _: b'name = "x"\nspace = "object:os"'),
    "a recipe with a place": ("train FILE", "a.toml", lambda _: b'name = "../x"\nspace = "digits"'),
    "deep brackets": ("device show FILE", "a.json", lambda _: b"[" * 10**5),
    "long numbers": ("device show FILE", "a.json", lambda _: b'{"cores": ' + b"9" * 10**5 + b"}"),
    "a chip of deep tables": (
        MAP.replace("FILE", "none.onnx") + " --chip FILE",
        "a.toml",
        lambda _: b"a = " + b"[" * 10**4,
    ),
}
"""The command, the file, and what is in it, given a file that nobody may make."""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(command, tmp_path, monkeypatch, name):
    words, file, content = HOSTILE[name]
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "secret").write_bytes(bytes(4 * 4 * 27))
    monkeypatch.chdir(place)
    (place / file).write_bytes(content(tmp_path / "mark"))
    before = sorted(tmp_path.rglob("*"))
    code, _, error = command(*words.replace("FILE", file).split())
    assert code == 2, error
    assert file in " ".join(error.split()), error
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written, and no mark is left"
