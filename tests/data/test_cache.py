"""The cache of decoded images: equal to decoding, shared, and never believed when it is damaged."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pliant.data import load
from pliant.data.cache import CACHE_VARIABLE, cache_folder
from pliant.data.loading import read_source
from pliant.data.preparing import Request, prepare_in_memory


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """24 JPEG files of noise, and an empty cache."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(12):
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.jpg")
    return tmp_path / "photos"


def entries() -> list[Path]:
    return [found for found in cache_folder().iterdir() if found.suffix != ".lock"]


def images(photos: Path) -> torch.Tensor:
    split = load(photos, seed=0, image_size=16).train
    return split.batch(np.arange(len(split)))[0]


def test_reopened_images_equal_decoded_ones(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = read_source(photos).parts["train"].pictures
    decoded = prepare_in_memory({"train": part}, Request(size=16)).pixels["train"]
    first = load(photos, seed=0, image_size=16)
    monkeypatch.setattr("pliant.data.pictures.decode_picture", None)  # nothing is decoded again
    again = load(photos, seed=0, image_size=16)
    for data in (first, again):
        rows = data.train._rows
        assert torch.equal(data.train.batch(np.arange(len(rows)))[0], decoded[rows])
    assert again.notes == first.notes
    assert (again.decoding, again.fingerprint) == (first.decoding, first.fingerprint)
    assert len(entries()) == 1


def test_a_damaged_entry_is_decoded_again(photos: Path) -> None:
    expected = images(photos)
    (entry,) = entries()
    for name in ("train.npy", "entry.json"):
        content = bytearray((entry / name).read_bytes())
        content[len(content) // 2] ^= 1
        (entry / name).write_bytes(content)
        assert torch.equal(images(photos), expected)
    (entry / "train.npy").write_bytes(b"")
    assert torch.equal(images(photos), expected)


def _load(photos: Path) -> None:
    load(photos, seed=0, image_size=16)


def _load_and_die(photos: Path) -> None:
    """Killed in the middle of decoding."""
    from pliant.data import cache

    append = cache._FileSink.append

    def killed(sink: cache._FileSink, pixels: np.ndarray) -> None:
        append(sink, pixels[:5])
        os.kill(os.getpid(), signal.SIGKILL)

    cache._FileSink.append = killed  # type: ignore[method-assign]
    load(photos, seed=0, image_size=16)


def test_killed_and_shared(photos: Path) -> None:
    """A process that is killed half way leaves nothing that is believed; two at once agree."""
    context = multiprocessing.get_context("spawn")
    dying = context.Process(target=_load_and_die, args=(photos,))
    dying.start()
    dying.join()
    assert dying.exitcode == -signal.SIGKILL
    assert [found.suffix for found in entries()] == [".partial"]
    both = [context.Process(target=_load, args=(photos,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    (entry,) = entries()
    assert sorted(found.name for found in entry.iterdir()) == ["entry.json", "train.npy"]
    before = (entry / "train.npy").stat().st_mtime_ns
    assert images(photos).float().std() > 10
    assert (entry / "train.npy").stat().st_mtime_ns == before


def test_a_cache_that_cannot_be_written_is_done_without(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = images(photos)
    blocked = photos.parent / "file"
    blocked.write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(blocked))
    data = load(photos, seed=0, image_size=16)
    assert torch.equal(data.train.batch(np.arange(len(data.train)))[0], expected)
    assert "cannot be used (Not a directory)" in data.notes[-1]

    def full(sink: object, pixels: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv(CACHE_VARIABLE, str(photos.parent / "full"))
    monkeypatch.setattr("pliant.data.cache._FileSink.append", full)
    assert torch.equal(images(photos), expected)
    assert entries() == []


def test_entries_that_nothing_uses_are_removed(photos: Path) -> None:
    images(photos)
    (entry,) = entries()
    for found in cache_folder().iterdir():
        os.utime(found, (0, 0))
    load(photos, seed=0, image_size=8)
    assert entry not in entries()
    assert len(list(cache_folder().iterdir())) == 2
