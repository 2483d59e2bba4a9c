"""The best mapping of one spatial split: lists of tiles, their bounds, and the pairs that could still win."""

from __future__ import annotations

from typing import Any

import numpy as np

from pliant.accelerator.mapper import bounds as bd
from pliant.accelerator.model import counts as ct
from pliant.accelerator.model import energy_latency as el
from pliant.accelerator.model.counts import O, kernel

# The integer settings of a search.
KEEP_INNER, KEEP_OUTER, BYPASSES = 0, 1, 2
# What it counts.
EVALUATED, FITTING_TILES, PAIRS = 0, 1, 2


@kernel
def search_split(
    layer: Any, chip: Any, multicast: bool, elements: Any, rounds: Any, divisors: Any, numbers: Any, orders: Any, masks: Any, powers: Any,
    best: float, best_code: Any, stats: Any,
) -> float:  # fmt: skip
    """Value of the best mapping that beats `best` and shares this split; `best` where there is none.

    Args:
        layer: as `counts.layer_vector`.
        chip: as `el.chip_vector`.
        multicast: whether a word for several elements is read once.
        elements: by loop.
        rounds: of the array over each loop.
        divisors: of the rounds, ascending, one row a loop.
        numbers: how many divisors each row has.
        orders: the order that keeps each tensor in place, one row a tensor.
        masks: bits of tensors that inner loops may keep, that outer loops may keep, and of allowed bypasses.
        powers: of energy and of cycles in the objective.
        best: value to beat.
        best_code: receives the mapping.
        stats: adds evaluations, register tiles that fit (with their mappings), and pairs looked at.
    """
    s, counts, parts = np.zeros(ct.SCRATCH), np.empty(15), np.empty(6)
    slowest = cycles_of_rounds(rounds, chip)
    constant = bd.constant_energy(layer, elements, chip)
    least = least_words(layer, s)
    tiles, traffic = bd.register_tiles(
        layer, chip, multicast, elements, rounds, divisors, numbers, s
    )
    for a in range(len(tiles)):
        stats[FITTING_TILES] += outer_factorisations(rounds, tiles[a], divisors, numbers)
    outer, facts = np.empty((0, 8), dtype=np.int64), np.empty((0, 12))
    inside, across, total = np.empty((len(tiles), 4)), np.empty((0, 4)), np.empty(4)
    kept = np.empty(0, dtype=np.int64)
    for bypass in range(8):
        for keep in range(3):
            if (
                not (masks[BYPASSES] >> bypass & 1 and masks[KEEP_INNER] >> keep & 1)
                or len(tiles) == 0
            ):
                continue
            lowest = inner_parts(traffic, keep, bypass, least[O], chip, inside)
            if masks[KEEP_OUTER] >> keep & 1:
                best = search_crossing(
                    layer, chip, multicast, elements, rounds, divisors, numbers, orders, powers, best, best_code, stats,
                    tiles, traffic, inside, keep, bypass, least, constant, slowest, s, counts, parts,
                )  # fmt: skip
            _least_outer(traffic, keep, bypass, least, chip, total)
            if bd.bound(constant, slowest, lowest, total, chip, powers[0], powers[1]) >= best:
                continue
            if len(outer) == 0:
                outer, facts = bd.buffer_tiles(layer, elements, rounds, divisors, numbers, s)
                across, kept = np.empty((len(outer), 4)), np.empty(len(outer), dtype=np.int64)
            outer_parts(
                facts, traffic, elements, keep, bypass, masks[KEEP_OUTER], least, chip, across, kept
            )
            best = search_pairs(
                layer, chip, multicast, elements, rounds, orders, powers, best, best_code, stats,
                tiles, inside, lowest, outer, facts, across, kept, keep, bypass, constant, slowest, s, counts, parts,
            )  # fmt: skip
    return best


