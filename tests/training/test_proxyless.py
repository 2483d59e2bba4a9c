"""ProxylessNAS: expected costs, the mass of a pair, the limit in the loss, and the final choice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from pliant.data import Augmentation
from pliant.errors import InfeasibleError, RecipeError
from pliant.metrics import COST_METRICS, Cost
from pliant.networks.mixed import mixed_blocks
from pliant.spaces.mobile import MobileFrame
from pliant.spaces.presets import preset
from pliant.spaces.proxyless import ProxylessSpace, ProxylessStage
from pliant.targets import Arithmetic
from pliant.training.expected_cost import ExpectedCost
from pliant.training.loop import train
from pliant.training.proxyless import ArchitectureSettings, Proxyless
from pliant.training.schedule import TrainingRecipe

METRICS = ("macs", "parameters", "model_size_bytes", "peak_memory_bytes")


@pytest.fixture(scope="module")
def space():
    stages = [ProxylessStage(8, 3, kernels=(3, 5), expansions=(1, 2))]
    frame = MobileFrame(stem=8, stem_stride=1, activation="relu6", expand=16, hidden=0)
    return ProxylessSpace("tiny", stages, frame, channels=1, image_size=8, classes=10)


@pytest.fixture(scope="module")
def networks(space):
    options = [choice.options for choice in space.choices]
    names = [choice.name for choice in space.choices]
    return [
        space.architecture(dict(zip(names, one, strict=True)))
        for one in itertools.product(*options)
    ]


@pytest.fixture
def costs(space):
    return ExpectedCost(space, mixed_blocks(space), Arithmetic(space), METRICS)


def drawn(space, seed, sharpness=1.0):
    generator = torch.Generator().manual_seed(seed)
    return {
        one.slot: (sharpness * torch.randn(len(one.operations), generator=generator)).softmax(0)
        for one in mixed_blocks(space)
    }


def log_probability(costs, probabilities, network):
    return sum(
        float(probabilities[one.slot][costs.index_of(one, network)].double().log())
        for one in costs.mixed
    )


def test_the_space_of_the_paper_has_its_size():
    assert preset("proxyless", channels=3, image_size=224, classes=1000).size == 6**6 * 7**15


@pytest.mark.parametrize("metric", METRICS)
def test_of_certain_operations_it_is_the_cost_of_the_network(space, costs, networks, metric):
    for network in networks:
        certain = {
            one.slot: torch.eye(len(one.operations))[costs.index_of(one, network)]
            for one in costs.mixed
        }
        expected = space.cost(network).metric(metric)
        assert float(costs.expected(metric, certain)) == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["macs", "parameters", "model_size_bytes"])
def test_it_is_the_mean_over_all_networks(space, costs, networks, metric):
    probabilities = drawn(space, 1)
    mean = sum(
        np.exp(log_probability(costs, probabilities, network)) * space.cost(network).metric(metric)
        for network in networks
    )
    assert float(costs.expected(metric, probabilities)) == pytest.approx(mean)


@pytest.mark.parametrize("seed", range(4))
def test_the_most_probable_within_limits_is_that_of_all_networks(space, costs, networks, seed):
    probabilities, rng = drawn(space, seed, 2.0), np.random.default_rng(seed)
    bounds = space.cost(networks[int(rng.integers(len(networks)))])
    limits = {metric: bounds.metric(metric) * 1.05 for metric in METRICS}
    floors = {"macs": limits["macs"] * 0.7}
    within = [
        network
        for network in networks
        if all(space.cost(network).metric(name) <= bound for name, bound in limits.items())
        and space.cost(network).metric("macs") >= floors["macs"]
    ]
    best = max(within, key=lambda one: log_probability(costs, probabilities, one))
    found = costs.most_probable(probabilities, limits, floors)
    assert found in within
    assert log_probability(costs, probabilities, found) == pytest.approx(
        log_probability(costs, probabilities, best)
    )


def test_limits_that_nothing_meets_are_refused(space, costs):
    with pytest.raises(InfeasibleError, match=r"no network of space 'tiny' has macs <= 1"):
        costs.most_probable(drawn(space, 0), {"macs": 1})


def test_a_limit_that_no_operation_changes_is_refused(space):
    with pytest.raises(RecipeError, match="received area_mm2"):
        Proxyless(space, Arithmetic(space), {"area_mm2": 1.0})


def trained(space, digits, cpu, limit, settings=None, measure=None, epochs=12):
    limits = {"macs": limit * space.cost(space.largest()).macs}
    strategy = Proxyless(space, Arithmetic(space), limits, settings=settings, measure=measure)
    torch.manual_seed(0)
    model = strategy.make_supernet(space, mean=digits.mean, std=digits.std)
    logs = []
    train(
        model,
        {"train": digits.train.subset(np.arange(200)), "validation": digits.validation},
        Augmentation(),
        TrainingRecipe(epochs=epochs, batch_size=40, learning_rate=0.05, seed=2),
        strategy,
        accelerator=cpu,
        on_step=logs.append,
        report_every=1,
    )
    return model, [log.measures for log in logs if log.phase == "search"]


def test_two_path_updates_keep_the_mass_of_all_other_operations(space, digits, cpu):
    """One update moves two operations of a block, and the sum of their probabilities stays."""
    _, logs = trained(space, digits, cpu, 0.5, epochs=5)
    changed = 0
    for before, after in itertools.pairwise(logs):
        for slot, p in before["probabilities"].items():
            moved = np.array(after["probabilities"][slot]) - p
            assert (np.abs(moved) > 1.5e-4).sum() in (0, 2)
            assert abs(moved.sum()) < 3e-4  # both are logged with four digits
            changed += bool(np.abs(moved).max() > 1e-3)
    assert changed > 3


@pytest.mark.parametrize("gradient", ["two-path", "all-path", "reinforce"])
def test_the_penalty_brings_the_expected_cost_to_the_limit(space, digits, cpu, gradient):
    largest = space.cost(space.largest()).macs
    settings = ArchitectureSettings(gradient=gradient, alpha_rate=0.3)
    model, logs = trained(space, digits, cpu, 0.5, settings, epochs=20)
    [chosen] = model.trained
    assert space.cost(chosen).macs <= 0.5 * largest
    assert logs[0]["expected macs"] > 0.55 * largest
    assert logs[-1]["expected macs"] < 0.53 * largest


def test_without_the_penalty_the_limit_is_missed(space, digits, cpu):
    """Until the choice at the end, which holds it in any case."""
    settings = ArchitectureSettings(penalty="none", alpha_rate=0.3)
    model, logs = trained(space, digits, cpu, 0.5, settings, epochs=20)
    assert logs[-1]["expected macs"] > 0.55 * space.cost(space.largest()).macs
    assert space.cost(model.trained[0]).macs <= 0.5 * space.cost(space.largest()).macs


def test_the_choice_follows_what_is_measured(space, digits, cpu):
    """A target whose measurements are a third above its predictions, and one that is below."""
    largest = space.cost(space.largest()).macs
    for factor in (1.35, 0.8):
        asked = []

        def measure(network, factor=factor, asked=asked):
            asked.append(network)
            return Cost(macs=round(factor * space.cost(network).macs))

        model, _ = trained(space, digits, cpu, 0.6, measure=measure, epochs=2)
        [chosen] = model.trained
        assert factor * space.cost(chosen).macs <= 0.6 * largest
        assert chosen in asked
        assert len(asked) <= 6


def test_all_metrics_of_costs_are_known_here():
    """Area is the only one that no operation changes; a new metric must be placed."""
    assert set(COST_METRICS) == {*METRICS, "latency_ms", "energy_uj", "area_mm2"}
