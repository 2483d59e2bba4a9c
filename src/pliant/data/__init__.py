"""Labelled images from anywhere, split, in memory or streamed, and augmented."""

from pliant.data.augment import Augmentation
from pliant.data.dataset import DataSet
from pliant.data.loading import load
from pliant.data.splits import Split, TestSplit, epoch_permutation

__all__ = ["Augmentation", "DataSet", "Split", "TestSplit", "epoch_permutation", "load"]
