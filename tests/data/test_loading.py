"""From the user's word for a data set to three splits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pliant.data import DataSet, Split, load
from pliant.data.arrays import FASHION_MNIST_FOLDER
from pliant.errors import DataError

CIFAR = Path(__file__).parents[3] / "shared" / "data" / "cifar10"


def everything(split: Split) -> torch.Tensor:
    return split.batch(np.arange(len(split)))[0]


def all_splits(data: DataSet) -> dict[str, Split]:
    return {
        "train": data.train,
        "validation": data.validation,
        "test": data.test.open("a test of Pliant"),
    }


def write_images(
    folder: Path,
    count: int,
    *,
    seed: int = 0,
    size: tuple[int, int] = (12, 10),
    mode: str = "RGB",
    kind: str = "png",
) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for index in range(count):
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{index}.{kind}")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """20 cats and 10 dogs of 12x10 pixels."""
    write_images(tmp_path / "photos" / "cat", 20, seed=1)
    write_images(tmp_path / "photos" / "dog", 10, seed=2)
    return tmp_path / "photos"


def write_parquet(
    path: Path, labels: list[Any], *, features: datasets.Features | None = None, seed: int = 0
) -> None:
    """Noise of 8x8 pixels as PNG."""
    import io

    rng, structs = np.random.default_rng(seed), []
    for index in range(len(labels)):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
        structs.append({"bytes": buffer.getvalue(), "path": f"{index}.png"})
    table = pa.table({"image": structs, "label": labels})
    if features is not None:
        table = table.replace_schema_metadata(features.arrow_schema.metadata)
    pq.write_table(table, path)


def test_digits() -> None:
    data = load("digits", seed=0)
    assert (data.name, len(data.classes), data.channels, data.image_size) == ("digits", 10, 1, 8)
    splits = all_splits(data)
    assert sum(map(len, splits.values())) == 1797
    assert abs(len(data.validation) - 180) <= 5
    assert abs(len(data.test) - 180) <= 5
    assert everything(data.train).max() == 255
    pixels = everything(data.train).double() / 255
    assert data.mean == pytest.approx([pixels.mean().item()])
    assert data.std == pytest.approx([pixels.std(correction=0).item()])


def test_the_seed_moves_validation_but_never_the_test_images() -> None:
    first, again, other = (all_splits(load("digits", seed=seed)) for seed in (0, 0, 1))
    assert all(torch.equal(everything(first[name]), everything(again[name])) for name in first)
    assert torch.equal(everything(first["test"]), everything(other["test"]))
    assert not torch.equal(everything(first["validation"]), everything(other["validation"]))
    assert (
        load("digits", seed=0).fingerprint
        == load("digits", seed=0).fingerprint
        != load("digits", seed=1).fingerprint
    )


@pytest.mark.skipif(
    not FASHION_MNIST_FOLDER.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_fashion_mnist_has_its_published_statistics() -> None:
    data = load("fashion-mnist", seed=0)
    assert (len(data.train), len(data.validation), len(data.test)) == (54_000, 6_000, 10_000)
    assert np.bincount(data.validation.labels).tolist() == [600] * 10
    assert (data.channels, data.image_size) == (1, 28)
    assert data.mean == pytest.approx([0.2860], abs=5e-4)
    assert data.std == pytest.approx([0.3530], abs=5e-4)


@pytest.mark.skipif(not CIFAR.is_dir(), reason="no shared/data/cifar10 beside the repository")
def test_cifar_10_parquet(tmp_path: Path) -> None:
    first = pq.ParquetFile(CIFAR / "test.parquet").iter_batches(1000)
    pq.write_table(pa.Table.from_batches([next(first)]), tmp_path / "train.parquet")
    pq.write_table(pa.Table.from_batches([next(first)]), tmp_path / "test.parquet")
    data = load(tmp_path, seed=0)
    assert data.classes[:3] == ("airplane", "automobile", "bird")
    assert (data.channels, data.image_size) == (3, 32)
    assert (len(data.train) + len(data.validation), len(data.test)) == (1000, 1000)
    assert data.mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.02)


def test_a_folder_of_class_folders(photos: Path) -> None:
    (photos / "cat" / "notes.txt").write_text("not an image")
    (photos / ".cache").mkdir()
    data = load(photos, seed=0)
    assert (data.name, data.classes, data.channels, data.image_size) == (
        "photos",
        ("cat", "dog"),
        3,
        8,
    )
    assert [np.bincount(split.labels).tolist() for split in all_splits(data).values()] == [
        [16, 8],
        [2, 1],
        [2, 1],
    ]
    rows = [
        tuple(image.flatten().tolist())
        for split in all_splits(data).values()
        for image in everything(split)
    ]
    assert len(set(rows)) == 30


def test_a_folder_that_is_split_already_stays_so(tmp_path: Path) -> None:
    for place, (split, count) in enumerate({"train": 6, "val": 3, "test": 4}.items()):
        write_images(tmp_path / split / "a", count, seed=place, size=(8, 8))
        write_images(tmp_path / split / "b", count, seed=place + 9, size=(8, 8))
    data = load(str(tmp_path), seed=0)
    assert [len(split) for split in all_splits(data).values()] == [12, 6, 8]
    with Image.open(tmp_path / "test" / "b" / "2.png") as picture:
        expected = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    assert torch.equal(everything(data.test.open("compare"))[6], expected)


def test_pictures_become_upright_squares_of_the_asked_size(tmp_path: Path) -> None:
    """White on the left half, which is the upper half once EXIF has turned the picture upright."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in "ab":
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png", exif=exif)
    assert (
        load(tmp_path, seed=0).image_size == 24
    )  # the shorter side, 20, to the next multiple of 8
    image = everything(load(tmp_path, seed=0, image_size=10).train)[0]
    assert image.shape == (3, 10, 10)
    assert image[:, :4].min() > 200
    assert image[:, 6:].max() < 50


