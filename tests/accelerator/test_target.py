"""A chip as a target: sums of certified mappings, each shape mapped once, failures by name."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pliant.accelerator import ChipTarget, load_chip, map_workload
from pliant.accelerator.mapping_store import FILE, forget
from pliant.accelerator.network_mapping import map_layer
from pliant.errors import InfeasibleError, MeasurementError, RecipeError
from pliant.metrics import Cost, Failed
from pliant.spaces.architecture import Architecture
from pliant.spaces.presets import preset
from pliant.spaces.space import Space


@pytest.fixture(scope="module")
def space() -> Space:
    return preset("digits", channels=1, image_size=8, classes=10)


@pytest.fixture(scope="module")
def architectures(space: Space) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(4))]


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the layers that the mapper was asked for."""
    asked: list[str] = []

    def count(layer: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(layer.name)
        return map_layer(layer, *arguments, **options)

    monkeypatch.setattr("pliant.accelerator.chip_target.map_layer", count)
    return asked


@pytest.mark.parametrize("chip_name", ["nvdla-256", "eyeriss"])
def test_a_network_costs_what_mapping_its_workload_says(
    space: Space, architectures: list[Architecture], chip_name: str
) -> None:
    chip = load_chip(chip_name)
    target = ChipTarget(chip, space, objective="latency")
    for architecture, cost in zip(architectures, target.predict(architectures), strict=True):
        expected = map_workload(space.lower(architecture), chip, "latency").cost()
        assert isinstance(cost, Cost)
        for metric in Cost.__dataclass_fields__:
            value = getattr(expected, metric)
            assert getattr(cost, metric) == (value and pytest.approx(value, rel=1e-12)), metric
            assert (value is not None) == (metric in target.metrics)


def test_blocks_add_up_to_their_network(space: Space, architectures: list[Architecture]) -> None:
    target = ChipTarget(load_chip("nvdla-256"), space)
    (whole,) = target.predict(architectures[-1:])
    parts = target.block_costs(architectures[-1])
    assert isinstance(whole, Cost)
    assert len(parts) == len(space.blocks(architectures[-1]))
    for metric in ("latency_ms", "energy_uj", "parameters", "macs"):
        total = sum(getattr(part, metric) for part in parts)
        assert total == pytest.approx(getattr(whole, metric), rel=1e-12)


def test_each_layer_shape_is_mapped_once_and_read_from_the_folder_afterwards(
    space: Space, architectures: list[Architecture], mapped: list[str], tmp_path: Path
) -> None:
    forget()
    target = ChipTarget(load_chip("nvdla-256"), space, cache=tmp_path)
    costs = target.predict(architectures)
    shapes = len(mapped)
    assert target.predict(architectures[::-1]) == costs[::-1]
    assert len(mapped) == shapes
    with closing(sqlite3.connect(tmp_path / FILE)) as file:
        assert file.execute("SELECT count(*) FROM mappings").fetchone() == (shapes,)
    forget()
    again = ChipTarget(load_chip("nvdla-256"), space, cache=tmp_path)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pliant.accelerator.network_mapping.optimal_mapping", None)
        assert again.predict(architectures) == costs


def test_a_layer_that_has_no_mapping_is_a_failure_that_is_memoized(
    space: Space, architectures: list[Architecture], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every chip that is accepted maps every layer of today, so the mapper is made to fail."""
    refused: list[str] = []

    def refuse_8x8(layer: Any, *arguments: Any, **options: Any) -> Any:
        if (layer.P, layer.Q) != (8, 8):
            return map_layer(layer, *arguments, **options)
        refused.append(layer.name)
        raise InfeasibleError(f"layer {layer.name!r}: no mapping of the space fits")

    monkeypatch.setattr("pliant.accelerator.chip_target.map_layer", refuse_8x8)
    target = ChipTarget(load_chip("nvdla-256"), space)
    first = target.predict(architectures)
    for architecture, cost in zip(architectures, first, strict=True):
        heights = [layer.P for layer in space.lower(architecture).layers]
        assert isinstance(cost, Failed if 8 in heights else Cost)
        if isinstance(cost, Failed):
            assert cost.reason.split("'")[1] in refused
            with pytest.raises(InfeasibleError, match="no mapping of the space fits"):
                target.block_costs(architecture)
    assert {type(cost) for cost in first} == {Cost, Failed}
    asked = len(refused)
    assert target.predict(architectures) == first
    assert len(refused) == asked


def test_the_identity_follows_what_decides_predictions(space: Space) -> None:
    chip = load_chip("nvdla-256")
    target = ChipTarget(chip, space)
    renamed = ChipTarget(replace(chip, name="other", source=""), space, objective="energy*latency")
    assert renamed.identity == target.identity
    assert renamed.name == "other"
    assert not target.can_measure
    with pytest.raises(MeasurementError, match="predicts and measures nothing"):
        target.measure_file(Path("model.onnx"))
    others = {
        ChipTarget(replace(chip, clock_mhz=1.0), space).identity,
        ChipTarget(chip, space, objective="energy").identity,
        ChipTarget(load_chip("eyeriss"), space).identity,
        target.identity,
    }
    assert len(others) == 4
    with pytest.raises(RecipeError, match="Did you mean 'energy'"):
        ChipTarget(chip, space, objective="enery")
