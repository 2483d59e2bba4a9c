"""The memory of a process that runs a network: the arena by hand, and one real process."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pliant.devices.measure import empty_model
from pliant.devices.profile import random_network_model
from pliant.devices.resident_memory import (
    _Arena,
    arena_bytes,
    measure_resident_memory,
    resident_memory_bytes,
)
from pliant.errors import MeasurementError
from pliant.spaces.presets import preset
from pliant.workload import Layer, Workload, onnx_workload


def test_an_arena_by_hand() -> None:
    arena = _Arena()
    first = arena.allocate(1000)  # rounded to 1024
    second = arena.allocate(300)  # 512, a region of its own
    arena.free(first)
    third = arena.allocate(256)  # the smallest that fits is the first, which is split
    assert arena.total_bytes == 1024 + 512
    fourth = arena.allocate(768)  # the rest of it
    assert arena.total_bytes == 1536
    for chunk in (third, fourth, second):
        arena.free(chunk)
    arena.allocate(1024)  # the halves are one again
    assert arena.total_bytes == 1536
    arena.allocate(1025)
    assert arena.total_bytes == 1536 + 1280


def test_few_channels_are_copied_out_of_their_blocks() -> None:
    """And pixels of one byte become numbers of four before they are transposed."""
    layers = (
        Layer("wide", "conv", ("image",), K=8, C=3, P=4, Q=4),
        Layer("narrow", "conv", ("wide",), K=16, C=8, P=4, Q=4),
    )
    layers = tuple(replace(layer, bits=32) for layer in layers)
    workload = Workload(layers, input_elements=3 * 16, input_bits=8)
    # Twice 192 bytes of pixels; 8 channels stored as 16; their copy as 8. The last output is where
    # the first one was.
    assert arena_bytes(workload) == 256 + 256 + 1024 + 512


def test_too_small_chunks_make_the_arena_larger_than_what_is_alive() -> None:
    # Each tensor is larger than all before it: no chunk serves twice.
    sizes = [1, 2, 3]
    layers = [Layer("0", "matmul", ("image",), K=64 * 16)]
    for number, size in enumerate(sizes):
        layers.append(Layer(str(number + 1), "matmul", (str(number),), K=64 * 16 * (size + 1)))
    workload = Workload(tuple(layers), input_elements=64)
    assert workload.peak_activation_bytes == 4096 * (3 + 4)
    assert arena_bytes(workload) >= 4096 * (1 + 2 + 3 + 4)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_the_arena_holds_what_is_alive(widths: list[int]) -> None:
    layers, reads = [], "image"
    for number, width in enumerate(widths):
        layers.append(Layer(f"l{number}", "conv", (reads,), K=16 * width))
        reads = f"l{number}"
    workload = Workload(tuple(layers), input_elements=16)
    assert arena_bytes(workload) >= workload.peak_activation_bytes
    assert resident_memory_bytes(workload) > arena_bytes(workload) + workload.parameter_bytes


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="read from /proc")
def test_a_fresh_process_needs_what_is_predicted(tmp_path: Path) -> None:
    space = preset("mobile-32", channels=3, image_size=32, classes=10)
    blocks = space.blocks(space.largest())
    path = tmp_path / "model.onnx"
    path.write_bytes(empty_model())
    empty = measure_resident_memory(path)
    path.write_bytes(random_network_model(blocks, np.random.default_rng(0)))
    found = measure_resident_memory(path, batch=32)
    workload = onnx_workload(path, sizes={"N": 32})
    assert found.session_bytes - empty.session_bytes >= workload.parameter_bytes
    resident = found.peak_bytes - empty.peak_bytes
    assert resident_memory_bytes(workload) == pytest.approx(resident, rel=0.1)
    path.write_bytes(b"none")
    with pytest.raises(MeasurementError, match="which failed"):
        measure_resident_memory(path)
