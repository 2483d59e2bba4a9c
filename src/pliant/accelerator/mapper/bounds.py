"""The inner part of the mapper: the best mapping for one spatial split, compiled with Numba.

With the split fixed, energy is a sum of a part that depends on the register tile alone and a part that depends on the
buffer tile alone (docs/accelerator.md derives it). For each set of bypassed tensors and each tensor kept in place by
the inner loops, both lists are sorted and pairs are visited in order of their bound until no pair can beat the best
mapping so far. What a pair really costs is asked of the tested kernel, so a bound can only cost time, never truth.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pliant.accelerator.model import counts as ct
from pliant.accelerator.model import energy_latency as el
from pliant.accelerator.model.counts import O, kernel

# Columns of a list of register tiles: traffic of each tensor if the inner loops refetch it, and if they do not.
ARRAY_FULL, SENT_FULL, ARRAY_ONCE, SENT_ONCE = 0, 3, 6, 9
# Columns of a list of buffer tiles: DRAM words if refetched, words of the tile, refetches of each tensor, of its elements.
DRAM_FULL, TILE_WORDS, REPEATS, ACTIVE = 0, 3, 6, 9


@kernel
def objective(energy: float, cycles: float, energy_power: float, cycles_power: float) -> float:
    """What is minimised: energy^a cycles^b."""
    if energy_power == 1.0 and cycles_power == 1.0:
        return energy * cycles
    return float(energy**energy_power * cycles**cycles_power)


@kernel
def split_code(elements: Any) -> Any:
    """The code of a mapping of which only the spatial split is known."""
    code = np.ones(65, dtype=np.int64)
    code[ct.BYPASS] = 0
    for d in range(8):
        code[ct.AXES + d] = elements[d]
    return code


@kernel
def register_tiles(
    layer: Any,
    chip: Any,
    multicast: bool,
    elements: Any,
    rounds: Any,
    divisors: Any,
    numbers: Any,
    s: Any,
) -> tuple[Any, Any]:
    """Every register tile that fits, and its traffic (the columns above).

    Args:
        layer: as `counts.layer_vector`.
        chip: as `el.chip_vector`.
        multicast: whether a word for several elements is read once.
        elements: by loop.
        rounds: of the array over each loop.
        divisors: of the rounds, ascending, one row a loop.
        numbers: how many divisors each row has.
        s: scratch.
    """
    tiles, traffic = np.ones((256, 8), dtype=np.int64), np.empty((256, 12))
    code = split_code(elements)
    digit = np.zeros(8, dtype=np.int64)
    found, depth = 0, 0
    for d in range(8):
        s[ct.TILE, d] = 1.0
    # Depth first; a tile that does not fit is not grown along later loops, nor further along this one.
    while depth >= 0:
        if depth == 8:
            if found == len(tiles):
                tiles, traffic = np.concatenate((tiles, tiles)), np.concatenate((traffic, traffic))
            for d in range(8):
                tile = divisors[d, digit[d]]
                tiles[found, d] = code[d] = tile
                code[ct.BUFFER + d], code[ct.DRAM + d] = rounds[d] // tile, 1
            _tile_traffic(layer, code, multicast, s, traffic[found])
            found += 1
            depth -= 1
            digit[depth] += 1
            continue
        if digit[depth] < numbers[depth]:
            s[ct.TILE, depth] = divisors[depth, digit[depth]]
            for d in range(depth + 1, 8):
                s[ct.TILE, d] = 1.0
            if el.register_excess(layer, s, chip) == 0.0:
                depth += 1
                if depth < 8:
                    digit[depth] = 0
                continue
        s[ct.TILE, depth] = 1.0
        depth -= 1
        if depth >= 0:
            digit[depth] += 1
    return tiles[:found], traffic[:found]


@kernel
def _tile_traffic(layer: Any, code: Any, multicast: bool, s: Any, out: Any) -> None:
    """Traffic of one register tile: words into the array and at the elements, refetched by every other loop, or never."""
    ct.prepare(layer, code, s)
    for d in range(8):
        s[ct.PART, d] = ct.ALL
    for tensor in range(3):
        words = ct.moved_words(tensor, s, float(layer[8]), float(layer[9]), False)
        sent = ct.moved_words(tensor, s, float(layer[8]), float(layer[9]), True)
        scale = float(layer[10 + tensor]) if tensor != O else 1.0
        full, full_sent, once_sent = words, sent, sent
        for d in range(8):
            if not ct.RELEVANCE[tensor, d]:
                full *= s[ct.TILES, d]
                full_sent *= s[ct.ALL_ACTIVE, d]
                once_sent *= s[ct.ELEMENTS, d]
        if not multicast and tensor != O:
            full, words = full_sent, once_sent
        out[ARRAY_FULL + tensor], out[SENT_FULL + tensor] = full * scale, full_sent * scale
        out[ARRAY_ONCE + tensor], out[SENT_ONCE + tensor] = words * scale, once_sent * scale


@kernel
def buffer_tiles(
    layer: Any, elements: Any, rounds: Any, divisors: Any, numbers: Any, s: Any
) -> tuple[Any, Any]:
    """Every number of buffer tiles by loop, and what follows from it (the columns above)."""
    total = 1
    for d in range(8):
        total *= numbers[d]
    outer, facts = np.empty((total, 8), dtype=np.int64), np.empty((total, 12))
    digit = np.zeros(8, dtype=np.int64)
    code = split_code(elements)
    for row in range(total):
        for d in range(8):
            dram = divisors[d, digit[d]]
            outer[row, d] = code[ct.DRAM + d] = dram
            code[d] = rounds[d] // dram
        # The whole block as one register tile: the same extents, and the fewest active elements in the last block.
        ct.prepare(layer, code, s)
        _block_facts(layer, s, facts[row])
        for d in range(7, -1, -1):
            digit[d] += 1
            if digit[d] < numbers[d]:
                break
            digit[d] = 0
    return outer, facts


@kernel
def _block_facts(layer: Any, s: Any, out: Any) -> None:
    stride, dilation = float(layer[8]), float(layer[9])
    for tensor in range(3):
        scale = float(layer[10 + tensor]) if tensor != O else 1.0
        words, repeats, active = ct.block_words(tensor, s, stride, dilation), 1.0, 1.0
        for d in range(8):
            if not ct.RELEVANCE[tensor, d]:
                repeats *= s[ct.OUTER, d]
                active *= s[ct.BLOCK_ACTIVE, d]
        out[DRAM_FULL + tensor] = words * repeats * scale
        out[REPEATS + tensor], out[ACTIVE + tensor] = repeats, active
        out[TILE_WORDS + tensor] = el.tile_words(tensor, s, ct.EXTENT, layer)


@kernel
def add_array(
    tensor: int, words: float, sent: float, outputs: float, bypassed: bool, chip: Any, out: Any
) -> None:
    """Adds energy and bits on DRAM, port and network of traffic between the array and the buffer (or DRAM)."""
    if tensor == O:
        back = words - outputs
        bits = el.output_bits(words, back, chip)
        delivered = (sent + back) * chip[el.BITS_SUM]
        # An accumulator is read when it leaves and written when it comes back; those that begin at zero are set off elsewhere.
        registers = 2.0 * sent * chip[el.BITS_SUM]
    else:
        bits, delivered = words * chip[el.BITS_W + tensor], sent * chip[el.BITS_W + tensor]
        registers = delivered
    out[0] += (
        bits * (chip[el.E_DRAM] if bypassed else chip[el.E_BUFFER])
        + delivered * chip[el.E_NOC]
        + registers * chip[el.E_REGISTER]
    )
    out[1] += bits if bypassed else 0.0
    out[2] += 0.0 if bypassed else bits
    out[3] += delivered


@kernel
def add_dram(tensor: int, words: float, outputs: float, chip: Any, out: Any) -> None:
    """Adds energy and DRAM bits of traffic between the buffer and DRAM."""
    bits = (
        el.output_bits(words, words - outputs, chip)
        if tensor == O
        else words * chip[el.BITS_W + tensor]
    )
    out[0] += bits * (chip[el.E_DRAM] + chip[el.E_BUFFER])
    out[1] += bits


@kernel
def constant_energy(layer: Any, elements: Any, chip: Any) -> float:
    """Energy that no mapping of this split changes: operations, and their registers."""
    operations, started = 1.0, 1.0
    for d in range(8):
        operations *= layer[d]
        started *= layer[d] if ct.RELEVANCE[O, d] else elements[d]
    bits = (
        operations * (chip[el.BITS_W] * layer[10] + chip[el.BITS_I] * layer[11])
        + 2.0 * (operations - started) * chip[el.BITS_SUM]
    )
    return float(operations * chip[el.E_MAC] + bits * chip[el.E_REGISTER])


@kernel
def bound(
    constant: float,
    slowest: float,
    a: Any,
    b: Any,
    chip: Any,
    energy_power: float,
    cycles_power: float,
) -> float:
    """Least value of any mapping whose energies and bits are at least the sum of two parts."""
    cycles = max(
        slowest,
        (a[1] + b[1]) / chip[el.BW_DRAM],
        (a[2] + b[2]) / chip[el.BW_BUFFER],
        (a[3] + b[3]) / chip[el.BW_NOC],
    )
    return objective(
        constant + a[0] + b[0] + cycles * chip[el.E_IDLE], cycles, energy_power, cycles_power
    )


@kernel
def fits_buffer(facts: Any, partial: bool, bypass: int, chip: Any) -> bool:
    """Whether a buffer tile fits, by the words of its tensors."""
    w = 0.0 if bypass & 1 else facts[TILE_WORDS] * chip[el.BITS_W]
    i = 0.0 if bypass & 2 else facts[TILE_WORDS + 1] * chip[el.BITS_I]
    o = (
        0.0
        if bypass & 4
        else facts[TILE_WORDS + 2] * (chip[el.BITS_SUM] if partial else chip[el.BITS_O])
    )
    return bool(el.excess_bits(w, i, o, chip, el.BUF_W) == 0.0)


@kernel
def set_tiles(code: Any, elements: Any, rounds: Any, tile: Any, outer: Any) -> None:
    """Writes the factors of a mapping into its code."""
    for d in range(8):
        code[d], code[ct.DRAM + d] = tile[d], outer[d]
        code[ct.AXES + d], code[ct.AXES + 8 + d], code[ct.AXES + 16 + d] = elements[d], 1, 1
        code[ct.BUFFER + d] = rounds[d] // (tile[d] * outer[d])


@kernel
def exact_value(
    layer: Any,
    chip: Any,
    multicast: bool,
    code: Any,
    s: Any,
    counts: Any,
    parts: Any,
    energy_power: float,
    cycles_power: float,
) -> float:
    """What a mapping really costs, infinity where it does not fit."""
    ct.count(layer, code, multicast, counts, s)
    bypass = code[ct.BYPASS]
    over = el.register_excess(layer, s, chip) + el.buffer_excess(
        layer, s, el.reduction_is_partial(s), bypass, chip
    )
    if over > 0.0:
        return float(np.inf)
    energy, cycles = el.total_energy_and_cycles(counts, layer, bypass, chip, parts)
    return objective(energy, cycles, energy_power, cycles_power)
