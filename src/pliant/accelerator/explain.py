"""Why is a layer slow, and where does its energy go? In words, and as bars of text.

`reasons` says what bounds the latency and what it would take to move the bound; the report shows
the same sentences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from pliant.accelerator.chip import DIMS, Chip
from pliant.accelerator.mapper.optimal import BestMapping
from pliant.accelerator.mapping import format_mapping, layer_sizes
from pliant.accelerator.model.tiles import tile_words

TENSOR_NAMES = {"W": "weights", "I": "inputs", "O": "outputs"}
PART_NAMES = {
    "mac": "arithmetic",
    "register": "registers",
    "noc": "network on chip",
    "buffer": "global buffer",
    "dram": "DRAM",
    "idle": "idling",
    "compute": "compute",
}
NOT_MODELLED = (
    "Not modelled: fill and drain of a systolic array, ports of its own for each tensor "
    "(docs/accelerator_validation.md)."
)
_BAR = 40


@dataclass(frozen=True, slots=True)
class Tile:
    """Words of one tensor's tile at one level; None where the tensor bypasses it."""

    tensor: str
    level: str
    words: int | None


def tiles(best: BestMapping) -> tuple[Tile, ...]:
    """The tile of each tensor in the registers of a PE, in the array, in the buffer, in DRAM."""
    layer, mapping = best.layer, best.mapping
    sizes = layer_sizes(layer)
    register = list(mapping.register)
    array = [
        min(tile * wide, size)
        for tile, wide, size in zip(register, mapping.pes, sizes, strict=True)
    ]
    buffer = [
        min(extent * count, size)
        for extent, count, size in zip(array, mapping.buffer, sizes, strict=True)
    ]
    levels = {"register": register, "array": array, "buffer": buffer, "dram": list(sizes)}
    found = []
    for level, extents in levels.items():
        for tensor in "WIO" if layer.weighted else "IO":
            words: int | None = tile_words(layer, tensor, [[extent] for extent in extents])
            if level == "buffer" and tensor in mapping.bypass:
                words = None
            elif level == "register" and tensor == "I" and layer.kind == "elementwise":
                words = tile_words(
                    replace(layer, inputs=layer.inputs[:1]), tensor, [[e] for e in extents]
                )
            found.append(Tile(tensor, level, words))
    return tuple(found)


