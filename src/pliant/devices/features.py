"""What a network does, counted from its layers: the features of latency predictors.

The columns are the totals of a network (MACs, numbers written and stored, layers), and by kind of
operator its work and its number of layers. They are sums over blocks, so a vector per block is
computed once, and the sums over 100,000 networks are array operations: each slot of a space has
few different blocks, which a few choices decide.

Which graph is counted matters. A space may describe more than one (`Space.graphs`): what a network
computes, and what a runtime runs that does not remove dead branches. A predictor selects the graph
by cross-validation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import chain
from weakref import WeakKeyDictionary

import numpy as np

from pliant.devices.table import block_key
from pliant.errors import EncodingError, MeasurementError
from pliant.spaces.architecture import Architecture, Option
from pliant.spaces.block import Block
from pliant.spaces.space import Space
from pliant.workload import Layer

NETWORK = "network"
"""The graph of `Space.blocks`."""
TOTALS = ("macs", "numbers moved", "layers")
PROBES = 256
"""Random networks that show which operators a space has, and the range of each column."""
PROBED_BASES = 24
"""Random networks in which each choice is changed, to find which slots it decides."""
CHECKED = 8
"""Networks of each call whose sums are also computed without the tables of slots."""


def operator_of(layer: Layer) -> str:
    """The kind of operator that a layer's cost depends on: what, and the size of its kernel."""
    name: str = layer.operation.operator if layer.operation is not None else layer.kind
    if layer.kind == "conv":
        name = "depthwise" if layer.G > 1 and layer.C == 1 else "conv"
        return f"{name} {layer.R}x{layer.S}"
    return name


def work_of(layer: Layer) -> int:
    """MACs of layers with weights; numbers read by a pooling; numbers written by others."""
    return layer.macs or layer.output_elements * layer.R * layer.S


