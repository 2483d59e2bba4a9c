"""What keeps images from being used is said by name."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import psutil
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
def test_a_corrupt_image_is_named(damage: bytes, tmp_path: Path) -> None:
    write_folder(tmp_path, cat=6, dog=6)
    (tmp_path / "dog" / "3.png").write_bytes(damage)
    with pytest.raises(DataError, match=r"(?s)1 picture of .*dog/3\.png: .*--skip-broken"):
        load(tmp_path, seed=0)


def test_all_broken_pictures_are_listed_and_can_be_left_out(tmp_path: Path) -> None:
    write_folder(tmp_path, train__cat=30, train__dog=6, test__cat=3, test__dog=3)
    whole = load(tmp_path, seed=0)
    (tmp_path / "train" / "cat" / "7.png").write_bytes(png(7)[:-30])
    (tmp_path / "train" / "dog" / "9.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "test" / "dog" / "0.png").write_bytes(b"text")
    for _ in range(2):  # the second answer is from the cache
        with pytest.raises(DataError, match="3 pictures of") as caught:
            load(tmp_path, seed=0)
        lines = str(caught.value).splitlines()
        assert "train/cat/7.png: image file is truncated" in lines[1]
        assert "train/dog/9.png: there is no such file" in lines[2]
        assert "test/dog/0.png: it is no picture" in lines[3]
        data = load(tmp_path, seed=0, skip_broken=True)
    assert [len(data.train) + len(data.validation), len(data.test)] == [35, 5]
    assert len(data.skipped) == 3
    assert "7.png: image file is truncated" in data.skipped[0]
    assert data.notes[-1] == "3 broken pictures are left out."
    assert data.fingerprint != whole.fingerprint
    assert whole.skipped == ()
    images, labels = data.test.open("compare").batch(np.arange(5))
    assert images[:, 0, 0, 0].tolist() == [20, 21, 22, 31, 32]
    assert labels.tolist() == [0, 0, 0, 1, 1]
    for index in range(6):
        (tmp_path / "train" / "dog" / f"{index}.png").write_bytes(b"text")
    with pytest.raises(DataError, match="none of 'dog'"):
        load(tmp_path, seed=0, skip_broken=True)


def test_a_corrupt_image_of_a_table_is_named_by_row(tmp_path: Path) -> None:
    images: list[Any] = [{"bytes": png(value), "path": f"{value}.png"} for value in range(12)]
    images[7] = {"bytes": b"?", "path": "seven.png"}
    images[8] = None
    images[9] = {"bytes": None, "path": None}
    with pytest.raises(DataError) as caught:
        load(write_table(tmp_path / "bad.parquet", image=images, label=[0, 1] * 6), seed=0)
    lines = str(caught.value).splitlines()
    assert "row 7 (seven.png) of" in lines[1]
    assert "bad.parquet, train: it is no picture that can be read" in lines[1]
    assert "row 8 (no file name)" in lines[2]
    assert lines[3].endswith("it has neither bytes nor a path")


def test_paths_of_a_table_are_read_only_below_its_folder(tmp_path: Path) -> None:
    (tmp_path / "data" / "inside").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(png(9))
    names = [f"inside/{value}.png" for value in range(12)]
    for value, name in enumerate(names):
        (tmp_path / "data" / name).write_bytes(png(value))
    table = tmp_path / "data" / "table.parquet"

    def write(paths: list[str]) -> Path:
        images = [{"bytes": None, "path": path} for path in paths]
        schema = pa.schema(
            {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()}
        )
        rows = {"image": images, "label": [0, 1] * 6}
        pq.write_table(pa.Table.from_pydict(rows, schema=schema), table)
        return table

    assert len(load(write(names), seed=0).train) > 0
    absolute = [str(tmp_path / "data" / name) for name in names]
    assert load(write(absolute), seed=0).fingerprint == load(write(names), seed=0).fingerprint
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "secret.png")
    bad = ["../secret.png", str(tmp_path / "secret.png"), "link.png", "inside", "a\0b.png"]
    with pytest.raises(DataError, match="5 pictures") as caught:
        load(write([*names[:7], *bad]), seed=0)
    assert str(caught.value).count("its path leaves the folder of the data") == 3
    assert "its path is no file" in str(caught.value)
    data = load(table, seed=0, skip_broken=True)
    assert len(data.skipped) == 5


def test_tables(tmp_path: Path) -> None:
    images = [{"bytes": png(value), "path": ""} for value in range(6)]
    with pytest.raises(DataError, match=r"has image: struct<.*>, kind: int64"):
        load(write_table(tmp_path / "a.parquet", image=images, kind=[0, 1] * 3), seed=0)
    with pytest.raises(DataError, match="column 'label' has double"):
        load(write_table(tmp_path / "b.parquet", image=images, label=[0.5, 1] * 3), seed=0)
    (tmp_path / "c.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"whole.*c\.parquet"):
        load(tmp_path / "c.parquet", seed=0)
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
    ("labels", "message"),
    [
        ([[0], [1, 2]] * 3, "has list<"),
        ([0, None] * 3, "row 1, has none"),
        ([True, False] * 3, "has bool"),
        ([b"a", b"b"] * 3, "has binary"),
    ],
)
def test_labels_that_are_none(labels: list[Any], message: str, tmp_path: Path) -> None:
    images = [{"bytes": png(value), "path": ""} for value in range(6)]
    with pytest.raises(DataError, match=message):
        load(write_table(tmp_path / "a.parquet", image=images, label=labels), seed=0)


@pytest.mark.parametrize(
    "image",
    [
        [{"bytes": "text", "path": "a.png"}] * 12,
        [{"bytes": png(1), "path": 3}] * 12,
        [[{"bytes": png(1), "path": None}]] * 12,
    ],
)
def test_columns_that_hold_no_images(image: list[Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a column of images"):
        load(write_table(tmp_path / "a.parquet", image=image, label=[0, 1] * 6), seed=0)


def test_whole_numbers_of_any_type_are_labels(tmp_path: Path) -> None:
    images = [png(value) for value in range(12)]
    for kind, large in ((pa.uint64(), 2**63 + 1), (pa.int8(), -3)):
        labels = pa.array([large, 5] * 6, kind)
        pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "a.parquet")
        assert set(load(tmp_path / "a.parquet", seed=0).classes) == {"5", str(large)}


def test_no_flipped_bit_ends_in_another_error(tmp_path: Path) -> None:
    """Seeded mutations of a table, an archive and a folder are loaded, or refused by name."""
    rng = np.random.default_rng(0)
    images = [png(value) for value in range(12)]
    write_table(tmp_path / "a.parquet", image=images, label=["a", "b"] * 6)
    np.savez_compressed(tmp_path / "a.npz", x=rng.integers(0, 256, (12, 8, 8)), y=Y)
    folder = write_folder(tmp_path / "folder", a=6, b=6)
    for path in (tmp_path / "a.parquet", tmp_path / "a.npz", folder / "a" / "3.png"):
        whole, source = path.read_bytes(), path if path.parent == tmp_path else folder
        for _ in range(25):
            damaged = bytearray(whole)
            for place in rng.integers(len(whole), size=2):
                damaged[place] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            with contextlib.suppress(DataError):
                load(source, seed=0)


def test_odd_schemas(tmp_path: Path) -> None:
    images = [png(value) for value in range(12)]
    table = pa.table({"image": images, "label": [0, 1] * 6, "mask": images})
    path = tmp_path / "a.parquet"
    for metadata in (
        b"no json",
        b"[]",
        b'{"info": {"features": {"label": {"_type": "ClassLabel"}}}}',
    ):
        pq.write_table(table.replace_schema_metadata({b"huggingface": metadata}), path)
        assert load(path, seed=0).classes == ("0", "1")  # plain bytes are pictures, too
    pq.write_table(table.rename_columns(["front", "label", "back"]), path)
    with pytest.raises(DataError, match="may be front or back"):
        load(path, seed=0)
    pq.write_table(table.rename_columns(["image", "label", "label"]), path)
    with pytest.raises(DataError, match="several called 'label'"):
        load(path, seed=0)
    pq.write_table(table.slice(0, 0), path)
    with pytest.raises(DataError, match="has none"):
        load(path, seed=0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": X, "kinds": Y}, "has pictures, kinds"),
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
        ({"x": X[:2], "y": Y[:2]}, "class '0' has only 1, class '1' has only 1 left"),
        ({"x": X, "images": X, "y": Y}, "has x and images"),
        ({"x": X, "y": Y}, "of one colour, 0 of 255"),
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


def test_archives_that_claim_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = io.BytesIO()
    shape = (10**15, 8, 8)
    described = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    labels = io.BytesIO()
    np.save(labels, Y)
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
        archive.writestr("y.npy", labels.getvalue())
    with pytest.raises(
        DataError, match=r"x\.npy, claims 64,000,000,000,000,000 bytes and holds 128"
    ):
        load(tmp_path / "huge.npz", seed=0)
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((1000, 64, 64), np.uint8), y=Y)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**6))
    with pytest.raises(DataError, match=r"take 0\.0041 GB and 0\.001 GB are free"):
        load(tmp_path / "bomb.npz", seed=0)


def test_members_of_an_archive_that_are_damaged_encrypted_or_no_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).integers(0, 256, (12, 8, 8)), y=Y)
    whole = path.read_bytes()
    central = whole.index(b"PK\x01\x02")
    for place, value in ((8, 1), (10, 99)):  # encrypted; a compression that does not exist
        damaged = bytearray(whole)
        damaged[place - 2] = damaged[central + place] = value
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.npz cannot be read"):
            load(path, seed=0)
    for place in range(60, central, 97):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(DataError):
            load(path, seed=0)


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


@pytest.mark.parametrize("name", ["", " ", "hf:", "hf:/", "hf::small", "hf:../etc"])
def test_names_that_say_nothing(name: str) -> None:
    with pytest.raises(DataError, match="hf:"):
        load(name, seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "from 1 to 4096 pixels; received 0"),
        ({"image_size": 10**6}, "received 1000000"),
        ({"fit": "stretch"}, "by crop or pad; received 'stretch'"),
        ({"background": "whitish"}, "received 'whitish'"),
        ({"splits": "train"}, "received 'train'"),
        ({"splits": "train=cat,test=nowhere"}, "has no 'nowhere'. It has cat, dog"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load(write_folder(tmp_path, cat=6, dog=6), seed=0, **options)


@pytest.mark.parametrize(
    ("validation", "test"), [(float("nan"), 0.1), (0.0, 0.1), (0.1, 0.0), (0.6, 0.4)]
)
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
    )
    load(write_folder(tmp_path / "folder", cat=6, dog=6), seed=0)
    assert capfd.readouterr() == ("", "")
    assert (datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()) == (
        bars,
        verbosity,
    )
