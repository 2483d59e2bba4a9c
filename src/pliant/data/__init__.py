"""Labelled images from anywhere: decoded once, split, and augmented."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pliant.lazy import lazy_names

if TYPE_CHECKING:
    from pliant.data.augment import Augmentation as Augmentation
    from pliant.data.dataset import DataSet as DataSet
    from pliant.data.loading import load as load
    from pliant.data.source import Part as Part
    from pliant.data.source import Source as Source
    from pliant.data.source import make_source as make_source
    from pliant.data.splits import Split as Split
    from pliant.data.splits import TestSplit as TestSplit
    from pliant.data.splits import epoch_permutation as epoch_permutation
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "augment": ["Augmentation"],
            "dataset": ["DataSet"],
            "loading": ["load"],
            "source": ["make_source", "Source", "Part"],
            "splits": ["Split", "TestSplit", "epoch_permutation"],
        },
    )
