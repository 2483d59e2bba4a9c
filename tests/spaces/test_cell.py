"""The cells of NAS-Bench-201.

How many, how they are written and numbered, which are the same, and what the benchmark says they
cost.
"""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import pytest

from pliant.errors import EncodingError
from pliant.spaces.cell import EDGES, OPERATIONS, CellSpace
from pliant.spaces.cell_blocks import Cell, Reduction
from pliant.spaces.presets import preset
from pliant.workload import Layer

# Index, cell, millions of parameters and FLOPs on CIFAR-10, and a number for the isomorphism class:
# eight rows of NATS-Bench (D-X-Y/NATS-Bench, MIT licence, Dong et al. 2021).
ROWS = """
7 |none~0|+|skip_connect~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2| \
    0.559386 78.56192 7
8 |nor_conv_1x1~0|+|avg_pool_3x3~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_3x3~2| \
    0.344346 47.10464 8
31 |skip_connect~0|+|nor_conv_1x1~0|none~1|+|avg_pool_3x3~0|nor_conv_3x3~1|avg_pool_3x3~2| \
    0.344346 47.10464 28
33 |nor_conv_1x1~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|nor_conv_3x3~1|avg_pool_3x3~2| \
    0.372346 51.0368 30
59 |skip_connect~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|nor_conv_1x1~0|nor_conv_1x1~1|avg_pool_3x3~2| \
    0.157306 19.57952 56
777 |avg_pool_3x3~0|+|avg_pool_3x3~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2| \
    0.316346 43.17248 52
8476 |nor_conv_1x1~0|+|nor_conv_1x1~0|none~1|+|nor_conv_1x1~0|nor_conv_3x3~1|avg_pool_3x3~2| \
    0.400346 54.96896 30
11787 |nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|avg_pool_3x3~0|skip_connect~1|avg_pool_3x3~2| \
    0.344346 47.10464 28
"""
DATA = Path(__file__).parents[3] / "shared" / "data" / "nas_bench_201_cifar10.csv"


@pytest.fixture(scope="module")
def space() -> CellSpace:
    return CellSpace("cells", channels=3, image_size=32, classes=10)


@pytest.fixture(scope="module")
def cells(space):
    return [
        space.decode(positions)
        for positions in itertools.product(range(len(OPERATIONS)), repeat=len(EDGES))
    ]


def test_there_are_as_many_as_published(space, cells):
    assert space.size == len(set(cells)) == 15_625
    assert len({space.isomorphism_class(cell) for cell in cells}) == 6_466


def test_both_forms_and_the_number_lead_back(space, cells):
    for cell in cells:
        assert space.parse(space.benchmark_text(cell)) == cell
        assert space.of_benchmark_index(space.benchmark_index(cell)) == cell
    assert sorted(map(space.benchmark_index, cells)) == list(range(15_625))
    assert str(cells[-2]) == "1.0o4_2.0o4_2.1o4_3.0o4_3.1o4_3.2o3"
    assert space.benchmark_text(cells[-2]).endswith(
        "|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_1x1~2|"
    )
    assert space.parse(str(cells[-2])) == cells[-2]


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (
            0,
            "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|"
            "+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
        ),
        (9, "|avg_pool_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"),
        (
            123,
            "|avg_pool_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|"
            "+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|",
        ),
    ],
)
def test_numbers_that_the_benchmark_checks_itself(space, index, text):
    assert space.benchmark_text(space.of_benchmark_index(index)) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "|skip_connect~0|+|none~0|none~1|",
            r"a cell reads like \|nor_conv_3x3~0\|\+.*Name an operation for each edge",
        ),
        ("|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", "a cell reads like"),
        ("|none~0|none~0|none~1|+|none~0|none~1|none~2|", "a cell reads like"),
        (
            "|nor_conv_5x5~0|+|none~0|none~1|+|none~0|none~1|none~2|",
            "no operation of a cell is called 'nor_conv_5x5'. Did you mean",
        ),
        (
            "1.0o5_2.0o0_2.1o0_3.0o0_3.1o0_3.2o0",
            r"'1.0o' takes one of \(0, 1, 2, 3, 4\), received 5",
        ),
    ],
)
def test_text_that_names_no_cell(space, text, says):
    with pytest.raises(EncodingError, match=says):
        space.parse(text)


def test_numbers_and_names_that_are_none(space):
    with pytest.raises(EncodingError, match="from 0 to 15624, received 15625"):
        space.of_benchmark_index(15_625)
    with pytest.raises(EncodingError, match="has 6 operations, received 1"):
        space.of_operations(("none",))


def flow(operations):
    """What reaches node 3 if each edge multiplies by a prime of its own.

    It tells which paths are open.
    """
    nodes = [1, 0, 0, 0]
    for (source, target), name, prime in zip(EDGES, operations, (2, 3, 5, 7, 11, 13), strict=True):
        nodes[target] += prime * nodes[source] if name != "none" else 0
    return nodes[3]


def test_what_lives_is_all_that_matters(space, cells):
    for cell in cells:
        kept = space.operations(space.prune_dead_edges(cell))
        assert flow(kept) == flow(space.operations(cell))
        for edge in range(len(EDGES)):
            assert kept[edge] == "none" or flow((*kept[:edge], "none", *kept[edge + 1 :])) < flow(
                kept
            )


