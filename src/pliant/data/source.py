"""Sources of labelled images: the common form, and validation of the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pliant.data.pictures import Pictures
from pliant.data.split_names import SplitName
from pliant.errors import DataError


@dataclass(frozen=True)
class Part:
    """One split as its source has it."""

    pictures: Pictures
    labels: NDArray[np.int64]
    """Class index of each picture."""


@dataclass(frozen=True)
class Source:
    """Labelled pictures of any size, before they are split and decoded."""

    name: str
    classes: tuple[str, ...]
    parts: Mapping[SplitName, Part]
    """Always with train; with the others where the source has them."""
    notes: tuple[str, ...] = ()
    """What was recognised or left out, in sentences for the user."""


def make_source(
    name: str,
    pictures: Mapping[SplitName, Pictures],
    labels: Mapping[SplitName, NDArray],
    classes: tuple[str, ...] | None,
    notes: tuple[str, ...] = (),
) -> Source:
    """Check the labels and number the classes.

    Args:
        name: of the data set, for people.
        pictures: of each split, with train.
        labels: of each split, as the source has them: whole numbers or text.
        classes: names, where the labels are indices into them; None to name each class by its
            label.
        notes: sentences for the user.

    Raises:
        DataError: fewer than two classes, a class without training images, or labels that do not
            match images or classes.
    """
    if not len(pictures["train"]):
        raise DataError(f"a data set has training images; {name} has none.")
    for split, raw in labels.items():
        if raw.ndim != 1 or raw.dtype.kind not in "iuU":
            raise DataError(
                f"labels are one whole number or one text an image; {name}, {split}, has "
                f"{raw.dtype} of shape {raw.shape}. Convert them."
            )
        if len(raw) != len(pictures[split]):
            raise DataError(
                f"every image has one label; {name}, {split}, has {len(pictures[split])} images "
                f"and {len(raw)} labels."
            )
    # Public benchmarks often keep the labels of their test images secret: such images can test
    # nothing here.
    kept = [split for split, raw in labels.items() if split == "train" or _is_labelled(raw)]
    if len(kept) < len(labels):
        secret = " and ".join(split for split in labels if split not in kept)
        notes = (*notes, f"The {secret} split has no labels, so it is not used.")
    known = np.unique(labels["train"]) if classes is None else np.arange(len(classes))
    names = tuple(str(label) for label in known) if classes is None else tuple(classes)
    numbered = {split: _numbered(labels[split], known, names, f"{name}, {split}") for split in kept}
    require_classes(name, names, numbered["train"])
    parts = {split: Part(pictures[split], numbered[split]) for split in kept}
    return Source(name, names, parts, notes)


def _is_labelled(raw: NDArray) -> bool:
    return len(raw) > 0 and not (raw.dtype.kind == "i" and bool((raw == -1).all()))


def _numbered(
    raw: NDArray, known: NDArray, names: tuple[str, ...], where: str
) -> NDArray[np.int64]:
    """The class index of each label, which is one of the known numbers or a class's name."""
    if "U" in (raw.dtype.kind, known.dtype.kind):
        raw, known = raw.astype(np.str_), np.array(names)
    strange = np.unique(raw[~np.isin(raw, known)])
    if len(strange):
        raise DataError(
            f"labels name a class of the training images; {where}, has "
            f"{', '.join(map(str, strange[:5]))}, which "
            f"{'is' if len(strange) == 1 else 'are'} none of "
            f"{', '.join(map(str, known[:10]))}{', ...' if len(known) > 10 else ''}. "
            f"Correct or remove those images."
        )
    order = np.argsort(known)
    return order[np.searchsorted(known, raw, sorter=order)].astype(np.int64)


def require_classes(name: str, classes: tuple[str, ...], labels: NDArray[np.int64]) -> None:
    """Refuse images that cannot be told apart.

    Args:
        name: of the data set, for the error.
        classes: their names.
        labels: class index of each training image.

    Raises:
        DataError: fewer than two classes, or a class without training images.
    """
    if len(classes) < 2:
        raise DataError(
            f"images are told apart by at least two classes; {name} has {len(classes)}: "
            f"{', '.join(classes) or 'none'}."
        )
    counts = np.bincount(labels, minlength=len(classes))
    empty = [classes[index] for index in np.flatnonzero(counts == 0)]
    if empty:
        raise DataError(
            f"every class has training images; {name} has none of "
            f"{', '.join(map(repr, empty[:5]))}. Add images or remove the class."
        )
