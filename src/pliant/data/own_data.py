"""A data set of the user's own: `file.py:NAME`, a function, or what such a function returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pliant.data import arrays
from pliant.data.dataset import DataSet
from pliant.data.pictures import ArrayPictures
from pliant.data.source import Source, make_source
from pliant.errors import DataError
from pliant.plugins import call_plugin, is_object, object_text, plugin_name

OwnData = DataSet | Source | Mapping[str, Any]
"""Splits that are ready; labelled pictures to be split; or images and labels as arrays."""


def own_data(given: str | OwnData | Callable[[], OwnData]) -> DataSet | Source:
    """The data set that is meant.

    Args:
        given: `file.py:NAME` or the function itself, which takes no arguments; or what it returns:
            a `DataSet`, a `Source`, or a mapping. A mapping has images `x_train` and labels
            `y_train`, or `x` and `y`; and `x_validation` and `x_test` likewise where there are any;
            other names are as in `.npz` files.
            Images are (N, height, width), (N, height, width, 1 or 3) or (N, 1 or 3, height, width),
            bytes or fractions from 0 to 1.

    Raises:
        DataError: it is none of these, or its arrays do not fit together.
        RecipeError: the function cannot be called.
    """
    name = given if isinstance(given, str) else object_text(given)
    made = given
    if isinstance(given, str) or callable(given):
        made = call_plugin(given, what="a data set")
    if isinstance(made, DataSet | Source):
        return made
    short = name.partition(":")[2] if is_object(name) else plugin_name(name)
    if not isinstance(made, Mapping):
        raise DataError(
            f"a data set of your own is a DataSet, a Source, or a mapping of arrays x_train and "
            f"y_train; {short} is {type(made).__name__}."
        )
    return _of_arrays(short, {str(key): np.asarray(value) for key, value in made.items()})


def _of_arrays(name: str, found: Mapping[str, NDArray]) -> Source:
    """A source from arrays by name, which are those of an .npz file."""
    pairs = arrays.find_pairs(list(found), name)
    pictures = {
        split: ArrayPictures(arrays.image_pixels(found[x], f"{name}, {split}"))
        for split, (x, _) in pairs.items()
    }
    labels = {split: arrays.one_column(found[y]) for split, (_, y) in pairs.items()}
    return make_source(name, pictures, labels, None)
