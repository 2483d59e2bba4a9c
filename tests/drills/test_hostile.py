"""Files, names and code that would do harm: none of it runs, and each is named."""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from pliant.spaces.presets import preset

PLIANT = Path(sys.executable).with_name("pliant")
MODULES = ("torch", "onnx", "onnxruntime", "numpy", "json", "struct", "pickle", "multiprocessing")
MODULES += ("threading", "signal", "tempfile", "safetensors", "psutil", "pliant", "typing")
MODULES += ("sitecustomize", "usercustomize", "ctypes", "ml_dtypes", "numba", "sklearn", "PIL")


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder whose files are called as modules that Pliant imports, and leave a mark if run."""
    folder = tmp_path / "trap"
    folder.mkdir()
    for number, name in enumerate(MODULES):
        mark = str(folder / f"{name} ran")
        path = folder / (f"{name}.py" if number % 3 else f"{name}/__init__.py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"open({mark!r}, 'w').close()\n")
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "device bundle --space digits --networks 5 --out out.zip",
        "search --space digits --estimator zen --evaluations 20 --run-dir out",
        "predict RUN pictures --out out.csv",
        "report RUN",
        "roofline RUN/best/model.onnx --target raspberry-pi-4 --report out.html",
        "accelerator map RUN/best/model.onnx --size N=1 --chip eyeriss",
        "grow RUN/best --widen stage2=1.5x --output-dir out",
        "estimate --space digits --data digits --estimator zero-shot --architectures 4 "
        "--workers 2 --out out.csv",
    ],
)
def test_commands_run_nothing_of_the_current_folder(trap, copied, words):
    (trap / "pictures").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(trap / "pictures" / "one.png")
    done = subprocess.run(
        [PLIANT, *words.replace("RUN", str(copied)).split()],
        cwd=trap,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not _marks(trap)


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


def _checkpoint(mark: Path) -> bytes:
    file = io.BytesIO()
    torch.save({"weight": _Marks(mark)}, file)
    return file.getvalue()


def _onnx(*nodes: onnx.NodeProto, dims: tuple[int | str, ...] = (1, 3, 8, 8)) -> bytes:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    return helper.make_model(graph).SerializeToString()


def _table(mark: Path | None = None, **columns: list[object]) -> bytes:
    """A parquet file; with a mark, its schema names a type of Python whose pickle leaves it."""
    table, file = pa.table(columns), pa.BufferOutputStream()
    if mark is not None:
        extension = {
            "ARROW:extension:name": "arrow.py_extension_type",
            "ARROW:extension:metadata": pickle.dumps(_Marks(mark)),
        }
        fields = [field.with_metadata(extension) for field in table.schema]
        table = table.cast(pa.schema(fields))
    pq.write_table(table, file)
    return file.getvalue().to_pybytes()


def _png(width: int, height: int) -> bytes:
    """A picture whose header claims more than it holds."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk


def _paths(path: str) -> bytes:
    return _table(image=[{"bytes": None, "path": path}] * 12, label=[0, 1] * 6)


def _labels(descr: str, shape: str) -> bytes:
    """An archive whose labels have this header."""
    images = io.BytesIO()
    np.save(images, np.zeros((2, 8, 8), np.uint8))
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    return _zip(xDOTnpy=images.getvalue(), yDOTnpy=_npy(header))


def _tensor(**entry: object) -> bytes:
    return _safetensors({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | entry})


