"""Files, names and code that would do harm: none of it runs, and each is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
