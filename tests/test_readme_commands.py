"""Every command of the README to its end, in the README's order, in one user's folder.

A command finds what those before it left, as it does for a user. Small data, recipes of one epoch
and few networks are in place of the user's; each line is otherwise as it stands there.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pretend_clock
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pliant.data import arrays
from pliant.runs import automatic, recipe
from pliant.spaces.presets import preset

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
SHELL = re.compile(r"^```bash\n(.*?)^```|`(torchrun [^`]+)`", re.DOTALL | re.MULTILINE)
LINES = [
    line.partition("  #")[0].strip()
    for block, quoted in SHELL.findall(README)
    for line in (block or quoted).splitlines()
]
"""Of all shell blocks, and the one in the text that no block has."""
LEFT_OUT = {
    "make demo": "installs packages; its run of the digits is below",
    "source .venv": "the shell's own",
    "pip install -e": "installs packages",
    "make test": "is these tests",
    "timm:": "timm and its published weights are downloaded",
}
"""Beginnings or parts of lines that are not run, and why."""
SHORTER = {
    "--networks 40": "--networks 12",
    "--networks 10": "--networks 5",
    "--architectures 24": "--architectures 4 --epochs 1 --shared-epochs 1"
    " --predictor-evaluations 20",
    "--budget 2h": "--budget 2h --epochs 1 --evaluations 4",
    "--evaluations 20000": "--evaluations 20",
    "--out designs/": "--out designs/ --designs 2",
    "--out joint/": "--out joint/ --designs 2 --networks 4",
    "--min-accuracy 0.9": "--min-accuracy 0.1",
    "cifar10 --limit latency_ms=0.2": "cifar10 --limit latency_ms=0.5",  # by the clock of the tests
    "torchrun": "torchrun --standalone",  # a port that is free
}
"""What takes long there, and what stands for it here."""
SHORT = {
    "train": {"epochs": 1},
    "search": {"estimates": 20, "rounds": 2, "candidates": 300, "front": 2, "images": 100},
}
"""Keys of every recipe."""
MODEL = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )

class trained(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 10)

    def forward(self, images):
        return self.head(self.norm1(self.conv1(images)).relu().mean((2, 3)))
"""
RECIPE = """
space = "digits"

[data]
source = "digits"

[train]
epochs = 1
"""
LINKS = {
    "phone.json": "runs/digits/device.json",
    "other.json": "runs/digits/device.json",
    "this-cpu/profile-photos.json": "runs/photos/device-int8.json",
    "a.onnx": "runs/photos/best/model.onnx",
    "b.onnx": "runs/digits/best/model.onnx",
}
"""Files of the user that are like what an earlier command leaves."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's folder, with all that the README's commands name and none of them makes."""
    home = tmp_path_factory.mktemp("home")
    folder, shared = home / "project", home / "shared" / "data"
    rng = np.random.default_rng(0)
    folder.mkdir()
    _write_photographs(folder, rng)
    _write_cifar10(shared / "cifar10", rng)
    _write_fashion_mnist(home / "fashion-mnist", rng)
    _write_cells(folder, shared, rng)
    _write_networks(folder)
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "board.py").write_text(_own_target())
    (folder / "this-cpu").mkdir()
    for name, made in LINKS.items():
        (folder / name).symlink_to(folder / made)
    read = recipe.parse_recipe

    def read_short(tree: dict[str, Any], origin: str) -> recipe.Recipe:
        shorter = {table: tree.get(table, {}) | keys for table, keys in SHORT.items()}
        return read(tree | shorter, origin)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "parse_recipe", read_short)
        patch.setattr(automatic, "parse_recipe", read_short)
        patch.setattr(arrays, "FASHION_MNIST_FOLDER", home / "fashion-mnist")
        patch.chdir(folder)
        yield folder


