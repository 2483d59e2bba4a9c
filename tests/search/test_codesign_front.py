"""Fronts of accelerators by a judge that counts: nothing twice, nothing lost, the same again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pliant import Record
from pliant.accelerator.chip import Chip, load_chip
from pliant.accelerator.hardware_space import HardwareSpace
from pliant.accelerator.network_mapping import deciding_fields
from pliant.errors import InfeasibleError
from pliant.metrics import Accuracy, Quality
from pliant.runs.design_record import RecordedDesigns
from pliant.search.codesign_front import (
    POPULATION,
    FrontObjectives,
    JointNetworks,
    metric,
    search_designs,
)
from pliant.search.mapped_designs import Design, NetworkCost
from pliant.search.searched_networks import NetworkAccuracies
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.workload import Layer

WITHIN = load_chip("eyeriss")
HARDWARE = HardwareSpace(WITHIN)
OBJECTIVES = FrontObjectives(("latency", "energy", "area"))


class _Judge:
    """More PEs are faster, and each costs energy; designs of odd port width cannot run."""

    genes = 0
    identity = "by hand"

    def __init__(self, fails: bool = False) -> None:
        self.judged: list[Chip] = []
        self.fails = fails

    def key(self, genes: np.ndarray) -> str:
        return ""

    def design(self, chip: Chip, vector: Sequence[float]) -> Design:
        self.judged.append(chip)
        if self.fails or chip.pes % 5 == 0:
            return Design(chip, tuple(vector), {}, failure="it does not fit")
        cost = NetworkCost(1e6 / chip.pes, chip.pes + chip.registers.total_bytes, proven=True)
        return Design(chip, tuple(vector), {"a": cost})


def _search(judge: _Judge, designs: int = 60, seed: int = 0, **options) -> list[Design]:
    found = search_designs(HARDWARE, judge, OBJECTIVES, designs=designs, seed=seed, **options)
    return list(found)


def test_the_front_is_that_of_comparing_all_pairs() -> None:
    designs = _search(_Judge())
    mapped = [one for one in designs if one.costs]
    assert len(mapped) < len(designs) == 60, "some cannot run"

    def beats(one: Design, other: Design) -> bool:
        pairs = [(metric(one, name), metric(other, name)) for name in OBJECTIVES.names]
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    expected = [one for one in mapped if not any(beats(other, one) for other in mapped)]
    front = OBJECTIVES.front(designs)
    assert {id(one) for one in front} == {id(one) for one in expected}
    latencies = [metric(one, "latency") for one in front]
    assert latencies == sorted(latencies)
    assert OBJECTIVES.front([]) == []


def test_no_design_is_judged_twice_and_the_given_chip_is_among_the_first() -> None:
    judge = _Judge()
    _search(judge)
    fields = [repr(deciding_fields(chip)) for chip in judge.judged]
    assert len(set(fields)) == len(fields) == 60
    sizes = [tuple(axis.size for axis in chip.axes) for chip in judge.judged[:POPULATION]]
    assert tuple(axis.size for axis in WITHIN.axes) in sizes


def test_a_longer_search_begins_as_a_shorter_one_and_another_seed_elsewhere() -> None:
    short, long, other = (
        [one.vector for one in _search(_Judge(), designs, seed)]
        for designs, seed in ((30, 0), (50, 0), (30, 1))
    )
    assert long[:30] == short
    assert other != short


def test_a_resumed_search_judges_nothing_again(tmp_path: Path) -> None:
    with Record.open(tmp_path / "record.sqlite", recipe_digest="1") as record:
        first, judge = _Judge(), _Judge()
        before = _search(first, 40, memory=RecordedDesigns(record))
        after = _search(judge, 40, memory=RecordedDesigns(record))
    assert len(first.judged) == 40
    assert judge.judged == []
    assert [one.vector for one in after] == [one.vector for one in before]
    assert [one.costs for one in after] == [one.costs for one in before]
    assert [one.failure for one in after] == [one.failure for one in before]


def test_where_nothing_runs_the_reason_is_told() -> None:
    with pytest.raises(InfeasibleError, match=f"none of {POPULATION} designs.*does not fit"):
        _search(_Judge(fails=True))


class _Known:
    """The accuracy of a network is the share of its choices that are at their last option."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def estimate(self, architectures: Sequence[Architecture]) -> list[Quality]:
        return [Accuracy(float(np.mean(self._last(one))), 10) for one in architectures]

    def _last(self, one: Architecture) -> list[bool]:
        chosen = one.mapping
        return [chosen.get(choice.name) == choice.options[-1] for choice in self.space.choices]


def _mapper(layer: Layer, chip: object, limit: float = math.inf) -> SimpleNamespace:
    cost = SimpleNamespace(energy=1.0 + layer.macs, cycles=2.0)
    return SimpleNamespace(cost=cost, certificate=SimpleNamespace(proven=True))


def test_genes_reach_every_option_of_every_choice(toy_space: Space) -> None:
    judge = JointNetworks(NetworkAccuracies(toy_space, _Known(toy_space)), _mapper, "")
    assert judge.genes == len(toy_space.choices)
    found: dict[str, set[object]] = {choice.name: set() for choice in toy_space.choices}
    for genes in itertools.product([0.0, 0.5, 1.0], repeat=judge.genes):
        for name, option in toy_space.parse(judge.key(np.array(genes))).options:
            found[name].add(option)
    assert found == {choice.name: set(choice.options) for choice in toy_space.choices}
    assert judge.key(np.ones(judge.genes)) == str(toy_space.largest())
    assert judge.key(np.zeros(judge.genes)) == str(toy_space.smallest())


def test_a_network_below_the_floor_is_not_mapped(toy_space: Space) -> None:
    accuracies = NetworkAccuracies(toy_space, _Known(toy_space))
    judge = JointNetworks(accuracies, _mapper, "", floor=0.5)
    hardware = [0.25, 0.75]
    low = judge.design(WITHIN, [*hardware, *[0.0] * judge.genes])
    assert low.failure == "an accuracy of 0.00%, below the floor of 50.00%"
    assert low.network == str(toy_space.smallest())
    high = judge.design(WITHIN, [*hardware, *[1.0] * judge.genes])
    [cost] = high.costs.values()
    layers = toy_space.lower(toy_space.largest()).layers
    assert cost.energy == sum(1.0 + layer.macs for layer in layers)
    assert cost.cycles == 2.0 * len(layers)
    assert high.accuracy == 1.0
    others = [JointNetworks(accuracies, _mapper, *about) for about in (("", 0.0), ("x", 0.5))]
    assert len({judge.identity, *(one.identity for one in others)}) == 3
