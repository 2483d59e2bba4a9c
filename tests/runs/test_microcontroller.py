"""A microcontroller from its data sheet, its RAM and its flash as limits: the whole job in int8."""

from __future__ import annotations

import numpy as np
import pytest

from pliant.errors import PliantError
from pliant.runs import Run, run_all

SHORT = {
    "train__epochs": 1,
    "train__precision": "fp32",
    "search__estimates": 20,
    "search__candidates": 100,
    "search__images": 50,
    "search__front": 2,
}


@pytest.fixture
def pictures(tmp_path):
    """Colour pictures of 48 pixels, of two classes: bright on the left or on the right."""
    rng = np.random.default_rng(0)
    labels = np.arange(480) % 2
    images = rng.integers(0, 90, (480, 48, 48, 3), dtype=np.uint8)
    images[labels == 0, :, :24] += 120
    images[labels == 1, :, 24:] += 120
    path = tmp_path / "pictures.npz"
    np.savez(path, images=images, labels=labels)
    return path


def _create(pictures, folder, **changes):
    options = {
        "data__source": str(pictures),
        "space": "micro",
        "train__start": "patch-pca",
        "target__name": "stm32f412",
        "target__precision": "int8",
        "limits": ["peak_memory=64kB", "model_size=120kB"],
    } | changes
    return Run.create("digits", folder=folder, **options, **SHORT)


def test_ram_and_flash_are_limits(pictures, tmp_path):
    with _create(pictures, tmp_path / "run") as run:
        result = run_all(run)
    cost = result.summary.chosen.predicted
    assert cost.peak_memory_bytes <= 64_000
    assert cost.model_size_bytes <= 120_000
    assert "roofline bound" in result.summary.target.name
    placed = result.summary.roofline
    assert placed is not None
    assert placed.device == "STM32F412, Cortex-M4 at 100 MHz"
    assert placed.network.macs == cost.macs
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "layers of the delivered network wait for memory" in page
    delivered = tmp_path / "run" / "best" / "model.int8.onnx"
    # A graph and scales beside the weights; some kilobytes per layer at most.
    assert cost.model_size_bytes < delivered.stat().st_size < cost.model_size_bytes + 200_000


def test_limits_that_no_network_meets_are_refused_with_the_range(pictures, tmp_path):
    with (
        pytest.raises(PliantError, match="peak_memory"),
        _create(pictures, tmp_path / "run", limits=["peak_memory=8kB"]) as run,
    ):
        run_all(run)
