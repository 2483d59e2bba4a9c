"""Loop sizes, MACs and memory against numbers worked out by hand."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pliant.errors import EncodingError
from pliant.workload import Layer, Workload, peak_activation_bytes


def test_a_convolution_by_hand() -> None:
    # 3x3 from 4 to 8 channels onto 5x5 pixels: 25 outputs x 8 x 4 x 9 products; 8 x 4 x 9 weights
    # and 8 addends.
    layer = Layer("conv", "conv", ("image",), K=8, C=4, P=5, Q=5, R=3, S=3)
    assert (layer.macs, layer.parameters, layer.output_elements, layer.output_bytes) == (
        7200,
        296,
        200,
        800,
    )


def test_depthwise_and_unweighted_layers_by_hand() -> None:
    depthwise = Layer("dw", "conv", ("image",), G=6, P=2, Q=2, R=3, S=3, bias=False, bits=8)
    assert (depthwise.macs, depthwise.parameters, depthwise.output_bytes) == (6 * 4 * 9, 54, 24)
    pool = Layer("pool", "pool", ("image",), G=6, R=4, S=4, strides=(4, 4))
    assert (pool.macs, pool.parameters, pool.output_elements) == (0, 0, 6)


def test_bytes_round_up() -> None:
    assert Layer("one", "matmul", ("image",), K=3, C=1, bits=3).output_bytes == 2


def test_the_peak_of_a_residual_by_hand() -> None:
    # a reads the image (40 bytes, then free); b reads a; add reads b and a, so a is alive until
    # then.
    a = Layer("a", "conv", ("image",), K=5)
    b = Layer("b", "conv", ("a",), K=20, C=5)
    c = Layer("c", "conv", ("b",), K=5, C=20)
    add = Layer("add", "elementwise", ("c", "a"), G=5)
    assert peak_activation_bytes((a, b, c, add), 40) == 20 + 80 + 20
    whole = Workload((a, b, c, add), input_elements=10)
    assert whole.peak_activation_bytes == 120
    assert whole.parameter_bytes == 4 * (10 + 120 + 105)
    assert peak_activation_bytes((a,), 40) == 60


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.sets(st.integers(0, 7), max_size=3)), min_size=1, max_size=8
    )
)
def test_the_peak_is_the_most_that_a_later_reader_needs(plan: list[tuple[int, set[int]]]) -> None:
    names = ["image"]
    layers = []
    for number, (channels, reads) in enumerate(plan):
        sources = tuple(names[index] for index in sorted(reads) if index < len(names)) or (
            names[-1],
        )
        layers.append(Layer(f"l{number}", "elementwise", sources, G=channels))
        names.append(f"l{number}")
    sizes = {"image": 12} | {layer.name: layer.output_bytes for layer in layers}
    needed = [12]
    for step, layer in enumerate(layers):
        later = set(itertools.chain.from_iterable(other.inputs for other in layers[step:]))
        written = {"image", *(other.name for other in layers[:step])}
        # Also alive beside what is still read: the newest output, which the caller may want.
        newest = {layers[step - 1].name} if step else {"image"}
        bytes_ = sum(sizes[name] for name in (written & (later | newest)) - {layer.name})
        after = set(itertools.chain.from_iterable(other.inputs for other in layers[step + 1 :]))
        free = [name for name in set(layer.inputs) - after if sizes[name] == layer.output_bytes]
        in_place = len(layer.inputs) > 1 and bool(free)
        needed.append(bytes_ + (0 if in_place else layer.output_bytes))
    assert peak_activation_bytes(layers, 12) == max(needed)


def test_layers_and_workloads_that_cannot_be() -> None:
    with pytest.raises(EncodingError, match=r"from 1 up.*'K': 0"):
        Layer("bad", "conv", ("image",), K=0)
    layer = Layer("a", "conv", ("image",))
    with pytest.raises(EncodingError, match="received 'a' twice"):
        Workload((layer, layer), input_elements=1)
    with pytest.raises(EncodingError, match="'b' reads 'c'"):
        Workload((Layer("b", "conv", ("c",)),), input_elements=1)
