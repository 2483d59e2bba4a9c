"""Commands of the README that need one another, to their end: photographs to a grown network."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
COMMANDS = (
    "pliant run --data photos/ --limit latency_ms=5",
    "pliant predict runs/photos new_pictures/ --out labels.csv",
    "pliant predict runs/photos photo.jpg",
    "pliant grow runs/photos/best --widen stage2=1.5x --deepen stage3=+1 --data photos/",
)
"""In this order; each takes what those before it leave."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with sixty small photographs of two classes, and two new ones."""
    folder, rng = tmp_path_factory.mktemp("user"), np.random.default_rng(0)
    for number in range(60):
        path = folder / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 128, (32, 32, 3)) + 100 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    (folder / "new_pictures").mkdir()
    for path in (folder / "new_pictures" / "one.png", folder / "photo.jpg"):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.mark.slow
@pytest.mark.parametrize("line", COMMANDS)
def test_photographs_become_a_delivered_and_a_grown_network(line, command, place):
    assert re.search(rf"^{re.escape(line)}$", README, re.M)
    words = [*shlex.split(line)[1:], *(("--epochs", "1") if "run --data" in line else ())]
    code, _, error = command(*words)
    assert code == 0, error
    if "--out" in words:
        assert (place / "labels.csv").read_text("utf-8").count("one.png") == 1
    if words[0] == "grow":
        assert (place / "runs" / "photos" / "grown" / "model.onnx").is_file()
