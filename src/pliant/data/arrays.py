"""Readers of image arrays: scikit-learn's digits, Fashion-MNIST's files, and .npz files."""

from __future__ import annotations

import gzip
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import psutil
from numpy.typing import NDArray

from pliant.data.pictures import ArrayPictures
from pliant.data.pixel_range import Pixels, array_to_bytes
from pliant.data.source import Source, make_source
from pliant.data.split_names import SplitName
from pliant.errors import DataError

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` puts the files."""

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_NPZ_PREFIXES: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""What names the arrays of a split, in `x_train` as in `train_images`."""

_IMAGE_WORDS, _LABEL_WORDS = ("x", "images", "data"), ("y", "labels", "targets")

_NPZ_FAULTS = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    NotImplementedError,
    OverflowError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""What NumPy and the zip format raise on damaged, encrypted and odd archives."""


def read_digits() -> Source:
    """The 1,797 handwritten digits of 8x8 pixels and 17 grays that come with scikit-learn.

    Alpaydin, E. and Kaynak, C., Optical recognition of handwritten digits, UCI machine learning
    repository, 1998, doi:10.24432/C50P49.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    return make_source(
        "digits",
        {"train": ArrayPictures(pixels)},
        {"train": digits.target},
        tuple(str(name) for name in digits.target_names),
    )


def read_fashion_mnist(folder: Path) -> Source:
    """Fashion-MNIST from its four original files.

    Xiao, H. et al., Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms, 2017, arXiv:1708.07747.

    Args:
        folder: of the files.

    Raises:
        DataError: a file is missing or damaged.
    """
    stems: dict[SplitName, str] = {"train": "train", "test": "t10k"}
    pictures = {
        split: ArrayPictures(_read_idx(folder / f"{stem}-images-idx3-ubyte.gz", 3)[..., None])
        for split, stem in stems.items()
    }
    labels = {
        split: _read_idx(folder / f"{stem}-labels-idx1-ubyte.gz", 1)
        for split, stem in stems.items()
    }
    return make_source("fashion-mnist", pictures, labels, FASHION_MNIST_CLASSES)


def _read_idx(path: Path, dimensions: int) -> Pixels:
    """Read the IDX format of MNIST: 0, 0, type 8 (bytes), dimensions, big-endian sizes, data."""
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as fault:
        raise DataError(
            f"Fashion-MNIST is read from four gzip files; {path} cannot be read: {fault}. Install "
            "it anew."
        ) from fault
    start = 4 + 4 * dimensions
    if len(raw) < start:
        raw = bytes(start)  # no IDX file: refused below
    shape = tuple(int(size) for size in np.frombuffer(raw[4:start], ">u4"))
    if raw[:4] != bytes((0, 0, 8, dimensions)) or len(raw) != start + int(np.prod(shape)):
        raise DataError(
            f"an IDX file holds as many bytes as its head says; {path} does not. Install it anew."
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def read_npz(path: Path) -> Source:
    """Images and labels as arrays in a NumPy archive.

    Names are `x_train` and `y_train`, or `train_images` and `train_labels` (as MedMNIST has them:
    Yang, J. et al., MedMNIST v2, 2023, arXiv:2110.14795), likewise for `val` and `test` where there
    are any; or just `x` and `y`, or `images` and `labels`. Upper and lower case are the same.

    Images are (N, height, width), (N, height, width, 1 or 3) or (N, 1 or 3, height, width):
    integers from 0 to 255, or floats from 0 to 1, which are rounded to 256 levels.

    Args:
        path: of the archive. Arrays of other names are not read.

    Raises:
        DataError: other names, shapes, types or values; a file that is no archive, is encrypted or
            damaged, holds Python objects, or is larger than the free memory.
    """
    try:
        if _first_bytes(path, 6) == b"\x93NUMPY":
            raise DataError(
                f"an .npz file holds named arrays; {path} holds one without. Use "
                "numpy.savez(path, x=..., y=...)."
            )
        with zipfile.ZipFile(path) as archive:
            members = {
                name.removesuffix(".npy"): name
                for name in archive.namelist()
                if name.endswith(".npy")
            }
            pairs = find_pairs(list(members), str(path))
            _require_plausible(archive, [members[name] for pair in pairs.values() for name in pair])
            arrays = {
                name: _read_member(archive, members[name])
                for pair in pairs.values()
                for name in pair
            }
    except DataError:
        raise
    except MemoryError as fault:
        raise DataError(f"arrays fit in memory; those of {path} do not: {fault}.") from fault
    except _NPZ_FAULTS as fault:
        raise DataError(
            f"an .npz file is written by numpy.savez; {path} cannot be read: {fault}. Write it "
            "anew."
        ) from fault
    pictures, labels = {}, {}
    for split, (x, y) in pairs.items():
        pictures[split] = ArrayPictures(image_pixels(arrays[x], f"{path}, {split}"))
        labels[split] = one_column(arrays[y])
    ignored = sorted(set(members) - {name for pair in pairs.values() for name in pair})
    notes = (f"Arrays of other names are ignored: {', '.join(ignored)}.",) if ignored else ()
    return make_source(path.stem, pictures, labels, None, notes)


def _first_bytes(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def find_pairs(names: Sequence[str], where: str) -> dict[SplitName, tuple[str, str]]:
    """The names of images and labels of each split, among the names of arrays.

    Args:
        names: of all arrays.
        where: they are, for the errors.

    Raises:
        DataError: no training images, images without labels, or several of one split.
    """
    pairs: dict[SplitName, tuple[str, str]] = {}
    for split, words in _NPZ_PREFIXES.items():
        images = _spellings(words, _IMAGE_WORDS, split)
        labels = _spellings(words, _LABEL_WORDS, split)
        x, y = _find(names, images, where), _find(names, labels, where)
        if (x is None) != (y is None):
            raise DataError(
                f"images x and labels y come in pairs; {where}, {split}, has only one of x and y: "
                f"{x or y}. Add the other."
            )
        if x is not None and y is not None:
            pairs[split] = (x, y)
    if "train" not in pairs:
        raise DataError(
            "images and labels are x and y, or x_train, y_train, x_test and y_test, or "
            f"train_images, train_labels, ...; {where} has {', '.join(names) or 'nothing'}. "
            "Rename the arrays."
        )
    return pairs


def _spellings(splits: Sequence[str], words: Sequence[str], split: SplitName) -> set[str]:
    """All names that the images, or the labels, of a split may have."""
    found = {f"{word}_{one}" for word in words for one in splits}
    found |= {f"{one}_{word}" for word in words for one in splits}
    return found | set(words) if split == "train" else found


def _find(names: Sequence[str], spellings: set[str], where: str) -> str | None:
    matching = [name for name in names if name.lower() in spellings]
    if len(matching) > 1:
        raise DataError(
            f"images and labels of a split are there once; {where} has {' and '.join(matching)}. "
            "Remove all but one."
        )
    return matching[0] if matching else None


def _require_plausible(archive: zipfile.ZipFile, members: Sequence[str]) -> None:
    """Refuse arrays that claim more than the archive holds, or than fits in memory."""
    total = 0
    for member in members:
        with archive.open(member) as file:
            shape, dtype = _array_header(file, member)
        if dtype.hasobject:
            raise DataError(
                "arrays hold numbers or text, not Python objects, which could run code; "
                f"{archive.filename}, {member}, holds objects. Convert them."
            )
        claimed, held = math.prod(shape) * dtype.itemsize, archive.getinfo(member).file_size
        if claimed > held:
            raise DataError(
                f"an array is as large as its header says; {archive.filename}, {member}, claims "
                f"{claimed:,} bytes and holds {held:,}. Write the file anew."
            )
        total += claimed
    free = psutil.virtual_memory().available
    if total > free:
        raise DataError(
            f"arrays fit in memory; those of {archive.filename} take {total / 1e9:.3g} GB and "
            f"{free / 1e9:.3g} GB are free. Write the images as files, which are read one by one."
        )


def _array_header(file: IO[bytes], member: str) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"{member} has version {version} of the array format")
    return shape, dtype


def _read_member(archive: zipfile.ZipFile, member: str) -> NDArray:
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def image_pixels(x: NDArray, where: str) -> Pixels:
    """An array of images as uint8, channels last.

    Args:
        x: (N, height, width), or with 1 or 3 channels before or after the size.
        where: names the array in errors.

    Raises:
        DataError: another shape, type or range.
    """
    if x.ndim == 3:
        x = x[..., None]
    elif x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] not in (1, 3):
        x = x.transpose(0, 2, 3, 1)
    if x.ndim != 4 or x.shape[3] not in (1, 3) or min(x.shape) == 0:
        raise DataError(
            "images are (N, height, width) with 1 or 3 channels before or after the size; "
            f"{where}, has shape {x.shape}."
        )
    return array_to_bytes(x, where)


def one_column(y: NDArray) -> NDArray:
    """Labels of shape (N, 1) as (N,); any others unchanged."""
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