def _write_photographs(folder: Path, rng: np.random.Generator) -> None:
    """Sixty of two classes, one brighter than the other, and three new ones."""
    places = [f"photos/{('cat', 'dog')[number % 2]}/{number}.jpg" for number in range(60)]
    for number, place in enumerate(
        [*places, "new_pictures/1.jpg", "new_pictures/2.jpg", "photo.jpg"]
    ):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 128, (96, 128, 3)) + 100 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / place)


def _write_cifar10(folder: Path, rng: np.random.Generator) -> None:
    """Tables of encoded pictures as those of CIFAR-10."""
    folder.mkdir(parents=True)
    for split, count in (("train", 200), ("test", 100)):
        pictures = []
        for _ in range(count):
            path = folder / "picture.png"
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
            pictures.append({"bytes": path.read_bytes(), "path": path.name})
            path.unlink()
        table = pa.table({"image": pictures, "label": np.arange(count) % 10})
        pq.write_table(table, folder / f"{split}.parquet")


def _write_fashion_mnist(folder: Path, rng: np.random.Generator) -> None:
    """The four files of Fashion-MNIST, in the IDX format."""
    folder.mkdir()
    for stem, count in (("train", 400), ("t10k", 100)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
            packed = gzip.compress(head + values.tobytes())
            (folder / f"{stem}-{name}-ubyte.gz").write_bytes(packed)


def _write_cells(folder: Path, shared: Path, rng: np.random.Generator) -> None:
    """Six cells of NAS-Bench-201, and accuracies of them as published ones."""
    space = preset("nas-bench-201", channels=3, image_size=32, classes=10)
    cells = list(dict.fromkeys(str(space.sample(rng)) for _ in range(6)))
    (folder / "cells.csv").write_text("\n".join(["arch", *cells]))
    rows = [f"{cell},{80 + number}" for number, cell in enumerate(cells)]
    (shared / "nas_bench_201_cifar10.csv").write_text("\n".join(["arch,cifar10_test_pct", *rows]))


def _write_networks(folder: Path) -> None:
    """Networks of the user's own, and weights of one."""
    import torch
    from safetensors.torch import save_file

    found: dict[str, Any] = {}
    exec(MODEL, found)
    torch.manual_seed(0)
    save_file(found["build"]().state_dict(), folder / "w.safetensors")
    for name in ("model.py", "my_network.py"):
        (folder / name).write_text(MODEL)


def _own_target() -> str:
    """The target of the user's own that the documentation shows."""
    page = (ROOT / "docs" / "targets.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    return next(block for block in blocks if "class Board" in block)


def _measure_on_device(folder: Path) -> None:
    """What the user does on the board, with timings by the clock of the tests."""
    with zipfile.ZipFile(folder / "bench.zip") as bundle:
        bundle.extractall(folder)
    words = [sys.executable, "run_bench.py", "--rounds", "4", "--sample-ms", "0.1"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    results = json.loads((folder / "results.json").read_text("utf-8"))
    for row in results["rows"]:
        model = (folder / "models" / f"{row['network']}.onnx").read_bytes()
        microseconds = pretend_clock.duration_ns(model) / 1000
        row["wall_us"] = row["cpu_us"] = [microseconds] * len(row["wall_us"])
        row["preempted"] = [False] * len(row["preempted"])
    (folder / "results.json").write_text(json.dumps(results))


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES, ids=LINES)
def test_command_runs_to_its_end(line, command, place):
    if reason := next((why for part, why in LEFT_OUT.items() if part in line), None):
        pytest.skip(reason)
    for long, short in SHORTER.items():
        line = line.replace(long, short)
    program, *words = shlex.split(line)
    if program == "unzip":
        _measure_on_device(place)
    elif program == "torchrun":
        started = [sys.executable, "-m", "torch.distributed.run", *words]
        subprocess.run(started, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    else:
        assert program == "pliant"
        code, _, error = command(*words)
        assert code == 0, error


def test_what_is_left_out_or_shorter_is_in_the_readme():
    text = "\n".join(LINES)
    assert all(part in text for part in (*LEFT_OUT, *SHORTER))
