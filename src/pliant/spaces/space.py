"""A search space: choices, the condition of each, and the blocks of every architecture.

A concrete space states its `choices` and the `layout` of an architecture's blocks. Everything else
follows from these two: counting, exact uniform sampling, mutation, crossover, integer encoding,
predictor features and workload. The supernet, the latency table and the export are built from the
same blocks.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from pliant.errors import EncodingError, nearest
from pliant.metrics import Cost
from pliant.spaces.architecture import Architecture, Option, option_text
from pliant.spaces.block import Block, cost_with_bits
from pliant.workload import NETWORK_INPUT, Layer, Workload, with_bits

BLOCK_CACHE_ENTRIES = 100_000
"""Architectures whose blocks are kept.

A search of 20,000 candidates asks for the same ones many times.
"""


PLACE = r"[0-9.]*|(?:[A-Za-z0-9-]+\.)+"
"""The place in the name of a choice: of a stage and block, or of a module and a dot."""

Graph = Callable[["Architecture"], Iterable[tuple[int, Layer]]]
"""Architecture in; layers out, each with how often it is there."""

Dimension = Literal["resolution", "views", "kernel", "depth", "width", "other"]
Optimizer = Literal["sgd", "adamw"]


@dataclass(frozen=True, slots=True)
class Choice:
    """One decision: a name (a place and letters, as `1.2k`) and options, smallest network first."""

    name: str
    options: tuple[Option, ...]
    dimension: Dimension = "other"
    """What the choice sizes; progressive shrinking frees one dimension after the other."""
    condition: tuple[str, Option] | None = None
    """Active only where an earlier choice, the parent, is at least this option.

    Block 3 needs a depth of 3.
    """

    def __post_init__(self) -> None:
        if not re.fullmatch(rf"(?:{PLACE})[a-z]+", self.name):
            raise EncodingError(
                "a choice is named by digits and dots, or by a module and a dot, then small"
                f" letters, such as 1.2k or stage1.0.conv.w; received {self.name!r}."
            )
        if not self.options or len(set(self.options)) != len(self.options):
            raise EncodingError(
                f"choice {self.name!r} needs options that differ, received {self.options}."
            )
        for option in self.options:
            if not isinstance(option, str) and not _parses_back(option):
                raise EncodingError(
                    f"a number among options is read back from its text; choice {self.name!r} has"
                    f" {option!r}. Take int and float from 0 up that are written without an"
                    " exponent, and 0 and 1 for booleans."
                )
        numbers = [option for option in self.options if not isinstance(option, str)]
        if numbers != sorted(numbers):
            raise EncodingError(
                f"the options of choice {self.name!r} are in ascending order, received"
                f" {self.options}. Sort them."
            )
        if self.dimension not in get_args(Dimension):
            raise EncodingError(
                f"a choice sizes one of {', '.join(get_args(Dimension))}; choice {self.name!r} has"
                f" {self.dimension!r}. {nearest(str(self.dimension), get_args(Dimension))}"
            )


def _parses_back(option: Option) -> bool:
    if type(option) not in (int, float):  # a bool or a number of NumPy comes back as another type
        return False
    text = option_text(option)
    return bool(re.fullmatch(r"\d+(?:\.\d+)?", text)) and float(text) == option


class Space(ABC):
    """All networks that a set of choices describes, for images of one shape.

    Args:
        name: under which presets, records and profiles know the space.
        channels: channels of an image.
        image_size: height and width of the images that the network receives, in pixels.
        classes: number of labels.
    """

    bits: int = 32
    """Of weights and activations, where costs are computed; see `with_bits`."""
    optimizer: Optimizer = "sgd"
    """What trains the networks well: `sgd` those with BatchNorm, `adamw` transformers."""

    def __init__(self, name: str, *, channels: int, image_size: int, classes: int) -> None:
        self.name = name
        self.channels = channels
        self.image_size = image_size
        self.classes = classes

    @cached_property
    def blocks(self) -> Callable[[Architecture], tuple[Block, ...]]:
        """`layout`, memoized."""
        return functools.lru_cache(BLOCK_CACHE_ENTRIES)(self.layout)

    def __getstate__(self) -> dict[str, Any]:
        # The cache of blocks cannot be copied; a copy begins one of its own.
        return {name: value for name, value in vars(self).items() if name != "blocks"}

    @property
    @abstractmethod
    def choices(self) -> tuple[Choice, ...]:
        """The decisions, parents before the choices that need them."""

    @abstractmethod
    def layout(self, architecture: Architecture) -> tuple[Block, ...]:
        """The blocks of a network in the order in which they run, the classifier last.

        A block keeps its `slot` in every architecture that has it: blocks of one slot share weights
        in the supernet, and the largest architecture has every slot at its largest sizes.
        """

    @property
    def graphs(self) -> Mapping[str, Graph]:
        """Other graphs that a runtime may run for a network, by name; none unless told otherwise.

        `blocks` are what a network computes. A runtime that does not remove what nothing reads
        runs more, and a latency predictor counts what is run. What all networks have in common may
        be left out.
        """
        return {}

    @cached_property
    def identity(self) -> str:
        """A digest of what the space describes: two of one name with other widths differ in it.

        It covers the choices, and the blocks of the largest and the smallest network and of each of
        them with one choice at another option.
        """
        described = [repr((self.name, self.channels, self.image_size, self.classes, self.choices))]
        described += [repr(self.layout(architecture)) for architecture in self.corners()]
        return hashlib.sha256("\n".join(described).encode()).hexdigest()

    def corners(self) -> Iterator[Architecture]:
        """The smallest and the largest network, each with one choice at each of its options."""
        for end in (0, -1):
            base = {choice.name: choice.options[end] for choice in self.choices}
            for choice in self.choices:
                for option in choice.options:
                    yield self.architecture(base | {choice.name: option})

    # What follows from the choices.

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the choices, in order."""
        return tuple(choice.name for choice in self.choices)

    @cached_property
    def _choice(self) -> Mapping[str, Choice]:
        return {choice.name: choice for choice in self.choices}

    @cached_property
    def _children(self) -> Mapping[str | None, tuple[Choice, ...]]:
        children: dict[str | None, list[Choice]] = {None: []}
        for choice in self.choices:
            parent = choice.condition[0] if choice.condition else None
            if parent is not None and parent not in children:
                raise EncodingError(
                    f"choice {choice.name!r} needs {parent!r}, which does not come before it."
                )
            children[choice.name] = []
            children[parent].append(choice)
        return {name: tuple(found) for name, found in children.items()}

    def _networks_below(self, choice: Choice, option: Option) -> int:
        """Number of ways to fill in all choices that `choice = option` makes active."""
        product = 1
        for child in self._children[choice.name]:
            if _at_least(option, child):
                product *= self._networks_at(child.name)
        return product

    # A space lives as long as the program, and its tree never changes.
    @functools.cache  # noqa: B019
    def _networks_at(self, name: str) -> int:
        choice = self._choice[name]
        return sum(self._networks_below(choice, option) for option in choice.options)

    @cached_property
    def size(self) -> int:
        """Exact number of different architectures."""
        product = 1
        for choice in self._children[None]:
            product *= self._networks_at(choice.name)
        return product

    def architecture(self, options: Mapping[str, Option]) -> Architecture:
        """The canonical architecture of a full or an active-only set of options.

        Inactive ones are left out.

        Raises:
            EncodingError: an active choice is missing, a name is unknown, or an option is not one
                of the choice's.
        """
        if unknown := [name for name in options if name not in self._choice]:
            raise EncodingError(
                f"space {self.name!r} has no choice {unknown[0]!r}. "
                f"{nearest(unknown[0], self.names)}"
            )
        active: dict[str, Option] = {}
        for choice in self.choices:
            if not self._active(choice, active):
                continue
            if choice.name not in options:
                raise EncodingError(
                    f"choice {choice.name!r} is active and needs one of {choice.options}."
                )
            if options[choice.name] not in choice.options:
                raise EncodingError(
                    f"choice {choice.name!r} takes one of {choice.options}, received"
                    f" {options[choice.name]!r}."
                )
            active[choice.name] = options[choice.name]
        return Architecture(tuple(active.items()))

    def parse(self, text: str) -> Architecture:
        """Read the text form of an architecture back.

        Raises:
            EncodingError: the text is not the form of an architecture of this space.
        """
        options: dict[str, Option] = {}
        for word in text.strip().split("_"):
            match = re.fullmatch(rf"(?P<place>{PLACE})(?P<pairs>(?:[a-z]+\d+(?:\.\d+)?)+)", word)
            if match is None:
                raise EncodingError(
                    f"an architecture reads like {self.largest()}, received {word!r} in {text!r}."
                )
            for letter, value in re.findall(r"([a-z]+)(\d+(?:\.\d+)?)", match["pairs"]):
                name = match["place"] + letter
                if name in options:
                    raise EncodingError(f"choice {name!r} appears twice in {text!r}; keep one.")
                options[name] = float(value) if "." in value else int(value)
        architecture = self.architecture(options)
        if extra := set(options) - set(architecture.mapping):
            raise EncodingError(f"choice {min(extra)!r} is not active in {text!r}; leave it out.")
        return architecture

    @staticmethod
    def _active(choice: Choice, so_far: Mapping[str, Option]) -> bool:
        if choice.condition is None:
            return True
        parent = choice.condition[0]
        return parent in so_far and _at_least(so_far[parent], choice)

    def trainable_space(self) -> Space:
        """The space whose networks are trained and scored: this one, unless told otherwise.


        A space with flip test-time augmentation returns its networks without it.
        """
        return self

    def largest(self) -> Architecture:
        """Every choice at its last option."""
        return self.architecture({choice.name: choice.options[-1] for choice in self.choices})

    def smallest(self) -> Architecture:
        """Every choice at its first option."""
        return self.architecture({choice.name: choice.options[0] for choice in self.choices})

    # Sampling and variation. The generator is an argument: nothing here knows a global seed.

    def sample(self, rng: np.random.Generator) -> Architecture:
        """One architecture, each equally likely.

        A deep stage has more variants and so comes up more often.
        """
        options: dict[str, Option] = {}
        for choice in self.choices:
            if self._active(choice, options):
                weights = [self._networks_below(choice, option) for option in choice.options]
                share = np.array([weight / sum(weights) for weight in weights])
                options[choice.name] = choice.options[int(rng.choice(len(share), p=share))]
        return Architecture(tuple(options.items()))

    def sample_choices(
        self, rng: np.random.Generator, frozen: Mapping[str, Sequence[Option]] | None = None
    ) -> Architecture:
        """One architecture, every choice drawn on its own and each of its options equally likely.

        This is how supernets are trained (Cai et al. 2020, Once-for-All, section 3.3): shallow and
        deep stages come up equally often.

        Args:
            frozen: options to draw from instead of all, by the name of the choice.
        """
        draw = {
            choice.name: options[int(rng.integers(len(options)))]
            for choice in self.choices
            for options in [(frozen or {}).get(choice.name, choice.options)]
        }
        return self.architecture(draw)

    def mutate(
        self, architecture: Architecture, rng: np.random.Generator, probability: float = 0.1
    ) -> Architecture:
        """Redraw each choice with a probability; what becomes active is drawn as well.

        At least one choice is redrawn.
        """
        options = dict(self.sample_choices(rng).options) | dict(architecture.options)
        options = {
            choice.name: options.get(
                choice.name, choice.options[int(rng.integers(len(choice.options)))]
            )
            for choice in self.choices
        }
        redrawn = rng.random(len(self.choices)) < probability
        if not redrawn.any():
            redrawn[rng.integers(len(self.choices))] = True
        for choice, again in zip(self.choices, redrawn, strict=True):
            if again:
                options[choice.name] = choice.options[int(rng.integers(len(choice.options)))]
        return self.architecture(options)

    def crossover(
        self, one: Architecture, other: Architecture, rng: np.random.Generator
    ) -> Architecture:
        """Uniform crossover: a child that takes each choice from one of its parents.

        Where only one of them has the choice, it is taken from that one.
        """
        draw = {}
        for choice in self.choices:
            owners = [parent.mapping for parent in (one, other) if choice.name in parent.mapping]
            draw[choice.name] = (
                owners[int(rng.integers(len(owners)))][choice.name] if owners else choice.options[0]
            )
        return self.architecture(draw)

    # Encodings.

    def encode(self, architecture: Architecture) -> np.ndarray:
        """Positions of the options, one int a choice, 0 where inactive; shape (choices,)."""
        chosen = architecture.mapping
        return np.array(
            [
                choice.options.index(chosen[choice.name]) if choice.name in chosen else 0
                for choice in self.choices
            ],
            dtype=np.int64,
        )

    def decode(self, positions: Iterable[int]) -> Architecture:
        """The architecture of positions; values of inactive choices are ignored.

        Raises:
            EncodingError: a position is outside its choice, or their number is wrong.
        """
        values = [int(position) for position in positions]
        if len(values) != len(self.choices):
            raise EncodingError(
                f"space {self.name!r} has {len(self.choices)} choices, received {len(values)}"
                " positions."
            )
        active: dict[str, Option] = {}
        for choice, position in zip(self.choices, values, strict=True):
            if not 0 <= position < len(choice.options):
                raise EncodingError(
                    f"choice {choice.name!r} has positions 0 to {len(choice.options) - 1},"
                    f" received {position}."
                )
            if self._active(choice, active):
                active[choice.name] = choice.options[position]
        return Architecture(tuple(active.items()))

    @cached_property
    def _columns(self) -> Mapping[tuple[str, Option], int]:
        pairs = ((choice.name, option) for choice in self.choices for option in choice.options)
        return {pair: column for column, pair in enumerate(pairs)}

    def features(self, architectures: Sequence[Architecture]) -> np.ndarray:
        """One-hot options, zeros where inactive, then log10 of MACs and parameters.

        Shape (architectures, features).
        """
        table = np.zeros((len(architectures), len(self._columns) + 2))
        for row, architecture in enumerate(architectures):
            table[row, [self._columns[pair] for pair in architecture.options]] = 1.0
            cost = self.cost(architecture)
            table[row, -2:] = np.log10([cost.macs or 1, cost.parameters or 1])
        return table

    # What follows from the blocks.

    def lower(self, architecture: Architecture) -> Workload:
        """The workload of a network for one image, by arithmetic."""
        layers: list[Layer] = []
        reads = NETWORK_INPUT
        for block in self.blocks(architecture):
            layers += with_bits(block.layers(reads), self.bits)
            reads = layers[-1].name
        return Workload(tuple(layers), input_elements=self.channels * self.image_size**2)

    def with_bits(self, bits: int) -> Space:
        """The same space, whose costs are those of weights and activations of so many bits."""
        changed = copy.copy(self)
        changed.bits = bits
        return changed

    def cost(self, architecture: Architecture) -> Cost:
        """Parameters, MACs, peak memory of one image, and the size of the model.

        They are sums and a maximum over blocks, and equal blocks are counted once.
        """
        costs = [cost_with_bits(block, self.bits) for block in self.blocks(architecture)]
        return Cost(
            macs=sum(cost.macs for cost in costs),
            parameters=sum(cost.parameters for cost in costs),
            peak_memory_bytes=max(cost.peak_activation_bytes for cost in costs),
            model_size_bytes=sum(cost.parameter_bytes for cost in costs),
        )


def _at_least(option: Option, child: Choice) -> bool:
    assert child.condition is not None
    threshold = child.condition[1]
    if isinstance(option, str) or isinstance(threshold, str):
        return option == threshold
    return option >= threshold
