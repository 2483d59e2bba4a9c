"""Laws of spaces: random trees of choices by enumeration, and what every shipped space keeps."""

from __future__ import annotations

import copy
import itertools
import json
import math
from functools import cached_property

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pliant.spaces.architecture import Architecture
from pliant.spaces.block import BLOCK_TYPES, Block
from pliant.spaces.cell import CellSpace
from pliant.spaces.check import check_space
from pliant.spaces.input_output_blocks import Head
from pliant.spaces.padding import explicit_padding, same_padding
from pliant.spaces.presets import FAMILIES, PRESETS, largest_image, preset, space_name, spaces_for
from pliant.spaces.rounding import ceil_div, make_divisible
from pliant.spaces.space import Choice, Space

SEEDS = st.integers(0, 2**32 - 1)
METRICS = ("macs", "parameters", "peak_memory_bytes", "model_size_bytes")


class Tree(Space):
    """Any choices over a network of one block."""

    def __init__(self, choices: tuple[Choice, ...]) -> None:
        super().__init__("tree", channels=2, image_size=4, classes=3)
        self._given = choices

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        return self._given

    def layout(self, architecture: Architecture) -> tuple[Block, ...]:
        return (Head(slot="head", size=4, inputs=2, classes=3),)

    def everything(self) -> set[Architecture]:
        positions = itertools.product(*(range(len(choice.options)) for choice in self.choices))
        return {self.decode(one) for one in positions}


