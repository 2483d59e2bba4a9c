"""What keeps images from being used is said by name."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pliant.data import load
from pliant.data.arrays import read_fashion_mnist
from pliant.errors import DataError

X, Y = np.zeros((12, 8, 8), np.uint8), np.arange(12) % 2


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_folder(root: Path, **counts: int) -> Path:
    for place, (name, count) in enumerate(counts.items()):
        folder = root / name.replace("__", "/")
        folder.mkdir(parents=True)
        for index in range(count):
            (folder / f"{index}.png").write_bytes(png(10 * place + index))
    return root


def write_table(path: Path, **columns: list[Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digit", "received 'digit'. Did you mean 'digits'?"),
        ("fashion_mnist", "Did you mean 'fashion-mnist'?"),
        ("zebra", "Known: digits, fashion-mnist"),
        ("no/such/folder", "'no/such/folder' does not"),
        ("arrays.npz", "'arrays.npz' does not"),
        (Path("digits"), "'digits' does not"),
    ],
)
def test_unknown_data_sets_and_paths(
    source: str | Path, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        load(source, seed=0)
    assert message in str(caught.value)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("a,b")
    with pytest.raises(DataError, match=r"\.parquet or \.npz; received .*images\.csv"):
        load(tmp_path / "images.csv", seed=0)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "holds none"),
        ({"cat": 9}, "has 1: cat"),
        ({"cat": 9, "dog": 9, "emu": 0}, "emu holds none"),
        ({"cat": 9, "dog": 2}, "class 'dog' has only 1 left"),
        (
            {"train__cat": 3, "train__dog": 3, "test__cat": 3, "test__cow": 3},
            "test, has cow, which is none of cat, dog",
        ),
        ({"train__cat": 3, "train__dog": 3, "more__cow": 3}, "'more' is none"),
    ],
)
def test_folders(counts: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(write_folder(tmp_path, **counts), seed=0)
    assert message in str(caught.value)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert load(write_folder(tmp_path, bus=4, test=4, train=4), seed=0).classes == (
        "bus",
        "test",
        "train",
    )


@pytest.mark.parametrize("damage", [b"no image at all", png(1)[:-30], b""])
def test_a_corrupt_image_is_named_in_memory_and_streaming(damage: bytes, tmp_path: Path) -> None:
    write_folder(tmp_path, cat=6, dog=6)
    (tmp_path / "dog" / "3.png").write_bytes(damage)
    for budget in (1 << 30, 10):
        with pytest.raises(DataError, match=r"dog/3\.png cannot"):
            load(tmp_path, seed=0, memory_budget_bytes=budget)


def test_a_corrupt_image_of_a_table_is_named_by_row(tmp_path: Path) -> None:
    images = [{"bytes": png(value), "path": f"{value}.png"} for value in range(12)]
    images[7] = {"bytes": b"?", "path": "seven.png"}
    with pytest.raises(DataError, match=r"row 7 \(seven\.png\) of .*bad\.parquet, train cannot"):
        load(write_table(tmp_path / "bad.parquet", image=images, label=[0, 1] * 6), seed=0)


def test_tables(tmp_path: Path) -> None:
    images = [{"bytes": png(value), "path": ""} for value in range(6)]
    with pytest.raises(DataError, match="has image: dict, kind: Value"):
        load(write_table(tmp_path / "a.parquet", image=images, kind=[0, 1] * 3), seed=0)
    with pytest.raises(DataError, match="has float64"):
        load(write_table(tmp_path / "b.parquet", image=images, label=[0.5, 1] * 3), seed=0)
    (tmp_path / "c.parquet").write_bytes(b"PAR1 and no more")
    for budget in (1 << 30, 1):
        with pytest.raises(DataError, match=r"whole.*c\.parquet"):
            load(tmp_path / "c.parquet", seed=0, memory_budget_bytes=budget)
    (tmp_path / "folder").mkdir()
    write_table(tmp_path / "folder" / "test.parquet", image=images, label=[0, 1] * 3)
    with pytest.raises(DataError, match=r"has test\.parquet"):
        load(tmp_path / "folder", seed=0)
    write_table(tmp_path / "folder" / "train.parquet", image=images, labels=[0, 1] * 3)
    with pytest.raises(DataError, match="test, lacks 'image' or 'labels'"):
        load(tmp_path / "folder", seed=0)


def test_a_named_class_without_images(tmp_path: Path) -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes", "maybe"])}
    )
    table = pa.table(
        {"image": [{"bytes": png(value), "path": ""} for value in range(6)], "label": [0, 1] * 3}
    )
    pq.write_table(
        table.replace_schema_metadata(features.arrow_schema.metadata), tmp_path / "a.parquet"
    )
    with pytest.raises(DataError, match="none of 'maybe'"):
        load(tmp_path / "a.parquet", seed=0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": X, "labels": Y}, "holds images, labels"),
        ({"x": X}, "has only one of x and y"),
        ({"x": X, "y": Y[:-1]}, "12 images and 11 labels"),
        ({"x": X[0], "y": Y}, "has shape (8, 8)"),
        ({"x": np.zeros((12, 8, 8, 4), np.uint8), "y": Y}, "has shape (12, 8, 8, 4)"),
        ({"x": X + 0.5 * np.nan, "y": Y}, "has float64 beyond"),
        ({"x": X - 1.0, "y": Y}, "has float64 beyond"),
        ({"x": X + np.int16(300), "y": Y}, "has int16 beyond"),
        ({"x": X.astype(complex), "y": Y}, "has complex128 beyond"),
        ({"x": X, "y": Y / 2}, "has float64 of shape (12,)"),
        ({"x": X, "y": np.eye(12)}, "has float64 of shape (12, 12)"),
        ({"x": X, "y": Y * 0}, "has 1: 0"),
        (
            {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 1},
            "test, has 2, which is none of 0, 1",
        ),
        ({"x": X[:2], "y": Y[:2]}, "class '0' has only 1 left"),
        ({"x": X[:0], "y": Y[:0]}, "has shape (0, 8, 8, 1)"),
        ({"x": X.astype(object), "y": Y}, "not Python objects"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arrays(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError) as caught:
        load(tmp_path / "a.npz", seed=0)
    assert message in str(caught.value)


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match=r"cut\.npz cannot be read"):
        load(tmp_path / "cut.npz", seed=0)
    np.save(tmp_path / "single.npy", X)
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    with pytest.raises(DataError, match=r"single\.npz holds one without"):
        load(tmp_path / "single.npz", seed=0)


def test_a_damaged_idx_file(tmp_path: Path) -> None:
    import gzip

    with pytest.raises(DataError, match="train-images"):
        read_fashion_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(
        gzip.compress(bytes((0, 0, 8, 3)) + bytes(12) + b"too much")
    )
    with pytest.raises(DataError, match="as many bytes as its head says"):
        read_fashion_mnist(tmp_path)


def test_the_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: str | None) -> None:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"hf:someone/pictures names .* Couldn't reach the Hub"):
        load("hf:someone/pictures", seed=0)


@pytest.mark.parametrize(("validation", "test"), [(0.0, 0.1), (0.1, 0.0), (0.6, 0.4)])
def test_shares_out_of_range(validation: float, test: float) -> None:
    with pytest.raises(DataError, match=f"received {validation} and {test}"):
        load("digits", seed=0, validation_share=validation, test_share=test)


def test_nothing_but_the_result(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No messages or progress bars of `datasets`; its settings stay as the program left them."""
    bars, verbosity = datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    images = [{"bytes": png(value), "path": ""} for value in range(12)]
    load(
        write_table(tmp_path / "a.parquet", image=images, label=[0, 1] * 6),
        seed=0,
        memory_budget_bytes=10,
    )
    load(write_folder(tmp_path / "folder", cat=6, dog=6), seed=0)
    assert capfd.readouterr() == ("", "")
    assert (datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()) == (
        bars,
        verbosity,
    )