def test_rows_of_the_benchmark(space):
    check(space, [row.split() for row in ROWS.split("\n") if row])


@pytest.mark.skipif(
    not DATA.exists(), reason=f"needs {DATA.name} in shared/data beside the repository"
)
def test_the_rows_of_the_data_file(space):
    with DATA.open() as file:
        rows = list(csv.DictReader(file))
    columns = ("index", "arch", "params_millions", "flops_millions", "isomorphism_group")
    check(space, [[row[column] for column in columns] for row in rows])
    assert len(rows) == 3000


def check(space, rows):
    pairs = set()
    for index, text, parameters, flops, group in rows:
        cell = space.parse(text)
        assert space.benchmark_text(cell) == text
        assert space.benchmark_index(cell) == int(index)
        assert space.benchmark_size(cell) == (
            round(1e6 * float(parameters)),
            round(1e6 * float(flops)),
        )
        pairs.add((group, space.isomorphism_class(cell)))
    assert len(pairs) == len({group for group, _ in pairs}) == len({found for _, found in pairs})


def test_macs_are_the_benchmarks_where_all_operations_live(space, cells):
    for cell in cells[:: len(cells) // 500]:
        cost, size = space.cost(cell), space.benchmark_size(space.prune_dead_edges(cell))
        assert cost.macs == size.flops
        # A BatchNorm is one addend where it folds into a convolution, and nothing where it is
        # alone, behind the last sum.
        kernels = [
            name
            for name in space.operations(space.prune_dead_edges(cell))
            if name.startswith("nor_conv")
        ]
        assert size.parameters - cost.parameters == 16 + 2 * 32 + 2 * 64 + 2 * 64 + len(
            kernels
        ) * 5 * (16 + 32 + 64)


def test_a_cell_by_hand():
    text = "|skip_connect~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|none~0|skip_connect~1|nor_conv_3x3~2|"
    block = Cell(slot="c", size=4, channels=2, operations=text)
    assert block.layers("x") == (
        Layer("c.nor_conv_1x1_02", "conv", ("x",), K=2, C=2, P=4, Q=4),
        Layer("c.avg_pool_3x3_12", "pool", ("x",), G=2, P=4, Q=4, R=3, S=3),
        Layer("c.add2", "elementwise", ("c.nor_conv_1x1_02", "c.avg_pool_3x3_12"), G=2, P=4, Q=4),
        Layer("c.nor_conv_3x3_23", "conv", ("c.add2",), K=2, C=2, P=4, Q=4, R=3, S=3),
        Layer("c.add3", "elementwise", ("x", "c.nor_conv_3x3_23"), G=2, P=4, Q=4),
    )
    assert block.cost.macs == 2 * 2 * 16 + 2 * 2 * 9 * 16
    assert block.cost.parameters == (4 + 2) + (36 + 2)
    # The cell's input and both terms, one of which their sum overwrites: 2 x 16 numbers each.
    assert block.cost.peak_activation_bytes == 3 * 4 * 32


def test_a_reduction_by_hand():
    assert Reduction(slot="r", size=5, inputs=2, outputs=4).layers("x") == (
        Layer("r.conv1", "conv", ("x",), K=4, C=2, P=3, Q=3, R=3, S=3, strides=(2, 2)),
        Layer("r.conv2", "conv", ("r.conv1",), K=4, C=4, P=3, Q=3, R=3, S=3),
        Layer("r.shortcut.pool", "pool", ("x",), G=2, P=3, Q=3, R=2, S=2, strides=(2, 2)),
        Layer("r.shortcut", "conv", ("r.shortcut.pool",), K=4, C=2, P=3, Q=3, bias=False),
        Layer("r.add", "elementwise", ("r.conv2", "r.shortcut"), G=4, P=3, Q=3),
    )


def test_dead_operations_and_cells_that_hand_on_cost_nothing(space):
    frame = space.cost(space.smallest()).macs
    for text, cells in {
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|none~0|none~1|none~2|": 15,
        "|none~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_3x3~2|": 15,
        "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|": 0,
        "|skip_connect~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|": 0,
        "|skip_connect~0|+|none~0|none~1|+|skip_connect~0|skip_connect~1|none~2|": 15,
    }.items():
        found = space.parse(text)
        assert sum(isinstance(block, Cell) for block in space.blocks(found)) == cells
        assert space.cost(found).macs == frame


def test_an_operation_on_nothing_is_refused():
    with pytest.raises(EncodingError, match="Write none for 'avg_pool_3x3'"):
        Cell(
            slot="c",
            size=4,
            channels=2,
            operations="|none~0|+|none~0|none~1|+|none~0|none~1|avg_pool_3x3~2|",
        )


def test_the_preset_is_the_benchmarks_network_for_any_images():
    for size, classes, last in ((8, 3, 2), (16, 120, 4), (33, 7, 9)):
        found = preset("nas-bench-201", channels=1, image_size=size, classes=classes)
        blocks = found.blocks(found.largest())
        assert [type(block).__name__ for block in blocks].count("Cell") == 15
        assert (blocks[-1].in_channels, blocks[-1].size, blocks[-1].sizes["classes"]) == (
            64,
            last,
            classes,
        )