Content = bytes | Callable[[Path], bytes]
DEEP = b"[" * 10**5
MAP = "accelerator map FILE"
SCORE = "score --space digits --architectures FILE --method parameters --workers 1"
ARCHIVES: dict[str, Content] = {
    "pickled images": _objects,
    "images beyond all memory": _zip(train_imagesDOTnpy=_npy(HUGE), train_labelsDOTnpy=_npy(HUGE)),
    "members outside": _zip(DOTDOTSLASHx=b"0"),
    "members of the root": _zip(SLASHetcSLASHxDOTnpy=b"0", SLASHetcSLASHyDOTnpy=b"0"),
    "a header that is code": _zip(xDOTnpy=_npy("__import__('os').getcwd()"), yDOTnpy=b""),
    "a header that is no table": _zip(xDOTnpy=_npy("[1, 2]"), yDOTnpy=b""),
    "a header of deep brackets": _zip(xDOTnpy=_npy("(" * 9000), yDOTnpy=b""),
    "labels of negative number": _labels("'|u1'", "(-2,)"),
    "labels of huge items": _labels("'|V1000000000000'", "(2,)"),
    "labels that are objects": _labels("'|O'", "(2,)"),
    "labels of nested types": _labels("[('a', '|u1'), ('b', '|u1')]", "(2,)"),
    "an archive in an archive": _zip(xDOTnpy=_zip(xDOTnpy=b"0"), yDOTnpy=b""),
}
TABLES: dict[str, Content] = {
    "paths of the machine": _paths("/etc/passwd"),
    "paths above": _paths("../secret"),
    "paths that are addresses": _paths("file:///etc/passwd"),
    "paths into processes": _paths("/proc/self/environ"),
    "pickled types of columns": lambda mark: _table(mark, image=["x"] * 12, label=[0, 1] * 6),
    "pictures of 10 gigapixels": _table(image=[_png(10**5, 10**5)] * 12, label=[0, 1] * 6),
    "pictures of no pixels": _table(image=[_png(0, 0)] * 12, label=[0, 1] * 6),
    "pictures that are scripts": _table(
        image=[b"%!PS\n(/etc/passwd) (r) file"] * 12, label=[0, 1] * 6
    ),
    "a table of huge footer": b"PAR1" + b"\xff\xff\xff\x7fPAR1",
    "a table that ends at once": b"PAR1PAR1",
}
WEIGHTS: dict[str, tuple[str, Content]] = {
    "pickled start": ("a.pth", lambda mark: pickle.dumps(_Marks(mark))),
    "pickled start in an archive": ("a.pth", _checkpoint),
    "a start that is an archive": ("a.pth", _zip(DOTDOTSLASHx=b"0")),
    "weights of huge header": ("a.safetensors", _safetensors({}, 2**62)),
    "weights beyond their file": (
        "a.safetensors",
        _tensor(shape=[9**9], data_offsets=[0, 9**10]),
    ),
    "weights of negative offsets": ("a.safetensors", _tensor(data_offsets=[-4, 0]) + bytes(4)),
    "weights that end before they begin": ("a.safetensors", _tensor(data_offsets=[4, 0])),
    "weights of negative number": ("a.safetensors", _tensor(shape=[-1]) + bytes(4)),
    "weights of unknown type": ("a.safetensors", _tensor(dtype="OBJECT") + bytes(4)),
    "weights of deep header": ("a.safetensors", struct.pack("<Q", len(DEEP)) + DEEP),
    "weights whose header is a list": ("a.safetensors", _safetensors([1])),
}
NETWORKS: dict[str, tuple[str, Content]] = {
    "weights of negative size": (MAP, _network((-4, 3, 3, 3))),
    "weights of huge size": (MAP, _network((2**40, 3, 3, 3))),
    "a network that is elsewhere": (
        "predict FILE picture.png",
        _network((4, 3, 3, 3), "../secret"),
    ),
    "a network of the machine": ("predict FILE picture.png", _network((4, 3, 3, 3), "/etc/passwd")),
    "a network without end": ("predict FILE picture.png", _network((4, 3, 3, 3), "/dev/zero")),
    "a network that reads itself": (MAP, _onnx(helper.make_node("Relu", ["y"], ["y"]))),
    "a network of unknown operators": (
        MAP,
        _onnx(helper.make_node("System", ["x"], ["y"], domain="evil")),
    ),
    "a network of negative images": (
        MAP,
        _onnx(helper.make_node("Relu", ["x"], ["y"]), dims=(1, -3, 8, 8)),
    ),
    "a network of no nodes": (MAP, _onnx()),
    "a network that is a page": (MAP, b"<html><script>alert(1)</script></html>"),
    "a network of zeros": (MAP, bytes(1000)),
}
RECIPES: dict[str, Content] = {
    "a recipe that is code": b"space = __import__('os')",
    "a recipe of objects": b'name = "x"\nspace = "object:os"',
    "a recipe with a place": b'name = "../x"\nspace = "digits"',
    "a recipe of the root": b'name = "/x"\nspace = "digits"',
    "a recipe without name": b'name = ""\nspace = "digits"',
    "a recipe of two lines": b'name = "x\\ny"\nspace = "digits"',
    "a recipe with an end of text": b'name = "x\\u0000y"\nspace = "digits"',
    "a recipe that says twice": b'name = "x"\nname = "y"',
    "a recipe of deep tables": b"a = " + DEEP,
    "a recipe of bytes": b"\xff\xfe\x00",
}
PROFILES: dict[str, Content] = {
    "deep brackets": DEEP,
    "long numbers": b'{"cores": ' + b"9" * 10**5 + b"}",
    "a profile of types": b'{"__class__": "os.system", "args": ["touch mark"]}',
    "a profile that says twice": b'{"version": 1, "version": 2}',
    "a profile that is a list": b"[]",
    "a profile of zeros": bytes(100),
}
OTHERS: dict[str, tuple[str, str, Content]] = {
    "results outside": (
        "device import FILE --out out",
        "a.zip",
        _zip(DOTDOTSLASHresultsDOTjson=b"{}"),
    ),
    "deep results": ("device import FILE --out out", "a.zip", _zip(resultsDOTjson=DEEP)),
    "results that unpack to much": (
        "device import FILE --out out",
        "a.zip",
        _zip(resultsDOTjson=b" " * 10**8),
    ),
    "results of types": ("device import FILE --out out", "a.json", b'{"__reduce__": "os"}'),
    "a chip of deep tables": (
        "accelerator map none.onnx --chip FILE",
        "a.toml",
        b"a = " + b"[" * 10**4,
    ),
    "a chip that is code": ("accelerator map none.onnx --chip FILE", "a.toml", b"name = exit()"),
    "a column that is a formula": (SCORE, "a.csv", b"=cmd|'/c calc'!A1\nr8\n"),
    "a network of a million letters": (SCORE, "a.csv", b"arch\n" + b"r8" * 10**6),
    "a column with an end of text": (SCORE, "a.csv", b"ar\0ch\nr8\n"),
    "pickled types of scores": (
        "fidelity FILE --truth FILE",
        "a.parquet",
        lambda mark: _table(mark, architecture=["a"], method=["zen"], score=["1"]),
    ),
}
HOSTILE: dict[str, tuple[str, str, Content]] = (
    {name: ("train digits --data FILE", "a.npz", content) for name, content in ARCHIVES.items()}
    | {name: ("train digits --data FILE", "a.parquet", one) for name, one in TABLES.items()}
    | {name: ("run digits --start FILE --run-dir out", *one) for name, one in WEIGHTS.items()}
    | {name: (words, "a.onnx", one) for name, (words, one) in NETWORKS.items()}
    | {name: ("train FILE", "a.toml", content) for name, content in RECIPES.items()}
    | {name: ("device show FILE", "a.json", content) for name, content in PROFILES.items()}
    | OTHERS
)
"""The command, the file, and what is in it, given a file that nobody may make."""


EACH = 5
"""Of so many hostile files, `make test` takes one; `make test-slow` takes the rest."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if number % EACH else ())
        for number, name in enumerate(HOSTILE)
    ],
)
def test_hostile_files_are_refused(command, tmp_path, monkeypatch, name):
    words, file, content = HOSTILE[name]
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "secret").write_bytes(bytes(4 * 4 * 27))
    monkeypatch.chdir(place)
    (place / file).write_bytes(content(tmp_path / "mark") if callable(content) else content)
    before = sorted(tmp_path.rglob("*"))
    code, _, error = command(*words.replace("FILE", file).split())
    assert code == 2, error
    assert file in " ".join(error.split()), error
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written, and no mark is left"
