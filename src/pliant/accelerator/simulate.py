"""The walk: a nest run step by step with sets of coordinates, so that the closed form can be held against it.

It knows no formula. It holds, for the buffer and for the array, the name of the tile that is there; when the name
changes it collects the coordinates of the new tile and counts them. Only for small nests: it takes every step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

from pliant.accelerator.chip import DIMS, Chip
from pliant.accelerator.equations import COUNTS
from pliant.accelerator.mapping import RELEVANT, Mapping, layer_sizes
from pliant.accelerator.stall import full_tiles
from pliant.workload import Layer

Ranges = dict[str, range]
Words = set[tuple[int, ...]]


def walk(layer: Layer, mapping: Mapping, *, multicast: bool = True, halo: bool = False) -> dict[str, int]:
    """What the nest moves, by the names of `equations.COUNTS`.

    Args:
        layer: small: every step of the nest is taken.
        mapping: covers the layer.
        multicast: False where every element reads for itself.
        halo: whether a tile that follows another along the innermost loop, if that slides the window, brings its new words only.
    """
    total = dict.fromkeys(COUNTS, 0)
    held: dict[str, tuple[int, ...]] = {}
    blocks: dict[str, tuple[int, ...]] = {}
    seen: set[tuple[str, tuple[int, ...]]] = set()
    resident: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    copies = {"W": int(layer.weighted), "I": len(layer.inputs) if layer.kind == "elementwise" else 1}
    block_volume: dict[str, int] = {}
    old = _Previous({}, {}, set(), set(), {})
    for outer, block, inner, tile in _steps(layer, mapping):
        elements = list(_elements(mapping, tile))
        total["operations"] += sum(prod(len(part[dim]) for dim in DIMS) for _, part in elements)
        total["compute_cycles"] += max(prod(len(part[dim]) for dim in DIMS) for _, part in elements)
        for tensor, name in (("W", "weight"), ("I", "input")):
            key = _name(tensor, outer)
            if tensor not in mapping.bypass and blocks.get(tensor) != key:
                blocks[tensor] = key
                kept = old.block if halo and tensor == "I" and _slid(mapping, old.outer, outer, None, None) else set()
                words = _words(tensor, block, layer)
                total[f"dram_{name}_reads"] += copies[tensor] * len(words - kept)
            key = _name(tensor, outer) + _name(tensor, inner)
            if held.get(tensor) != key:
                held[tensor] = key
                slid = halo and tensor == "I" and _slid(mapping, old.outer, outer, old.inner, inner)
                parts = {where: _words(tensor, part, layer) for where, part in elements}
                sent = sum(len(words - (old.parts.get(where, set()) if slid else set())) for where, words in parts.items())
                read = len(_words(tensor, tile, layer) - (old.tile if slid else set())) if multicast else sent
                total[f"delivered_{name}s"] += copies[tensor] * sent
                total[f"array_{name}_reads"] += copies[tensor] * read
                total[f"dram_{name}_reads"] += copies[tensor] * read * (tensor in mapping.bypass)
        if halo:
            inputs = {where: _words("I", part, layer) for where, part in elements}
            old = _Previous(outer, inner, _words("I", block, layer), _words("I", tile, layer), inputs)
        _outputs(layer, mapping, (outer, block, inner, tile), elements, total, held, blocks, seen, resident, block_volume)
    _drain_array(mapping, total, resident)
    total["dram_output_writes"] += block_volume.pop("O", 0)
    return total


@dataclass(frozen=True, slots=True)
class _Previous:
    """The inputs of the step before."""

    outer: dict[str, int]
    inner: dict[str, int]
    block: Words
    tile: Words
    parts: dict[tuple[int, ...], Words]


def _slid(
    mapping: Mapping, old_outer: dict[str, int], outer: dict[str, int], old_inner: dict[str, int] | None, inner: dict[str, int] | None
) -> bool:
    """Whether this step differs from the last in one index only, that of the innermost loop, and that loop slides the window."""
    loops = [(dim, "outer") for dim in mapping.dram_order if mapping.dram[DIMS.index(dim)] > 1]
    if inner is not None:
        loops += [(dim, "inner") for dim in mapping.buffer_order if mapping.buffer[DIMS.index(dim)] > 1]
    if not loops or loops[-1][0] not in "PQRS" or not old_outer:
        return False
    differing = [(dim, "outer") for dim in DIMS if old_outer[dim] != outer[dim]]
    if inner is not None and old_inner is not None:
        differing += [(dim, "inner") for dim in DIMS if old_inner[dim] != inner[dim]]
    return differing == [loops[-1]]


def _outputs(layer, mapping, step, elements, total, held, blocks, seen, resident, block_volume) -> None:  # type: ignore[no-untyped-def]
    """Partial sums: leave when the tile changes, come back when the tile was here before."""
    outer, block, inner, tile = step
    key = _name("O", outer)
    if "O" not in mapping.bypass and blocks.get("O") != key:
        blocks["O"] = key
        total["dram_output_writes"] += block_volume.get("O", 0)
        block_volume["O"] = len(_words("O", block, layer))
        total["dram_sum_reads"] += block_volume["O"] * (("block", key) in seen)
        seen.add(("block", key))
    key = _name("O", outer) + _name("O", inner)
    if held.get("O") != key:
        held["O"] = key
        _drain_array(mapping, total, resident)
        back = len(_words("O", tile, layer)) * (("array", key) in seen)
        total["array_sum_reads"] += back
        total["dram_sum_reads"] += back * ("O" in mapping.bypass)
        accumulators = sum(len(_words("O", part, layer)) for _, part in elements)
        total["restored_sums" if ("array", key) in seen else "started_sums"] += accumulators
        seen.add(("array", key))
    resident.update((where, word) for where, part in elements for word in _words("O", part, layer))


def _drain_array(mapping: Mapping, total: dict[str, int], resident: set[tuple[tuple[int, ...], tuple[int, ...]]]) -> None:
    words = len({word for _, word in resident})
    total["delivered_sums"] += len(resident)
    total["array_output_writes"] += words
    total["dram_output_writes"] += words * ("O" in mapping.bypass)
    resident.clear()


def _steps(layer: Layer, mapping: Mapping) -> Iterator[tuple[dict[str, int], Ranges, dict[str, int], Ranges]]:
    """Every array tile in the order of the nest: indices and coordinates of the buffer tile, then of the array tile."""
    size = dict(zip(DIMS, layer_sizes(layer), strict=True))
    array = {dim: mapping.register[d] * mapping.elements[d] for d, dim in enumerate(DIMS)}
    extent = {dim: array[dim] * mapping.buffer[d] for d, dim in enumerate(DIMS)}
    whole = {dim: range(size[dim]) for dim in DIMS}
    for outer in _tiles(mapping.dram_order, whole, extent):
        block = {dim: whole[dim][outer[dim] * extent[dim] : (outer[dim] + 1) * extent[dim]] for dim in DIMS}
        for inner in _tiles(mapping.buffer_order, block, array):
            yield outer, block, inner, {dim: block[dim][inner[dim] * array[dim] : (inner[dim] + 1) * array[dim]] for dim in DIMS}


def _tiles(order: str, whole: Ranges, extent: dict[str, int]) -> Iterator[dict[str, int]]:
    for indices in product(*(range(len(range(0, len(whole[dim]), extent[dim]))) for dim in order)):
        yield dict(zip(order, indices, strict=True))


def _elements(mapping: Mapping, tile: Ranges) -> Iterator[tuple[tuple[int, ...], Ranges]]:
    """The elements that have work, and the coordinates of each."""
    parts = [
        [tile[dim][start : start + mapping.register[d]] for start in range(0, len(tile[dim]), mapping.register[d])]
        for d, dim in enumerate(DIMS)
    ]
    for where in product(*(range(len(part)) for part in parts)):
        yield where, {dim: parts[d][where[d]] for d, dim in enumerate(DIMS)}


def _words(tensor: str, at: Ranges, layer: Layer) -> Words:
    """Coordinates that the operations of a tile touch."""
    if tensor == "I":
        rows = {p * layer.stride + r * layer.dilation for p in at["P"] for r in at["R"]}
        columns = {q * layer.stride + s * layer.dilation for q in at["Q"] for s in at["S"]}
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
    names = [[{t: _name(t, outer) + _name(t, inner) for t in RELEVANT} for inner in inside] for outer in blocks]
    block_names = [{t: _name(t, outer) for t in RELEVANT} for outer in blocks]
    total, seen_blocks, seen = tiles.dram["W"] + tiles.dram["I"], {block_names[0]["O"]}, set()
    for b, steps in enumerate(names):
        work = skipped = 0.0
        for index, step in enumerate(steps):
            previous = steps[index - 1] if index else (names[b - 1][-1] if b else None)
            if index == 0:
                loads = [t for t in "WI" if previous is None or previous[t] != step[t]]
                loads += ["O"] if (previous is None or previous["O"] != step["O"]) and step["O"] in seen else []
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
            work += max(tiles.compute, exchange) if chip.registers.double_buffered else tiles.compute + exchange
            skipped += part
        if b + 1 == len(names) or names[b + 1][0]["O"] != steps[-1]["O"]:
            work, skipped = work + max(tiles.port["O"], tiles.bypass["O"]), skipped + tiles.bypass["O"]
        moved_blocks = skipped
        if b + 1 < len(names):
            moved_blocks += sum(tiles.dram[t] for t in "WI" if block_names[b + 1][t] != block_names[b][t])
            if block_names[b + 1]["O"] != block_names[b]["O"] and block_names[b + 1]["O"] in seen_blocks:
                moved_blocks += tiles.dram["O"]
            seen_blocks.add(block_names[b + 1]["O"])
        if b and block_names[b - 1]["O"] != block_names[b]["O"]:
            moved_blocks += tiles.dram["O"]
        total += max(work, moved_blocks) if chip.buffer.double_buffered else work + moved_blocks
    return total + tiles.dram["O"]
