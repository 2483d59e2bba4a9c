"""Files with a few bytes changed are refused in one sentence, or read as what was written."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pliant import Record
from pliant.accelerator.chip import load_chip
from pliant.deploy.classifier import Classifier
from pliant.devices.profile import load_profile
from pliant.errors import PliantError
from pliant.report.summary import read_summary_file
from pliant.runs.recipe import load_recipe
from pliant.training.checkpoint import load_tensors

FEW, MANY = 25, 400
"""Mutations of each file in the short and in the long drill."""


def mutated(whole: bytes, rng: random.Random) -> bytes:
    """The same with one accident: bits flipped, bytes replaced, removed, repeated or cut off."""
    content, place = bytearray(whole), rng.randrange(len(whole))
    match rng.randrange(6):
        case 0:
            content[place] ^= 1 << rng.randrange(8)
        case 1:
            content[place : place + 1] = rng.randbytes(1)
        case 2:
            end = min(len(content), place + rng.randint(2, 64))
            content[place:end] = rng.randbytes(end - place)
        case 3:
            del content[place : place + rng.randint(1, 64)]
        case 4:
            content[place:place] = content[place : place + rng.randint(1, 64)]
        case 5:
            del content[place:]
    return bytes(content)


def _record_rows(path: Path) -> Any:
    with Record.read(path) as record:
        metadata = record._rows("SELECT key, value FROM metadata ORDER BY key")
        return (metadata, record.evaluations(), record.asked(), record.steps(), record.events())


def _tensors(path: Path) -> Any:
    tensors, metadata = load_tensors(path, require_digest=True)
    return {name: (one.dtype, one.tolist()) for name, one in tensors.items()}, metadata


def _answers(path: Path) -> Any:
    """Classes and probabilities of a delivered network."""
    network = Classifier(path)
    pixels = np.arange(network.size**2, dtype=np.uint8).reshape(1, network.size, network.size, 1)
    return network.classes, network.probabilities(pixels).tolist()


READERS: dict[str, Callable[[Path], Any]] = {
    "record.sqlite": _record_rows,
    "supernet/weights.safetensors": _tensors,
    "supernet/checkpoint": _tensors,
    "summary.json": read_summary_file,
    "device.json": load_profile,
    "best/model.onnx": _answers,
    "best/model.int8.onnx": _answers,
    "best/model.safetensors": _tensors,
    "best/SHA256SUMS": lambda path: _answers(path.with_name("model.onnx")),
}
LEAST = {"best/SHA256SUMS": 20}
"""Of so many mutations one or more is refused, 2 if not given: its lines are of several files."""
EDITED: dict[str, Callable[[Path], Any]] = {
    "recipe.toml": lambda path: load_recipe(str(path)),
    "eyeriss.toml": load_chip,
}
"""What people write has no checksum; another text is another recipe or chip, or refused."""


BELIEVED = "was believed"


def _refusal(read: Callable[[Path], Any], path: Path, truth: Any) -> str | None:
    """Why a file was refused; None where it is read as what was written."""
    try:
        return None if read(path) == truth else BELIEVED
    except PliantError as error:
        return str(error)


def _drill(name: str, folder: Path, place: Path, mutations: int) -> int:
    """Read so many mutations of one file of a run; the number of those that were refused."""
    path = folder / name if (folder / name).is_file() else max(folder.glob(f"{name}*"))
    read, rng = READERS[name], random.Random(name)
    shutil.copytree(path.parent, place, dirs_exist_ok=True)  # some files have sums beside them
    copy = place / path.name
    truth, whole, refused = read(copy), copy.read_bytes(), 0
    for number in range(mutations):
        content = mutated(whole, rng)
        copy.write_bytes(content)
        said = _refusal(read, copy, truth)
        assert said != BELIEVED, f"mutation {number} of {name}"
        assert said is None or copy.name in said
        refused += said is not None
        assert copy.read_bytes() == content, "a damaged file is left as it is"
    return refused


@pytest.mark.parametrize("name", READERS)
def test_changed_bytes_are_refused(name, finished, tmp_path):
    assert _drill(name, finished.folder, tmp_path, FEW) > FEW / LEAST.get(name, 2)


def _drill_edited(name: str, path: Path, mutations: int) -> None:
    read, rng, whole = EDITED[name], random.Random(name), path.read_bytes()
    for _ in range(mutations):
        path.write_bytes(mutated(whole, rng))
        said = _refusal(read, path, None)
        assert said == BELIEVED or path.name in said


@pytest.fixture
def edited(tmp_path, finished) -> Path:
    """A folder with a recipe and a chip."""
    shutil.copy(finished.folder / "recipe.toml", tmp_path)
    chips = resources.files("pliant") / "accelerator" / "chips"
    (tmp_path / "eyeriss.toml").write_text((chips / "eyeriss.toml").read_text("utf-8"))
    return tmp_path


@pytest.mark.parametrize("name", EDITED)
def test_changed_texts_are_read_or_refused(name, edited):
    _drill_edited(name, edited / name, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITED)
def test_many_changed_texts_are_read_or_refused(name, edited):
    _drill_edited(name, edited / name, MANY)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_changed_bytes_are_refused(name, finished, tmp_path):
    assert _drill(name, finished.folder, tmp_path, MANY) > MANY / LEAST.get(name, 2)
