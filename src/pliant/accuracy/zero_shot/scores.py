"""Which zero-shot scores are there, and how is a network scored by them?"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from pliant.accuracy.zero_shot import az_nas, size
from pliant.accuracy.zero_shot.grad_norm import grad_norm
from pliant.accuracy.zero_shot.gradsign import gradsign
from pliant.accuracy.zero_shot.jacob_cov import jacob_cov
from pliant.accuracy.zero_shot.naswot import naswot
from pliant.accuracy.zero_shot.snip import snip
from pliant.accuracy.zero_shot.subject import Method, Score, Subject
from pliant.accuracy.zero_shot.synflow import synflow
from pliant.accuracy.zero_shot.zen import zen, zen_reference
from pliant.accuracy.zero_shot.zico import zico
from pliant.errors import PliantError, RecipeError, nearest
from pliant.metrics import Failed

SCORES: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method(
                "zen",
                "shape",
                "how far the last feature map moves when a Gaussian image moves a little",
                zen,
            ),
            Method(
                "zen-reference", "shape", "the same as the authors' code computes it", zen_reference
            ),
            Method(
                "gradsign",
                "labels",
                "whether the images agree on the sign of each weight's gradient",
                gradsign,
            ),
            Method("synflow", "shape", "signal that all paths carry together", synflow),
            Method("grad-norm", "labels", "size of the gradient", grad_norm),
            Method("snip", "labels", "what the loss would lose with the weights", snip),
            Method("jacob-cov", "images", "how unlike the images' gradients are", jacob_cov),
            Method("naswot", "images", "how well ReLUs tell the images apart", naswot),
            Method("zico", "labels", "whether the gradients of batches agree", zico),
            Method(
                "az-expressivity",
                "shape",
                "how much of their channels feature maps use",
                az_nas.expressivity,
            ),
            Method(
                "az-progressivity",
                "shape",
                "what the least useful block adds to that",
                az_nas.progressivity,
            ),
            Method(
                "az-trainability",
                "shape",
                "how well gradients keep their size from block to block",
                az_nas.trainability,
            ),
            Method(
                "az-complexity", "shape", "MACs, as one of AZ-NAS's four views", az_nas.complexity
            ),
            Method("parameters", "shape", "parameter count", size.parameters),
            Method("macs", "shape", "multiply-accumulates of one image", size.macs),
        )
    }
)
"""Every score by its name on the command line; higher is better for all."""

_FOREIGN_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
)
"""What the code of a network may raise. A fault of ours looks the same, so the reason says its kind."""


def score(
    network: nn.Module,
    names: Sequence[str],
    images: Tensor,
    labels: Tensor | None = None,
    *,
    seed: int = 0,
) -> dict[str, Score | Failed]:
    """Score one network, which stays as it is: weights, mode, statistics, gradients; PyTorch's random state too.

    Args:
        network: any module that takes (N, channels, height, width) and gives (N, classes). Zen and AZ-NAS draw weights of their
            own; all others score the weights that it has, so give it those of a new network (`weights.draw_default`).
        names: of `SCORES`.
        images: normalised images; scores that draw Gaussian images take their number and shape.
        labels: (N,), for the scores that need them.
        seed: of all that the scores draw.

    Returns:
        A score or why there is none, by name; never a number that stands for a failure.

    Raises:
        RecipeError: no score has such a name.
    """
    if unknown := [name for name in names if name not in SCORES]:
        raise RecipeError(f"no score is called {unknown[0]!r}. {nearest(unknown[0], SCORES)}")
    first = next(network.parameters(), images)
    subject = Subject(network, images.detach().to(first.device), labels, seed)
    return {name: _scored(SCORES[name], subject) for name in names}


def _scored(method: Method, subject: Subject) -> Score | Failed:
    if method.needs == "labels" and subject.labels is None:
        return Failed(
            f"{method.name} compares logits with labels, none were given. Give labelled images."
        )
    began = time.process_time()
    try:
        # The network's own code may draw random numbers.
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(subject.seed)
            found = method.compute(subject)
    except PliantError as error:
        return Failed(f"{method.name}: {error}")
    except _FOREIGN_ERRORS as error:
        return Failed(f"{method.name}: the network raised {type(error).__name__}: {error}")
    if not math.isfinite(found.value):
        return Failed(
            f"{method.name} came to {found.value}: the network's numbers overflow, or it is cut."
        )
    return replace(found, seconds=time.process_time() - began)
