"""The walk: a nest run step by step with sets of coordinates, for comparison with the closed form.

It knows no formula. It holds, for the buffer and for the array, the name of the tile that is there;
when the name changes it collects the coordinates of the new tile and counts them. Only for small
nests: it takes every step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

from pliant.accelerator.chip import DIMS, Chip
from pliant.accelerator.mapping import RELEVANT, Mapping, layer_sizes
from pliant.accelerator.model.counts import COUNTS
from pliant.accelerator.model.stall import full_tiles
from pliant.workload import Layer

Ranges = dict[str, range]
Words = set[tuple[int, ...]]
Pe = tuple[tuple[int, ...], Ranges]
"""Position of a PE, and the coordinates that it works on."""


@dataclass(frozen=True, slots=True)
class Step:
    """One array tile: indices and coordinates of its buffer tile, then its own."""

    outer: dict[str, int]
    block: Ranges
    inner: dict[str, int]
    tile: Ranges


def walk(
    layer: Layer, mapping: Mapping, *, multicast: bool = True, halo: bool = False
) -> dict[str, int]:
    """What the nest moves, by the names of `counts.COUNTS`.

    Args:
        layer: small: every step of the nest is taken.
        mapping: covers the layer.
        multicast: False where every PE reads for itself.
        halo: whether a tile that follows another along the innermost loop, if that slides the
            window, brings its new words only.
    """
    walker = _Walker(layer, mapping, multicast, halo)
    for step in _steps(layer, mapping):
        walker.take(step)
    return walker.finish()


@dataclass(frozen=True, slots=True)
class _Previous:
    """The inputs of the step before."""

    outer: dict[str, int]
    inner: dict[str, int]
    block: Words
    tile: Words
    parts: dict[tuple[int, ...], Words]


def _slid(
    mapping: Mapping,
    old_outer: dict[str, int],
    outer: dict[str, int],
    old_inner: dict[str, int] | None,
    inner: dict[str, int] | None,
) -> bool:
    """Whether only the innermost loop advanced since the last step, and it slides the window."""
    loops = [(dim, "outer") for dim in mapping.dram_order if mapping.dram[DIMS.index(dim)] > 1]
    if inner is not None:
        loops += [
            (dim, "inner") for dim in mapping.buffer_order if mapping.buffer[DIMS.index(dim)] > 1
        ]
    if not loops or loops[-1][0] not in "PQRS" or not old_outer:
        return False
    differing = [(dim, "outer") for dim in DIMS if old_outer[dim] != outer[dim]]
    if inner is not None and old_inner is not None:
        differing += [(dim, "inner") for dim in DIMS if old_inner[dim] != inner[dim]]
    return differing == [loops[-1]]


class _Walker:
    """The tiles in each memory while a nest runs, and what was counted so far."""

    def __init__(self, layer: Layer, mapping: Mapping, multicast: bool, halo: bool) -> None:
        self.layer, self.mapping, self.multicast, self.halo = layer, mapping, multicast, halo
        self.total = dict.fromkeys(COUNTS, 0)
        self.copies = {
            "W": int(layer.weighted),
            "I": len(layer.inputs) if layer.kind == "elementwise" else 1,
        }
        self.held: dict[str, tuple[int, ...]] = {}
        """Name of the tile of each tensor in the array."""
        self.blocks: dict[str, tuple[int, ...]] = {}
        """Name of the tile of each tensor in the buffer."""
        self.seen: set[tuple[str, tuple[int, ...]]] = set()
        self.accumulators: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
        """Elements and the output words whose sums they hold."""
        self.block_outputs = 0
        self.old = _Previous({}, {}, set(), set(), {})

    def take(self, step: Step) -> None:
        """One array tile: fetch what changed, compute."""
        pes = list(_pes(self.mapping, step.tile))
        operations = [prod(len(part[dim]) for dim in DIMS) for _, part in pes]
        self.total["operations"] += sum(operations)
        self.total["compute_cycles"] += max(operations)
        self._read("W", "weight", step, pes)
        self._read("I", "input", step, pes)
        self._update(step, pes)
        if self.halo:
            parts = {where: _words("I", part, self.layer) for where, part in pes}
            block, tile = _words("I", step.block, self.layer), _words("I", step.tile, self.layer)
            self.old = _Previous(step.outer, step.inner, block, tile, parts)

    def finish(self) -> dict[str, int]:
        """What is left goes out."""
        self._drain()
        self.total["dram_output_writes"] += self.block_outputs
        return self.total

    def _read(self, tensor: str, name: str, step: Step, pes: list[Pe]) -> None:
        """Weights or inputs: tiles whose names changed are fetched, into buffer and array."""
        copies, bypass = self.copies[tensor], tensor in self.mapping.bypass
        slides = self.halo and tensor == "I"
        key = _name(tensor, step.outer)
        if not bypass and self.blocks.get(tensor) != key:
            self.blocks[tensor] = key
            kept = (
                self.old.block
                if slides and _slid(self.mapping, self.old.outer, step.outer, None, None)
                else set()
            )
            self.total[f"dram_{name}_reads"] += copies * len(
                _words(tensor, step.block, self.layer) - kept
            )
        key = _name(tensor, step.outer) + _name(tensor, step.inner)
        if self.held.get(tensor) == key:
            return
        self.held[tensor] = key
        slid = slides and _slid(
            self.mapping, self.old.outer, step.outer, self.old.inner, step.inner
        )
        nothing: Words = set()
        kept_parts, kept_tile = (self.old.parts, self.old.tile) if slid else ({}, nothing)
        sent = sum(
            len(_words(tensor, part, self.layer) - kept_parts.get(where, nothing))
            for where, part in pes
        )
        read = len(_words(tensor, step.tile, self.layer) - kept_tile) if self.multicast else sent
        self.total[f"delivered_{name}s"] += copies * sent
        self.total[f"array_{name}_reads"] += copies * read
        self.total[f"dram_{name}_reads"] += copies * read * bypass

    def _update(self, step: Step, pes: list[Pe]) -> None:
        """Partial sums: leave when the tile changes, come back when the tile was here before."""
        bypass = "O" in self.mapping.bypass
        key = _name("O", step.outer)
        if not bypass and self.blocks.get("O") != key:
            self.blocks["O"] = key
            self.total["dram_output_writes"] += self.block_outputs
            self.block_outputs = len(_words("O", step.block, self.layer))
            self.total["dram_sum_reads"] += self.block_outputs * (("block", key) in self.seen)
            self.seen.add(("block", key))
        key = _name("O", step.outer) + _name("O", step.inner)
        if self.held.get("O") != key:
            self.held["O"] = key
            self._drain()
            again = ("array", key) in self.seen
            back = len(_words("O", step.tile, self.layer)) * again
            self.total["array_sum_reads"] += back
            self.total["dram_sum_reads"] += back * bypass
            self.total["restored_sums" if again else "started_sums"] += sum(
                len(_words("O", part, self.layer)) for _, part in pes
            )
            self.seen.add(("array", key))
        self.accumulators.update(
            (where, word) for where, part in pes for word in _words("O", part, self.layer)
        )

    def _drain(self) -> None:
        words = len({word for _, word in self.accumulators})
        self.total["delivered_sums"] += len(self.accumulators)
        self.total["array_output_writes"] += words
        self.total["dram_output_writes"] += words * ("O" in self.mapping.bypass)
        self.accumulators.clear()


def _steps(layer: Layer, mapping: Mapping) -> Iterator[Step]:
    """Every array tile in the order of the nest."""
    size = dict(zip(DIMS, layer_sizes(layer), strict=True))
    array = {dim: mapping.register[d] * mapping.pes[d] for d, dim in enumerate(DIMS)}
    extent = {dim: array[dim] * mapping.buffer[d] for d, dim in enumerate(DIMS)}
    whole = {dim: range(size[dim]) for dim in DIMS}
    for outer in _tiles(mapping.dram_order, whole, extent):
        block = {
            dim: whole[dim][outer[dim] * extent[dim] : (outer[dim] + 1) * extent[dim]]
            for dim in DIMS
        }
        for inner in _tiles(mapping.buffer_order, block, array):
            tile = {
                dim: block[dim][inner[dim] * array[dim] : (inner[dim] + 1) * array[dim]]
                for dim in DIMS
            }
            yield Step(outer, block, inner, tile)


def _tiles(order: str, whole: Ranges, extent: dict[str, int]) -> Iterator[dict[str, int]]:
    for indices in product(*(range(len(range(0, len(whole[dim]), extent[dim]))) for dim in order)):
        yield dict(zip(order, indices, strict=True))


def _pes(mapping: Mapping, tile: Ranges) -> Iterator[Pe]:
    """The pes that have work, and the coordinates of each."""
    parts = [
        [
            tile[dim][start : start + mapping.register[d]]
            for start in range(0, len(tile[dim]), mapping.register[d])
        ]
        for d, dim in enumerate(DIMS)
    ]
    for where in product(*(range(len(part)) for part in parts)):
        yield where, {dim: parts[d][where[d]] for d, dim in enumerate(DIMS)}


def _words(tensor: str, at: Ranges, layer: Layer) -> Words:
    """Coordinates that the operations of a tile touch."""
    if tensor == "I":
        rows = {p * layer.strides[0] + r * layer.dilations[0] for p in at["P"] for r in at["R"]}
        columns = {q * layer.strides[1] + s * layer.dilations[1] for q in at["Q"] for s in at["S"]}
        return set(product(at["G"], at["N"], at["C"], rows, columns))
    return set(product(*(at[dim] for dim in RELEVANT[tensor])))


def _name(tensor: str, indices: dict[str, int]) -> tuple[int, ...]:
    return tuple(indices[dim] for dim in RELEVANT[tensor])


def walk_stall(layer: Layer, chip: Chip, mapping: Mapping) -> float:
    """Cycles of the lock-step machine of `stall.py`, one step after the other.

    Args:
        layer: small: every step is taken.
        chip: bandwidths and which memories are double-buffered.
        mapping: covers the layer.
    """
    tiles = full_tiles(layer, chip, mapping)
    blocks = [
        dict(zip(mapping.dram_order, at, strict=True))
        for at in product(*(range(mapping.dram[DIMS.index(dim)]) for dim in mapping.dram_order))
    ]
    inside = [
        dict(zip(mapping.buffer_order, at, strict=True))
        for at in product(*(range(mapping.buffer[DIMS.index(dim)]) for dim in mapping.buffer_order))
    ]
    names = [
        [{t: _name(t, outer) + _name(t, inner) for t in RELEVANT} for inner in inside]
        for outer in blocks
    ]
    block_names = [{t: _name(t, outer) for t in RELEVANT} for outer in blocks]
    total, seen_blocks, seen = tiles.dram["W"] + tiles.dram["I"], {block_names[0]["O"]}, set()
    for b, steps in enumerate(names):
        work = skipped = 0.0
        for index, step in enumerate(steps):
            previous = steps[index - 1] if index else (names[b - 1][-1] if b else None)
            if index == 0:
                loads = [t for t in "WI" if previous is None or previous[t] != step[t]]
                loads += (
                    ["O"]
                    if (previous is None or previous["O"] != step["O"]) and step["O"] in seen
                    else []
                )
                port, part = sum(tiles.port[t] for t in loads), sum(tiles.bypass[t] for t in loads)
                work, skipped = work + max(port, part), skipped + part
                seen.add(step["O"])
            moved = []
            if index + 1 < len(steps):
                following = steps[index + 1]
                moved += [t for t in "WI" if following[t] != step[t]]
                moved += ["O"] if following["O"] != step["O"] and following["O"] in seen else []
                seen.add(following["O"])
            moved += ["O"] if index and previous is not None and previous["O"] != step["O"] else []
            port, part = sum(tiles.port[t] for t in moved), sum(tiles.bypass[t] for t in moved)
            exchange = max(port, part)
            work += (
                max(tiles.compute, exchange)
                if chip.registers.double_buffered
                else tiles.compute + exchange
            )
            skipped += part
        if b + 1 == len(names) or names[b + 1][0]["O"] != steps[-1]["O"]:
            work, skipped = (
                work + max(tiles.port["O"], tiles.bypass["O"]),
                skipped + tiles.bypass["O"],
            )
        moved_blocks = skipped
        if b + 1 < len(names):
            moved_blocks += sum(
                tiles.dram[t] for t in "WI" if block_names[b + 1][t] != block_names[b][t]
            )
            if (
                block_names[b + 1]["O"] != block_names[b]["O"]
                and block_names[b + 1]["O"] in seen_blocks
            ):
                moved_blocks += tiles.dram["O"]
            seen_blocks.add(block_names[b + 1]["O"])
        if b and block_names[b - 1]["O"] != block_names[b]["O"]:
            moved_blocks += tiles.dram["O"]
        total += max(work, moved_blocks) if chip.buffer.double_buffered else work + moved_blocks
    return total + tiles.dram["O"]