def positions(space: Space, architectures: Sequence[Architecture]) -> np.ndarray:
    """Positions of the options, -1 where inactive; shape (architectures, choices).

    Raises:
        EncodingError: an architecture has an option that is not one of the space's.
    """
    place = _places(space)
    pairs = chain.from_iterable(one.options for one in architectures)
    try:
        codes = np.fromiter(map(place.__getitem__, pairs), dtype=np.int64)
    except KeyError as error:
        raise EncodingError(
            f"an architecture has options of its space; space {space.name!r} has no {error}."
        ) from None
    rows = np.repeat(np.arange(len(architectures)), [len(one.options) for one in architectures])
    found = np.full((len(architectures), len(space.choices)), -1, dtype=np.int64)
    found[rows, codes // _STRIDE] = codes % _STRIDE
    return found


_STRIDE = 1 << 20
"""More than any choice has options."""
_known_places: WeakKeyDictionary[Space, dict[tuple[str, Option], int]] = WeakKeyDictionary()


def _places(space: Space) -> dict[tuple[str, Option], int]:
    """Column and position of every option, in one number; made once per space."""
    if space not in _known_places:
        _known_places[space] = {
            (choice.name, option): column * _STRIDE + position
            for column, choice in enumerate(space.choices)
            for position, option in enumerate(choice.options)
        }
    return _known_places[space]


class BlockSums:
    """Sums of a vector per block over the blocks of networks.

    Which choices decide the block of a slot is found by changing one choice after the other in
    random networks. Where blocks are new, some networks are also summed block by block: if the two
    differ, a choice has an effect that was not found, and all sums are computed block by block from
    then on. Both add up in the order of slots, so a network's sum is the same in either way.

    Args:
        space: of the networks.
        vector: of a block; it must not depend on the block's slot.
    """

    def __init__(self, space: Space, vector: Callable[[Block], np.ndarray]) -> None:
        self.space = space
        self._vector = vector
        self._known: dict[Block, np.ndarray] = {}
        self._of_slotted: dict[Block, np.ndarray] = {}
        self._tables: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._is_exact = True

    def of_block(self, block: Block) -> np.ndarray:
        """The vector of one block, computed once."""
        if block not in self._of_slotted:
            key = block_key(block)
            if key not in self._known:
                self._known[key] = np.asarray(self._vector(key), dtype=float)
            self._of_slotted[block] = self._known[key]
        return self._of_slotted[block]

    def slow(self, architectures: Sequence[Architecture]) -> np.ndarray:
        """The sums block by block; shape (architectures, length of a vector)."""
        rows = np.zeros((len(architectures), self._length))
        for row, one in zip(rows, architectures, strict=True):
            for block in sorted(self.space.blocks(one), key=lambda block: self._rank(block.slot)):
                row += self.of_block(block)
        return rows

    def __call__(self, architectures: Sequence[Architecture]) -> np.ndarray:
        """The sums; shape (architectures, length of a vector)."""
        if len(architectures) <= CHECKED or not self._is_exact:
            return self.slow(architectures)
        places = positions(self.space, architectures)
        total = np.zeros((len(architectures), self._length))
        known = sum(len(codes) for codes, _ in self._tables.values())
        for slot, columns in self._deciding.items():
            total += self._slot_vectors(slot, columns, places, architectures)
        if known == sum(len(codes) for codes, _ in self._tables.values()):
            return total
        picks = np.linspace(0, len(architectures) - 1, CHECKED).astype(int)
        exact = self.slow([architectures[pick] for pick in picks])
        self._is_exact = bool(np.array_equal(total[picks], exact))
        return total if self._is_exact else self.slow(architectures)

    def _rank(self, slot: str) -> tuple[int, str]:
        """Of a slot in the largest network, which has all of them."""
        return self._ranks.get(slot, len(self._ranks)), slot

    @cached_property
    def _ranks(self) -> dict[str, int]:
        blocks = self.space.blocks(self.space.largest())
        return {block.slot: number for number, block in enumerate(blocks)}

    def _slot_vectors(
        self,
        slot: str,
        columns: list[int],
        places: np.ndarray,
        architectures: Sequence[Architecture],
    ) -> np.ndarray:
        """The vector of the block in a slot, by network; zeros where the slot is empty."""
        sizes = [len(self.space.choices[column].options) + 1 for column in columns]
        codes = np.zeros(len(places), dtype=np.int64)
        for column, size in zip(columns, sizes, strict=True):
            codes = codes * size + places[:, column] + 1
        different, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        known, vectors = self._tables.get(slot, (np.empty(0, dtype=np.int64), None))
        fresh = ~np.isin(different, known)
        if fresh.any():
            added = np.array([self._in_slot(slot, architectures[row]) for row in first[fresh]])
            known = np.concatenate([known, different[fresh]])
            vectors = added if vectors is None else np.concatenate([vectors, added])
            order = np.argsort(known)
            known, vectors = known[order], vectors[order]
            self._tables[slot] = known, vectors
        assert vectors is not None
        found: np.ndarray = vectors[np.searchsorted(known, different)][inverse]
        return found

    def _in_slot(self, slot: str, architecture: Architecture) -> np.ndarray:
        for block in self.space.blocks(architecture):
            if block.slot == slot:
                return self.of_block(block)
        return np.zeros(self._length)

    @cached_property
    def _length(self) -> int:
        return len(self.of_block(self.space.blocks(self.space.smallest())[0]))

    @cached_property
    def _deciding(self) -> dict[str, list[int]]:
        """By slot the choices that decide its block."""
        rng = np.random.default_rng(0)
        space = self.space
        bases = [space.smallest(), space.largest()]
        bases += [space.sample_choices(rng) for _ in range(PROBED_BASES)]
        found: dict[str, set[int]] = {}
        for base in bases:
            blocks = {block.slot: block for block in space.blocks(base)}
            for slot in blocks:
                found.setdefault(slot, set())
            for column, choice in enumerate(space.choices):
                if choice.name not in base.mapping:
                    continue
                for option in choice.options:
                    # What becomes active is at its first option.
                    filled = {one.name: one.options[0] for one in space.choices}
                    changed = space.architecture({**filled, **base.mapping, choice.name: option})
                    others = {block.slot: block for block in space.blocks(changed)}
                    for slot in blocks.keys() | others.keys():
                        if blocks.get(slot) != others.get(slot):
                            found.setdefault(slot, set()).add(column)
        slots = sorted(found, key=self._rank)
        return {slot: sorted(found[slot]) for slot in slots}


class LayerCounts:
    """The columns of networks of a space, counted from the layers of one graph.

    Args:
        space: of the networks.
        graph: `NETWORK`, or a name of `space.graphs`.
    """

    def __init__(self, space: Space, graph: str = NETWORK) -> None:
        self.space = space
        self.graph = graph
        rng = np.random.default_rng(0)
        probes = [space.sample_choices(rng) for _ in range(PROBES)]
        self.probes = list(dict.fromkeys([space.smallest(), space.largest(), *probes]))
        kinds = {operator_of(layer) for one in self.probes for _, layer in self._layers_of(one)}
        self.operators: tuple[str, ...] = tuple(sorted(kinds))
        self._sums = BlockSums(space, self._of_block)
        self._of_network: dict[Architecture, np.ndarray] = {}
        self._of_layer: dict[tuple[str, Layer], np.ndarray] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns."""
        by_operator = [f"work of {one}" for one in self.operators]
        by_operator += [f"layers of {one}" for one in self.operators]
        return (*TOTALS, *by_operator)

    def __call__(self, architectures: Sequence[Architecture]) -> np.ndarray:
        """The columns; shape (architectures, columns).

        Raises:
            MeasurementError: a network has an operator that 256 random networks have not.
        """
        if self.graph == NETWORK:
            return self._sums(architectures)
        for one in architectures:
            if one not in self._of_network:
                self._of_network[one] = self._count(self.space.graphs[self.graph](one))
        return np.array([self._of_network[one] for one in architectures])

    @cached_property
    def of_probes(self) -> np.ndarray:
        """The columns of the networks that show what the space has; shape (probes, columns)."""
        return self(self.probes)

    def of_block(self, block: Block) -> np.ndarray:
        """The columns of one block of the network."""
        return self._sums.of_block(block)

    def _layers_of(self, architecture: Architecture) -> Iterable[tuple[int, Layer]]:
        if self.graph != NETWORK:
            return self.space.graphs[self.graph](architecture)
        blocks = self.space.blocks(architecture)
        return ((1, layer) for block in blocks for layer in block.layers())

    def _of_block(self, block: Block) -> np.ndarray:
        return self._count((1, layer) for layer in block.layers())

    def _count(self, layers: Iterable[tuple[int, Layer]]) -> np.ndarray:
        total = np.zeros(len(TOTALS) + 2 * len(self.operators))
        for times, layer in layers:
            operator = operator_of(layer)  # equal layers may have other operators
            if (operator, layer) not in self._of_layer:
                self._of_layer[operator, layer] = self._columns(operator, layer)
            total += times * self._of_layer[operator, layer]
        return total

    def _columns(self, operator: str, layer: Layer) -> np.ndarray:
        if operator not in self.operators:
            raise MeasurementError(
                f"a predictor counts operators that it was fitted on; {operator!r} is in none of "
                f"{len(self.probes)} networks of space {self.space.name!r}. Measure networks that "
                "have it."
            )
        found = np.zeros(len(TOTALS) + 2 * len(self.operators))
        moved = layer.output_elements + layer.parameters
        found[: len(TOTALS)] = (layer.macs, moved, 1)
        at = len(TOTALS) + self.operators.index(operator)
        found[[at, at + len(self.operators)]] = (work_of(layer), 1)
        return found
