"""The one training loop, for supernets and for networks trained alone.

What differs between methods is a `Schedule`: which phases there are, and which losses a step sums up. Everything random in a
step follows from (seed, step), so a run that was killed goes on from its last checkpoint exactly as if it had not been, and
all processes of a data-parallel run draw the same sub-networks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from pliant.data.augment import Augmentation, alternating_flips
from pliant.data.splits import Split, epoch_order
from pliant.training.allocator import trim_freed_memory
from pliant.training.checkpoint import Checkpoints

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class TrainingRecipe:
    """How weights are trained: SGD with Nesterov momentum, linear warm-up and cosine decay in every phase."""

    epochs: int
    batch_size: int = 512
    learning_rate: float = 0.375
    """Peak rate for a batch of 256 images; grows in proportion to the batch."""
    momentum: float = 0.85
    weight_decay: float = 1.3e-3
    """Not applied to BatchNorm, biases and kernel matrices, whose neutral value is not 0."""
    bias_rate: float = 16.0
    """Learning rate of BatchNorm's biases over all others' (Jordan 2024 takes 64)."""
    label_smoothing: float = 0.1
    warmup: float = 0.1
    """Share of a phase's steps."""
    clip_norm: float = 5.0
    """Largest L2 norm of the gradient; 0 for none."""
    precision: Precision = "fp32"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training with a learning rate of its own."""

    name: str
    epochs: float
    """May be a fraction; phases follow each other at the nearest step."""
    rate: float = 1.0
    """Peak learning rate over the recipe's."""


class Schedule(Protocol):
    """What a method adds to the loop."""

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """The phases, whose epochs add up to `epochs`."""
        ...

    def enter(self, phase: str, model: nn.Module) -> None:
        """Change the model at the first step of a phase."""
        ...

    def resume(self, model: nn.Module, teacher: dict[str, Tensor]) -> None:
        """Get ready to go on from a checkpoint, with the teacher's weights as they were saved."""
        ...

    def teacher(self) -> dict[str, Tensor]:
        """Weights beside the model's that a checkpoint must hold."""
        ...

    def losses(
        self, phase: str, model: nn.Module, images: Tensor, labels: Tensor, rng: np.random.Generator
    ) -> Iterator[Tensor]:
        """The losses of one step; each is followed by its backward pass before the next is asked for."""
        ...


@dataclass(frozen=True, slots=True)
class StepLog:
    """What one step reports."""

    step: int
    steps: int
    epoch: float
    phase: str
    losses: tuple[float, ...]
    learning_rate: float
    images_per_second: float
    overhead: float
    """Share of the time since the last report that went to data, sampling, and Python between the passes."""


@dataclass(frozen=True, slots=True)
class Timetable:
    """Which step belongs to which phase, and its learning rate."""

    phases: tuple[Phase, ...]
    steps_per_epoch: int

    @property
    def borders(self) -> tuple[int, ...]:
        """First step of each phase, and the number of all steps."""
        ends = np.cumsum([0.0, *(phase.epochs for phase in self.phases)]) * self.steps_per_epoch
        return tuple(round(end) for end in ends)

    def phase_index(self, step: int) -> int:
        """The phase of a step."""
        return max(index for index, start in enumerate(self.borders[:-1]) if start <= step)

    def learning_rate(self, step: int, recipe: TrainingRecipe) -> float:
        """Linear warm-up, then a half cosine to 0, over the phase of the step."""
        index = self.phase_index(step)
        start, end = self.borders[index], self.borders[index + 1]
        peak = recipe.learning_rate * recipe.batch_size / 256 * self.phases[index].rate
        done = (step - start + 0.5) / (end - start)
        if done < recipe.warmup:
            return peak * done / recipe.warmup
        return peak * 0.5 * (1 + math.cos(math.pi * (done - recipe.warmup) / (1 - recipe.warmup)))


