"""The scores that ship, by name, and the function that computes them for one network."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from pliant.accuracy.zero_shot import az_nas, size
from pliant.accuracy.zero_shot.grad_norm import grad_norm
from pliant.accuracy.zero_shot.gradsign import gradsign
from pliant.accuracy.zero_shot.jacob_cov import jacob_cov
from pliant.accuracy.zero_shot.methods import Aggregate, Compute, Method, file_method, own_method
from pliant.accuracy.zero_shot.naswot import naswot
from pliant.accuracy.zero_shot.scoring_input import ScoringInput, ZeroShotScore
from pliant.accuracy.zero_shot.snip import snip
from pliant.accuracy.zero_shot.synflow import synflow
from pliant.accuracy.zero_shot.zen import zen, zen_reference
from pliant.accuracy.zero_shot.zico import zico
from pliant.errors import DataError, PliantError, RecipeError, nearest
from pliant.metrics import Failed
from pliant.plugins import is_plugin

_SHIPPED = (
    Method("zen", "shape", "how far the last feature map moves when the image does", zen),
    Method("zen-reference", "shape", "zen as the authors' public code computes it", zen_reference),
    Method("gradsign", "labels", "agreement of the images on signs of gradients", gradsign),
    Method("synflow", "shape", "signal that all paths carry together", synflow),
    Method("grad-norm", "labels", "norm of the gradient", grad_norm),
    Method("snip", "labels", "change of the loss when weights are removed", snip),
    Method("jacob-cov", "images", "how unlike the gradients of the images are", jacob_cov),
    Method("naswot", "images", "how well ReLUs tell the images apart", naswot),
    Method("zico", "labels", "agreement of the gradients of batches", zico),
    Method("az-expressivity", "shape", "channels that feature maps use", az_nas.expressivity),
    Method("az-progressivity", "shape", "least gain of a block in that", az_nas.progressivity),
    Method("az-trainability", "shape", "how stable gradients are", az_nas.trainability),
    Method("az-complexity", "shape", "MACs, as a component of AZ-NAS", az_nas.complexity),
    Method("parameters", "shape", "parameter count", size.parameters),
    Method("macs", "shape", "multiply-accumulates of one image", size.macs),
)

SCORES: Mapping[str, Method] = MappingProxyType({method.name: method for method in _SHIPPED})
"""Every score by its name on the command line; higher is better for all."""

AGGREGATES: Mapping[str, Aggregate] = MappingProxyType(
    {"az-nas": Aggregate("az-nas", az_nas.COMPONENTS, az_nas.aggregate_ranks)}
)
"""Scores that rank several networks relative to each other."""

AnyMethod = str | Method | Compute
"""A name of `SCORES`, `file.py:NAME`, a `Method`, or a function from `ScoringInput` to number."""

_NETWORK_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
)
"""What the code of a network, or of a user's score, may raise. The reason names the type."""


def find_method(method: AnyMethod) -> Method:
    """The score that a name, a file or a function means.

    Raises:
        RecipeError: none, with the nearest known name.
    """
    if not isinstance(method, str):
        return own_method(method)
    if is_plugin(method):
        return file_method(method)
    if method in AGGREGATES:
        raise RecipeError(
            f"{method} ranks several networks relative to each other, received one. "
            f"Choose one of its components: {', '.join(AGGREGATES[method].components)}."
        )
    if method not in SCORES:
        raise RecipeError(f"no score is called {method!r}. {nearest(method, SCORES)}")
    return SCORES[method]


