"""Which of Timeloop's published counts does the model reproduce? Every level of the fixtures.

    python benchmarks/accelerator_timeloop.py ../shared/data/accelerator_reference.json

Timeloop's hierarchies are deeper than three levels, so each pair of neighbouring levels of a tensor
is costed alone: the loops above the inner one are its DRAM loops, the spatial loops between the two
its array.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pliant.accelerator.chip import DIMS, Axis, Chip, Memory
from pliant.accelerator.energy import TABLES
from pliant.accelerator.mapping import RELEVANT, Mapping
from pliant.accelerator.model.cost import evaluate
from pliant.workload import Layer

TENSORS = {"Weights": "W", "Inputs": "I", "Outputs": "O"}
ROOMY = Memory(1e15)
Loop = tuple[str, int, bool]
"""Loop, bound, whether it is spatial."""


@dataclass(frozen=True)
class Entry:
    """One published count, and ours."""

    case: str
    level: str
    tensor: str
    what: str
    published: int
    ours: int


def parse(lines: list[str]) -> list[tuple[str, Any]]:
    """The nest, outermost first: ("level", (name, held)) and ("loop", (dim, bound, spatial))."""
    nest: list[tuple[str, Any]] = []
    for line in lines:
        if match := re.match(r"\|\s*for (\w) in \[0:(\d+)\)(.*)", line):
            nest.append(
                ("loop", (match[1].replace("M", "K"), int(match[2]), "Spatial" in match[3]))
            )
        elif match := re.match(r"(\w+) \[(.*)\]", line):
            nest.append(("level", (match[1], [name for name in TENSORS if f"{name}:" in match[2]])))
    return nest


def layer_of(loops: list[Loop], stride: int) -> Layer:
    sizes = dict.fromkeys(DIMS, 1)
    for dim, bound, _ in loops:
        sizes[dim] *= bound
    strides = (stride, stride)
    return Layer("fixture", "conv", ("image",), **sizes, strides=strides)  # type: ignore[arg-type]


def cut_of(temporal: list[tuple[str, int]]) -> int | None:
    """Where the loops split into two levels that hold every loop at most once."""
    names = [dim for dim, _ in temporal]
    for index in range(len(names) + 1):
        if len(set(names[:index])) == index and len(set(names[index:])) == len(names) - index:
            return index
    return None


def split_twice(temporal: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """A third loop over output rows or columns becomes one over images.

    Images move over the same tensors.
    """
    if cut_of(temporal) is not None:
        return temporal
    for index, (dim, bound) in enumerate(temporal[:-1]):
        renamed = [*temporal[:index], ("N", bound), *temporal[index + 1 :]]
        if dim in "PQ" and cut_of(renamed) is not None:
            return renamed
    raise ValueError(f"three loops over one size above a level: {temporal}")


def merge(loops: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Neighbouring loops over one size are one loop."""
    merged: list[tuple[str, int]] = []
    for dim, bound in loops:
        if merged and merged[-1][0] == dim:
            merged[-1] = (dim, merged[-1][1] * bound)
        else:
            merged.append((dim, bound))
    return merged


