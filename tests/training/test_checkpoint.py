"""A checkpoint has everything, replaces nothing before it is whole, and reports damage."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from torch import nn

from pliant.errors import DamagedFileError
from pliant.training.checkpoint import Checkpoints, load_tensors, save_tensors


def trained(width=3):
    """A model after one step, and its optimizer; one parameter never had a gradient."""
    model = nn.ModuleDict(
        {"used": nn.Conv2d(2, width, 3), "norm": nn.BatchNorm2d(width), "idle": nn.Linear(2, 2)}
    )
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model["norm"](model["used"](torch.randn(2, 2, 5, 5))).square().sum().backward()
    optimizer.step()
    return model, {"weights": optimizer}


def test_what_is_saved_comes_back(tmp_path):
    model, optimizer = trained()
    teacher = {"a.b": torch.randn(3), "model.c": torch.arange(4)}
    checkpoints = Checkpoints(tmp_path / "new" / "folder")
    checkpoints.save(17, model, optimizer, teacher)
    other, fresh = trained()
    fresh["weights"].state.clear()
    step, found = checkpoints.load(other, fresh)
    assert step == 17
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        name: tensor.tolist() for name, tensor in teacher.items()
    }
    assert all(
        torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items()
    )
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert (one in optimizer["weights"].state) == (two in fresh["weights"].state)
        if one in optimizer["weights"].state:
            assert torch.equal(
                optimizer["weights"].state[one]["momentum_buffer"],
                fresh["weights"].state[two]["momentum_buffer"],
            )


def test_nothing_is_restored_where_there_is_nothing(tmp_path):
    model, optimizer = trained()
    assert Checkpoints(tmp_path).load(model, optimizer) == (0, {})
    assert Checkpoints(tmp_path / "missing").files() == []


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path):
    model, optimizer = trained()
    checkpoints = Checkpoints(tmp_path)
    for step in (9, 10, 100, 99_999_999):
        checkpoints.save(step, model, optimizer, {})
    assert [path.name for path in checkpoints.files()] == [
        "checkpoint-000000100.safetensors",
        "checkpoint-099999999.safetensors",
    ]
    assert checkpoints.load(model, optimizer)[0] == 99_999_999
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        path.name for path in checkpoints.files()
    ]


def test_when_the_next_one_is_due(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    checkpoints = Checkpoints(tmp_path, seconds=20)
    now[0] = 119.0
    assert not checkpoints.due()
    now[0] = 120.0
    assert checkpoints.due()
    checkpoints.save(1, *trained(), {})
    assert not checkpoints.due()


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_damaged_one_is_named_and_the_others_are_whole(keep, tmp_path):
    model, optimizer = trained()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, model, optimizer, {})
    checkpoints.save(2, model, optimizer, {})
    older, newest = checkpoints.files()
    content = newest.read_bytes()
    newest.write_bytes(content[:keep])
    left = {path: path.read_bytes() for path in checkpoints.files()}
    with pytest.raises(
        DamagedFileError,
        match=r"checkpoint-000000002\.safetensors cannot be read .*remove this one",
    ):
        checkpoints.load(model, optimizer)
    assert {path: path.read_bytes() for path in checkpoints.files()} == left, "no file is touched"
    newest.unlink()
    assert checkpoints.load(model, optimizer)[0] == 1, "what the message says works"
    assert older.exists()


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"a": torch.ones(1)}, {"step": "3"}),
        ({"model.a": torch.ones(1)}, None),
        ({"model.a": torch.ones(1)}, {"step": "three"}),
    ],
)
def test_other_tensors_are_no_checkpoint(tensors, metadata, tmp_path):
    save_tensors(tmp_path / "checkpoint-000000003.safetensors", tensors, metadata)
    with pytest.raises(
        DamagedFileError,
        match=r"checkpoint-000000003\.safetensors is not a checkpoint of a training run",
    ):
        Checkpoints(tmp_path).load(*trained())


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    Checkpoints(tmp_path).save(1, *trained(width=4), {})
    with pytest.raises(DamagedFileError, match=r"(?s)does not fit this network: .*size mismatch"):
        Checkpoints(tmp_path).load(*trained(width=3))


def test_a_checkpoint_of_another_strategy_is_refused(tmp_path):
    model, optimizers = trained()
    Checkpoints(tmp_path).save(1, model, {"alpha": optimizers["weights"]}, {})
    with pytest.raises(
        DamagedFileError, match="holds 'alpha/momentum_buffer', which this strategy"
    ):
        Checkpoints(tmp_path).load(model, optimizers)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"a": torch.ones(2)}, {"step": "1"})

    def full(tensors, where, metadata):
        where.write_bytes(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr("pliant.training.checkpoint.save_file", full)
    with pytest.raises(OSError, match="no space left"):
        save_tensors(path, {"a": torch.zeros(2)}, {"step": "2"})
    tensors, metadata = load_tensors(path)
    assert (tensors["a"].tolist(), metadata) == ([1, 1], {"step": "1"})
    assert list(tmp_path.iterdir()) == [path]


def test_tensors_are_stored_whole_whatever_their_memory_looks_like(tmp_path):
    """Views, channels-last tensors and tensors that share memory."""
    base = torch.randn(2, 3, 4, 5)
    tensors = {
        "view": base[:, 1:],
        "last": base.contiguous(memory_format=torch.channels_last),
        "turned": base.transpose(0, 1),
    }
    save_tensors(tmp_path / "a.safetensors", tensors)
    found, metadata = load_tensors(tmp_path / "a.safetensors")
    assert metadata == {}
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert set(file.keys()) == set(tensors)