@kernel
def outer_factorisations(rounds: Any, tile: Any, divisors: Any, numbers: Any) -> int:
    """Ways to write what a register tile leaves of the rounds as buffer and DRAM loops."""
    chains = 1
    for d in range(8):
        rest, ways = rounds[d] // tile[d], 0
        for index in range(numbers[d]):
            ways += rest % divisors[d, index] == 0
        chains *= ways
    return chains


@kernel
def cycles_of_rounds(rounds: Any, chip: Any) -> float:
    """Compute time of a split: every element works in every round, whatever the tiles."""
    cycles = 1.0 / chip[el.RATE]
    for d in range(8):
        cycles *= rounds[d]
    return cycles


@kernel
def split_bounds(layer: Any, chip: Any, elements: Any, rounds: Any, powers: Any) -> Any:
    """Least value of any mapping of each split: all elements are served, every word moves once, the buffer costs nothing."""
    s, nothing, bounds = np.zeros(ct.SCRATCH), np.zeros(4), np.empty(len(elements))
    least = least_words(layer, s)
    for split in range(len(elements)):
        floor = np.zeros(4)
        for tensor in range(3):
            sent = least[tensor]
            for d in range(8):
                sent *= 1 if ct.RELEVANCE[tensor, d] else elements[split, d]
            _add_least(tensor, least, sent, chip, floor)
        constant = bd.constant_energy(layer, elements[split], chip)
        bounds[split] = bd.bound(
            constant,
            cycles_of_rounds(rounds[split], chip),
            floor,
            nothing,
            chip,
            powers[0],
            powers[1],
        )
    return bounds


@kernel
def least_words(layer: Any, s: Any) -> Any:
    """Words of each tensor: what has to move at least once."""
    for d in range(8):
        s[ct.EXTENT, d] = layer[d]
    least = np.empty(3)
    for tensor in range(3):
        least[tensor] = el.tile_words(tensor, s, ct.EXTENT, layer)
    return least


@kernel
def _add_least(tensor: int, least: Any, sent: float, chip: Any, out: Any) -> None:
    """The cheapest life of a tensor: once over DRAM; past the buffer, if that is cheaper and lighter for its port."""
    added = np.zeros(4)
    bd.add_array(tensor, least[tensor], sent, least[O], True, chip, added)
    out[0] += added[0]
    out[1] += added[1]
    out[3] += added[3]


@kernel
def inner_parts(
    traffic: Any, keep: int, bypass: int, outputs: float, chip: Any, inside: Any
) -> Any:
    """Energy and bits that a register tile costs for the two tensors that the inner loops refetch; the least of each."""
    lowest = np.full(4, np.inf)
    for a in range(len(inside)):
        for column in range(4):
            inside[a, column] = 0.0
        for tensor in range(3):
            if tensor != keep:
                full, sent = traffic[a, bd.ARRAY_FULL + tensor], traffic[a, bd.SENT_FULL + tensor]
                bd.add_array(tensor, full, sent, outputs, bypass >> tensor & 1 > 0, chip, inside[a])
        for column in range(4):
            lowest[column] = min(lowest[column], inside[a, column])
    return lowest


@kernel
def _least_outer(traffic: Any, keep: int, bypass: int, least: Any, chip: Any, out: Any) -> None:
    """Least cost of everything that the buffer tile decides."""
    out[:] = 0.0
    words, sent = traffic[:, bd.ARRAY_ONCE + keep].min(), traffic[:, bd.SENT_ONCE + keep].min()
    bd.add_array(keep, words, sent, least[O], bypass >> keep & 1 > 0, chip, out)
    for tensor in range(3):
        if not bypass >> tensor & 1:
            bd.add_dram(tensor, least[tensor], least[O], chip, out)


