"""Train the supernet of a run, from its last checkpoint where there is one."""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from pliant.accuracy.checkpoint import Checkpoints, load_tensors, save_tensors
from pliant.accuracy.progressive import ProgressiveShrinking
from pliant.accuracy.sandwich import Sandwich
from pliant.accuracy.training import Precision, Schedule, StepLog, TrainingRecipe, make_accelerator, train
from pliant.data.augment import Augmentation
from pliant.networks.supernet import Supernet
from pliant.pipeline.run import Progress, Run, silent


def train_supernet(run: Run, *, device: str | None = None, progress: Progress = silent) -> Supernet:
    """The trained supernet of a run; trained to the end of the recipe if it is not yet.

    Args:
        device: as PyTorch names it; the best one found where None.
    """
    supernet = new_supernet(run)
    if run.weights.is_file():
        supernet.load_state_dict(load_tensors(run.weights)[0])
        return supernet.eval()
    table = run.recipe.train
    precision = run.record.fact("precision") or table.precision
    if precision == "auto":
        precision = faster_precision(supernet, min(table.batch_size, len(run.data.train)))
    run.record.set_fact("precision", precision)
    accelerator = make_accelerator(precision, device)
    log = _Log(run, progress)
    train(
        supernet,
        run.data.train,
        augmentation(run),
        training_recipe(run, precision),
        schedule(run),
        accelerator=accelerator,
        checkpoints=Checkpoints(run.folder / "supernet"),
        on_step=log if accelerator.is_main_process else lambda step: None,
    )
    if accelerator.is_main_process:
        log.close()
        save_tensors(run.weights, dict(supernet.state_dict()))
    return supernet.eval()


def new_supernet(run: Run) -> Supernet:
    """Fresh weights that follow from the run's seed, without touching the program's own random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.recipe.seed)
        return Supernet(run.space, mean=run.data.mean, std=run.data.std)


def training_recipe(run: Run, precision: Precision) -> TrainingRecipe:
    """The recipe's training table as the loop takes it; small data sets get batches of at most a twentieth of them."""
    table = run.recipe.train
    return TrainingRecipe(
        epochs=table.epochs,
        batch_size=min(table.batch_size, len(run.data.train)),
        learning_rate=table.learning_rate,
        weight_decay=table.weight_decay,
        label_smoothing=table.label_smoothing,
        precision=precision,
        seed=run.recipe.seed,
    )


def augmentation(run: Run) -> Augmentation:
    """How training images are varied; the blanked square has the mean colour."""
    table = run.recipe.data
    return Augmentation(pad=table.pad, flip=table.flip, cutout=table.cutout, fill=run.data.mean)


def schedule(run: Run) -> Schedule:
    """The schedule that the recipe names."""
    smoothing = run.recipe.train.label_smoothing
    if run.recipe.train.schedule == "sandwich":
        return Sandwich(run.space, label_smoothing=smoothing)
    return ProgressiveShrinking(run.space, label_smoothing=smoothing)


def faster_precision(supernet: Supernet, batch_size: int) -> Precision:
    """Time a step of the largest network in fp32 and in bf16 and take the faster: which one wins depends on CPU and layers."""
    images, labels = _example(supernet, min(batch_size, 256))
    seconds: dict[Precision, float] = {}
    for precision in ("fp32", "bf16"):
        times = []
        for _ in range(3):
            started = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                logits = supernet(images, supernet.space.largest())
            F.cross_entropy(logits.float(), labels).backward()
            times.append(time.perf_counter() - started)
        seconds[precision] = min(times)
    supernet.zero_grad(set_to_none=True)
    return min(seconds, key=lambda precision: seconds[precision])


def _example(supernet: Supernet, batch_size: int) -> tuple[Tensor, Tensor]:
    space = supernet.space
    images = torch.full((batch_size, space.channels, space.image_size, space.image_size), 0.5)
    images += torch.linspace(-0.5, 0.5, images.numel()).view_as(images)
    return images.contiguous(memory_format=torch.channels_last), torch.arange(batch_size) % space.classes


class _Log:
    """Training logs: the record for the report, TensorBoard for those who watch, the progress bar."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self.run, self.progress = run, progress
        self.board = SummaryWriter(str(run.folder / "supernet" / "tensorboard"), purge_step=None)
        self.seconds = float(run.record.fact("training_seconds") or 0.0)
        self.last = time.monotonic()

    def __call__(self, step: StepLog) -> None:
        self.seconds += time.monotonic() - self.last
        self.last = time.monotonic()
        losses = {f"loss {index}": loss for index, loss in enumerate(step.losses)}
        values = losses | {"learning_rate": step.learning_rate, "images_per_second": step.images_per_second, "overhead": step.overhead}
        for name, value in values.items():
            self.board.add_scalar(name, value, step.step)
        self.run.record.log_step(step.step, step.epoch, values | {"losses": list(step.losses), "phase": step.phase})
        self.run.record.set_fact("training_seconds", self.seconds)
        self.progress("train", step.step, step.steps, f"{step.phase}, loss {step.losses[0]:.3f}, {step.images_per_second:.0f} images/s")

    def close(self) -> None:
        self.board.close()
