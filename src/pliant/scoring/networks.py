"""Where the networks come from: a space, a Python file of the user's own, or modules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import torch
from torch import nn

from pliant.accuracy.zero_shot import default_reset
from pliant.errors import DataError, RecipeError
from pliant.networks.returned import describe_output
from pliant.networks.supernet import build
from pliant.plugins import call_plugin, load_plugin
from pliant.scoring.images import Batch, Shape
from pliant.spaces.check import check_space
from pliant.spaces.presets import preset
from pliant.spaces.space import Space


class NetworkSource(Protocol):
    """Networks by name. It is sent to other processes, so it holds no network."""

    def network(self, name: str) -> nn.Module:
        """A network with new weights, drawn from PyTorch's global random state.

        Raises:
            PliantError: no network has this name.
        """
        ...


class SpaceNetworks:
    """Networks of a space, by the text of the architecture.

    They do not normalise, since the images of a `Batch` are normalised already, and look at each
    image once, since scores are about weights.

    Args:
        make: makes the space; such as `partial(preset, "mobile-32", channels=3, image_size=32,
            classes=10)`, which can be sent to other processes.

    Raises:
        EncodingError: the networks of the space do not fit together.
    """

    def __init__(self, make: Callable[[], Space]) -> None:
        self._make = make
        self.space = make().trainable_space()
        check_space(self.space)

    def __reduce__(self) -> tuple[type[SpaceNetworks], tuple[Callable[[], Space]]]:
        return SpaceNetworks, (self._make,)

    def network(self, name: str) -> nn.Module:
        """The network of an architecture, with the initial weights that scores are defined on."""
        channels, architecture = self.space.channels, self.space.parse(name)
        network = build(self.space, architecture, mean=[0.0] * channels, std=[1.0] * channels)
        default_reset(network)
        return network


def preset_networks(space: str, shape: Shape) -> SpaceNetworks:
    """Networks of a space for images of a shape.

    Args:
        space: name of a shipped one, or `file.py:NAME`.
        shape: of the images, with the number of classes.

    Raises:
        EncodingError: the images are smaller than the space can handle.
    """
    sizes = {"channels": shape.channels, "image_size": shape.image_size, "classes": shape.classes}
    return SpaceNetworks(partial(preset, space, **sizes))


class ModuleNetworks:
    """Modules by name, scored with the weights that they have, or functions that make them."""

    def __init__(self, modules: Mapping[str, nn.Module | Callable[[], nn.Module]]) -> None:
        self.modules = dict(modules)

    def network(self, name: str) -> nn.Module:
        """The module of this name; scores work on a copy."""
        found = self.modules[name]
        return found if isinstance(found, nn.Module) else found()


class FileNetworks:
    """The network of a Python file: a function without arguments that returns a module, or a class.

    Args:
        text: `file.py:NAME`.

    Raises:
        RecipeError: no such form, file or name, or neither a function nor a class.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        found = load_plugin(text, what="a network")
        if isinstance(found, nn.Module) or not callable(found):
            raise RecipeError(
                f"{text} is of type {type(found).__name__}. Name a function that returns a new "
                "torch.nn.Module at each call, or its class."
            )
        _require_no_arguments(found, text)

    def __reduce__(self) -> tuple[type[FileNetworks], tuple[str]]:
        return FileNetworks, (self.text,)

    def network(self, name: str) -> nn.Module:
        """What a new call of the function returns."""
        made = call_plugin(self.text, what="a network")
        if not isinstance(made, nn.Module):
            raise RecipeError(
                f"{self.text} must return a torch.nn.Module, received {type(made).__name__}."
            )
        return made


def _require_no_arguments(function: Callable[..., object], text: str) -> None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return  # some builtins have no signature
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [
        one.name
        for one in parameters
        if one.default is inspect.Parameter.empty and one.kind not in variadic
    ]
    if required:
        raise RecipeError(
            f"{text} is called without arguments, it needs {', '.join(required)}. "
            "Give them defaults, or write a function."
        )


def require_accepts(network: nn.Module, batch: Batch, name: str) -> None:
    """Run a network on two images and check its output.

    Args:
        network: keeps its mode.
        batch: the images.
        name: of the network, for messages.

    Raises:
        DataError: it does not take images of this shape, or returns no logits for these classes.
    """
    was_training = network.training
    try:
        with torch.no_grad():
            logits = network.train()(torch.from_numpy(batch.images[:2]))
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        shape = ", ".join(map(str, batch.images.shape[1:]))
        raise DataError(
            f"{name} must take a batch of the images, (N, {shape}); it raised "
            f"{type(error).__name__}: {error}. Choose other images with --data, or change the "
            "network."
        ) from error
    finally:
        network.train(was_training)
    classes, is_tensor = batch.shape.classes, isinstance(logits, torch.Tensor)
    too_few = is_tensor and batch.labels is not None and logits.shape[-1] < classes
    if not is_tensor or logits.ndim != 2 or too_few:
        raise DataError(
            f"{name} must return one logit per class, (N, {classes}); for two images it returns "
            f"{describe_output(logits)}."
        )