def parameter_groups(model: nn.Module, recipe: TrainingRecipe) -> list[dict]:
    """Decay for the weights of convolutions and linear layers only; a rate of their own, over all others', for BatchNorm's biases."""
    decayed = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    }
    biases = {id(module.bias) for module in model.modules() if isinstance(module, nn.BatchNorm2d)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {
        (recipe.weight_decay, 1.0): [],
        (0.0, 1.0): [],
        (0.0, recipe.bias_rate): [],
    }
    for parameter in model.parameters():
        decay = recipe.weight_decay if id(parameter) in decayed else 0.0
        groups[decay, recipe.bias_rate if id(parameter) in biases else 1.0].append(parameter)
    return [
        {"params": found, "weight_decay": decay, "rate": rate}
        for (decay, rate), found in groups.items()
        if found
    ]


def make_accelerator(precision: Precision, device: str) -> Accelerator:
    """The device, its mixed precision and the processes of a data-parallel run, as `accelerate` sees them.

    Args:
        device: named in any case, since left to itself accelerate joins processes on GPUs only.
    """
    AcceleratorState._reset_state()  # one program may train with one precision after another
    return Accelerator(mixed_precision="bf16" if precision == "bf16" else "no", cpu=device == "cpu")


def train(
    model: nn.Module,
    split: Split,
    augmentation: Augmentation,
    recipe: TrainingRecipe,
    schedule: Schedule,
    *,
    accelerator: Accelerator,
    checkpoints: Checkpoints | None = None,
    on_step: Callable[[StepLog], None] = lambda log: None,
    report_every: int = 10,
) -> None:
    """Train a model in place to the end of its recipe, from the last checkpoint where there is one.

    Args:
        split: training images; each process of a data-parallel run takes its share of every batch.
        report_every: steps between two calls of `on_step`.

    Raises:
        DamagedFileError: the last checkpoint cannot be read.
    """
    model.to(accelerator.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    steps_per_epoch = max(1, len(split) // recipe.batch_size)
    timetable = Timetable(schedule.phases(recipe.epochs), steps_per_epoch)
    optimizer = torch.optim.SGD(
        parameter_groups(model, recipe), lr=0.0, momentum=recipe.momentum, nesterov=True
    )
    start, last = (
        _restore(model, optimizer, schedule, checkpoints) if checkpoints else 0,
        timetable.borders[-1],
    )
    clock = _Clock()
    for step in range(start, last):
        phase = timetable.phases[timetable.phase_index(step)].name
        if step in timetable.borders:
            schedule.enter(phase, model)
            optimizer.state.clear()  # momentum of another phase, or of channels in another order
        rate = timetable.learning_rate(step, recipe)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        images, labels = _batch(split, augmentation, recipe, step, steps_per_epoch, accelerator)
        with clock.passes(), _own_randomness(_draw_seed(recipe, step, accelerator), accelerator):
            rng = np.random.default_rng((recipe.seed, step))
            losses = schedule.losses(phase, _Autocast(model, accelerator), images, labels, rng)
            seen = _descend(model, optimizer, losses, recipe, accelerator)
        done = step + 1
        if done % report_every == 0 or done == last:
            trim_freed_memory()
            seconds, steps, overhead = clock.lap()
            speed = steps * recipe.batch_size / seconds
            on_step(
                StepLog(
                    done,
                    last,
                    done / steps_per_epoch,
                    phase,
                    tuple(map(float, seen)),
                    rate,
                    speed,
                    overhead,
                )
            )
        if checkpoints and accelerator.is_main_process and (checkpoints.due() or done == last):
            checkpoints.save(done, model, optimizer, schedule.teacher())
    accelerator.wait_for_everyone()


def _descend(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses: Iterator[Tensor],
    recipe: TrainingRecipe,
    accelerator: Accelerator,
) -> list[Tensor]:
    """One step down the sum of the losses, each of which is gone back through before the next is computed."""
    seen = []
    for loss in losses:
        accelerator.backward(loss)
        seen.append(loss.detach())
    _average_gradients(model, accelerator)
    if recipe.clip_norm:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return seen


def _restore(
    model: nn.Module, optimizer: torch.optim.Optimizer, schedule: Schedule, checkpoints: Checkpoints
) -> int:
    step, teacher = checkpoints.load(model, optimizer)
    if step:
        schedule.resume(model, teacher)
    return step


def _batch(
    split: Split,
    augmentation: Augmentation,
    recipe: TrainingRecipe,
    step: int,
    steps_per_epoch: int,
    accelerator: Accelerator,
) -> tuple[Tensor, Tensor]:
    """The images of a step and of this process, augmented: all of it follows from the seed and the step."""
    epoch, position = divmod(step, steps_per_epoch)
    order = epoch_order(len(split), epoch, recipe.seed)
    indices = order[position * recipe.batch_size : (position + 1) * recipe.batch_size]
    mine = indices[accelerator.process_index :: accelerator.num_processes]
    images, labels = split.batch(mine)
    generator = torch.Generator().manual_seed(_draw_seed(recipe, step, accelerator))
    mirrored = (
        torch.from_numpy(alternating_flips(len(split), epoch, recipe.seed)[mine])
        if augmentation.flip
        else None
    )
    pixels = augmentation(images, generator, mirrored=mirrored)
    return pixels.to(accelerator.device, memory_format=torch.channels_last), labels.to(
        accelerator.device
    )


def _draw_seed(recipe: TrainingRecipe, step: int, accelerator: Accelerator) -> int:
    """A seed of its own for each step and process."""
    return (recipe.seed * 1_000_003 + step) * 64 + accelerator.process_index


@contextmanager
def _own_randomness(seed: int, accelerator: Accelerator) -> Iterator[None]:
    """Dropout draws from PyTorch's global generator: inside it follows from the seed, outside it is as if nothing was drawn."""
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


class _Autocast(nn.Module):
    """The model under the run's mixed precision, with logits in fp32."""

    def __init__(self, model: nn.Module, accelerator: Accelerator) -> None:
        super().__init__()
        self.model, self.accelerator = model, accelerator

    def forward(self, *inputs: object, **options: object) -> Tensor:
        with self.accelerator.autocast():
            return self.model(*inputs, **options).float()


def _average_gradients(model: nn.Module, accelerator: Accelerator) -> None:
    """Average over processes once a step, after all backward passes; blocks that no sub-network used count as 0.

    One reduction of one flat tensor: hooks on every backward pass would send the gradients of a step several times.
    """
    if accelerator.num_processes == 1:
        return
    parameters = list(model.parameters())
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    flat = accelerator.reduce(flat, "mean")
    for parameter, gradient in zip(
        parameters, flat.split([p.numel() for p in parameters]), strict=True
    ):
        parameter.grad = gradient.view_as(parameter)


class _Clock:
    """Time since the last lap, and how much of it passed outside the passes."""

    def __init__(self) -> None:
        self.started, self.inside, self.entered, self.steps = time.perf_counter(), 0.0, 0.0, 0

    def passes(self) -> _Clock:
        return self

    def __enter__(self) -> None:
        self.entered = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.inside += time.perf_counter() - self.entered
        self.steps += 1

    def lap(self) -> tuple[float, int, float]:
        """Seconds, steps, and the share of the seconds outside the passes since the last lap."""
        seconds, steps = time.perf_counter() - self.started, self.steps
        overhead = 1 - self.inside / seconds
        self.started, self.inside, self.steps = time.perf_counter(), 0.0, 0
        return seconds, steps, overhead
