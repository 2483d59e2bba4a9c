"""The one training loop, for supernets and for networks trained from scratch.

What differs between methods is a `TrainingStrategy`. Everything random in a step follows from
(seed, step), so a run that was killed resumes from its last checkpoint exactly as if it had not
been, and all processes of a data-parallel run draw the same sub-networks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.optim import Optimizer

from pliant.data.augment import Augmentation, alternating_flips
from pliant.data.splits import Split, balanced_permutation, epoch_permutation
from pliant.errors import DivergedError, RecipeError
from pliant.training.allocator import trim_freed_memory
from pliant.training.checkpoint import Checkpoints
from pliant.training.schedule import PARTS, PlanPoint, Precision, Timetable, TrainingRecipe
from pliant.training.strategy import TrainingStrategy

CHECKED_EVERY = 5
"""Steps between two checks of losses and weights, which are checked before a checkpoint, too."""


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
    """Share of the time since the last report outside forward and backward passes: data, sampling,
    Python."""
    measures: Mapping[str, Any]
    """What the strategy adds."""


def make_accelerator(precision: Precision, device: str) -> Accelerator:
    """The device, its mixed precision and the processes of a data-parallel run.

    Args:
        precision: of the forward passes.
        device: always named, since left to itself accelerate joins processes on GPUs only.
    """
    AcceleratorState._reset_state()  # one program may train with one precision after another
    return Accelerator(mixed_precision="bf16" if precision == "bf16" else "no", cpu=device == "cpu")


def train(
    model: nn.Module,
    splits: Split | Mapping[str, Split],
    augmentation: Augmentation,
    recipe: TrainingRecipe,
    strategy: TrainingStrategy,
    *,
    accelerator: Accelerator,
    checkpoints: Checkpoints | None = None,
    on_step: Callable[[StepLog], None] = lambda log: None,
    report_every: int = 10,
    replan: Callable[[Timetable, PlanPoint], Timetable] = lambda timetable, point: timetable,
    until: int | None = None,
) -> None:
    """Train a model in place to the end of its recipe, from the last checkpoint where there is one.

    Args:
        model: supernet or network.
        splits: images by the names that the strategy's turns use, or the training images alone;
            an epoch is one of `train`. Each process takes its share of every batch.
        augmentation: of every batch.
        recipe: the same for all strategies.
        strategy: which losses a step sums up, and which optimizers step.
        accelerator: device, precision and processes.
        checkpoints: none are kept where None.
        on_step: called with reports.
        report_every: steps between two reports; the last step of a phase is reported, too.
        replan: called before each part of each phase but the very first; returns a timetable in
            which the rest of this phase and those after it may be longer or shorter. After a
            restart it is called again for the parts that have begun, and has to return the same
            for them.
        until: step at which to pause, with a checkpoint where they are kept; a later call resumes.
            None for the end of the recipe.

    Raises:
        DamagedFileError: the last checkpoint cannot be read.
        DivergedError: a loss or a weight is no longer finite; every checkpoint is from before.
        RecipeError: a turn names an optimizer that the strategy has not, or a split that was not
            given; before the first step.
    """
    model.to(accelerator.device)
    model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    batches = _Batches(splits, augmentation, recipe, accelerator)
    timetable = Timetable(strategy.phases(recipe.epochs), batches.steps_per_epoch("train"))
    optimizers = strategy.optimizers(model, recipe)
    step, total = 0, timetable.phase_boundaries[-1]
    last = total if until is None else min(until, total)
    _require_known_turns(strategy, timetable, optimizers, batches.splits)
    if checkpoints:
        step, state = checkpoints.load(model, optimizers)
        if step:
            strategy.load_state(model, state)
    autocast, clock, begun = _Autocast(model, accelerator), _Clock(), 0
    while step < last:
        while (part := _next_part(timetable, begun, step)) is not None:
            begun += 1
            timetable = replan(timetable, part)
            total = timetable.phase_boundaries[-1]
            last = total if until is None else min(until, total)
        index = timetable.phase_index(step)
        phase = timetable.phases[index].name
        first, end = timetable.phase_boundaries[index : index + 2]
        if step == first:
            strategy.on_phase_start(phase, model)
            if strategy.clears_optimizer_state(phase):
                for optimizer in optimizers.values():
                    optimizer.state.clear()  # of another phase, or of channels in another order
        strategy.on_step_start(phase, model, step - first, end - first)
        rate = timetable.learning_rate(step, recipe)
        losses: list[Tensor] = []
        for number, turn in enumerate(strategy.turns(phase, step)):
            optimizer = optimizers[turn.optimizer]
            _set_learning_rate(optimizer, rate)
            images, labels = batches(turn.split, step, number)
            with clock.passes(), _forked_rng(batches.seed(step, number), accelerator):
                rng = np.random.default_rng((recipe.seed, step, number)[: 3 if number else 2])
                found = strategy.turn_losses(turn, phase, autocast, images, labels, rng)
                found = _losses(found, strategy)
                losses += _optimizer_step(model, optimizer, found, recipe, accelerator)
        strategy.on_step_end(phase, model, step)
        clock.steps += 1
        done = end if strategy.phase_complete(phase) else step + 1
        due = checkpoints is not None and accelerator.is_main_process and checkpoints.due()
        if step % CHECKED_EVERY == 0 or done == last or due:
            _require_finite(losses, model, step, phase, rate)
        if done == end:
            strategy.on_phase_end(phase, model)
        if done % report_every == 0 or done in (end, last):
            trim_freed_memory()
            seconds, steps, overhead = clock.lap()
            on_step(
                StepLog(
                    step=done,
                    steps=total,
                    epoch=done / timetable.steps_per_epoch,
                    phase=phase,
                    losses=tuple(map(float, losses)),
                    learning_rate=rate,
                    images_per_second=steps * recipe.batch_size / seconds,
                    overhead=overhead,
                    measures=strategy.measures(model),
                )
            )
        if checkpoints and accelerator.is_main_process and (due or done == last):
            checkpoints.save(done, model, optimizers, strategy.state())
        step = done
    accelerator.wait_for_everyone()


def _next_part(timetable: Timetable, begun: int, step: int) -> PlanPoint | None:
    """The part of a phase that begins next, once a step has reached it.

    Args:
        timetable: as planned until now.
        begun: number of parts that have begun, without the very first.
        step: the next one.
    """
    phase, part = divmod(begun + 1, PARTS)
    if phase >= len(timetable.phases) or step < timetable.part_start(phase, part):
        return None
    return PlanPoint(phase, part, step)


def _require_finite(
    losses: Sequence[Tensor], model: nn.Module, step: int, phase: str, rate: float
) -> None:
    """Refuse to go on with losses or weights that are not finite."""
    if any(not bool(loss.isfinite().all()) for loss in losses):
        what = f"the losses are {', '.join(f'{float(loss):g}' for loss in losses)}"
    else:
        weights = dict(model.named_parameters())
        finite = torch.stack([weight.detach().isfinite().all() for weight in weights.values()])
        if bool(finite.all()):
            return
        what = f"weight {list(weights)[int(finite.int().argmin())]} is not finite"
    raise DivergedError(
        f"training diverged: after step {step + 1} (phase {phase!r}, learning rate {rate:.3g}) "
        f"{what}. Lower train.learning_rate, or check the images and labels.",
        step=step + 1,
        loss=float(losses[0]),
    )


def _require_known_turns(
    strategy: TrainingStrategy,
    timetable: Timetable,
    optimizers: Mapping[str, Optimizer],
    splits: Mapping[str, Split],
) -> None:
    """Ask the strategy for the turns of every step, and refuse one that the loop cannot take."""
    for step in range(timetable.phase_boundaries[-1]):
        phase = timetable.phases[timetable.phase_index(step)].name
        for turn in strategy.turns(phase, step):
            if turn.optimizer not in optimizers:
                raise RecipeError(
                    f"a turn steps an optimizer of its strategy; step {step} of phase {phase!r} "
                    f"names {turn.optimizer!r}, and there are {', '.join(optimizers)}. "
                    "Return it from TrainingStrategy.optimizers."
                )
            if turn.split not in splits:
                raise RecipeError(
                    f"a turn's images are of a split that was given; step {step} of phase "
                    f"{phase!r} names {turn.split!r}, and there are {', '.join(splits)}. "
                    "Pass it to train."
                )


def _set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """The schedule's rate for groups that state a relative one; the others keep their own."""
    for group in optimizer.param_groups:
        if "rate" in group:
            group["lr"] = rate * group["rate"]


