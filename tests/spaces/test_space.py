"""What every space satisfies: a small one by enumeration, the shipped ones by samples."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pliant.errors import EncodingError
from pliant.metrics import Cost
from pliant.spaces.architecture import Architecture, option_text
from pliant.spaces.presets import PRESETS, preset
from pliant.spaces.space import Choice, Space

SEEDS = st.integers(0, 2**32 - 1)
SHIPPED = [
    preset(name, channels=3, image_size=max(8, row.smallest_image), classes=10)
    for name, row in PRESETS.items()
]


def everything(space: Space) -> set[Architecture]:
    return {
        space.decode(positions)
        for positions in itertools.product(
            *(range(len(choice.options)) for choice in space.choices)
        )
    }


@pytest.fixture(params=["toy", *PRESETS])
def space(request: pytest.FixtureRequest, toy_space: Space) -> Space:
    return toy_space if request.param == "toy" else SHIPPED[list(PRESETS).index(request.param)]


def test_size_is_the_number_of_networks(toy_space: Space) -> None:
    found = everything(toy_space)
    # 3 resolutions, 2 widths, 3 last widths; no block, one of 2, or 2 times (one without and two
    # with 3 kernels).
    assert toy_space.size == len(found) == 3 * 2 * 3 * (1 + 2 + 2 * (1 + 3 + 3))
    assert len({str(architecture) for architecture in found}) == len(found)


def test_once_for_all_has_its_published_size() -> None:
    space = preset("ofa-mobilenetv3", channels=3, image_size=224, classes=1000)
    assert space.size == 25 * 7371**5


@settings(max_examples=40)
@given(seed=SEEDS)
def test_round_trips(seed: int) -> None:
    for space in SHIPPED:
        rng = np.random.default_rng(seed)
        for architecture in (space.sample(rng), space.sample_choices(rng)):
            assert space.parse(str(architecture)) == architecture
            assert str(space.parse(str(architecture))) == str(architecture)
            assert space.decode(space.encode(architecture)) == architecture
            assert space.architecture(architecture.mapping) == architecture


def test_round_trips_of_every_toy_network(toy_space: Space) -> None:
    for architecture in everything(toy_space):
        assert (
            toy_space.parse(str(architecture))
            == architecture
            == toy_space.decode(toy_space.encode(architecture))
        )


@settings(max_examples=40)
@given(seed=SEEDS)
def test_inactive_choices_do_not_matter(seed: int) -> None:
    for space in SHIPPED:
        rng = np.random.default_rng(seed)
        one, other = (
            np.array([rng.integers(len(choice.options)) for choice in space.choices])
            for _ in range(2)
        )
        architecture = space.decode(one)
        active = np.array([name in architecture.mapping for name in space.names])
        assert space.decode(np.where(active, one, other)) == architecture
        assert not space.encode(architecture)[~active].any()


@settings(max_examples=25)
@given(seed=SEEDS, probability=st.floats(0, 1))
def test_variation_stays_in_the_space_and_repeats_under_a_seed(
    seed: int, probability: float
) -> None:
    def vary(space: Space) -> list[Architecture]:
        rng = np.random.default_rng(seed)
        one, other = space.sample(rng), space.sample_choices(rng)
        return [space.mutate(one, rng, probability), space.crossover(one, other, rng)]

    for space in SHIPPED:
        varied = vary(space)
        assert varied == vary(space)
        assert [space.decode(space.encode(architecture)) for architecture in varied] == varied


@settings(max_examples=25)
@given(seed=SEEDS)
def test_a_child_has_only_options_of_its_parents(seed: int) -> None:
    for space in SHIPPED:
        rng = np.random.default_rng(seed)
        one, other = space.sample_choices(rng), space.sample_choices(rng)
        assert set(space.crossover(one, other, rng).options) <= set(one.options) | set(
            other.options
        )
        assert space.crossover(one, one, rng) == one


def test_sample_is_uniform_over_networks(toy_space: Space) -> None:
    rng = np.random.default_rng(0)
    networks = dict.fromkeys(everything(toy_space), 0)
    for _ in range(20 * len(networks)):
        networks[toy_space.sample(rng)] += 1
    assert stats.chisquare(list(networks.values())).pvalue > 0.001


def test_sample_choices_is_uniform_over_options(toy_space: Space) -> None:
    rng = np.random.default_rng(0)
    depths = [toy_space.sample_choices(rng)["1d"] for _ in range(3000)]
    assert stats.chisquare(np.bincount(depths)).pvalue > 0.001
    assert {toy_space.sample_choices(rng, {"r": (6,)})["r"] for _ in range(50)} == {6}


def test_ends(space: Space) -> None:
    small, large = space.cost(space.smallest()), space.cost(space.largest())
    rng = np.random.default_rng(0)
    for _ in range(50):
        cost = space.cost(space.sample_choices(rng))
        for metric in ("macs", "parameters", "peak_memory_bytes", "model_size_bytes"):
            assert getattr(small, metric) <= getattr(cost, metric) <= getattr(large, metric)


def test_cost_by_blocks_is_the_cost_of_the_whole_workload(space: Space) -> None:
    rng = np.random.default_rng(1)
    for architecture in (
        space.smallest(),
        space.largest(),
        *(space.sample(rng) for _ in range(10)),
    ):
        workload = space.lower(architecture)
        whole = Cost(
            macs=workload.macs,
            parameters=workload.parameters,
            peak_memory_bytes=workload.peak_activation_bytes,
            model_size_bytes=workload.parameter_bytes,
        )
        assert space.cost(architecture) == whole


def test_slots_are_those_of_the_largest_network(space: Space) -> None:
    rng = np.random.default_rng(2)
    slots = [block.slot for block in space.blocks(space.largest())]
    assert len(set(slots)) == len(slots)
    for _ in range(20):
        assert {block.slot for block in space.blocks(space.sample_choices(rng))} <= set(slots)


def test_features_tell_networks_apart(toy_space: Space) -> None:
    networks = sorted(everything(toy_space), key=str)
    table = toy_space.features(networks)
    assert table.shape == (
        len(networks),
        sum(len(choice.options) for choice in toy_space.choices) + 2,
    )
    assert len(np.unique(table, axis=0)) == len(networks)
    assert (
        table[:, :-2].sum(axis=1) == [len(architecture.options) for architecture in networks]
    ).all()
    np.testing.assert_array_equal(table[5:6], toy_space.features(networks[5:6]))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("r9_w1_1d0_2.1h8", r"'r' takes one of \(4, 6, 8\), received 9"),
        ("r8_w1_1d0", "'2.1h' is active"),
        ("r8_w1_1d0_1.1h4_2.1h8", "'1.1h' is not active"),
        ("r8_r8_w1_1d0_2.1h8", "'r' appears twice"),
        ("r8_w1_1d0_2.2h8", "no choice '2.2h'. Did you mean"),
        ("r8 w1", "reads like r8_w1_1d2"),
        ("", "reads like"),
    ],
)
def test_text_that_names_no_network(toy_space: Space, text: str, says: str) -> None:
    with pytest.raises(EncodingError, match=says):
        toy_space.parse(text)


def test_positions_that_name_no_network(toy_space: Space) -> None:
    with pytest.raises(EncodingError, match="7 choices, received 2"):
        toy_space.decode([0, 0])
    with pytest.raises(EncodingError, match="'r' has positions 0 to 2, received 3"):
        toy_space.decode([3, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("name", "options"), [("K", (1, 2)), ("1.2", (1,)), ("k", ()), ("k", (3, 3)), ("k", (5, 3))]
)
def test_choices_that_cannot_be(name: str, options: tuple[int, ...]) -> None:
    with pytest.raises(EncodingError):
        Choice(name, options)


@pytest.mark.parametrize("option", [True, -1, 1e-7, 1e30, np.int64(3), np.float64(0.5), None])
def test_options_that_do_not_read_back_are_refused(option: object) -> None:
    with pytest.raises(EncodingError, match="choice 'a' has"):
        Choice("a", (option,))  # type: ignore[arg-type]


def test_a_misspelt_dimension_is_refused() -> None:
    with pytest.raises(EncodingError, match=r"Did you mean 'kernel'\?"):
        Choice("k", (3, 5), "kernal")  # type: ignore[arg-type]


@given(st.floats(1e-4, 1e15, allow_nan=False))
def test_numbers_with_many_digits_read_back_exactly(option: float) -> None:
    text = option_text(option)
    assert re.fullmatch(r"\d+(\.\d+)?", text)
    assert float(text) == option
    assert len(text) <= max(len(repr(option)), len(f"{option:g}"))


def test_a_parent_stands_before_its_child(toy_space: Space) -> None:
    class Reversed(type(toy_space)):  # type: ignore[misc]
        @property
        def choices(self) -> tuple[Choice, ...]:
            return super().choices[::-1]

    with pytest.raises(EncodingError, match="does not come before it"):
        _ = Reversed().size
