"""What every target promises, be it this machine, a chip on paper, or arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pliant.accelerator import ChipTarget, load_chip
from pliant.deploy.package import onnx_bytes
from pliant.devices.data_sheet import load_sheet
from pliant.devices.data_sheet_target import DataSheetTarget
from pliant.devices.measured_target import MeasuredTarget
from pliant.devices.profile import load_profile
from pliant.errors import MeasurementError, RecipeError
from pliant.metrics import ARITHMETIC_METRICS, COST_METRICS, Claim, Cost
from pliant.networks.supernet import build
from pliant.objective import Limit, Objective, Target
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.targets import Arithmetic

Make = Callable[[Space, Path], Target]
"""From a space and a profile of this machine for it to a target."""

# A new target is a line here.
TARGETS: dict[str, Make] = {
    "arithmetic": lambda space, profile: Arithmetic(space),
    "this machine": lambda space, profile: MeasuredTarget(load_profile(profile), space),
    "nvdla-256": lambda space, profile: ChipTarget(load_chip("nvdla-256"), space),
    "eyeriss": lambda space, profile: ChipTarget(load_chip("eyeriss"), space),
    "data sheet": lambda space, profile: DataSheetTarget(load_sheet("stm32f746"), space),
    "data sheet with power": lambda space, profile: DataSheetTarget(
        load_sheet("jetson-nano"), space
    ),
}


@pytest.fixture(params=TARGETS)
def make(
    request: pytest.FixtureRequest, digits_space: Space, digits_profile: Path
) -> Callable[[], Target]:
    return lambda: TARGETS[request.param](digits_space, digits_profile)


@pytest.fixture
def architectures(digits_space: Space) -> list[Architecture]:
    rng = np.random.default_rng(0)
    drawn = [digits_space.sample_choices(rng) for _ in range(3)]
    return [digits_space.smallest(), *drawn, digits_space.largest()]


def test_it_reports_its_metrics_and_no_others(
    make: Callable[[], Target], architectures: list[Architecture]
) -> None:
    target = make()
    assert set(ARITHMETIC_METRICS) <= set(target.metrics) <= set(COST_METRICS)
    for cost in target.predict(architectures):
        assert isinstance(cost, Cost)
        assert set(cost.metrics) == set(target.metrics)
        assert all(cost.metric(metric) > 0 for metric in target.metrics)


def test_predictions_follow_from_its_identity(
    make: Callable[[], Target], architectures: list[Architecture]
) -> None:
    one, again = make(), make()
    assert (one.name, one.identity) == (again.name, again.identity)
    assert one.name
    assert one.identity
    together = list(one.predict(architectures))
    assert together == [again.predict([each])[0] for each in architectures[::-1]][::-1]
    assert list(one.predict([])) == []


def test_two_targets_have_two_identities(digits_space: Space, digits_profile: Path) -> None:
    identities = {made(digits_space, digits_profile).identity for made in TARGETS.values()}
    assert len(identities) == len(TARGETS)


def test_arithmetic_metrics_are_those_of_the_space(
    make: Callable[[], Target], digits_space: Space, architectures: list[Architecture]
) -> None:
    for architecture, cost in zip(architectures, make().predict(architectures), strict=True):
        assert isinstance(cost, Cost)
        expected = digits_space.cost(architecture)
        assert [cost.metric(name) for name in ARITHMETIC_METRICS] == [
            expected.metric(name) for name in ARITHMETIC_METRICS
        ]


def test_blocks_add_up_to_their_network(
    make: Callable[[], Target], digits_space: Space, architectures: list[Architecture]
) -> None:
    target = make()
    for architecture in architectures:
        [whole] = target.predict([architecture])
        parts = target.block_costs(architecture)
        assert isinstance(whole, Cost)
        assert len(parts) == len(digits_space.blocks(architecture))
        summed = [name for name in parts[0].metrics if name in target.metrics]
        assert {"macs", "parameters"} <= set(summed)
        for name in set(summed) - {"latency_ms"}:
            total = sum(part.metric(name) for part in parts)
            assert total == pytest.approx(whole.metric(name), rel=1e-9), name
        if "latency_ms" in target.metrics:  # a network may add an overhead of its own
            total = sum(part.metric("latency_ms") for part in parts)
            assert 0 < total <= whole.metric("latency_ms") * (1 + 1e-9)


def test_an_objective_names_what_it_does_not_report(make: Callable[[], Target]) -> None:
    target = make()
    Objective(target.metrics[:1], (Limit(target.metrics[-1], 1.0),)).require_reported(target)
    for missing in set(COST_METRICS) - set(target.metrics):
        with pytest.raises(RecipeError, match=f"reports no {missing}") as refused:
            Objective(target.metrics[:1], (Limit(missing, 1.0),)).require_reported(target)
        assert all(metric in str(refused.value) for metric in target.metrics)


def test_it_measures_what_it_predicts_where_it_is_at_hand(
    make: Callable[[], Target], digits_space: Space, tmp_path: Path
) -> None:
    target = make()
    if not target.can_measure:
        assert target.measure({}) == {}
        with pytest.raises(MeasurementError, match="is at hand"):
            target.measure_file(tmp_path / "model.onnx")
        return
    smallest = digits_space.smallest()
    network = build(digits_space, smallest, mean=[0.5], std=[0.25])
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.fill_(float(name.endswith("running_var")))
    model = onnx_bytes(network.eval(), digits_space.blocks(smallest))
    path = tmp_path / "model.onnx"
    path.write_bytes(model)
    found = target.measure({"smallest": model, "again": model})
    assert set(found) == {"smallest", "again"}
    for measured in (*found.values(), target.measure_file(path)):
        assert measured.cost.metrics
        assert set(measured.cost.metrics) <= set(target.metrics)
        assert set(measured.spread.metrics) <= set(measured.cost.metrics)


def test_what_it_claims_is_written_down(
    make: Callable[[], Target], architectures: list[Architecture]
) -> None:
    target = make()
    target.predict(architectures)
    for claim in target.evidence():
        assert isinstance(claim, Claim)
        assert claim.claim
        assert claim.value
        assert claim.how
        assert claim.holds in (True, False, None)
