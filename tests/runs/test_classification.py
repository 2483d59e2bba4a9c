"""Confusions, mistakes and their pictures: hand-made answers."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from pliant.accuracy.evaluation import Answers
from pliant.data.splits import ImagesInMemory, Split
from pliant.metrics import Accuracy
from pliant.report.summary import Confusion
from pliant.runs.classification import _mistakes, confusion_counts, confusions, thumbnail

FOUND = Answers(
    np.array([0, 0, 1, 1, 2, 2]),
    np.array([0, 1, 1, 1, 0, 0]),
    np.array([0.9, 0.6, 0.8, 0.7, 0.5, 0.99], dtype=np.float32),
)


def test_counts_and_pairs_by_hand():
    counts = confusion_counts(FOUND, 3)
    assert counts.tolist() == [[1, 1, 0], [0, 2, 0], [2, 0, 0]]
    assert confusions(counts) == (Confusion(2, 0, 2), Confusion(0, 1, 1))
    assert FOUND.accuracy == Accuracy(0.5, 6)


def test_the_surest_mistakes_come_first():
    images = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 1, 8, 8) * 40
    split = Split(ImagesInMemory(images.contiguous()), FOUND.labels)
    found = _mistakes(FOUND, split)
    assert [(one.label, one.answer) for one in found] == [(2, 0), (0, 1), (2, 0)]
    picture = Image.open(io.BytesIO(base64.b64decode(found[0].webp)))
    assert picture.size == (8, 8)
    assert picture.getpixel((3, 3)) == (200, 200, 200)
    assert _mistakes(Answers(FOUND.labels, FOUND.labels, FOUND.probabilities), split) == ()


def test_a_large_image_becomes_small():
    image = torch.randint(0, 256, (3, 300, 300), dtype=torch.uint8)
    content = base64.b64decode(thumbnail(image))
    assert Image.open(io.BytesIO(content)).size == (112, 112)


@pytest.mark.parametrize(
    ("top1", "images", "low", "high"), [(0.8, 10, 0.4902, 0.9433), (1.0, 20, 0.8389, 1.0)]
)
def test_interval_of_wilson(top1, images, low, high):
    """8 of 10 and 20 of 20, by hand."""
    assert Accuracy(top1, images).interval == pytest.approx((low, high), abs=1e-4)
    assert Accuracy(top1, 0).interval == (0.0, 1.0)