@kernel
def outer_parts(
    facts: Any,
    traffic: Any,
    elements: Any,
    keep: int,
    bypass: int,
    allowed: int,
    least: Any,
    chip: Any,
    across: Any,
    kept: Any,
) -> None:
    """Energy and bits that a buffer tile costs: DRAM, with the best tensor in place, and the tensor kept by the inner loops.

    Infinite where the tile does not fit the buffer even with finished outputs.
    """
    words, sent = traffic[:, bd.ARRAY_ONCE + keep].min(), traffic[:, bd.SENT_ONCE + keep].min()
    for d in range(8):
        if not ct.RELEVANCE[keep, d]:
            sent /= elements[d]
    for b in range(len(facts)):
        across[b, :] = np.inf
        if not bd.fits_buffer(facts[b], False, bypass, chip):
            continue
        across[b, :] = 0.0
        bd.add_array(
            keep,
            words * facts[b, bd.REPEATS + keep],
            sent * facts[b, bd.ACTIVE + keep],
            least[O],
            bypass >> keep & 1 > 0,
            chip,
            across[b],
        )
        saved, kept[b] = -1.0, -1
        for tensor in range(3):
            full = facts[b, bd.DRAM_FULL + tensor]
            if not bypass >> tensor & 1:
                bd.add_dram(tensor, full, least[O], chip, across[b])
            if allowed >> tensor & 1:
                width = 2.0 * chip[el.BITS_SUM] if tensor == O else chip[el.BITS_W + tensor]
                bits = (
                    0.0
                    if bypass >> tensor & 1
                    else (full - full / facts[b, bd.REPEATS + tensor]) * width
                )
                if bits > saved:
                    saved, kept[b] = bits, tensor
        across[b, 0] -= saved * (chip[el.E_DRAM] + chip[el.E_BUFFER])
        across[b, 1] -= saved


@kernel
def search_pairs(
    layer: Any, chip: Any, multicast: bool, elements: Any, rounds: Any, orders: Any, powers: Any, best: float, best_code: Any, stats: Any,
    tiles: Any, inside: Any, lowest: Any, outer: Any, facts: Any, across: Any, kept: Any, keep: int, bypass: int, constant: float,
    slowest: float, s: Any, counts: Any, parts: Any,
) -> float:  # fmt: skip
    """Visits pairs of register and buffer tiles in the order of their bound."""
    key = 0 if powers[0] > 0.0 else 1
    least_across = np.full(4, np.inf)
    for b in range(len(across)):
        for column in range(4):
            least_across[column] = min(least_across[column], across[b, column])
    if np.isinf(least_across[0]):
        return best
    left = candidates(inside, least_across, constant, slowest, chip, powers, best, key)
    right = candidates(across, lowest, constant, slowest, chip, powers, best, key)
    code, edge_a, edge_b = np.ones(65, dtype=np.int64), lowest.copy(), least_across.copy()
    for a in left:
        edge_a[key] = inside[a, key]
        if bd.bound(constant, slowest, edge_a, least_across, chip, powers[0], powers[1]) >= best:
            break
        partial = False
        for d in (3, 6, 7):
            partial |= rounds[d] > tiles[a, d]
        for b in right:
            edge_b[key] = across[b, key]
            if bd.bound(constant, slowest, inside[a], edge_b, chip, powers[0], powers[1]) >= best:
                break
            stats[PAIRS] += 1
            if not _divides(rounds, tiles[a], outer[b]) or not bd.fits_buffer(
                facts[b], partial, bypass, chip
            ):
                continue
            if (
                bd.bound(constant, slowest, inside[a], across[b], chip, powers[0], powers[1])
                >= best
            ):
                continue
            bd.set_tiles(code, elements, rounds, tiles[a], outer[b])
            best = _try(
                layer,
                chip,
                multicast,
                code,
                orders,
                keep,
                kept[b],
                bypass,
                powers,
                best,
                best_code,
                stats,
                s,
                counts,
                parts,
            )
    return best


@kernel
def candidates(
    own: Any,
    other: Any,
    constant: float,
    slowest: float,
    chip: Any,
    powers: Any,
    best: float,
    key: int,
) -> Any:
    """Rows that could win with the best of the other list, by ascending key."""
    rows = np.empty(len(own), dtype=np.int64)
    found = 0
    for row in range(len(own)):
        if bd.bound(constant, slowest, own[row], other, chip, powers[0], powers[1]) < best:
            rows[found] = row
            found += 1
    values = np.empty(found)
    for index in range(found):
        values[index] = own[rows[index], key]
    return rows[:found][np.argsort(values)]