def reasons(best: BestMapping, chip: Chip) -> tuple[str, ...]:
    """Sentences about latency, utilisation and energy, the most important first."""
    cost, mapping = best.cost, best.mapping
    said = [_latency_reason(best, chip)]
    used = math.prod(mapping.pes)
    if used < chip.pes:
        spread = ", ".join(
            f"{axis.name} {_spread(factors)}"
            for axis, factors in zip(chip.axes, mapping.spatial, strict=True)
        )
        said.append(
            f"{used} of {chip.pes} PEs have work ({spread}): the loops that can be unrolled over "
            "the axes do not fill them."
        )
    steps = math.prod(
        -(-size // wide) for size, wide in zip(layer_sizes(best.layer), mapping.pes, strict=True)
    )
    full = cost.counts["operations"] / (steps * used)
    if full < 0.98:
        said.append(
            f"Of the PEs in use, {1 - full:.0%} idle at the edges, where sizes do not divide by "
            "the unrolling."
        )
    name, energy = max(cost.energy_parts.items(), key=lambda item: item[1])
    said.append(f"{energy / cost.energy:.0%} of the energy goes to {PART_NAMES[name]}.")
    moved = {"W": cost.counts["dram_weight_reads"], "I": cost.counts["dram_input_reads"]}
    moved["O"] = cost.counts["dram_output_writes"] + cost.counts["dram_sum_reads"]
    whole = {tile.tensor: tile.words for tile in tiles(best) if tile.level == "dram"}
    for tensor, words in moved.items():
        least = whole.get(tensor) or 0
        if least and words > 1.05 * least:
            said.append(
                f"{TENSOR_NAMES[tensor].capitalize()} cross the DRAM interface "
                f"{words / least:.1f} times over."
            )
    if mapping.bypass:
        names = " and ".join(TENSOR_NAMES[tensor] for tensor in mapping.bypass)
        said.append(f"{names.capitalize()} bypass the global buffer.")
    return tuple(said)


def _latency_reason(best: BestMapping, chip: Chip) -> str:
    cost = best.cost
    others = sorted(cost.time_cycles.items(), key=lambda item: -item[1])
    (slowest, cycles), (second, next_cycles) = others[0], others[1]
    room = (
        f"{PART_NAMES[second]} would be next, at {next_cycles / cycles:.0%} of it"
        if next_cycles
        else "nothing else takes time"
    )
    name = PART_NAMES[slowest]
    start = f"{name[0].upper()}{name[1:]} is the bottleneck ({cycles:,.0f} cycles); {room}."
    if slowest == "dram":
        more = f"{cycles / next_cycles:.1f} times" if next_cycles else "More of"
        rate = chip.dram_bandwidth_bytes_per_cycle
        return f"{start} {more} the bandwidth ({rate:g} B per cycle) would move the bound."
    if slowest == "buffer":
        rate = chip.buffer.bandwidth_bytes_per_cycle
        return f"{start} The port between buffer and array carries {rate:g} B per cycle."
    if slowest == "noc":
        rate = chip.registers.bandwidth_bytes_per_cycle
        return f"{start} The network delivers {rate:g} B per cycle to all PEs together."
    return f"{start} The array does {cost.utilisation:.0%} of what it could."


def _spread(factors: tuple[int, ...]) -> str:
    return (
        " ".join(f"{dim}*{count}" for dim, count in zip(DIMS, factors, strict=True) if count > 1)
        or "unused"
    )


def _steps(name: str, pair: tuple[int, int]) -> str:
    """Strides or dilations in words; nothing where every step is 1."""
    if pair == (1, 1):
        return ""
    return f" {name}={pair[0]}" if pair[0] == pair[1] else f" {name}={pair[0]}x{pair[1]}"


def explanation(best: BestMapping, chip: Chip) -> str:
    """Everything about one layer as text: nest, tiles, bars of time and energy, reasons, proof."""
    layer, cost = best.layer, best.cost
    sizes = " ".join(
        f"{dim}={size}" for dim, size in zip(DIMS, layer_sizes(layer), strict=True) if size > 1
    )
    stride = _steps("stride", layer.strides) + _steps("dilation", layer.dilations)
    lines = [
        f"{layer.name} ({layer.kind}) {sizes}{stride} on {chip.name}, best for {best.objective}",
        "",
    ]
    lines += [format_mapping(best.mapping, [axis.name for axis in chip.axes]), ""]
    lines += ["tile in words    register        array       buffer         DRAM"]
    held = {(tile.tensor, tile.level): tile.words for tile in tiles(best)}
    for tensor in dict.fromkeys(tensor for tensor, _ in held):
        words = [held[tensor, level] for level in ("register", "array", "buffer", "dram")]
        lines.append(
            f"{TENSOR_NAMES[tensor]:12}"
            + "".join(f"{'bypass' if count is None else format(count, ','):>13}" for count in words)
        )
    lines += [
        "",
        f"time: {cost.cycles:,.0f} cycles, {cost.latency_ms:.4g} ms, "
        f"utilisation {cost.utilisation:.1%}",
    ]
    lines += _bars(cost.time_cycles, cost.cycles)
    unit = "uJ" if cost.energy_unit == "picojoule" else "million MAC energies"
    lines += ["", f"energy: {cost.energy / 1e6:,.4g} {unit}"]
    lines += _bars(cost.energy_parts, cost.energy)
    lines += ["", *reasons(best, chip), "", proof(best), NOT_MODELLED]
    return "\n".join(lines)


def _bars(parts: dict[str, float], whole: float) -> list[str]:
    rows = []
    for name, value in parts.items():
        if value > 0:
            share = value / whole
            bar = "█" * round(_BAR * share)
            rows.append(f"  {PART_NAMES[name]:16} {bar:{_BAR}} {share:6.1%}")
    return rows


def proof(best: BestMapping) -> str:
    """The certificate as a sentence."""
    c = best.certificate
    if not c.airtight:
        return (
            f"The best that was found of {c.mappings:,} mappings, not proven: the bounds do not "
            f"hold for a dataflow that fixes which tensors stay in place; {c.seconds:.2f} s."
        )
    if c.complete and c.allowed_gap > 0.0 and not c.proven:
        return (
            f"Within {100 * c.gap:.3g} % of the best, as asked for: no mapping of the "
            f"{c.mappings:,} in the space is better by more; {c.seconds:.2f} s."
        )
    if not c.proven:
        return (
            f"Not proven: the time was up. No mapping of the {c.mappings:,} in the space is more "
            f"than {c.gap:.1%} better."
        )
    return (
        f"Proven best of {c.mappings:,} mappings: {c.evaluated:,} costed exactly, "
        f"{c.pruned_by_spatial_bound:,} pruned by the spatial bound, {c.pruned_by_tiles:,} too "
        f"large for a memory or pruned by the traffic bound; gap 0, {c.seconds:.2f} s."
        + ("" if c.ties_settled else " The time was up before the cheapest of equals was known.")
    )
