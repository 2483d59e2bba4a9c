"""The supernet of a network by its name, for images of a run: made once in a process, then copied.

A classifier of other classes is replaced by a fresh one, and the resolutions that the network takes
become a choice. Everything follows from the name, the images' shape and the number of classes, so
any process can make it again.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pliant.errors import ForeignError
from pliant.networks.foreign.graph import ForeignGraph, evaluation
from pliant.networks.foreign.source import foreign_module
from pliant.networks.foreign.supernet import ForeignSupernet, make_elastic
from pliant.spaces.foreign import ForeignSpace

SHARES = (0.5, 2 / 3, 5 / 6)
"""Resolutions that are offered, as shares of the images'."""
MULTIPLE = 16
"""Resolutions are multiples of it, in pixels."""


def foreign_space(source: str, *, channels: int, image_size: int, classes: int) -> ForeignSpace:
    """The space of a network for images of one shape.

    Args:
        source: its name, `file.py:NAME` or `timm:NAME`.
        channels, image_size, classes: of the images.

    Raises:
        ForeignError: the network cannot be made elastic, or does not take such images.
    """
    return _template(source, channels, image_size, classes).space


def foreign_supernet(
    space: ForeignSpace, *, mean: Sequence[float], std: Sequence[float]
) -> ForeignSupernet:
    """The supernet of a space with the weights of the network.

    Args:
        space: of a network by its name.
        mean, std: of the training images by channel, pixels from 0 to 1; used where the network
            does not say with which ones it was trained.
    """
    source = space.description.source
    found = copy.deepcopy(_template(source, space.channels, space.image_size, space.classes))
    if space.description.preprocesses:
        found.pixel_mean = space.description.mean or tuple(mean)
        found.pixel_std = space.description.std or tuple(std)
    return found


def replaced_classifier(space: ForeignSpace) -> tuple[str, ...]:
    """The layers that were replaced by fresh ones, since the images have other classes."""
    shape = (space.channels, space.image_size, space.classes)
    found: tuple[str, ...] = _template(space.description.source, *shape).replaced
    return found


def head_layers(space: ForeignSpace) -> tuple[str, ...]:
    """The layers whose outputs are the logits."""
    return _graph(space).head


def has_linear_head(space: ForeignSpace) -> bool:
    """Whether a linear classifier on the network's features can stand for its last layer."""
    return _graph(space).has_linear_head


def _graph(space: ForeignSpace) -> ForeignGraph:
    shape = (space.channels, space.image_size, space.classes)
    found: ForeignGraph = _template(space.description.source, *shape).parts.graph
    return found


@functools.lru_cache(maxsize=2)
def _template(source: str, channels: int, image_size: int, classes: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = foreign_module(source)
        example = torch.zeros((2, channels, image_size, image_size))
        replaced = _fit_classifier(module, example, classes)
        mean, std = _trained_with(module, channels)
        sizes = {max(MULTIPLE, round(s * image_size / MULTIPLE) * MULTIPLE) for s in SHARES}
        supernet = make_elastic(
            module,
            example,
            resolutions=sorted(size for size in sizes if size < image_size),
            name=source,
            preprocess=True,
            mean=mean,
            std=std,
        )
    supernet.replaced = replaced
    return supernet


def _fit_classifier(module: nn.Module, example: Tensor, classes: int) -> tuple[str, ...]:
    """Give a network a classifier of so many classes; the names of the layers that are new.

    Raises:
        ForeignError: its logits are no layer's outputs.
    """
    graph = ForeignGraph(module, example)
    logits = graph.result.meta["val"].shape
    if len(logits) != 2:
        raise ForeignError(
            f"a classifier returns logits, (images, classes); this network returns {tuple(logits)}."
            " Wrap it in a module that returns logits."
        )
    if logits[1] == classes:
        return ()
    for name in graph.head:
        layer = dict(module.named_modules()).get(name)
        if isinstance(layer, nn.Linear) and layer.out_features == logits[1]:
            new: nn.Module = nn.Linear(layer.in_features, classes, bias=layer.bias is not None)
        elif isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
            new = nn.Conv2d(layer.in_channels, classes, 1, bias=layer.bias is not None)
        else:
            raise ForeignError(
                f"a classifier of other classes is replaced where it is a linear layer or a"
                f" convolution of its own; {name!r} is {_kind(layer)} behind {logits[1]} outputs,"
                f" and the images have {classes} classes. Give the network {classes} outputs."
            )
        parent, _, last = name.rpartition(".")
        setattr(module.get_submodule(parent), last, new.train(layer.training))
    with torch.no_grad(), evaluation(module):
        found = module(example).shape[-1] if graph.head else logits[1]
    if found != classes:
        raise ForeignError(
            f"the images have {classes} classes and the network has {found} outputs, which are no"
            f" layer's own. Give the network {classes} outputs."
        )
    return graph.head


def _kind(layer: nn.Module | None) -> str:
    return "a parameter" if layer is None else f"a {type(layer).__name__}"


def _trained_with(module: nn.Module, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the pixels of its training, where it says them as timm's do."""
    known = getattr(module, "pretrained_cfg", None)
    if isinstance(known, dict) and {"mean", "std"} <= known.keys():
        mean, std = tuple(map(float, known["mean"])), tuple(map(float, known["std"]))
        if len(mean) == len(std) == channels:
            return mean, std
    return (), ()
