"""The ladder of predictors: planted costs are recovered, and a rung is earned on held-out rows."""

import math

import numpy as np
import pytest

from pliant.devices.features import NETWORK
from pliant.devices.ladder import DeviceRows, fit, layer_counts, networks_to_measure
from pliant.devices.table import LookupTable, block_terms, distinct_blocks
from pliant.errors import MeasurementError
from pliant.spaces.cell import CellSpace
from pliant.spaces.presets import mobile_32

SPACE = mobile_32(3, 32, 10)
CELLS = CellSpace("cells", channels=3, image_size=32, classes=10)


def sample(space, count, seed=1):
    rng = np.random.default_rng(seed)
    return list(dict.fromkeys(space.sample_choices(rng) for _ in range(count)))


def of_macs(networks):
    return np.array([1 + SPACE.cost(one).macs / 1e6 for one in networks])


def test_planted_costs_of_operators_are_recovered_exactly_from_ten_networks():
    counts = layer_counts(CELLS)["as written"]
    weights = np.zeros(len(counts.names))
    for name, weight in (("conv 1x1", 2e-9), ("conv 3x3", 1e-9), ("average_pool", 3e-8)):
        weights[counts.names.index(f"work of {name}")] = weight
    chosen = networks_to_measure(CELLS, 10, np.random.default_rng(0))
    predictor = fit(DeviceRows(chosen, (1 + counts(chosen) @ weights).tolist()), CELLS)
    others = sample(CELLS, 200)
    np.testing.assert_allclose(
        predictor.predict_ms(others), 1 + counts(others) @ weights, rtol=1e-9
    )
    assert "as written" in predictor.rung
    assert predictor.mape_percent < 1e-6


def test_the_graph_that_runs_is_found():
    folded = layer_counts(CELLS)["zeros folded"]
    networks = sample(CELLS, 60)
    latency = 1 + folded(networks)[:, 0] / 1e8
    predictor = fit(DeviceRows(networks, latency.tolist()), CELLS)
    assert "zeros folded" in predictor.rung


def test_the_same_rows_give_the_same_predictor():
    networks = sample(SPACE, 40)
    latency = of_macs(networks) * np.random.default_rng(0).lognormal(0, 0.05, len(networks))
    rows = DeviceRows(networks, latency.tolist())
    one, other = fit(rows, SPACE), fit(rows, SPACE)
    assert (one.rung, one.rungs, one.interval) == (other.rung, other.rungs, other.interval)
    np.testing.assert_array_equal(one.predict_ms(networks), other.predict_ms(networks))


def test_a_network_that_was_measured_twice_counts_once():
    networks = sample(SPACE, 12)
    latency_ms = of_macs(networks).tolist()
    once = fit(DeviceRows(networks, latency_ms), SPACE)
    twice = fit(DeviceRows([*networks, networks[3]], [*latency_ms, latency_ms[3]]), SPACE)
    assert (twice.networks, twice.rungs, twice.interval) == (12, once.rungs, once.interval)


@pytest.mark.parametrize("networks", [12, 40, 120])
def test_a_prediction_does_not_depend_on_which_others_are_predicted(networks):
    measured = sample(SPACE, networks)
    bent = of_macs(measured) * np.exp(0.1 * np.sin(of_macs(measured)))
    predictor = fit(DeviceRows(measured, bent.tolist()), SPACE)
    others = sample(SPACE, 50, seed=2)
    alone = [predictor.predict_ms([one])[0] for one in others]
    np.testing.assert_array_equal(predictor.predict_ms(others), alone)


def test_a_residual_is_learned_only_where_there_is_one():
    networks = sample(SPACE, 80)
    linear = of_macs(networks)
    noise = np.random.default_rng(1).lognormal(0, 0.02, len(networks))
    assert "+" not in fit(DeviceRows(networks, (linear * noise).tolist()), SPACE).rung
    layers = layer_counts(SPACE)[NETWORK](networks)[:, 2]
    bent = linear * np.exp(0.2 * np.sin(layers / 4))
    found = fit(DeviceRows(networks, bent.tolist()), SPACE)
    assert "+" in found.rung
    additive = next(one for one in found.rungs if one.name.startswith("additive"))
    assert found.mape_percent < additive.mape_percent


