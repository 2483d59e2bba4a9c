"""Readers of image arrays: scikit-learn's digits, Fashion-MNIST's files, and .npz files."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pliant.data.pictures import ArrayPictures, Pixels
from pliant.data.source import Source, SplitName, make_source
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

_NPZ_KEYS: dict[SplitName, tuple[str, ...]] = {
    "train": ("_train", ""),
    "validation": ("_validation", "_val"),
    "test": ("_test",),
}
"""What follows x and y in the names of a split's arrays."""


def read_digits() -> Source:
    """The 1,797 handwritten digits of 8x8 pixels and 17 grays that come with scikit-learn (Alpaydin and Kaynak 1998)."""
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
    """Fashion-MNIST (Xiao et al. 2017) from its four original files.

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
    except (OSError, EOFError) as fault:
        raise DataError(
            f"Fashion-MNIST is read from four gzip files; {path} cannot be read: {fault}. Install "
            "it anew."
        ) from fault
    start = 4 + 4 * dimensions
    shape = tuple(int(size) for size in np.frombuffer(raw[4:start], ">u4"))
    if raw[:4] != bytes((0, 0, 8, dimensions)) or len(raw) != start + int(np.prod(shape)):
        raise DataError(
            f"an IDX file holds as many bytes as its head says; {path} does not. Install it anew."
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def read_npz(path: Path) -> Source:
    """Arrays `x_train`, `y_train` and, where there are any, `x_val`, `y_val`, `x_test`, `y_test`; or just `x` and `y`.

    Images are (N, height, width), (N, height, width, 1 or 3) or (N, 1 or 3, height, width):
    integers from 0 to 255, or floats from 0 to 1, which are rounded to 256 levels. The memory
    budget does not apply, as arrays are in memory anyway.

    Raises:
        DataError: other names, shapes, types or values; a file that is no .npz, or holds Python objects.
    """
    arrays = _named_arrays(path)
    pairs = {
        split: pair
        for split, ends in _NPZ_KEYS.items()
        if (pair := _find_pair(arrays, ends, path)) is not None
    }
    if "train" not in pairs:
        raise DataError(
            f"an .npz file holds x and y, or x_train, y_train, x_test and y_test; "
            f"{path} holds {', '.join(arrays) or 'nothing'}. Rename the arrays."
        )
    pictures = {
        split: ArrayPictures(_pixels(x, f"{path}, {split}")) for split, (x, _) in pairs.items()
    }
    labels = {
        split: y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y for split, (_, y) in pairs.items()
    }
    return make_source(path.stem, pictures, labels, None)


def _named_arrays(path: Path) -> dict[str, NDArray]:
    try:
        with path.open("rb") as raw:
            file = np.load(raw, allow_pickle=False)
            arrays = (
                {name: file[name] for name in file.files}
                if isinstance(file, np.lib.npyio.NpzFile)
                else None
            )
    except (OSError, EOFError, zipfile.BadZipFile) as fault:
        raise DataError(
            f"an .npz file is written by numpy.savez; {path} cannot be read: {fault}. Write it "
            "anew."
        ) from fault
    except ValueError as fault:
        raise DataError(
            f"arrays hold numbers or text, not Python objects, which could run code; {path}: "
            f"{fault}."
        ) from fault
    if arrays is None:
        raise DataError(
            f"an .npz file holds named arrays; {path} holds one without. Use numpy.savez(path, "
            "x=..., y=...)."
        )
    return arrays


def _find_pair(
    arrays: Mapping[str, NDArray], ends: tuple[str, ...], path: Path
) -> tuple[NDArray, NDArray] | None:
    for end in ends:
        x, y = f"x{end}", f"y{end}"
        if (x in arrays) != (y in arrays):
            raise DataError(
                f"images x and labels y come in pairs; {path} has only one of {x} and {y}. Add the "
                "other."
            )
        if x in arrays:
            return arrays[x], arrays[y]
    return None


def _pixels(x: NDArray, where: str) -> Pixels:
    """An array of images as uint8, channels last."""
    if x.ndim == 3:
        x = x[..., None]
    elif x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] not in (1, 3):
        x = x.transpose(0, 2, 3, 1)
    if x.ndim != 4 or x.shape[3] not in (1, 3) or min(x.shape) == 0:
        raise DataError(
            "images are (N, height, width) with 1 or 3 channels before or after the size; "
            f"{where}, has shape {x.shape}."
        )
    if x.dtype == np.uint8:
        return x
    top = {"f": 1, "i": 255, "u": 255}.get(x.dtype.kind)
    if top is None or not bool(((x >= 0) & (x <= top)).all()):
        raise DataError(
            f"pixels are whole numbers from 0 to 255 or fractions from 0 to 1; {where}, has "
            f"{x.dtype} beyond. Rescale or convert them."
        )
    return np.rint(x * (255 / top)).astype(np.uint8)