@kernel
def _divides(rounds: Any, tile: Any, outer: Any) -> bool:
    whole = True
    for d in range(8):
        whole &= rounds[d] == 1 or rounds[d] % (tile[d] * outer[d]) == 0
    return whole


@kernel
def _try(
    layer: Any, chip: Any, multicast: bool, code: Any, orders: Any, keep: int, keep_outer: int, bypass: int, powers: Any,
    best: float, best_code: Any, stats: Any, s: Any, counts: Any, parts: Any,
) -> float:  # fmt: skip
    """Asks the kernel what a mapping costs, and remembers it if it is the best."""
    for position in range(8):
        code[ct.BUFFER_ORDER + position], code[ct.DRAM_ORDER + position] = (
            orders[keep, position],
            orders[keep_outer, position],
        )
    code[ct.BYPASS] = bypass
    stats[EVALUATED] += 1
    value = bd.exact_value(layer, chip, multicast, code, s, counts, parts, powers[0], powers[1])
    if value < best:
        best_code[:] = code
        return value
    return best


@kernel
def search_crossing(
    layer: Any, chip: Any, multicast: bool, elements: Any, rounds: Any, divisors: Any, numbers: Any, orders: Any, powers: Any, best: float,
    best_code: Any, stats: Any, tiles: Any, traffic: Any, inside: Any, keep: int, bypass: int, least: Any, constant: float, slowest: float,
    s: Any, counts: Any, parts: Any,
) -> float:  # fmt: skip
    """The case that the two lists do not cover: a tensor stays in the array across buffer tiles.

    It needs buffer tiles that hold one array tile along every loop that moves over the tensor; the register tile then
    fixes the outer loops but for those that do not move over it.
    """
    code, outer, extra, nothing = (
        np.ones(65, dtype=np.int64),
        np.ones(8, dtype=np.int64),
        np.zeros(4),
        np.zeros(4),
    )
    for a in range(len(tiles)):
        extra[:] = 0.0
        bd.add_array(
            keep,
            traffic[a, bd.ARRAY_ONCE + keep],
            traffic[a, bd.SENT_ONCE + keep],
            least[O],
            bypass >> keep & 1 > 0,
            chip,
            extra,
        )
        for tensor in range(3):
            if not bypass >> tensor & 1:
                words = least[tensor]
                if tensor != keep:
                    for d in range(8):
                        words *= 1.0 if ct.RELEVANCE[tensor, d] else rounds[d] // tiles[a, d]
                bd.add_dram(tensor, words, least[O], chip, extra)
        for column in range(4):
            extra[column] += inside[a, column]
        if bd.bound(constant, slowest, extra, nothing, chip, powers[0], powers[1]) >= best:
            continue
        for d in range(8):
            outer[d] = rounds[d] // tiles[a, d] if ct.RELEVANCE[keep, d] else 1
        while True:
            if _divides(rounds, tiles[a], outer):
                bd.set_tiles(code, elements, rounds, tiles[a], outer)
                best = _try(
                    layer,
                    chip,
                    multicast,
                    code,
                    orders,
                    keep,
                    keep,
                    bypass,
                    powers,
                    best,
                    best_code,
                    stats,
                    s,
                    counts,
                    parts,
                )
            if not _next_outer(outer, keep, divisors, numbers):
                break
    return best


@kernel
def _next_outer(outer: Any, keep: int, divisors: Any, numbers: Any) -> bool:
    """Moves the loops that do not move over the tensor on to their next divisors; False after the last."""
    for d in range(8):
        if ct.RELEVANCE[keep, d]:
            continue
        for index in range(numbers[d]):
            if divisors[d, index] == outer[d]:
                if index + 1 < numbers[d]:
                    outer[d] = divisors[d, index + 1]
                    return True
                outer[d] = 1
                break
    return False