def _losses(found: Iterable[Tensor] | None, strategy: TrainingStrategy) -> Iterator[Tensor]:
    """The losses of a turn, one by one, if they are what a strategy yields.

    Raises:
        RecipeError: there is none, or one is no number with gradients.
    """
    name = type(strategy).__name__
    rule = f"the losses of a turn are tensors of one number with gradients; {name} yielded"
    count = 0
    for loss in found or ():
        if not isinstance(loss, Tensor):
            raise RecipeError(f"{rule} {loss!r}, of type {type(loss).__name__}.")
        if loss.numel() != 1 or not loss.requires_grad:
            gradients = "with" if loss.requires_grad else "without"
            raise RecipeError(f"{rule} {loss.numel()} numbers {gradients} gradients.")
        yield loss
        count += 1
    if not count:
        raise RecipeError(f"{rule} none. Yield at least one in `losses`.")


def _optimizer_step(
    model: nn.Module,
    optimizer: Optimizer,
    losses: Iterator[Tensor],
    recipe: TrainingRecipe,
    accelerator: Accelerator,
) -> list[Tensor]:
    """One optimizer step on the sum of the losses, whose gradients are accumulated.

    Each loss has its backward pass before the next is computed, so one sub-network's activations
    are in memory at a time.
    """
    seen = []
    for loss in losses:
        accelerator.backward(loss)
        seen.append(loss.detach())
    own = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    parameters = [one for one in model.parameters() if id(one) in own and one.requires_grad]
    _average_gradients(parameters, accelerator)
    if recipe.clip_norm:
        nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
    optimizer.step()
    model.zero_grad(set_to_none=True)  # also what this turn left at parameters of other optimizers
    return seen