OPTIONS = st.lists(
    st.one_of(st.integers(0, 300), st.sampled_from([0.25, 0.65, 1.5, 12.125])),
    min_size=1,
    max_size=3,
    unique=True,
).map(sorted)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Up to six choices, each free or below an option of an earlier one, at shared places."""
    choices: list[Choice] = []
    for number in range(draw(st.integers(1, 6))):
        place = draw(st.sampled_from(["", "1", "1.2", "10.1"]))
        name = place + "abcdef"[number] * draw(st.integers(1, 2))
        condition = None
        if choices and draw(st.booleans()):
            parent = draw(st.sampled_from(choices))
            condition = (parent.name, draw(st.sampled_from(parent.options)))
        choices.append(Choice(name, tuple(draw(OPTIONS)), condition=condition))
    return Tree(tuple(choices))


@settings(max_examples=60, deadline=None)
@given(trees())
def test_any_tree_of_choices_holds_what_its_enumeration_holds(space: Tree) -> None:
    check_space(space)
    networks = space.everything()
    assert space.size == len(networks) == len({str(one) for one in networks})
    assert len({tuple(space.encode(one)) for one in networks}) == len(networks)
    for one in itertools.islice(networks, 60):
        assert space.parse(str(one)) == one == space.decode(space.encode(one))
        for choice in space.choices:
            active = choice.name in one.mapping
            if choice.condition is None:
                assert active
            else:
                parent, least = choice.condition
                assert active == (parent in one.mapping and one[parent] >= least)


@settings(max_examples=60, deadline=None)
@given(trees(), SEEDS, st.floats(0, 1))
def test_variation_never_leaves_the_tree(space: Tree, seed: int, probability: float) -> None:
    networks = space.everything()
    rng = np.random.default_rng(seed)
    for _ in range(5):
        one, other = space.sample(rng), space.sample_choices(rng)
        assert {one, other} <= networks
        child = space.crossover(one, other, rng)
        assert {space.mutate(one, rng, probability), child} <= networks
        for name, option in child:
            owners = [parent.mapping[name] for parent in (one, other) if name in parent.mapping]
            assert not owners or option in owners


@settings(max_examples=40, deadline=None)
@given(trees(), SEEDS)
def test_the_least_mutation_redraws_one_choice_and_what_it_makes_active(
    space: Tree, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    one = space.sample(rng)
    changed = space.mutate(one, rng, probability=0.0)
    both = [name for name, _ in one if name in changed.mapping]
    assert sum(one[name] != changed[name] for name in both) <= 1
    parents = {choice.name: choice.condition[0] for choice in space.choices if choice.condition}
    moved = {name for name in both if one[name] != changed[name]}
    for name in sorted(set(one.mapping) ^ set(changed.mapping)):
        while name in parents and name not in moved:
            name = parents[name]
        assert name in moved, "only choices below the redrawn one come and go"


def test_mutation_redraws_as_often_as_it_is_told(toy_space: Space) -> None:
    rng = np.random.default_rng(0)
    one = toy_space.architecture({"r": 4, "w": 0.5, "1d": 0, "2.1h": 8})
    moved = [toy_space.mutate(one, rng, 0.5)["2.1h"] != 8 for _ in range(2000)]
    # Redrawn with probability 0.5, by another of three options in two thirds of the cases.
    assert stats.binomtest(sum(moved), 2000, 1 / 3).pvalue > 0.001
    reached = {pair for _ in range(500) for pair in toy_space.mutate(one, rng, 1.0)}
    assert reached == {(choice.name, o) for choice in toy_space.choices for o in choice.options}


def test_crossover_takes_from_each_parent_equally_often(toy_space: Space) -> None:
    rng = np.random.default_rng(0)
    children = [
        toy_space.crossover(toy_space.smallest(), toy_space.largest(), rng) for _ in range(2000)
    ]
    for name, option in (("r", 4), ("w", 0.5), ("2.1h", 8)):
        of_one = sum(child[name] == option for child in children)
        assert stats.binomtest(of_one, 2000, 0.5).pvalue > 0.001
    together = sum(child["r"] == 4 and child["w"] == 0.5 for child in children)
    assert stats.binomtest(together, 2000, 0.25).pvalue > 0.001, "each choice on its own"


# What every shipped space satisfies.


@pytest.fixture(scope="module", params=PRESETS)
def shipped(request: pytest.FixtureRequest) -> Space:
    size = max(8, PRESETS[request.param].smallest_image)
    return preset(request.param, channels=3, image_size=size, classes=10)


def drawn(space: Space, count: int, seed: int = 0) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [space.sample_choices(rng) for _ in range(count)]


def test_a_larger_option_never_costs_less(shipped: Space) -> None:
    if isinstance(shipped, CellSpace):
        pytest.skip("its options are operations, not sizes")
    for architecture in drawn(shipped, 3):
        chosen = {choice.name: choice.options[0] for choice in shipped.choices}
        chosen |= architecture.mapping
        for choice in shipped.choices:
            costs = [
                shipped.cost(shipped.architecture(chosen | {choice.name: option}))
                for option in choice.options
            ]
            for metric in METRICS:
                values = [getattr(cost, metric) for cost in costs]
                assert values == sorted(values), (choice.name, metric)


def test_the_largest_network_has_every_slot_at_its_largest_sizes(shipped: Space) -> None:
    largest = {block.slot: block for block in shipped.blocks(shipped.largest())}
    for architecture in drawn(shipped, 10):
        for block in shipped.blocks(architecture):
            most = largest[block.slot]
            for name, value in block.sizes.items():
                if type(value) is int:
                    assert value <= getattr(most, name), (block.slot, name)
                elif not isinstance(shipped, CellSpace):
                    assert value == getattr(most, name), (block.slot, name)


def test_a_block_is_rebuilt_from_its_name_and_its_sizes_as_json(shipped: Space) -> None:
    for architecture in (shipped.smallest(), shipped.largest(), *drawn(shipped, 5)):
        for block in shipped.blocks(architecture):
            sizes = json.loads(json.dumps(block.sizes))
            again = BLOCK_TYPES[type(block).__name__](slot=block.slot, **sizes)
            assert again == block
            assert again.layers() == block.layers()


def test_names_of_layers_differ_and_read_what_ran_before(shipped: Space) -> None:
    for architecture in (shipped.largest(), *drawn(shipped, 3)):
        layers = shipped.lower(architecture).layers
        known = {"input", *shipped.lower(architecture).layers[0].reads}
        for layer in layers:
            assert layer.name not in known
            assert set(layer.reads) <= known
            known.add(layer.name)
        read = {name for layer in layers for name in layer.reads}
        assert {layer.name for layer in layers} - read == {layers[-1].name}, "nothing is unused"


def test_eight_bits_store_a_quarter_of_the_weights_and_compute_the_same(shipped: Space) -> None:
    narrow = shipped.with_bits(8)
    for architecture in drawn(shipped, 5):
        wide, cost = shipped.cost(architecture), narrow.cost(architecture)
        assert (cost.macs, cost.parameters) == (wide.macs, wide.parameters)
        for metric in ("peak_memory_bytes", "model_size_bytes"):
            assert wide.metric(metric) / 4 <= cost.metric(metric) <= wide.metric(metric)
        layers = narrow.lower(architecture).layers
        weights = sum(x.G * x.K * x.C * x.R * x.S for x in layers if x.weighted and x.stored != 0)
        # Addends keep 32 bits.
        stored = weights + 4 * (cost.parameters - weights)
        assert sum(layer.parameter_bytes for layer in layers) == stored == cost.model_size_bytes
    assert shipped.bits == 32, "the space itself stays as it was"


def test_a_copy_is_the_same_space(shipped: Space) -> None:
    shipped.cost(shipped.smallest())  # fills the cache of blocks, which cannot be copied
    again = copy.deepcopy(shipped)
    assert again.choices == shipped.choices
    assert again.cost(again.smallest()) == shipped.cost(shipped.smallest())


def test_identity_covers_name_images_and_every_option(shipped: Space) -> None:
    def variant(choices: tuple[Choice, ...] | None = None, **values: object) -> str:
        other = copy.deepcopy(shipped)
        vars(other).pop("identity", None)
        vars(other).update(values)
        if choices is not None:
            for name in ("names", "_choice", "_children", "size"):
                vars(other).pop(name, None)
            vars(other)["choices"] = choices
        return other.identity

    assert variant() == shipped.identity
    found = {shipped.identity}
    found.add(variant(name="other"))
    found.add(variant(classes=11))
    found.add(variant(channels=1))
    free = [one for one in shipped.choices if one.dimension != "depth" and one.condition is None]
    for choice in {free[0].name: free[0], free[-1].name: free[-1]}.values():
        for fewer in (choice.options[1:], choice.options[:-1]):
            if not fewer or isinstance(shipped, CellSpace):
                continue  # an operation is known by its position
            choices = tuple(
                Choice(one.name, fewer, one.dimension) if one is choice else one
                for one in shipped.choices
            )
            other = variant(choices)
            assert other not in found
            found.add(other)
    assert len(found) >= 4


def test_corners_are_both_ends_with_one_choice_changed(shipped: Space) -> None:
    corners = list(shipped.corners())
    assert len(corners) == 2 * sum(len(choice.options) for choice in shipped.choices)
    assert {shipped.smallest(), shipped.largest()} <= set(corners)
    for corner in corners:
        distance = min(
            sum(corner[name] != end.mapping.get(name) for name, _ in corner if name in end.mapping)
            for end in (shipped.smallest(), shipped.largest())
        )
        assert distance <= 1


def test_presets_are_built_for_exactly_the_sizes_that_they_state() -> None:
    for size in (5, 6, 8, 23, 24, 28, 32, 33, 64, 65, 127, 128, 224, 320, 321):
        fitting = spaces_for(size)
        for name in PRESETS:
            if name in fitting:
                space = preset(name, channels=1, image_size=size, classes=2)
                if not name.startswith(("ofa", "nas")):
                    resolution = space.largest().mapping.get("r", size)
                    assert resolution <= size + 2, "only rounded up to a multiple"
                assert size <= (largest_image(name) or 0)
            else:
                with pytest.raises(ValueError, match=f"received {size}"):
                    preset(name, channels=1, image_size=size, classes=2)
    assert all(space_name(short) == name for short, name in FAMILIES.items())
    assert largest_image("mobile") == PRESETS["mobile-32"].largest_image
    assert largest_image("file.py:space") is largest_image(object()) is None


@pytest.mark.parametrize(
    ("name", "size", "parameters", "millions_of_macs"),
    [("photos", 224, 4_652_008, 400), ("photos-lite1", 240, 5_416_680, 620),
     ("photos-lite2", 260, 6_092_072, None)],
)  # fmt: skip
def test_the_largest_photo_networks_have_the_published_sizes(
    name: str, size: int, parameters: int, millions_of_macs: int | None
) -> None:
    """As `timm` counts EfficientNet-Lite, and as its table rounds multiply-accumulates."""
    space = preset(name, channels=3, image_size=size, classes=1000)
    workload = space.lower(space.largest())
    norms = sum(layer.G * layer.K for layer in workload.layers if layer.kind == "conv")
    assert workload.parameters + norms == parameters
    if millions_of_macs:
        assert workload.macs / 1e6 == pytest.approx(millions_of_macs, rel=0.05)


# Cells.


def test_pruning_ends_and_keeps_the_cost() -> None:
    space = CellSpace("cells", channels=3, image_size=8, classes=10)
    rng = np.random.default_rng(0)
    for _ in range(150):
        cell = space.sample(rng)
        pruned = space.prune_dead_edges(cell)
        assert space.prune_dead_edges(pruned) == pruned
        assert space.cost(pruned) == space.cost(cell)


def test_exchanging_two_middle_nodes_keeps_the_cost() -> None:
    space = CellSpace("cells", channels=3, image_size=8, classes=10)
    rng = np.random.default_rng(1)
    for _ in range(150):
        names = dict(zip(space.names, space.operations(space.sample(rng)), strict=True))
        names["2.1o"] = "none"
        swapped = names | {
            "1.0o": names["2.0o"],
            "2.0o": names["1.0o"],
            "3.1o": names["3.2o"],
            "3.2o": names["3.1o"],
        }
        one, other = (space.of_operations(tuple(found.values())) for found in (names, swapped))
        # The order in which layers run differs, and with it which sums can run in place.
        for metric in ("macs", "parameters", "model_size_bytes"):
            assert space.cost(one).metric(metric) == space.cost(other).metric(metric)


# Rounding and padding.


@given(st.floats(0.5, 5000), st.sampled_from([4, 8, 16]))
def test_divisible_channels(channels: float, multiple: int) -> None:
    found = make_divisible(channels, multiple)
    assert found % multiple == 0
    assert found >= max(multiple, 0.9 * channels)
    assert make_divisible(found, multiple) == found
    assert found <= max(multiple, channels + multiple), "no further than the next multiple"
    assert make_divisible(channels + 1, multiple) >= found


@given(st.integers(1, 300), st.integers(1, 7), st.integers(1, 4))
def test_padding_same_makes_the_size_that_a_stride_leaves(
    size: int, kernel: int, stride: int
) -> None:
    before, after = same_padding(size, kernel, stride)
    assert 0 <= before <= after <= before + 1
    padded = size + before + after
    assert (padded - kernel) // stride + 1 >= ceil_div(size, stride) == math.ceil(size / stride)
    # One zero less would lose an output, unless there is none.
    if before + after:
        assert (padded - 1 - kernel) // stride + 1 < ceil_div(size, stride)
    assert explicit_padding("same", size, kernel, stride) == (before, after)
    assert explicit_padding("symmetric", size, kernel, stride) is None
