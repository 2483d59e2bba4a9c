"""Averaged weights and frozen teachers, against NumPy."""

from __future__ import annotations

import numpy as np
import torch

from pliant.training import allocator
from pliant.training.averaging import WeightAverage, frozen_copy


def test_an_average_is_the_sum_of_decayed_weights(fresh, tiny_space) -> None:
    model = fresh(tiny_space)
    average = WeightAverage(model)
    expected = [one.detach().numpy().copy() for one in model.parameters()]
    rng = np.random.default_rng(0)
    for step in range(1, 5):
        weight = 1 / step if step < 3 else 0.25  # a plain mean of the first two, then decay
        with torch.no_grad():
            for place, parameter in enumerate(model.parameters()):
                parameter.copy_(torch.from_numpy(rng.normal(size=parameter.shape)))
                expected[place] += weight * (parameter.numpy() - expected[place])
        average.update(model, weight)
    for ours, wanted in zip(average.network.parameters(), expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), wanted, rtol=1e-5, atol=1e-6)
    average.copy_to(model)
    for theirs, wanted in zip(model.parameters(), expected, strict=True):
        np.testing.assert_allclose(theirs.detach().numpy(), wanted, rtol=1e-5, atol=1e-6)
    assert all(one.requires_grad for one in model.parameters())


def test_a_resumed_average_continues_where_it_was(fresh, tiny_space) -> None:
    first, other = fresh(tiny_space), fresh(tiny_space, seed=1)
    average, resumed = WeightAverage(first), WeightAverage(other)
    average.update(other, 0.5)
    resumed.load_state_dict({name: one.clone() for name, one in average.state_dict().items()})
    for one in (average, resumed):
        one.update(first, 0.25)
    for name, tensor in average.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_frozen_copy_neither_learns_nor_changes_and_shares_the_space(fresh, tiny_space) -> None:
    model = fresh(tiny_space)
    teacher = frozen_copy(model)
    before = [one.clone() for one in teacher.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert teacher.space is model.space
    assert not any(one.requires_grad for one in teacher.parameters())
    assert all(torch.equal(one, was) for one, was in zip(teacher.parameters(), before, strict=True))


class _Glibc:
    """Notes what is called."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def mallopt(self, *about: int) -> None:
        self.calls.append(about)

    malloc_trim = mallopt


def test_memory_is_trimmed_only_where_it_is_kept(monkeypatch) -> None:
    library = _Glibc()
    monkeypatch.setattr(allocator, "_glibc", lambda: library)
    monkeypatch.setattr(allocator, "_kept", False)
    allocator.trim_freed_memory()
    assert library.calls == []
    allocator.keep_freed_memory()
    # As of malloc.h: no mapping per block (-4), a threshold that is never reached (-1), 64 MiB.
    assert library.calls == [(-4, 0), (-1, 2**31 - 1), (-2, 64 * 2**20)]
    allocator.trim_freed_memory()
    assert library.calls[-1] == (0,)


def test_with_another_c_library_nothing_is_done(monkeypatch) -> None:
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    monkeypatch.setattr(allocator, "_kept", False)
    allocator.keep_freed_memory()
    allocator.trim_freed_memory()
    assert not allocator._kept
    monkeypatch.undo()
    monkeypatch.setattr("sys.platform", "darwin")
    assert allocator._glibc.__wrapped__() is None
