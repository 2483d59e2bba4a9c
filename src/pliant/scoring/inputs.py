"""What is scored without training: networks of a space or of a file of the user's own, and the images that are shown to them."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pliant.accuracy.zero_shot import default_reset
from pliant.data.dataset import DataSet
from pliant.data.splits import epoch_order
from pliant.errors import DataError, PliantError, RecipeError, nearest
from pliant.networks.supernet import build
from pliant.spaces.presets import preset
from pliant.spaces.space import Space


@dataclass(frozen=True, slots=True)
class Shape:
    """What a network takes and tells apart."""

    channels: int
    image_size: int
    """Height and width, in pixels."""
    classes: int

    def __str__(self) -> str:
        return f"{self.channels}x{self.image_size}x{self.image_size}, {self.classes} classes"


_USUAL = {
    "digits": Shape(1, 8, 10),
    "ofa-mobilenetv3": Shape(3, 224, 1000),
    "ofa-resnet50": Shape(3, 224, 1000),
}
_USUAL_ELSE = Shape(3, 32, 10)


def usual_shape(space: str) -> Shape:
    """The images for which a preset is made, where none are given."""
    return _USUAL.get(space, _USUAL_ELSE)


@dataclass(frozen=True)
class Batch:
    """Images that are shown to every network, of mean 0 and deviation 1 by channel."""

    images: NDArray[np.float32]
    """(N, channels, size, size)"""
    labels: NDArray[np.int64] | None
    """None where the images are noise."""
    shape: Shape
    digest: str
    """Equal exactly for equal batches of equal shape."""


def training_batch(data: DataSet, images: int, seed: int) -> Batch:
    """Images of the training split, drawn by the seed; the other splits stay closed.

    Raises:
        DataError: an image cannot be decoded.
    """
    pixels, labels = data.train.batch(epoch_order(len(data.train), 0, seed)[:images])
    mean, std = (
        np.array(values, dtype=np.float32).reshape(-1, 1, 1) for values in (data.mean, data.std)
    )
    standard = ((pixels.numpy().astype(np.float32) / 255 - mean) / np.maximum(std, 1e-6)).astype(
        np.float32
    )
    return _batch(
        standard, labels.numpy(), Shape(data.channels, data.image_size, len(data.classes))
    )


def noise_batch(shape: Shape, images: int, seed: int) -> Batch:
    """Gaussian noise without labels, for scores that look at no image."""
    size = (images, shape.channels, shape.image_size, shape.image_size)
    return _batch(np.random.default_rng(seed).standard_normal(size, dtype=np.float32), None, shape)


def _batch(images: NDArray[np.float32], labels: NDArray[np.int64] | None, shape: Shape) -> Batch:
    digest = hashlib.sha256(f"{shape}".encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(b"" if labels is None else labels.tobytes())
    return Batch(np.ascontiguousarray(images), labels, shape, digest.hexdigest()[:16])


class Subjects(Protocol):
    """Where networks come from, by name. It travels to other processes, so it holds no network."""

    def network(self, name: str) -> nn.Module:
        """A network with fresh weights; they follow from PyTorch's random state.

        Raises:
            PliantError: the name means no network.
        """
        ...


class SpaceNetworks:
    """Networks of a space, by their text form.

    They normalise nothing, since the images of a `Batch` are normalised already, and see one view of each, since scores are
    about weights.

    Args:
        make: the space; picklable, such as `partial(preset, "mobile-32", channels=3, image_size=32, classes=10)`.
    """

    def __init__(self, make: Callable[[], Space]) -> None:
        self._make = make
        self.space = make().one_view()

    def __reduce__(self) -> tuple[type[SpaceNetworks], tuple[Callable[[], Space]]]:
        return SpaceNetworks, (self._make,)

    def network(self, name: str) -> nn.Module:
        """The network of an architecture, with the fresh weights that scores are defined on."""
        channels = self.space.channels
        network = build(
            self.space, self.space.parse(name), mean=[0.0] * channels, std=[1.0] * channels
        )
        default_reset(network)
        return network


def networks_of(space: str, shape: Shape) -> SpaceNetworks:
    """Networks of a preset for images of a shape.

    Raises:
        EncodingError: the images are smaller than the space can handle.
    """
    return SpaceNetworks(
        partial(
            preset,
            space,
            channels=shape.channels,
            image_size=shape.image_size,
            classes=shape.classes,
        )
    )


class FileNetworks:
    """The network of a Python file, `model.py:build`: a function without arguments that gives a module, or a module's class.

    Args:
        text: the file, a colon, and a name in it.

    Raises:
        RecipeError: no such form, file or name, or something that gives no module.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        place, colon, self.attribute = text.rpartition(":")
        self.path = Path(place).expanduser()
        if not (colon and place and self.attribute.isidentifier()):
            raise RecipeError(
                f"a network of your own is named as FILE:NAME, received {text!r}. Write for example model.py:build."
            )
        if not self.path.is_file() or self.path.suffix != ".py":
            raise RecipeError(
                f"a network of your own stands in a Python file; there is no file {place}. Check the path."
            )
        self._build = self._builder()

    def __reduce__(self) -> tuple[type[FileNetworks], tuple[str]]:
        return FileNetworks, (self.text,)

    def network(self, name: str) -> nn.Module:
        """What the function gives, called anew."""
        made = self._guarded(self._build)
        if not isinstance(made, nn.Module):
            raise RecipeError(
                f"{self.text} must give a torch.nn.Module, it gives {type(made).__name__}. Return the network from it."
            )
        return made

    def _builder(self) -> Callable[[], object]:
        folder = str(self.path.resolve().parent)
        if folder not in sys.path:
            sys.path.insert(0, folder)  # the file may import its neighbours
        spec = importlib.util.spec_from_file_location(self.path.stem, self.path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(self.path.stem, module)
        loader = spec.loader
        self._guarded(lambda: loader.exec_module(module))
        names = [
            name
            for name, value in vars(module).items()
            if callable(value) and not name.startswith("_")
        ]
        if not hasattr(module, self.attribute):
            raise RecipeError(
                f"{self.path} has no {self.attribute!r}. {nearest(self.attribute, names)}"
            )
        found = getattr(module, self.attribute)
        if isinstance(found, nn.Module) or not callable(found):
            raise RecipeError(
                f"{self.text} is a {type(found).__name__}; name a function that gives a new torch.nn.Module at each call, or its class."
            )
        _require_no_arguments(found, self.text)
        return found

    def _guarded(self, call: Callable[[], object]) -> object:
        """What foreign code gives; whatever it raises is the user's to mend, and is told with its line."""
        try:
            return call()
        except PliantError:
            raise
        except Exception as error:
            frames = [
                frame
                for frame in traceback.extract_tb(error.__traceback__)
                if Path(frame.filename).resolve() == self.path.resolve()
            ]
            where = f", line {frames[-1].lineno}" if frames else ""
            raise RecipeError(
                f"{self.path}{where} raised {type(error).__name__}: {error}. Mend the file, then start again."
            ) from error


def _require_no_arguments(found: Callable[..., object], text: str) -> None:
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return  # some builtins tell no signature
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if needed := [
        one.name
        for one in parameters
        if one.default is inspect.Parameter.empty and one.kind not in free
    ]:
        raise RecipeError(
            f"{text} is called without arguments, it needs {', '.join(needed)}. Give them defaults, or write a function."
        )


def require_takes(network: nn.Module, batch: Batch, whose: str) -> None:
    """Show two images to a network and look at what comes out.

    Raises:
        DataError: it does not take images of this shape, or gives no logits for these classes.
    """
    was_training = network.training
    try:
        with torch.no_grad():
            out = network.train()(torch.from_numpy(batch.images[:2]))
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        shape = "x".join(map(str, batch.images.shape[1:]))
        raise DataError(
            f"{whose} must take a batch of the images, (N, {shape.replace('x', ', ')}); it raised {type(error).__name__}: {error}. "
            "Choose other images with --data, or change the network."
        ) from error
    finally:
        network.train(was_training)
    if (
        not isinstance(out, torch.Tensor)
        or out.ndim != 2
        or (batch.labels is not None and out.shape[1] < batch.shape.classes)
    ):
        received = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
        raise DataError(
            f"{whose} must give a logit a class, (N, {batch.shape.classes}); for two images it gives {received}."
        )
