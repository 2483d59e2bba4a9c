"""Which classes does the chosen network know, which does it confuse, and what are its mistakes?"""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pliant.accuracy.evaluation import Answers
from pliant.data.splits import Split
from pliant.report.summary import Classification, ClassResult, Confusion, Mistake
from pliant.runs.session import Session
from pliant.spaces.architecture import Architecture

MAX_MISTAKES = 12
THUMBNAIL_PIXELS = 112
"""Longest edge of a mistake's image; smaller images are kept as they are."""


def classification(session: Session, architecture: Architecture) -> Classification:
    """Classes, confusions and worst mistakes of a network on the validation images.

    Args:
        session: of the run.
        architecture: of the shortlist.
    """
    data, found = session.run.data, session.answers(architecture)
    counts = confusion_counts(found, len(data.classes))
    classes = []
    for index, name in enumerate(data.classes):
        classes.append(ClassResult(name, int(counts[index].sum()), int(counts[index, index])))
    return Classification(
        classes=tuple(classes),
        confusions=confusions(counts),
        mistakes=_mistakes(found, data.validation),
    )


def confusion_counts(found: Answers, classes: int) -> NDArray[np.int64]:
    """Number of images by label (rows) and answer (columns), shape (classes, classes)."""
    pairs = found.labels * classes + found.answers
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def confusions(counts: NDArray[np.int64]) -> tuple[Confusion, ...]:
    """The pairs off the diagonal that occur, most images first."""
    pairs = []
    for label, answer in zip(*np.nonzero(counts), strict=True):
        if label != answer:
            pairs.append(Confusion(int(label), int(answer), int(counts[label, answer])))
    return tuple(sorted(pairs, key=lambda one: (-one.images, one.label, one.answer)))


def _mistakes(found: Answers, split: Split) -> tuple[Mistake, ...]:
    """The wrong answers with the highest probability."""
    wrong = np.flatnonzero(found.answers != found.labels)
    worst = wrong[np.argsort(-found.probabilities[wrong], kind="stable")][:MAX_MISTAKES]
    rows = []
    for index, image in zip(worst, split.batch(worst)[0] if len(worst) else (), strict=True):
        label, answer = int(found.labels[index]), int(found.answers[index])
        rows.append(Mistake(label, answer, float(found.probabilities[index]), thumbnail(image)))
    return tuple(rows)


def thumbnail(image: Tensor) -> str:
    """A uint8 image, (channels, size, size), as small WebP in base64."""
    channels_last = image.permute(1, 2, 0).numpy()
    grey = channels_last.shape[2] == 1
    picture = Image.fromarray(channels_last[:, :, 0] if grey else channels_last[:, :, :3])
    small = max(picture.size) <= THUMBNAIL_PIXELS // 2
    picture.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    file = io.BytesIO()
    picture.convert("RGB").save(file, "webp", lossless=small, quality=75)
    return base64.b64encode(file.getvalue()).decode("ascii")
