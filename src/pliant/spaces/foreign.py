"""The space of a network that somebody already has: what of it may be smaller or left out.

Its choices and layers come from a module, which `pliant.networks.foreign` reads. This file holds
what follows without PyTorch: the layers of every architecture, as those of the whole network with
loops that grow linearly with the sizes that are chosen. A network is one block, since nothing says
where one block of it ends and the next begins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

from pliant.spaces.architecture import Architecture, Option
from pliant.spaces.block import Block, computes
from pliant.spaces.space import Choice, Space
from pliant.workload import NETWORK_INPUT, Layer

LOOPS = ("N", *"GKCPQRS", "stored_per_channel")
"""The sizes of a layer that choices change."""
MORE_STORED = "more stored"
"""What a layer stores beyond its loops, such as the scale of its outputs; changes as loops do."""


def more_stored(layer: Layer) -> int:
    """Numbers that a layer stores beyond its loops; 0 for products of computed tensors."""
    return 0 if not layer.stored else layer.stored - layer.loop_parameters


@dataclass(frozen=True)
class ElasticLayer:
    """A layer of the largest network, and what choices do to it."""

    layer: Layer
    slopes: Mapping[str, Mapping[str, Fraction]] = field(default_factory=dict)
    """What a loop has more for each channel (or kernel row) more of a choice: by loop and
    choice."""
    branches: tuple[str, ...] = ()
    """Choices that leave the layer out at 0."""

    def at(self, changes: Mapping[str, int], reads: Mapping[str, str]) -> Layer:
        """The layer in a sub-network.

        Args:
            changes: options minus the largest ones, by choice.
            reads: what to read instead of layers that are left out.
        """
        loops: dict[str, Any] = {}
        for loop, slopes in self.slopes.items():
            if loop != MORE_STORED:
                loops[loop] = getattr(self.layer, loop) + _change(slopes, changes)
        inputs = tuple(reads.get(name, name) for name in self.layer.inputs)
        if self.layer.kind != "elementwise":  # which reads each of its operands
            inputs = tuple(dict.fromkeys(inputs))
        others = tuple(reads.get(name, name) for name in self.layer.concatenated)
        found = replace(self.layer, inputs=inputs, concatenated=others, **loops)
        if not self.layer.stored and MORE_STORED not in self.slopes:
            return found
        more = more_stored(self.layer) + _change(self.slopes.get(MORE_STORED, {}), changes)
        return replace(found, stored=found.loop_parameters + more if more else None)


def _change(slopes: Mapping[str, Fraction], changes: Mapping[str, int]) -> int:
    return int(sum((slope * changes.get(name, 0) for name, slope in slopes.items()), 0))


@dataclass(frozen=True)
class ElasticLayers:
    """The layers of all sub-networks at one resolution.

    Args:
        layers: of the largest one, in running order.
        shortcuts: by the layer of a residual sum, the choice that leaves its branch out, and the
            layer that is read instead.
    """

    layers: tuple[ElasticLayer, ...]
    shortcuts: Mapping[str, tuple[str, str]]

    def at(self, options: Mapping[str, Option], changes: Mapping[str, int]) -> list[Layer]:
        """The layers of a sub-network.

        Args:
            options: of its active choices.
            changes: those that are sizes, minus the largest ones.
        """
        reads: dict[str, str] = {}
        for total, (choice, shortcut) in self.shortcuts.items():
            if options.get(choice) == 0:
                reads[total] = reads.get(shortcut, shortcut)
        found = {}
        moved: dict[str, int] = {}
        for one in self.layers:
            if any(options.get(name) == 0 for name in one.branches):
                continue
            layer = one.at(changes, reads)
            if layer.name not in reads:
                found[layer.name] = layer
            elif layer.parameters:  # of what reads the sum, such as a token that is put beside it
                kept = reads[layer.name]
                moved[kept] = moved.get(kept, 0) + layer.parameters
        for name, numbers in moved.items():
            found[name] = replace(found[name], stored=found[name].parameters + numbers)
        return list(found.values())


@dataclass(frozen=True)
class ForeignDescription:
    """What of a network is elastic.

    Args:
        source: where the network comes from, for people.
        choices: of its space.
        by_resolution: the layers at each resolution, in pixels.
        preprocesses: whether pixels are normalised and resized before the network.
        fixed: why the outputs of a layer keep their number, by layer.
        mean, std: of pixels from 0 to 1 with which the network was trained; empty where that is not
            known.
    """

    source: str
    choices: tuple[Choice, ...]
    by_resolution: Mapping[int, ElasticLayers]
    preprocesses: bool
    fixed: Mapping[str, str]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @cached_property
    def digest(self) -> str:
        """Equal for equal descriptions."""
        text = repr((self.choices, self.by_resolution, self.preprocesses))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def __repr__(self) -> str:
        return f"ForeignDescription({self.digest})"

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ForeignDescription) and self.digest == other.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignNetwork(Block):
    """A whole network of the user's own at the sizes of an architecture."""

    channels: int
    description: ForeignDescription
    options: tuple[tuple[str, Option], ...]

    @property
    def in_channels(self) -> int:
        """Of the images."""
        return self.channels

    @property
    def sizes(self) -> dict[str, int | float | bool | str]:
        """The options by choice."""
        return {"size": self.size, "network": self.description.source, **dict(self.options)}

    @property
    def resolution(self) -> int:
        """Of the images that the network reads, in pixels."""
        return int(dict(self.options).get("r", self.size))

    def layers(self, reads: str = NETWORK_INPUT) -> tuple[Layer, ...]:
        """The layers of the whole network at these sizes."""
        options = dict(self.options)
        largest = {choice.name: choice.options[-1] for choice in self.description.choices}
        changes = {
            name: int(option) - int(largest[name])
            for name, option in options.items()
            if name != "r" and option != largest[name]
        }
        layers = self.description.by_resolution[self.resolution].at(options, changes)
        if not self.description.preprocesses:
            return tuple(_reading(layers, NETWORK_INPUT, reads))
        resize = self._elementwise(
            "resize",
            reads,
            channels=self.channels,
            size=self.resolution,
            operation=computes("preprocess"),
        )
        return (resize, *_reading(layers, NETWORK_INPUT, resize.name))


def _reading(layers: Iterable[Layer], before: str, now: str) -> list[Layer]:
    """The layers with another name for the network's input."""
    if before == now:
        return list(layers)
    found = []
    for layer in layers:
        inputs = tuple(now if name == before else name for name in layer.inputs)
        others = tuple(now if name == before else name for name in layer.concatenated)
        found.append(replace(layer, inputs=inputs, concatenated=others))
    return found


class ForeignSpace(Space):
    """All sub-networks of a network of the user's own.

    Args:
        name: under which records know the space.
        description: of the network.
        channels, image_size, classes: of its input and output.
    """

    def __init__(
        self,
        name: str,
        description: ForeignDescription,
        *,
        channels: int,
        image_size: int,
        classes: int,
    ) -> None:
        super().__init__(name, channels=channels, image_size=image_size, classes=classes)
        self.description = description

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What may be smaller or left out."""
        return self.description.choices

    def layout(self, architecture: Architecture) -> tuple[Block, ...]:
        """One block."""
        return (
            ForeignNetwork(
                slot="network",
                size=self.image_size,
                channels=self.channels,
                description=self.description,
                options=architecture.options,
            ),
        )
