"""Rules of the data package alone: names of splits, ranges of pixels, statistics, digests."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError

from pliant.data import load
from pliant.data.arrays import find_pairs, image_pixels, read_fashion_mnist
from pliant.data.augment import Augmentation
from pliant.data.cache import CACHE_VARIABLE, cache_folder
from pliant.data.dataset import compute_statistics, evenly_spaced_indices, fingerprint
from pliant.data.decoding import Decoding
from pliant.data.inspection import MOST_NAMED, inspect_source, listed
from pliant.data.parquet import Table
from pliant.data.pictures import reason
from pliant.data.pixel_range import (
    PixelRange,
    array_to_bytes,
    range_of_floats,
    range_of_integers,
)
from pliant.data.split_names import SPLIT_NAMES, find_splits, parse_splits, split_of
from pliant.data.splits import ImagesInMemory, Split, balanced_permutation, stratified_split
from pliant.errors import DataError

# Names of splits.

WORDS = {
    "train": ("train", "training", "Train", "TRAINING"),
    "validation": ("val", "valid", "validation", "validate", "dev", "Val"),
    "test": ("test", "testing", "Test"),
}
FILLERS = st.lists(
    st.sampled_from(["images", "set", "data", "my", "00000", "of", "2012", "seg", "new", "photos"]),
    max_size=2,
)


@given(st.sampled_from(SPLIT_NAMES), st.data(), FILLERS, FILLERS, st.sampled_from("_- ."))
def test_a_split_is_known_among_words_that_say_nothing(
    split: str, data: st.DataObject, before: list[str], after: list[str], joint: str
) -> None:
    word = data.draw(st.sampled_from(WORDS[split]))
    assert split_of(joint.join([*before, word, *after])) == split
    assert split_of(f"{word.lower()}set") == split
    assert split_of(f"{word.capitalize()}2017") == split
    other = WORDS["test" if split == "train" else "train"][0]
    assert split_of(f"{word}{joint}{other}") is None, "two splits are none"
    assert split_of(f"{word}{joint}cat") is None, "a class with such a name is a class"


@pytest.mark.parametrize("name", ["", "cat", "trains", "contest", "images", "latest", "2017", "_"])
def test_names_that_mean_no_split(name: str) -> None:
    assert split_of(name) is None


def test_splits_are_found_in_their_order_and_once() -> None:
    names = ["test", "cat", "train-00000-of-00002", "train-00001-of-00002"]
    assert find_splits(names, "x") == {"train": names[2:], "test": ["test"]}
    with pytest.raises(DataError, match=r"in here, val and dev all mean validation. Say which one"):
        find_splits(["val", "dev"], "here")


NAMES = st.lists(st.text("abcd01-.", min_size=1, max_size=6), min_size=1, max_size=3, unique=True)


@given(NAMES)
def test_stated_splits_read_back(names: list[str]) -> None:
    stated = dict(zip(SPLIT_NAMES, names, strict=False))
    text = ", ".join(f"{split} = {name}" for split, name in stated.items())
    assert parse_splits(text, [*names, "more"], "x") == stated


@pytest.mark.parametrize(
    "text", ["", "train", "train=", "test=a", "train=a,train=b", "train=a,cat=b", "train=a,,"]
)
def test_splits_that_are_not_stated(text: str) -> None:
    with pytest.raises(DataError, match=r"of which train is needed"):
        parse_splits(text, ["a", "b"], "x")
    with pytest.raises(DataError, match=r"in x; it has no 'a'. It has nothing"):
        parse_splits("train=a", [], "x")


# Pixels.


@given(
    st.floats(-1e4, 1e4), st.floats(0.5, 1e5), st.lists(st.floats(0, 1), min_size=1, max_size=20)
)
def test_a_range_maps_its_ends_to_black_and_white_and_keeps_order(
    black: float, extent: float, shares: list[float]
) -> None:
    found = PixelRange(black, black + extent)
    values = np.sort(black + extent * np.array([0.0, *shares, 1.0]))
    pixels = found.to_bytes(values)
    assert (pixels[0], pixels[-1]) == (0, 255)
    assert (np.diff(pixels.astype(int)) >= 0).all()
    back = found.black + pixels / 255 * (found.white - found.black)
    np.testing.assert_allclose(back, values, atol=extent / 255 * 0.501)
    beyond = found.to_bytes(np.array([black - extent, black + 2 * extent]))
    assert beyond.tolist() == [0, 255]


@given(st.integers(-40_000, 40_000), st.integers(0, 70_000))
def test_ranges_follow_from_the_extremes(least: int, extent: int) -> None:
    largest = least + extent
    integers, floats = range_of_integers(least, largest), range_of_floats(least, largest)
    assert integers.black == floats.black == min(0, least)
    assert floats.white == largest
    assert integers.white == (255 if least >= 0 and largest <= 255 else largest)


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.uint16, np.float32, np.float64])
def test_every_level_of_an_array_stays_itself(dtype: Any) -> None:
    levels = np.arange(256)
    values = (levels / 255 if np.dtype(dtype).kind == "f" else levels).astype(dtype)
    assert array_to_bytes(values, "x").tolist() == levels.tolist()
    same = levels.astype(np.uint8)
    assert array_to_bytes(same, "x") is same


@pytest.mark.parametrize(
    "values",
    [
        np.array([-1]),
        np.array([256]),
        np.array([1.001]),
        np.array([-1e-3]),
        np.array([np.nan]),
        np.array([np.inf]),
        np.array([True]),
        np.array([0.5 + 0j]),
        np.array(["a"]),
    ],
    ids=lambda one: f"{one.dtype} {one[0]}",
)
def test_values_that_are_no_pixels(values: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"fractions from 0 to 1; x, has .* beyond"):
        array_to_bytes(values, "x")


@given(st.integers(1, 3), st.sampled_from([1, 3]), st.integers(2, 6), st.integers(4, 7))
def test_layouts_of_arrays_mean_the_same_images(
    count: int, channels: int, height: int, width: int
) -> None:
    last = np.arange(count * height * width * channels).astype(np.uint8)
    last = last.reshape(count, height, width, channels)
    assert np.array_equal(image_pixels(last, "x"), last)
    if width not in (1, 3):
        assert np.array_equal(image_pixels(last.transpose(0, 3, 1, 2), "x"), last)
    if channels == 1:
        assert np.array_equal(image_pixels(last[..., 0], "x"), last)


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_evenly_spaced_indices_have_both_ends_and_equal_steps(count: int, most: int) -> None:
    found = evenly_spaced_indices(count, most)
    assert len(found) == min(count, most)
    if count > most > 1:
        assert (found[0], found[-1]) == (0, count - 1)
        steps = np.diff(found)
        assert steps.min() >= 1
        assert steps.max() - steps.min() <= 1


@settings(max_examples=30)
@given(st.integers(1, 30), st.sampled_from([1, 3]), st.integers(0, 1000))
def test_statistics_are_those_of_all_pixels(count: int, channels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, channels, 3, 5), dtype=torch.uint8, generator=generator)
    found = compute_statistics(Split(ImagesInMemory(pixels), np.zeros(count, int)))
    values = pixels.double().div(255).transpose(0, 1).flatten(1)
    np.testing.assert_allclose(found.mean, values.mean(1), rtol=1e-9)
    np.testing.assert_allclose(found.std, values.std(1, correction=0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 2, 4, 4), (2, 4, 4, 3)])
def test_images_in_memory_have_one_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"with 1 or 3 channels; received \(2, "):
        ImagesInMemory(torch.zeros(shape, dtype=torch.uint8))


def test_a_fingerprint_covers_everything_that_a_data_set_is() -> None:
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 256, (6, 32), dtype=np.uint8)
    labels = np.array([0, 1, 0, 1, 0, 1])
    cut = [(digests[a:b], labels[a:b]) for a, b in ((0, 2), (2, 4), (4, 6))]
    classes, decoding = ("a", "b"), Decoding(1, 8)
    other = digests.copy()
    other[5, 31] ^= 1
    variants: list[tuple[Any, ...]] = [
        (classes, decoding, cut),
        (("b", "a"), decoding, cut),
        (("a", "b", "c"), decoding, cut),
        (classes, decoding, [*cut[:2], (other[4:], labels[4:])]),
        (classes, decoding, [*cut[:2], (digests[4:], 1 - labels[4:])]),
        (classes, decoding, [(digests[:3], labels[:3]), (digests[3:4], labels[3:4]), cut[2]]),
        (classes, decoding, [cut[1], cut[0], cut[2]]),
    ]
    changes: dict[str, Any] = {
        "channels": 3,
        "size": 9,
        "fit": "pad",
        "background": (0, 0, 0),
        "integers": PixelRange(0, 9),
        "floats": PixelRange(0, 9),
    }
    assert set(changes) == {field.name for field in dataclasses.fields(Decoding)}
    for name, value in changes.items():
        variants.append((classes, dataclasses.replace(decoding, **{name: value}), cut))
        usual = dataclasses.replace(decoding, **{name: value}).options
        assert (name in usual) == (name not in ("channels", "size"))
    found = [fingerprint(*one) for one in variants]
    assert len(set(found)) == len(variants)
    assert found[0] == fingerprint(classes, decoding, [(d.copy(), y.copy()) for d, y in cut])


# Splits and epochs.


@given(
    st.lists(st.integers(3, 30), min_size=2, max_size=4), st.floats(0.01, 0.45), st.integers(0, 9)
)
def test_two_cuts_one_after_the_other_leave_every_class_in_three_parts(
    counts: list[int], share: float, seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    classes = tuple("abcd"[: len(counts)])
    rest, test = stratified_split(labels, share, 0, part="test", classes=classes)
    train, validation = stratified_split(
        labels[rest], share, seed, part="validation", classes=classes
    )
    parts = [test, rest[train], rest[validation]]
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    for part in parts:
        assert set(labels[part]) == set(range(len(counts)))
        assert (np.diff(part) > 0).all()


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 4))
def test_balanced_epochs_show_every_image_equally_often_in_the_long_run(
    small: int, factor: int, seed: int
) -> None:
    """Classes of n and n (2 f - 1) images: an epoch has n f of each, and n (2 f - 1) epochs are
    whole rounds through both."""
    large = small * (2 * factor - 1)
    labels = np.repeat([0, 1], [small, large])
    shown = np.zeros(len(labels), int)
    for epoch in range(large):
        shown += np.bincount(balanced_permutation(labels, epoch, seed), minlength=len(labels))
    assert len(set(shown[labels == 0])) == len(set(shown[labels == 1])) == 1
    assert shown[labels == 0].sum() == shown[labels == 1].sum()


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 255),
    st.sampled_from([1, 3]),
    st.integers(0, 3),
    st.booleans(),
    st.floats(0.2, 1),
    st.integers(0, 99),
)
def test_an_image_of_one_colour_stays_as_it_is_wherever_it_is_moved(
    value: int, channels: int, pad: int, flip: bool, area: float, seed: int
) -> None:
    images = torch.full((4, channels, 6, 7), value, dtype=torch.uint8)
    vary = Augmentation(pad, flip, min_crop_area=area)
    found = vary(images, torch.Generator().manual_seed(seed))
    torch.testing.assert_close(found, images / 255, rtol=0, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 0.99), st.floats(0.05, 1), st.integers(0, 6), st.integers(0, 99))
def test_varied_images_keep_their_shape_and_range(
    jitter: float, area: float, cutout: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (5, 3, 6, 6), dtype=torch.uint8, generator=generator)
    before = images.clone()
    vary = Augmentation(2, True, cutout, (0.2, 0.4, 0.6), min_crop_area=area, colour_jitter=jitter)
    found = vary(images, generator)
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    assert 0 <= found.min() <= found.max() <= 1
    assert torch.equal(images, before)


def test_gray_pictures_in_colour_stay_gray_under_changes_of_colour() -> None:
    gray = torch.rand(6, 1, 5, 5, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    found = Augmentation(colour_jitter=0.4)(gray, torch.Generator().manual_seed(1))
    torch.testing.assert_close(found, found[:, :1].expand(-1, 3, -1, -1), rtol=0, atol=1e-5)


# What a source is, before anything is decoded, and refusals that need no file.


def arrays_of(counts: dict[int, int], size: int = 4) -> dict[str, np.ndarray]:
    labels = np.repeat(list(counts), list(counts.values()))
    x = np.arange(len(labels) * size * size) % 251
    return {"x": x.reshape(-1, size, size).astype(np.uint8), "y": labels}


def test_a_mapping_a_function_and_a_file_are_the_same_images(tmp_path: Path) -> None:
    arrays = arrays_of({0: 12, 1: 12})
    np.savez(tmp_path / "a.npz", **arrays)
    fingerprints = {
        load(source, seed=0).fingerprint for source in (arrays, lambda: arrays, tmp_path / "a.npz")
    }
    assert len(fingerprints) == 1
    whole = load(arrays, seed=0)
    assert load(lambda: whole, seed=5) is whole
    with pytest.raises(DataError, match=r"a DataSet has its size, 4; received image_size 9"):
        load(whole, seed=0, image_size=9)


@pytest.mark.parametrize(
    ("given_as", "message"),
    [
        (lambda: None, "is NoneType"),
        (lambda: [1, 2], "a mapping of arrays x_train and y_train; .* is list"),
        ({"x": np.zeros((4, 4, 4))}, "train, has only one of x and y: x. Add the other"),
        ({"images": np.zeros((4, 4, 4)), "z": [1]}, "has only one of x and y: images"),
        ({}, "has nothing. Rename the arrays"),
        ({"x": np.zeros((4, 4, 4)), "X": 0, "y": [0]}, "there once; .* has x and X"),
        ({"x": np.zeros((4, 4)), "y": [0, 1, 0, 1]}, r"has shape \(4, 4\)"),
        ({"x": np.zeros((4, 4, 4)), "y": [0, 1]}, "has 4 images and 2 labels"),
        ({"x": np.zeros((4, 4, 4)), "y": [0.5] * 4}, r"has float64 of shape \(4,\)"),
        ({"x": np.zeros((4, 4, 4)), "y": [0] * 4}, "at least two classes; .* has 1: 0"),
        (arrays_of({0: 1, 1: 9}), "has only 1"),
        (
            arrays_of({0: 6, 1: 6}) | {"x_test": np.zeros((1, 4, 4)), "y_test": [7]},
            "test, has 7, which is none of 0, 1",
        ),
    ],
)
def test_own_data_that_cannot_be_used(given_as: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(given_as, seed=0)


@given(st.permutations(["x_train", "y_train", "x_test", "y_test", "other"]))
def test_pairs_do_not_depend_on_the_order_of_arrays(names: list[str]) -> None:
    found = find_pairs(names, "x")
    assert found == {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}


def test_headers_tell_what_images_are_like(tmp_path: Path) -> None:
    for name, count in (("cat", 4), ("dog", 11)):
        (tmp_path / name).mkdir()
        for index in range(count):
            picture = Image.new("L" if index else "RGB", (20 + index, 40))
            picture.save(tmp_path / name / f"{index}.png")
    found = inspect_source(tmp_path)
    assert dict(found.images) == {"cat": 4, "dog": 11}
    assert (found.channels, found.missing_splits, found.few) == (3, 2, {"cat": 4})
    assert found.side == sorted([*range(20, 24), *range(20, 31)])[7], "the median"
    whole = inspect_source("digits")
    assert (whole.channels, whole.side, sum(whole.images.values())) == (1, 8, 1797)
    ready = load("digits", seed=0)
    inspected = inspect_source(lambda: ready)  # type: ignore[arg-type]
    assert (inspected.missing_splits, sum(inspected.images.values())) == (0, len(ready.train))


def test_classes_that_cannot_be_split_are_all_named() -> None:
    counts = dict.fromkeys(range(MOST_NAMED + 3), 1) | {99: 30}
    source: Any = lambda: arrays_of(counts)  # noqa: E731
    with pytest.raises(
        DataError, match=r"at least 3 images, one for each split; '0' has 1, .*and 3"
    ):
        inspect_source(source)
    assert listed({"a": 1, "b": 2}) == "'a' has 1, 'b' has 2"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), "there is no such file"),
        (UnidentifiedImageError("cannot identify /x"), "it is no picture that can be read"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/x"), "Permission denied"),
        (ValueError("two\n  lines"), "two lines"),
        (EOFError(), "EOFError"),
    ],
)
def test_reasons_are_one_line_without_a_path(fault: Exception, words: str) -> None:
    assert reason(fault) == words


def test_the_cache_is_where_the_user_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "~/fast")
    assert cache_folder() == Path.home() / "fast" / "images"
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert cache_folder() == Path("/var/cache/me/pliant/images")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "pliant" / "images"


@pytest.mark.parametrize("method", ["iterdir", "walk"])
def test_a_folder_that_cannot_be_listed_is_named(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "0.png")
    fault = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "cat"))

    def refused(*_: Any, onerror: Any = None, **__: Any) -> Any:
        if onerror is None:
            raise fault
        onerror(fault)
        return iter(())

    monkeypatch.setattr(*((Path, "iterdir") if method == "iterdir" else (os, "walk")), refused)
    with pytest.raises(DataError, match=r"cat cannot: Permission denied. Change its permissions"):
        load(tmp_path, seed=0)


def test_arrays_without_names_and_files_that_are_cut_short(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match=r"holds named arrays; .* holds one without"):
        load(tmp_path / "a.npz", seed=0)
    with pytest.raises(DataError, match=r"read from four gzip files; .* cannot be read"):
        read_fashion_mnist(tmp_path)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "neither bytes nor a path"),
        ({"bytes": None, "path": None}, "neither bytes nor a path"),
        ({"bytes": None, "path": "a.png"}, "a path and no bytes"),
    ],
)
def test_rows_of_a_table_without_a_picture_say_why(value: Any, why: str) -> None:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = pa.table({"image": pa.array([value], kind)})
    table = Table(rows.schema, 1, lambda names: [rows.select(list(names))], None, "here")
    pictures = table.pictures("image")
    [picture] = pictures.items()
    assert picture.name == f"row 0 ({(value or {}).get('path') or 'no file name'}) of here"
    with pytest.raises(OSError, match=why):
        picture.read()


def test_tables_of_no_split_and_of_a_split_that_is_not_train(tmp_path: Path) -> None:
    def write(name: str) -> None:
        content = [{"bytes": b"", "path": None}] * 4
        pq.write_table(pa.table({"image": content, "label": [0, 1, 0, 1]}), tmp_path / name)

    write("test.parquet")
    with pytest.raises(DataError, match=r"called train.*has test.parquet. Rename them"):
        load(tmp_path, seed=0)
    write("other.parquet")
    with pytest.raises(DataError, match=r"called train"):
        load(tmp_path, seed=0)


def test_a_data_set_of_the_hub_has_training_images(monkeypatch: pytest.MonkeyPatch) -> None:
    one = datasets.Dataset.from_dict({"image": [b""], "label": [0]})
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_: datasets.DatasetDict({"extra": one, "test": one})
    )
    with pytest.raises(DataError, match=r"hf:me/it has extra, test. State the splits"):
        load("hf:me/it", seed=0)
    with pytest.raises(DataError, match=r"has no 'train'. It has extra, test"):
        load("hf:me/it", seed=0, splits="train=train")
