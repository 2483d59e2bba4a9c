"""Two processes train one set of weights.

Both have the same sub-networks, the same bits, and the gradients of the whole batch.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pliant.data import Augmentation, Split
from pliant.data.splits import ImagesInMemory, epoch_permutation
from pliant.spaces.presets import preset
from pliant.training.checkpoint import load_tensors
from pliant.training.loop import train
from pliant.training.progressive import ProgressiveShrinking
from pliant.training.schedule import TrainingRecipe
from pliant.training.scratch import FromScratch

SCRIPT = """
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(sys.argv[1]).parent))
from test_parallel import RECIPE, AUGMENTATION, Spy, images, linear, space, supernet

from pliant.training.checkpoint import Checkpoints, save_tensors
from pliant.training.scratch import FromScratch
from pliant.training.loop import make_accelerator, train

folder = Path(sys.argv[2])
accelerator = make_accelerator("fp32", "cpu")
assert accelerator.num_processes == 2
rank = accelerator.process_index
torch.manual_seed(rank)  # processes do not share their global random numbers
model, strategy = supernet(), Spy(space())
train(
    model, images(), AUGMENTATION, RECIPE, strategy,
    accelerator=accelerator, checkpoints=Checkpoints(folder / "run", seconds=0),
)
save_tensors(folder / f"supernet{rank}.safetensors", dict(model.state_dict()))
(folder / f"asked{rank}.json").write_text(json.dumps(strategy.asked))
(folder / f"labels{rank}.json").write_text(json.dumps(strategy.labels))
model = linear()
train(model, images(), AUGMENTATION, RECIPE, FromScratch(), accelerator=accelerator)
save_tensors(folder / f"linear{rank}.safetensors", dict(model.state_dict()))
torch.distributed.destroy_process_group()
"""

RECIPE = TrainingRecipe(epochs=3, batch_size=32, learning_rate=0.2)
AUGMENTATION = Augmentation()


def space():
    return preset("digits", channels=1, image_size=8, classes=10)


def images() -> Split:
    rng = np.random.default_rng(0)
    return Split(
        ImagesInMemory(torch.from_numpy(rng.integers(0, 256, (64, 1, 8, 8), dtype=np.uint8))),
        rng.integers(0, 10, 64),
    )


def supernet():
    from pliant.networks.supernet import Supernet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return Supernet(space(), mean=[0.5], std=[0.3])


def linear():
    """Without BatchNorm, so that the gradient of a batch is the mean of its halves'."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 10)
        )


class Spy(ProgressiveShrinking):
    """Writes down which networks are trained, on what."""

    def __init__(self, space):
        super().__init__(space)
        self.asked, self.labels = [], []

    def losses(self, phase, model, images, labels, rng):
        self.labels.append(labels.tolist())

        def remembered(batch, architecture, **options):
            self.asked.append(str(architecture))
            return model(batch, architecture, **options)

        return super().losses(phase, remembered, images, labels, rng)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(script),
        __file__,
        str(folder),
    ]
    # PyTorch 2.13 now and then aborts a process at its end, behind its last line.
    said = _said(command, environment)
    if "terminate called without" in said:
        shutil.rmtree(folder / "run", ignore_errors=True)
        said = _said(command, environment)
    assert not said
    return folder


def _said(command: list[str], environment: dict[str, str]) -> str:
    """Nothing where the command succeeds, else its errors."""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _, said = process.communicate(timeout=300)  # seconds on a machine that is free
        except subprocess.TimeoutExpired:
            process.terminate()  # and not kill, so that it can end its workers
            raise
    return said if process.returncode else ""


def of_rank(folder: Path, name: str) -> list[dict[str, torch.Tensor]]:
    return [load_tensors(folder / f"{name}{rank}.safetensors")[0] for rank in range(2)]


def test_both_processes_end_with_the_same_bits(done):
    one, other = of_rank(done, "supernet")
    start = supernet().state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert all(tensor.isfinite().all() for tensor in one.values())
    assert sum(not torch.equal(tensor, start[name]) for name, tensor in one.items()) > 0.8 * len(
        start
    )


def test_both_processes_train_the_same_networks(done):
    one, other = (json.loads((done / f"asked{rank}.json").read_text()) for rank in range(2))
    assert one == other
    assert len(set(one)) > 3


def test_each_process_takes_its_half_of_a_batch(done):
    one, other = (json.loads((done / f"labels{rank}.json").read_text()) for rank in range(2))
    assert len(one) == len(other) == 6
    for step, halves in enumerate(zip(one, other, strict=True)):
        batch = epoch_permutation(64, step // 2, RECIPE.seed)[32 * (step % 2) :][:32]
        labels = images().labels[batch].tolist()
        assert halves == (labels[0::2], labels[1::2])


def test_only_the_first_process_writes_checkpoints(done):
    earlier, last = sorted((done / "run").iterdir())
    assert (earlier.name, last.name) == (
        "checkpoint-000000005.safetensors",
        "checkpoint-000000006.safetensors",
    )
    saved = {name.removeprefix("model."): tensor for name, tensor in load_tensors(last)[0].items()}
    assert all(
        torch.equal(saved[name], tensor) for name, tensor in of_rank(done, "supernet")[0].items()
    )


def test_two_processes_are_one_with_the_whole_batch(done, cpu):
    model = linear()
    train(model, images(), AUGMENTATION, RECIPE, FromScratch(), accelerator=cpu)
    one, other = of_rank(done, "linear")
    for name, tensor in model.state_dict().items():
        assert torch.equal(one[name], other[name])
        torch.testing.assert_close(one[name], tensor, rtol=1e-5, atol=1e-6)