def score(
    network: nn.Module,
    methods: AnyMethod | Sequence[AnyMethod],
    images: Tensor,
    labels: Tensor | None = None,
    *,
    seed: int = 0,
) -> dict[str, ZeroShotScore | Failed]:
    """Score one network; its weights, mode, statistics and gradients stay as they are.

    Several networks are scored by `pliant.scoring.score_networks`, in several processes.

    Args:
        network: any module from (N, channels, height, width) to (N, classes). Zen and AZ-NAS draw
            their own weights; all others score the weights that it has, so pass a network with new
            ones (`default_reset`).
        methods: names of `SCORES`, also with commas between them, `all`, `file.py:NAME`, or
            functions of your own.
        images: normalised images; scores that draw Gaussian images take their number and shape.
        labels: (N,), for the scores that need them; `all` leaves these out where there are none.
        seed: of everything that the scores draw; PyTorch's global random state is left alone.

    Returns:
        By name, a score or why there is none; never a number in place of a failure.

    Raises:
        RecipeError: no score has such a name, or two have the same, or none is asked for.
        DataError: images or labels that no network could be scored on.
    """
    _require_inputs(network, images, labels)
    if isinstance(methods, str) and methods == "all":
        chosen = [one for one in SCORES.values() if labels is not None or one.needs != "labels"]
    elif isinstance(methods, str):
        chosen = [find_method(name.strip()) for name in methods.split(",")]
    elif not isinstance(methods, Sequence):
        chosen = [find_method(methods)]
    else:
        chosen = [find_method(one) for one in methods]
    if not chosen:
        raise RecipeError(f"no score is asked for. Name some of {', '.join(SCORES)}, or all.")
    require_distinct(chosen)
    first = next(network.parameters(), images)
    inputs = ScoringInput(network, images.detach().to(first.device), labels, seed)
    return {method.name: _compute(method, inputs) for method in chosen}


def _require_inputs(network: nn.Module, images: Tensor, labels: Tensor | None) -> None:
    """Tells a wrong argument from a network that fails on a right one."""
    if not isinstance(network, nn.Module):
        raise RecipeError(
            f"what is scored is a torch.nn.Module, received {type(network).__name__}. "
            "Several networks are scored by pliant.scoring.score_networks."
        )
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.ndim < 2:
        received = f"{images.dtype}, {tuple(images.shape)}" if isinstance(images, Tensor) else None
        raise DataError(
            "images are a tensor of real numbers, (N, channels, height, width); received "
            f"{received or type(images).__name__}. Normalise them."
        )
    if not images.numel():
        raise DataError(f"scores need images, received a batch of shape {tuple(images.shape)}.")
    if not bool(images.isfinite().all()):
        raise DataError("images are finite numbers, received some that are not.")
    if labels is None:
        return
    whole = isinstance(labels, Tensor) and not (labels.is_floating_point() or labels.is_complex())
    if not whole or labels.shape != images.shape[:1] or int(labels.min()) < 0:
        received = f"{labels.dtype}, {tuple(labels.shape)}" if isinstance(labels, Tensor) else None
        raise DataError(
            f"labels are one class index per image, ({len(images)},), from 0 up; received "
            f"{received or type(labels).__name__}."
        )


def require_distinct(methods: Sequence[Method]) -> None:
    """Refuse two different scores of one name, of which one may be shipped.

    Raises:
        RecipeError: naming them.
    """
    known = dict(SCORES)
    for method in methods:
        if known.setdefault(method.name, method) != method:
            raise RecipeError(
                f"every score has a name of its own, received two called {method.name!r}. "
                "Rename yours."
            )


def _compute(method: Method, inputs: ScoringInput) -> ZeroShotScore | Failed:
    if method.needs == "labels" and inputs.labels is None:
        return Failed(
            f"{method.name} compares logits with labels, received none. Pass labelled images."
        )
    began = time.process_time()
    try:
        # The network's own code may draw random numbers.
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(inputs.seed)
            found: Any = method.compute(inputs)
            if isinstance(found, str):
                return Failed(
                    f"{method.name} returned the text {found!r:.100}; a score is one number."
                )
            made = found if isinstance(found, ZeroShotScore) else ZeroShotScore(float(found))
    except PliantError as error:
        return Failed(f"{method.name}: {error}")
    except _NETWORK_ERRORS as error:
        return Failed(f"{method.name}: raised {type(error).__name__}: {error}")
    if not math.isfinite(made.value):
        return Failed(
            f"{method.name} returned {made.value}, which is no score: numbers overflow in the "
            "network, or it is disconnected."
        )
    return replace(made, seconds=time.process_time() - began)