class _Batches:
    """The images of every step: which ones, and how they are augmented, follows from the seed."""

    def __init__(
        self,
        splits: Split | Mapping[str, Split],
        augmentation: Augmentation,
        recipe: TrainingRecipe,
        accelerator: Accelerator,
    ) -> None:
        self.splits = {"train": splits} if isinstance(splits, Split) else dict(splits)
        self.augmentation, self.recipe, self.accelerator = augmentation, recipe, accelerator

    def steps_per_epoch(self, split: str) -> int:
        """Whole batches of a split, at least one."""
        return max(1, len(self.splits[split]) // self.recipe.batch_size)

    def seed(self, step: int, turn: int = 0) -> int:
        """A seed of its own for each step, turn and process."""
        by_step = (self.recipe.seed * 1_000_003 + step) * 64 + self.accelerator.process_index
        return by_step + (turn << 48)

    def __call__(self, name: str, step: int, turn: int) -> tuple[Tensor, Tensor]:
        """The share of this process: (N, channels, size, size) pixels from 0 to 1, and labels."""
        split, seed, accelerator = self.splits[name], self.recipe.seed, self.accelerator
        epoch, position = divmod(step, self.steps_per_epoch(name))
        if self.recipe.class_weights == "balanced":
            order = balanced_permutation(split.labels, epoch, seed)
        else:
            order = epoch_permutation(len(split), epoch, seed)
        size = self.recipe.batch_size
        indices = order[position * size : (position + 1) * size]
        mine = indices[accelerator.process_index :: accelerator.num_processes]
        images, labels = split.batch(mine)
        generator = torch.Generator().manual_seed(self.seed(step, turn))
        mirrored = None
        if self.augmentation.flip:
            mirrored = torch.from_numpy(alternating_flips(len(split), epoch, seed)[mine])
        pixels = self.augmentation(images, generator, mirrored=mirrored)
        device = accelerator.device
        return pixels.to(device, memory_format=torch.channels_last), labels.to(device)


@contextmanager
def _forked_rng(seed: int, accelerator: Accelerator) -> Iterator[None]:
    """PyTorch's global generator seeded for dropout inside, and as it was before outside."""
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


class _Autocast(nn.Module):
    """The model under the run's mixed precision, with outputs in fp32; `model` is the bare one."""

    def __init__(self, model: nn.Module, accelerator: Accelerator) -> None:
        super().__init__()
        self.model, self.accelerator = model, accelerator

    def forward(self, *inputs: object, **options: object) -> Tensor:
        with self.accelerator.autocast():
            return self.model(*inputs, **options).float()


def _average_gradients(parameters: list[nn.Parameter], accelerator: Accelerator) -> None:
    """Average over processes, after all backward passes; blocks that were not used count as 0.

    One reduction of one flat tensor: hooks on every backward pass would send the gradients of a
    step several times.
    """
    if accelerator.num_processes == 1:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    flat = accelerator.reduce(flat, "mean")
    averages = flat.split([parameter.numel() for parameter in parameters])
    for parameter, gradient in zip(parameters, averages, strict=True):
        parameter.grad = gradient.view_as(parameter)


class _Clock:
    """Time since the last lap, and how much of it was outside the passes."""

    def __init__(self) -> None:
        self.started, self.inside, self.entered, self.steps = time.perf_counter(), 0.0, 0.0, 0

    def passes(self) -> _Clock:
        return self

    def __enter__(self) -> None:
        self.entered = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.inside += time.perf_counter() - self.entered

    def lap(self) -> tuple[float, int, float]:
        """Seconds, steps, and the share of the seconds outside the passes since the last lap."""
        seconds, steps = time.perf_counter() - self.started, self.steps
        overhead = 1 - self.inside / seconds
        self.started, self.inside, self.steps = time.perf_counter(), 0.0, 0
        return seconds, steps, overhead
