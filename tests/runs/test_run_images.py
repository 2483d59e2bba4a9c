"""What a run does with its images: it says what they are, and finds them again where they moved."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pliant import Run
from pliant.errors import DataError, EncodingError, RunConflictError
from pliant.record import Record
from pliant.runs.recipe import load_recipe
from pliant.runs.session import Session

RECIPE = """
name = "photos"
space = "digits"

[data]
source = "digits"

[train]
epochs = 1
batch_size = 16
precision = "fp32"
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Noise of 60x50 pixels, 12 of one class and 36 of the other, and one broken picture."""
    rng = np.random.default_rng(0)
    for name, count in (("cat", 12), ("dog", 36)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.jpg")
    (tmp_path / "photos" / "dog" / "bad.jpg").write_bytes(b"\xff\xd8\xff no more")
    return tmp_path / "photos"


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "photos.toml"
    path.write_text(RECIPE)
    return str(path)


def test_broken_pictures_are_skipped_and_what_was_decided_is_said(
    command, photos: Path, recipe: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    words = ("train", recipe, "--data", photos, "--run-dir", folder)
    code, _, error = command(*words)
    assert code == 2
    assert "1 picture of photos cannot be decoded" in error
    assert "bad.jpg: " in error
    assert not folder.exists()
    code, said, error = command(*words, "--skip-broken")
    assert (code, error) == (0, "")
    said = " ".join(said.split())
    assert "1 broken picture is left out." in said
    assert "Pictures of 50 pixels (median of the shorter sides) are reduced to 32." in said
    assert "Space digits is for images of up to 32 pixels; for larger ones use --space" in said
    with Record.read(folder / "record.sqlite") as record:
        [skipped] = record.metadata("data_skipped")
        assert "bad.jpg" in skipped
        assert "1 broken picture is left out." in record.metadata("data_notes")


def test_images_that_moved_are_the_same(photos: Path, recipe: str, tmp_path: Path) -> None:
    (photos / "dog" / "bad.jpg").unlink()
    with Run.create(recipe, folder=tmp_path / "run", data__source=str(photos)) as run:
        fingerprint = run.data.fingerprint
    moved = photos.rename(tmp_path / "moved")
    with Run.reopen(tmp_path / "run") as run, pytest.raises(DataError, match="are by --data"):
        _ = run.data
    with Run.reopen(tmp_path / "run", data__source=str(moved)) as run:
        assert run.data.fingerprint == fingerprint
        assert run.notes == ()  # said once
    with Run.reopen(tmp_path / "run") as run:
        assert run.data.fingerprint == fingerprint
    before = (tmp_path / "run" / "recipe.toml").read_text()
    other = Path(shutil.copytree(moved, tmp_path / "other"))
    (other / "dog" / "3.jpg").unlink()
    with pytest.raises(RunConflictError, match=r"changed since .*, or are others"):
        Run.reopen(tmp_path / "run", data__source=str(other))
    assert (tmp_path / "run" / "recipe.toml").read_text() == before


def test_a_space_has_a_largest_image(photos: Path, recipe: str, tmp_path: Path) -> None:
    changes = {"data__source": str(photos), "data__skip_broken": True, "space": "plain-32"}
    with pytest.raises(EncodingError, match=r"at most 64 pixels, received 96. Use --space photos"):
        Run.create(recipe, folder=tmp_path / "run", data__image_size=96, **changes)
    assert not (tmp_path / "run").exists()


def test_balanced_training_shows_each_class_equally_often(
    photos: Path, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pliant.training import loop

    seen: list[int] = []
    batches = loop._Batches.__call__

    def watched(self, *arguments):
        images, labels = batches(self, *arguments)
        seen.extend(labels.tolist())
        return images, labels

    monkeypatch.setattr(loop._Batches, "__call__", watched)
    shares = {}
    for weights in ("none", "balanced"):
        seen.clear()
        changes = {"data__source": str(photos), "data__skip_broken": True}
        with Run.create(
            recipe, folder=tmp_path / weights, train__class_weights=weights, **changes
        ) as run:
            _ = Session(run, progress=lambda *step: None).supernet
        shares[weights] = np.mean(seen)
    assert shares["none"] > 0.65
    assert shares["balanced"] == pytest.approx(0.5, abs=0.1)


def test_a_mistake_is_corrected_in_the_directory_that_it_left(recipe: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    Run.create(recipe, folder=folder, seed=1).close()
    with Run.create(recipe, folder=folder, seed=2) as run:
        run.record.event("something happened")
    with pytest.raises(RunConflictError, match="differs in seed"):
        Run.create(recipe, folder=folder, seed=3)
    assert load_recipe(str(folder / "recipe.toml")).seed == 2