@pytest.mark.parametrize(
    ("modes", "channels"),
    [(("L", "L"), 1), (("L", "RGB"), 3), (("1", "I;16"), 1), (("P", "RGBA"), 3)],
)
def test_one_channel_only_where_all_images_are_gray(
    tmp_path: Path, modes: tuple[str, str], channels: int
) -> None:
    for name, mode in zip("ab", modes, strict=True):
        if mode == "I;16":
            (tmp_path / name).mkdir()
            for index in range(3):
                pixels = np.full((8, 8), 128 << 8, np.uint16)
                pixels[0] = 255 << 8
                Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
        else:
            write_images(tmp_path / name, 3, mode=mode, size=(8, 8))
    data = load(tmp_path, seed=0)
    assert data.channels == channels
    if "I;16" in modes:
        assert everything(data.train)[-1].unique().tolist() == [128, 255]


@pytest.mark.parametrize("form", ["folder", "parquet", "npz"])
def test_data_is_known_by_its_content(form: str, photos: Path, tmp_path: Path) -> None:
    """Moved data is the same; one other pixel, label or order makes another."""
    source = photos
    if form == "parquet":
        source = tmp_path / "tables"
        source.mkdir()
        write_parquet(source / "train-00000-of-00002.parquet", [0, 1] * 20, seed=1)
        write_parquet(source / "train-00001-of-00002.parquet", [1, 0] * 20, seed=2)
        write_parquet(source / "validation.parquet", [1, 0] * 5, seed=3)
    elif form == "npz":
        source = tmp_path / "x.npz"
        rng = np.random.default_rng(0)
        np.savez(source, x=rng.integers(0, 256, (40, 9, 7, 3), dtype=np.uint8), y=np.arange(40) % 2)
    first = load(source, seed=3, image_size=8)
    moved = source.rename(tmp_path / f"moved{source.suffix}")
    again = load(moved, seed=3, image_size=8)
    for one, other in zip(all_splits(first).values(), all_splits(again).values(), strict=True):
        indices = np.random.default_rng(1).permutation(len(one))
        for mine, yours in zip(one.batch(indices), other.batch(indices), strict=True):
            assert torch.equal(mine, yours)
    assert (first.mean, first.std, first.fingerprint) == (again.mean, again.std, again.fingerprint)
    assert load(moved, seed=3, image_size=4).fingerprint != first.fingerprint
    if form == "folder":
        (moved / "cat").rename(moved / "fox")
        assert load(moved, seed=3, image_size=8).fingerprint != first.fingerprint
        (moved / "fox").rename(moved / "cat")
        write_images(tmp_path / "more", 1, seed=9)
        (tmp_path / "more" / "0.png").replace(moved / "dog" / "5.png")
        assert load(moved, seed=3, image_size=8).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("names", "recognised"),
    [
        (("training", "testing"), "training as train, testing as test"),
        (("Training", "Validation"), "Training as train, Validation as validation"),
        (("training_set", "test_set"), "training_set as train, test_set as test"),
        (("train_images", "val_images"), "train_images as train, val_images as validation"),
        (("seg_train", "seg_test"), "seg_train as train, seg_test as test"),
        (("trainset", "dev"), "trainset as train, dev as validation"),
    ],
)
def test_folders_of_splits_are_recognised_and_said(
    names: tuple[str, str], recognised: str, tmp_path: Path
) -> None:
    for place, name in enumerate(names):
        for label in "ab":
            write_images(tmp_path / "set" / name / label, 8, seed=place, size=(8, 8))
    data = load(tmp_path, seed=0)  # through a folder that wraps the data set
    assert data.classes == ("a", "b")
    assert f"Folders read as splits: {recognised}." in data.notes[0]
    assert len(data.train) + len(data.validation) + len(data.test) == 32
    assert load(tmp_path, seed=0, splits="none").classes == tuple(sorted(names))
    stated = load(tmp_path, seed=0, splits=f"train={names[1]},test={names[0]}")
    assert (stated.classes, len(stated.test)) == (("a", "b"), 16)