def test_a_roofline_needs_no_sample_and_is_scaled_from_three():
    networks = sample(SPACE, 20)
    bare = fit(DeviceRows([], [], bound_ms=of_macs), SPACE)
    np.testing.assert_allclose(bare.predict_ms(networks), of_macs(networks))
    assert bare.rung == "roofline"
    assert math.isnan(bare.mape_percent)
    measured = DeviceRows(networks[:3], (2 * of_macs(networks[:3])).tolist(), bound_ms=of_macs)
    np.testing.assert_allclose(fit(measured, SPACE).predict_ms(networks), 2 * of_macs(networks))


def test_a_block_table_needs_three_networks():
    blocks = distinct_blocks(SPACE, np.random.default_rng(0))
    block_us = {block: 1.0 + math.sqrt(block.cost.macs) for block in blocks}
    networks = sample(SPACE, 30)
    sums = np.array([sum(block_us_of(block_us, one)) for one in networks]) / 1e3
    predictor = fit(DeviceRows(networks[:3], (1.5 * sums[:3]).tolist(), block_us), SPACE)
    assert predictor.rung.startswith("block table")
    np.testing.assert_allclose(predictor.predict_ms(networks), 1.5 * sums)
    assert sum(predictor.block_ms(networks[5])) == pytest.approx(1.5 * sums[5])


@pytest.mark.parametrize("coefficients", [(1.05, 0.4), (1.2, 0.3, 0.5)])
def test_overhead_and_traffic_of_blocks_are_recovered(coefficients):
    blocks = distinct_blocks(SPACE, np.random.default_rng(0))
    block_us = {block: 1.0 + 50 * math.sqrt(block.cost.macs) for block in blocks}
    table, networks = LookupTable(SPACE, block_us), sample(SPACE, 40)
    terms = [
        sum(np.array(block_terms("boundary_traffic", table, block)) for block in SPACE.blocks(one))
        for one in networks
    ]
    latency_ms = np.array(terms)[:, : len(coefficients)] @ coefficients
    predictor = fit(DeviceRows(networks[:12], latency_ms[:12].tolist(), block_us), SPACE)
    np.testing.assert_allclose(predictor.predict_ms(networks), latency_ms)


def block_us_of(block_us, network):
    table = LookupTable(SPACE, block_us)
    return [table.block_us(block) for block in SPACE.blocks(network)]


def test_block_shares_add_up_and_follow_the_work():
    networks = sample(SPACE, 20)
    predictor = fit(DeviceRows(networks, of_macs(networks).tolist()), SPACE)
    shares = predictor.block_ms(SPACE.largest())
    assert sum(shares) == pytest.approx(predictor.predict_ms([SPACE.largest()])[0])
    assert min(shares) >= 0


def test_known_devices_help_where_they_are_alike_and_are_dropped_where_not():
    networks = sample(CELLS, 12)
    numbers = {one: index for index, one in enumerate(sample(CELLS, 400) + networks)}

    def strange(some):  # no counts explain it
        return np.array([1 + (numbers[one] * 37 % 97) / 97 for one in some])

    alike = {"phone": strange, "board": lambda some: 3 * strange(some)}
    found = fit(DeviceRows(networks, (2 * strange(networks)).tolist(), sources=alike), CELLS)
    assert found.rung == "transfer from phone, board"
    counts = layer_counts(CELLS)["as written"]
    additive = (1 + counts(networks)[:, 0] / 1e8).tolist()
    assert fit(DeviceRows(networks, additive, sources=alike), CELLS).rung.startswith("additive")


@pytest.mark.parametrize("latency", [0.0, -1.0, math.nan, math.inf])
def test_absurd_latencies_are_named(latency):
    with pytest.raises(MeasurementError, match=f"received {latency} ms of {SPACE.smallest()}"):
        DeviceRows([SPACE.smallest()], [latency])


def test_too_few_networks_and_missing_latencies_are_refused():
    networks = sample(SPACE, 4)
    with pytest.raises(MeasurementError, match="at least 5 networks"):
        fit(DeviceRows(networks, [1.0] * len(networks)), SPACE)
    with pytest.raises(MeasurementError, match="4 networks and 3 latencies"):
        DeviceRows(networks, [1.0] * 3)


def test_networks_to_measure_differ_and_say_more_than_random_ones():
    chosen = networks_to_measure(CELLS, 10, np.random.default_rng(0))
    assert len(set(chosen)) == 10
    counts = layer_counts(CELLS)["as written"]

    def information(networks):
        columns = counts(networks)
        used = columns.std(axis=0) > 0
        return np.linalg.matrix_rank(columns[:, used]), np.prod(columns[:, :3].std(axis=0))

    assert information(chosen) > information(sample(CELLS, 10))
