"""Kernels over threads: all rows, the wrong one by its number, and no thread of others changed."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch

from pliant.accelerator.chip import load_chip
from pliant.accelerator.mapper.orders import evaluate_orders
from pliant.accelerator.mapping import trivial_mapping
from pliant.accelerator.model.cost import evaluate_many
from pliant.accelerator.model.row_threads import LEAST_ROWS, over_threads
from pliant.workload import Layer


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("rows", [0, 1, LEAST_ROWS, 3 * LEAST_ROWS + 1])
def test_every_row_is_done_once_and_the_last_wrong_one_is_named(monkeypatch, threads, rows):
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", threads)
    done = np.zeros(rows, dtype=int)

    def kernel(part: slice) -> int:
        done[part] += 1
        return 0 if part.start <= rows // 2 < part.stop else -1

    wrong = over_threads(rows, kernel)
    assert (done == 1).all()
    assert wrong == -1 if rows == 0 else 0 <= wrong <= rows // 2


def test_the_threads_of_pytorch_stay_as_they_are(monkeypatch):
    """Another number of them would sum in another order, and end in other weights."""
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 2)
    before = torch.get_num_threads()
    chip, layer = load_chip("nvdla-256"), Layer("a", "matmul", ("image",), N=8, K=16, C=16)
    rows = np.repeat(trivial_mapping(layer, chip).encode()[None], 3 * LEAST_ROWS, axis=0)
    torch.set_num_threads(1)
    try:
        many = evaluate_many(layer, chip, rows)
        orders = evaluate_orders(layer, chip, rows[: LEAST_ROWS * 2])
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert len(np.unique(many.energy)) == 1
    assert (orders.energy == orders.energy[:1]).all()