def pair_counts(
    tensor: str, outer: list[Loop], below: list[Loop], parent_loops: int, stride: int
) -> tuple[dict[str, int], int]:
    """Counts between a level and the next one inwards, per outer instance; and inner instances.

    Args:
        tensor: whose counts will be read.
        outer: loops above the inner level, outermost first.
        below: loops below it.
        parent_loops: how many of `outer` are above the outer level; spatial ones there belong to
            other instances.
        stride: of the layer.
    """
    # Innermost loops that do not move over the tensor change none of its traffic: where there are
    # too many loops for two levels, they go into the inner tile. (Not otherwise: the halo option
    # looks at the innermost loop.)
    crowded = cut_of(merge([(dim, bound) for dim, bound, spatial in outer if not spatial])) is None
    while crowded and outer and not outer[-1][2] and outer[-1][0] not in RELEVANT[tensor]:
        outer, below = outer[:-1], [outer[-1], *below]
    merged = merge([(dim, bound) for dim, bound, spatial in outer if not spatial])
    temporal = split_twice(merged)
    spread = [loop for index, loop in enumerate(outer) if loop[2] and index >= parent_loops]
    layer = layer_of(
        [loop for index, loop in enumerate(outer) if not loop[2] or index >= parent_loops] + below,
        stride,
    )
    cut = cut_of(temporal)
    upper, lower = temporal[:cut], temporal[cut:]
    for (old, bound), (new, _) in zip(merged, temporal, strict=True):
        if old != new:
            sizes = {"N": bound, old: getattr(layer, old) // bound}
            layer = replace(layer, **sizes)  # type: ignore[arg-type]

    def factors(loops: list[tuple[str, int]]) -> tuple[int, ...]:
        return tuple(math.prod(bound for dim, bound in loops if dim == name) for name in DIMS)

    def order(loops: list[tuple[str, int]]) -> str:
        used = [dim for dim, _ in loops]
        return "".join([dim for dim in DIMS if dim not in used] + used)

    register = factors([(dim, bound) for dim, bound, _ in below])
    spatial = factors([(dim, bound) for dim, bound, _ in spread])
    mapping = Mapping(
        register, (spatial,), factors(lower), factors(upper), order(lower), order(upper)
    )  # type: ignore[arg-type]
    chip = Chip("roomy", (Axis("all", 2**20, max_loops=8),), ROOMY, ROOMY, TABLES["eyeriss"], 1.0)
    return evaluate(layer, chip, mapping, halo=True).counts, math.prod(spatial)


def compare(case: dict[str, Any]) -> Iterator[Entry]:
    """Every fill of an inner level, and every read and update of the level that feeds it."""
    name = "/".join(
        part
        for part in case["source"].split("/")
        if re.match(r"\d\d-|simba|simple", part)
        or part in ("os", "ws", "no-tiling", "tiling", "cp", "kp", "freebypass", "null")
    )
    nest = parse(case["mapping"])
    loops = [(position, item) for position, (kind, item) in enumerate(nest) if kind == "loop"]
    inputs = next(
        (
            tensors["Inputs"]["partition"]
            for tensors in [case["levels"][level]["tensors"] for level in reversed(case["levels"])]
            if "Inputs" in tensors
        ),
        0,
    )
    stride = 2 if inputs == 151875 else 1
    for tensor, letter in TENSORS.items():
        holders = [
            (position, item[0])
            for position, (kind, item) in enumerate(nest)
            if kind == "level" and tensor in item[1]
        ]
        for index, (position, level) in enumerate(holders):
            published = case["levels"][level]["tensors"][tensor]
            below = [loop for place, loop in loops if place > position]
            if index + 1 < len(holders):
                inner_position, inner = holders[index + 1]
                outer = [loop for place, loop in loops if place < inner_position]
                inside = [loop for place, loop in loops if place > inner_position]
                counts, instances = pair_counts(
                    letter, outer, inside, sum(place < position for place, _ in loops), stride
                )
                fills = case["levels"][inner]["tensors"][tensor]["fills"]
                if letter == "O":
                    yield Entry(
                        name, inner, tensor, "fills", fills, counts["restored_sums"] // instances
                    )
                    yield Entry(
                        name, level, tensor, "reads", published["reads"], counts["array_sum_reads"]
                    )
                    yield Entry(
                        name,
                        level,
                        tensor,
                        "updates",
                        published["updates"],
                        counts["array_output_writes"],
                    )
                else:
                    kind = "weight" if letter == "W" else "input"
                    yield Entry(
                        name,
                        inner,
                        tensor,
                        "fills",
                        fills,
                        counts[f"delivered_{kind}s"] // instances,
                    )
                    yield Entry(
                        name,
                        level,
                        tensor,
                        "reads",
                        published["reads"],
                        counts[f"array_{kind}_reads"],
                    )
            else:
                operations = math.prod(
                    bound for _, bound, spatial in (item for _, item in loops) if not spatial
                )
                # Elements that need the same word share one read.
                between = math.prod(
                    bound for dim, bound, spatial in below if spatial and dim in RELEVANT[letter]
                )
                ours = operations * between
                yield Entry(
                    name,
                    level,
                    tensor,
                    "updates" if letter == "O" else "reads",
                    published["updates" if letter == "O" else "reads"],
                    ours,
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "reference", type=Path, nargs="?", default="../shared/data/accelerator_reference.json"
    )
    reference = json.loads(parser.parse_args().reference.read_text(encoding="utf-8"))
    cases = reference["timeloop_fixtures"]["cases"]
    entries = [entry for case in cases for entry in compare(case)]
    # Here, since a test loads this file for `compare` alone.
    from result import publish

    unequal = [asdict(entry) for entry in entries if entry.published != entry.ours]
    publish(
        "accelerator_timeloop", unequal, entries=len(entries), equal=len(entries) - len(unequal)
    )


if __name__ == "__main__":
    main()