def test_pictures_in_two_splits_are_told(tmp_path: Path) -> None:
    for split, seed in (("train", 0), ("validation", 1), ("test", 2)):
        for label in "ab":
            write_images(tmp_path / split / label, 6, seed=seed + 3 * (label == "b"))
    assert not any("also among" in note for note in load(tmp_path, seed=0).notes)
    for number, original in (("0", "train/a/3"), ("1", "train/b/2"), ("2", "validation/a/4")):
        copied = (tmp_path / f"{original}.png").read_bytes()
        (tmp_path / "test" / "a" / f"{number}.png").write_bytes(copied)
    [note] = [note for note in load(tmp_path, seed=0).notes if "also among" in note]
    assert note.startswith("3 of 12 test pictures are also among those of train and validation, ")
    assert f"such as {tmp_path / 'test' / 'a' / '0.png'}: accuracy is overstated." in note


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_channels_may_be_asked_for(mode: str, tmp_path: Path) -> None:
    for label in "ab":
        write_images(tmp_path / label, 6, mode=mode)
    gray, colour = load(tmp_path, seed=0, channels=1), load(tmp_path, seed=0, channels=3)
    assert (gray.channels, colour.channels) == (1, 3)
    if mode == "L":
        assert torch.equal(everything(gray.train).expand(-1, 3, -1, -1), everything(colour.train))
        assert "All training pictures are gray, and read as RGB." in colour.notes
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "gray.npz", x=pixels, y=np.arange(20) % 2)
    arrays = load(tmp_path / "gray.npz", seed=0, channels=3)
    assert tuple(everything(arrays.train).shape[1:]) == (3, 8, 8)
    with pytest.raises(DataError, match="has its channels, 3; 1 are asked for"):
        load(lambda: colour, seed=0, channels=1)


def test_splits_that_cannot_be_told_are_asked_for(tmp_path: Path) -> None:
    for split in ("fold1", "fold2"):
        for label in "ab":
            write_images(tmp_path / split / label, 4, size=(8, 8))
    with pytest.raises(DataError, match="hold the same folders, as splits do"):
        load(tmp_path, seed=0)
    assert load(tmp_path, seed=0, splits="none").classes == ("fold1", "fold2")
    (tmp_path / "fold1").rename(tmp_path / "train")
    (tmp_path / "fold2").rename(tmp_path / "training_set")
    with pytest.raises(DataError, match="train and training_set all mean train"):
        load(tmp_path, seed=0)


