"""The graphs of a cell against what the benchmark's text means."""

import itertools

from pliant.spaces.cell import OPERATIONS, CellSpace
from pliant.spaces.cell_graphs import GRAPHS, as_written, unread_removed, zeros_folded
from pliant.workload import Layer

SPACE = CellSpace("cells", channels=3, image_size=32, classes=10)
CELLS = list(itertools.product(OPERATIONS, repeat=6))


def of(text: str) -> tuple[str, ...]:
    """Six letters as operations: none, skip, pool, 1x1 and 3x3 convolution."""
    return tuple(OPERATIONS[".sp13".index(letter)] for letter in text)


def test_unread_operations_are_removed_and_those_on_zeros_stay():
    assert unread_removed(of("3..1..")) == of("...1..")  # node 1 is read by nobody
    assert unread_removed(of("....3.")) == of("....3.")  # node 1 is zero, and is convolved


def test_a_product_with_zero_keeps_the_convolution_that_it_is_folded_into():
    assert zeros_folded(of("3..1..")) == of("3..1..")
    assert zeros_folded(of("p..1..")) == of("...1..")  # a pooling takes no factor
    assert zeros_folded(of("3.11..")) == of("3.11..")  # 1 is read by the folded one
    assert zeros_folded(of("31.1..")) == of("...1..")  # two of them are added up first


def test_graphs_are_ordered_by_what_they_run():
    for cell in CELLS[::7]:
        pruned = SPACE.operations(SPACE.prune_dead_edges(SPACE.of_operations(cell)))
        for less, more in itertools.pairwise((pruned, unread_removed(cell), as_written(cell))):
            for one, other in zip(less, more, strict=True):
                assert one in ("none", "skip_connect") or one == other


def test_macs_as_written_are_those_of_the_benchmark():
    written = SPACE.graphs["as written"]
    frame = SPACE.benchmark_size(SPACE.smallest()).flops
    for cell in CELLS[::501]:
        network = SPACE.of_operations(cell)
        macs = sum(times * layer.macs for times, layer in written(network))
        assert frame + macs == SPACE.benchmark_size(network).flops


def test_every_graph_has_layers_of_known_operators():
    for graph in GRAPHS:
        for times, layer in SPACE.graphs[graph](SPACE.largest()):
            assert times == SPACE.depth
            assert isinstance(layer, Layer)
            assert layer.operation is not None
