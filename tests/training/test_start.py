"""Where weights begin: named, of a file, or of one's own."""

from __future__ import annotations

import pytest
import torch

from pliant.errors import DamagedFileError, RecipeError
from pliant.networks.supernet import Supernet
from pliant.spaces.presets import preset
from pliant.training.checkpoint import save_tensors
from pliant.training.start import STARTS, make_start


def images():
    return torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", STARTS)
def test_named_starts_keep_the_network_whole(name, digits_space, fresh):
    network, untouched = fresh(digits_space), fresh(digits_space)
    make_start(name).apply(network, images)
    changed = [
        key
        for key, tensor in network.state_dict().items()
        if not torch.equal(tensor, untouched.state_dict()[key])
    ]
    assert changed == (["blocks.stem.conv1.weight"] if name == "patch-pca" else [])
    assert make_start(name).identity == name


def test_weights_of_a_file(digits_space, fresh, tmp_path):
    parent, child = fresh(digits_space, seed=1), fresh(digits_space, seed=2)
    path = tmp_path / "weights.safetensors"
    save_tensors(path, dict(parent.state_dict()))
    make_start(str(path)).apply(child, images)
    for name, tensor in parent.state_dict().items():
        assert torch.equal(tensor, child.state_dict()[name])
    before = make_start(str(path)).identity
    save_tensors(path, dict(fresh(digits_space, seed=3).state_dict()))
    assert make_start(str(path)).identity != before, "known by its content"


def test_weights_of_another_network_name_what_differs(digits_space, tiny_space, fresh, tmp_path):
    path = tmp_path / "other.safetensors"
    tensors = dict(fresh(digits_space).state_dict())
    tensors["more"] = torch.zeros(1)
    tensors["blocks.stem.conv1.weight"] = torch.zeros(3, 1, 3, 3)
    save_tensors(path, tensors)
    with pytest.raises(RecipeError, match=r"differs in 2 tensors: more is unknown here; .*\(3, 1"):
        make_start(str(path)).apply(fresh(digits_space), images)
    with pytest.raises(RecipeError, match=r"more\. Use the file of a run with the same space"):
        make_start(str(path)).apply(fresh(tiny_space), images)


def test_names_and_files_that_are_none(tmp_path):
    with pytest.raises(
        RecipeError, match=r"one of patch-pca, none, efficientnet-lite0, .* received .whiten."
    ):
        make_start("whitening")
    with pytest.raises(RecipeError, match="found none at"):
        make_start("none.safetensors")
    (tmp_path / "half.safetensors").write_bytes(b"half")
    with pytest.raises(DamagedFileError, match=r"half\.safetensors"):
        make_start(str(tmp_path / "half.safetensors")).apply(torch.nn.Linear(1, 1), images)


def test_a_start_of_ones_own(tmp_path, digits_space, fresh):
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\n"
        "class Zero:\n"
        "    identity = 'zero'\n"
        "    def apply(self, network, images):\n"
        "        torch.nn.init.zeros_(network.blocks['stem'].conv1.weight)\n"
    )
    network = fresh(digits_space)
    make_start(f"{path}:Zero").apply(network, images)
    assert not network.blocks["stem"].conv1.weight.any()
    with pytest.raises(RecipeError, match="Did you mean 'Zero'"):
        make_start(f"{path}:Zerro")


def test_a_run_does_not_resume_from_another_start(tmp_path, tiny):
    from pliant import Run
    from pliant.errors import RunConflictError
    from pliant.runs.train import new_supernet, train_supernet

    path = tmp_path / "weights.safetensors"
    with Run.create(str(tiny), folder=tmp_path / "run", train__start=str(path)) as run:
        save_tensors(path, dict(new_supernet(run).state_dict()))

        def killed(step, done, total, note):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_supernet(run, progress=killed)
        weights = {name: tensor + 1 for name, tensor in new_supernet(run).state_dict().items()}
        save_tensors(path, weights)
        with pytest.raises(RunConflictError, match="the start with which it began"):
            train_supernet(run)


def test_a_run_resumes_when_the_file_of_its_start_is_gone(tmp_path, tiny, monkeypatch):
    from pliant import Run
    from pliant.runs import new_supernet, train_supernet
    from pliant.training import Checkpoints

    def killed(step, done, total, note):
        if 0 < done < total:
            raise KeyboardInterrupt

    path = tmp_path / "weights.safetensors"
    with Run.create(str(tiny), folder=tmp_path / "parent") as run:
        save_tensors(path, dict(new_supernet(run).state_dict()))
    make = {"folder": tmp_path / "run", "train__start": str(path), "train__epochs": 2}
    monkeypatch.setattr(Checkpoints, "due", lambda self: True)
    with Run.create(str(tiny), **make) as run, pytest.raises(KeyboardInterrupt):
        train_supernet(run, progress=killed)
    path.unlink()
    with Run.create(str(tiny), **make) as run:
        train_supernet(run)
    with (
        Run.create(str(tiny), **make | {"folder": tmp_path / "other"}) as run,
        pytest.raises(RecipeError, match="found none at"),
    ):
        train_supernet(run)


def test_without_training_a_network_has_the_weights_of_its_start(tmp_path, tiny):
    from pliant import Run
    from pliant.runs.train import new_supernet, train_supernet

    path = tmp_path / "weights.safetensors"
    options = {"train__start": str(path), "train__epochs": 0}
    with Run.create(str(tiny), folder=tmp_path / "run", **options) as run:
        expected = {name: tensor + 1 for name, tensor in new_supernet(run).state_dict().items()}
        save_tensors(path, expected)
        found = train_supernet(run).state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    with (
        Run.create(str(tiny), folder=tmp_path / "none", train__epochs=0) as run,
        pytest.raises(RecipeError, match="needs a classifier of the 10 classes"),
    ):
        train_supernet(run)


@torch.no_grad()
def test_weights_of_a_run_with_other_classes_keep_all_but_the_classifier(digits_space, tmp_path):
    few = preset("digits", channels=1, image_size=8, classes=3)
    parent, child = (Supernet(space, mean=[0], std=[1]) for space in (digits_space, few))
    before, path = child.blocks["head"].classifier.weight.clone(), tmp_path / "weights.safetensors"
    save_tensors(path, dict(parent.state_dict()))
    make_start(str(path)).apply(child, images)
    assert torch.equal(child.blocks["head"].classifier.weight, before)
    assert torch.equal(child.blocks["head"].expand.weight, parent.blocks["head"].expand.weight)


def test_a_start_that_does_not_exist_is_refused_before_anything_is_measured(tmp_path, tiny):
    from pliant import Run, run_all

    path = tmp_path / "gone.safetensors"
    with Run.create(str(tiny), folder=tmp_path / "run", train__start=str(path)) as run:
        with pytest.raises(RecipeError, match=r"found none at .*gone\.safetensors"):
            run_all(run)
        assert not run.profile_path.exists()