def test_files_that_are_no_pictures_are_ignored_with_a_word(photos: Path) -> None:
    for name in ("cat/a.pdf", "cat/b.mpg", "dog/Thumbs.db", "labels.csv", "dog/c.eps"):
        (photos / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0")
    (photos / "dog" / ".hidden.png").write_bytes(b"")
    data = load(photos, seed=0)
    assert len(data.train) + len(data.validation) + len(data.test) == 30
    note = next(note for note in data.notes if "no pictures" in note)
    assert note.startswith("5 files that are no pictures are ignored (1 .csv, 1 .db, 1 .eps, ")
    (photos / "heic").mkdir()
    (photos / "heic" / "1.heic").write_bytes(b"")
    with pytest.raises(DataError, match=r"heic holds 1 \.heic, which are no pictures"):
        load(photos, seed=0)


def test_names_that_are_not_utf_8(photos: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.png")
    (photos / "cat" / "3.png").rename(photos / "cat" / odd)
    assert len(load(photos, seed=0).classes) == 2
    (photos / "cat" / odd).write_bytes(b"")
    with pytest.raises(DataError, match=r"caf\\xe9\.png: "):
        load(photos, seed=0)
    (photos / "cat").rename(photos / os.fsdecode(b"c\xe4t"))
    with pytest.raises(DataError, match=r"UTF-8 text; .*c\\xe4t"):
        load(photos, seed=0)


def test_names_of_classes_in_a_table(tmp_path: Path) -> None:
    write_parquet(tmp_path / "text.parquet", ["wolf", "bear"] * 6)
    write_parquet(tmp_path / "numbers.parquet", [7, 3] * 6)
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    write_parquet(tmp_path / "named.parquet", [0, 1] * 6, features=features)
    classes = {
        name: load(tmp_path / f"{name}.parquet", seed=0).classes
        for name in ("text", "numbers", "named")
    }
    assert classes == {"text": ("bear", "wolf"), "numbers": ("3", "7"), "named": ("no", "yes")}


@pytest.mark.parametrize(
    "x",
    [
        np.arange(12 * 64, dtype=np.int64).reshape(12, 8, 8) % 256,
        (np.arange(12 * 64) % 256).reshape(12, 1, 8, 8).astype(np.uint8),
        (np.arange(12 * 64) % 256).reshape(12, 8, 8, 1) / 255,
    ],
    ids=["whole numbers", "channels first", "fractions"],
)
def test_arrays_of_any_common_form(x: np.ndarray, tmp_path: Path) -> None:
    labels = np.arange(12)[:, None] % 2
    forms = [
        {"x_train": x, "y_train": labels, "x_test": x, "y_test": labels[:, 0]},
        {"train_images": x, "train_labels": labels, "test_images": x, "test_labels": labels},
        {
            "X_train": x,
            "Y_train": labels,
            "X_val": x,
            "Y_val": labels,
            "X_test": x,
            "Y_test": labels,
        },
    ]
    for arrays in forms:
        np.savez(tmp_path / "a.npz", **arrays)
        data = load(tmp_path / "a.npz", seed=0)
        assert (data.name, data.classes, data.channels) == ("a", ("0", "1"), 1)
        assert len(data.train) == (12 if "X_val" in arrays else 10)
        assert torch.equal(
            everything(data.test.open("compare")).flatten(), (torch.arange(12 * 64) % 256).byte()
        )


@pytest.mark.parametrize("labels", [1, 2])
def test_archives_as_medmnist_has_them(tmp_path: Path, labels: int) -> None:
    """Three splits of colours, classes as one column of bytes; several columns are refused."""
    rng, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 20), ("val", 8), ("test", 12)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count * labels) % 4).astype(np.uint8)
        arrays[f"{split}_labels"] = arrays[f"{split}_labels"].reshape(count, labels)
    np.savez(tmp_path / "pathmnist.npz", **arrays)
    if labels > 1:
        with pytest.raises(
            DataError, match="one whole number or one text an image; pathmnist, train"
        ):
            load(tmp_path / "pathmnist.npz", seed=0)
        return
    data = load(tmp_path / "pathmnist.npz", seed=0)
    assert (data.name, data.classes, data.channels) == ("pathmnist", tuple("0123"), 3)
    assert [len(data.train), len(data.validation), len(data.test)] == [20, 8, 12]
    expected = torch.from_numpy(arrays["test_images"].transpose(0, 3, 1, 2))
    assert torch.equal(everything(data.test.open("compare")), expected)


def test_hub_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the library's download is replaced: the request and the use of its result are real."""
    write_parquet(tmp_path / "t.parquet", [0, 1] * 10)
    whole = datasets.Dataset(pq.read_table(tmp_path / "t.parquet"))
    secret = whole.select(range(4)).map(lambda row: {"label": -1})
    asked = []

    def load_dataset(*names: str | None) -> datasets.DatasetDict:
        asked.append(names)
        return datasets.DatasetDict(
            {"train": whole, "valid": whole.select(range(6)), "test": secret}
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load("hf:someone/pictures:small", seed=0)
    load("hf:someone/pictures", seed=0)
    assert asked == [("someone/pictures", "small"), ("someone/pictures", None)]
    assert [len(data.train), len(data.validation), len(data.test)] == [
        18,
        6,
        2,
    ]  # test labels of -1 are secret: cut off train
