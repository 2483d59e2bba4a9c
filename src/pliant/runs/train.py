"""Train the supernet of a run, from its last checkpoint where there is one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from pliant.accuracy.evaluation import pixels
from pliant.data.augment import Augmentation
from pliant.data.splits import Split
from pliant.errors import DamagedFileError, DivergedError, RecipeError, RunConflictError, nearest
from pliant.metrics import Cost
from pliant.networks.foreign.supernet import ForeignSupernet
from pliant.networks.initialization import PATCH_IMAGES, PATCH_PIXELS
from pliant.networks.supernet import Supernet
from pliant.progress import Progress, given_or_shown
from pliant.runs.baselines import adapt_start
from pliant.runs.budget import Plan, keep_plan, known_plan, make_plan, replanned
from pliant.runs.run import Run
from pliant.spaces.architecture import Architecture
from pliant.training.checkpoint import Checkpoints, load_tensors, save_tensors
from pliant.training.expected_cost import Hardware
from pliant.training.loop import StepLog, make_accelerator, train
from pliant.training.registry import (
    SEARCHING,
    StrategyOptions,
    make_strategy,
    strategy_identity,
)
from pliant.training.schedule import (
    PlanPoint,
    Precision,
    Timetable,
    TrainingRecipe,
    usual_recipe,
)
from pliant.training.start import Fresh, Start, make_start, start_file
from pliant.training.strategy import TrainingStrategy
from pliant.training.throughput import phase_seconds

MIN_STEPS_PER_EPOCH = 8
"""A batch has fewer images than the recipe says where an epoch had fewer steps."""
MIN_BATCH = 16
"""But no fewer than this, for the statistics of BatchNorm."""
MIN_LOGS = 60
"""Of a training that searches; the picture of its probabilities needs them."""


def train_supernet(
    run: Run,
    *,
    device: str | None = None,
    progress: Progress | None = None,
    searched: SearchedCosts | None = None,
) -> Supernet:
    """The trained supernet of a run; trained to the end of the recipe if it is not yet.

    Args:
        run: whose recipe, images and space are trained on.
        device: as PyTorch names it; the best one found where None.
        progress: told the step, its loss and the rate; shown where None,
            `pliant.progress.silent` for none.
        searched: for strategies that search while they train.

    Raises:
        RecipeError: no such device here, or a strategy that searches without a target.
        DamagedFileError: the weights or the last checkpoint cannot be read.
    """
    with given_or_shown(progress) as told:
        return _trained(run, training_device(device), told, searched or SearchedCosts())


def _trained(run: Run, device: str, progress: Progress, searched: SearchedCosts) -> Supernet:
    identity = strategy_identity(run.recipe.train.strategy)
    _require_same(run, "strategy", identity)
    if run.weights.is_file() and identity is None:  # its file is gone, and was needed for training
        return _load(new_supernet(run, TrainingStrategy()), run.weights)
    chosen = strategy(run, searched)
    supernet = new_supernet(run, chosen)
    if run.weights.is_file():
        return _load(supernet, run.weights)
    checkpoints = Checkpoints(run.folder / "supernet")
    start = _start(run, begun=bool(checkpoints.files()))
    progress("train", 0, 1, "preparing images, weights and precision")
    fresh = _classifier(supernet).clone()
    start.apply(supernet, lambda: first_images(run))
    if run.recipe.train.epochs == 0:
        _require_classifier(run, supernet, fresh)
        save_tensors(run.weights, dict(supernet.state_dict()))
        return supernet.eval()
    if run.recipe.train.strategy == "fine-tune" and not checkpoints.files():
        adapt_start(run, supernet)
    processes = PartialState(cpu=device == "cpu")
    precision = _agreed_precision(run, supernet, processes, device)
    accelerator = make_accelerator(precision, device)
    plan = _agreed_plan(run, supernet, precision, accelerator, searched)
    log = _Log(run, progress) if accelerator.is_main_process else None
    try:
        train(
            supernet,
            {"train": run.data.train, "validation": run.data.validation},
            augmentation(run),
            training_recipe(run, precision, plan.epochs),
            chosen,
            accelerator=accelerator,
            checkpoints=checkpoints,
            on_step=log or (lambda step: None),
            report_every=_report_every(run, plan.epochs),
            replan=lambda timetable, point: _agreed_timetable(run, timetable, point),
        )
    except DivergedError as error:
        _lower_rate(run, checkpoints, error, accelerator)
        progress("train", 0, 1, f"{error} Training begins again with half the rate.")
        return _trained(run, device, progress, searched)
    finally:
        if log:
            log.close()
    if log:
        save_tensors(run.weights, dict(supernet.state_dict()))
        # As a resumed run loads them: convolutions round by the order of weights in memory.
        return _load(new_supernet(run, chosen), run.weights).to(accelerator.device)
    return supernet.eval()


def _lower_rate(
    run: Run, checkpoints: Checkpoints, error: DivergedError, accelerator: Accelerator
) -> None:
    """Let training begin again with half the learning rate, as often as the recipe allows.

    From the beginning, since a checkpoint from shortly before may be on its way already, and where
    it was made depends on the clock. The record keeps the number of halvings.

    Raises:
        DivergedError: the recipe does not allow it again; the last checkpoint is kept.
    """
    halvings = rate_halvings(run)
    if halvings >= run.recipe.train.lower_rate or accelerator.num_processes > 1:
        raise error
    run.record.event("training diverged", reason=str(error), halvings=halvings + 1)
    for path in checkpoints.files():
        path.unlink()
    run.record.set_metadata("rate_halvings", halvings + 1)


def rate_halvings(run: Run) -> int:
    """How often the learning rate was halved since training diverged."""
    return int(run.record.metadata("rate_halvings") or 0)


def _classifier(supernet: Supernet) -> Tensor:
    """The weight of the last linear layer, (classes, features)."""
    if isinstance(supernet, ForeignSupernet):
        return supernet.head_module.get_parameter("weight")
    return [module for module in supernet.modules() if isinstance(module, nn.Linear)][-1].weight


def _require_classifier(run: Run, supernet: Supernet, fresh: Tensor) -> None:
    """Without training a network knows the classes of its start only.

    Raises:
        RecipeError: the start brought no classifier, or one of other classes.
    """
    kept = isinstance(supernet, ForeignSupernet) and not supernet.replaced
    if torch.equal(_classifier(supernet), fresh) and not kept:
        raise RecipeError(
            f"without training (epochs = 0) a start needs a classifier of the {len(fresh)} classes"
            f" of the images; start {run.recipe.train.start!r} has none. Train for an epoch or "
            "more."
        )


def _load(supernet: Supernet, path: Path) -> Supernet:
    try:
        supernet.load_state_dict(load_tensors(path, require_digest=True)[0])
    except RuntimeError as error:
        if isinstance(error, DamagedFileError):
            raise
        raise DamagedFileError(
            f"{path} does not hold the weights of this run's supernet. The run's other files are "
            "whole: remove this one, and the run resumes from its last checkpoint."
        ) from error
    return supernet.eval()


def require_start(run: Run) -> None:
    """Refuse a start that does not exist before anything is measured.

    Raises:
        RecipeError: the recipe names no start, or weights that are not installed.
    """
    if not run.weights.is_file() and not Checkpoints(run.folder / "supernet").files():
        make_start(run.recipe.train.start)


def _start(run: Run, *, begun: bool) -> Start:
    """The weights with which training begins.

    Args:
        run: whose recipe names the start.
        begun: whether there is a checkpoint, whose weights replace these; then the file of the
            start may be gone.
    """
    name = run.recipe.train.start
    file = start_file(name)
    if begun and file is not None and not file.is_file():
        return Fresh()
    start = make_start(name)
    _require_same(run, "start", start.identity)
    return start


def _require_same(run: Run, key: str, identity: str | None) -> None:
    """The record keeps with which start and strategy a run began; it must not end with others.

    Args:
        run: whose record it is.
        key: of the recipe's table `train`.
        identity: None where it is no longer known.

    Raises:
        RunConflictError: it has changed since the run began.
    """
    known = run.record.metadata(key)
    if identity is None:
        return
    if known is not None and known != identity:
        raise RunConflictError(
            f"a run is trained with the {key} with which it began: "
            f"{getattr(run.recipe.train, key)} was {known} and is {identity} now. Restore it, or "
            "choose another run directory."
        )
    run.record.set_metadata(key, identity)


def training_device(name: str | None) -> str:
    """The device that trains; the best one of this machine where None.

    Raises:
        RecipeError: this machine has none of that name.
    """
    here = [
        *(["cuda"] if torch.cuda.is_available() else []),
        *(["mps"] if torch.backends.mps.is_available() else []),
        "cpu",
    ]
    if name is not None and name not in here:
        raise RecipeError(
            f"training runs on a device of this machine, received {name!r}. {nearest(name, here)}"
        )
    return name or here[0]


def _agreed_precision(
    run: Run, supernet: Supernet, processes: PartialState, device: str
) -> Precision:
    """From the record or the recipe, else the faster one; the first torchrun process decides."""
    table, resolved = run.recipe.train, run.recipe.resolved
    precision = run.record.metadata("precision") or table.precision
    if precision == "auto" and resolved is not None:
        precision = resolved.precision or "auto"
    if processes.is_main_process and precision == "auto":
        precision = faster_precision(
            supernet, batch_size(table.batch_size, len(run.data.train)), device
        )
    [agreed] = broadcast_object_list([precision])
    run.record.set_metadata("precision", agreed)
    run.resolve(precision=agreed)
    return agreed


def new_supernet(run: Run, chosen: TrainingStrategy | None = None) -> Supernet:
    """Fresh weights from the run's seed; the global generator is left as it was.

    Args:
        run: whose space it is.
        chosen: the strategy that trains it; that of the recipe where None.
    """
    chosen = chosen or strategy(run)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.recipe.seed)
        return chosen.make_supernet(run.space, mean=run.data.mean, std=run.data.std)


def first_images(run: Run) -> Tensor:
    """Training images from which the first convolution starts, pixels from 0 to 1."""
    enough = min(PATCH_IMAGES, max(1, PATCH_PIXELS // run.data.image_size**2), len(run.data.train))
    return pixels(run.data.train.batch(np.arange(enough))[0])


def training_recipe(run: Run, precision: Precision, epochs: int) -> TrainingRecipe:
    """The recipe's training table as the loop takes it.

    Args:
        run: whose recipe it is.
        precision: of the forward passes.
        epochs: as planned.
    """
    table = run.recipe.train
    optimizer = run.space.optimizer if table.optimizer == "auto" else table.optimizer
    usual = usual_recipe(optimizer, epochs, batch_size(table.batch_size, len(run.data.train)))
    rate = usual.learning_rate if table.learning_rate is None else table.learning_rate
    decay = usual.weight_decay if table.weight_decay is None else table.weight_decay
    return replace(
        usual,
        learning_rate=rate / 2 ** rate_halvings(run),
        weight_decay=decay,
        label_smoothing=table.label_smoothing,
        class_weights=table.class_weights,
        precision=precision,
        seed=run.recipe.seed,
    )


def _report_every(run: Run, epochs: float) -> int:
    """Steps between two logs: 10, or fewer where a short search would have few logs."""
    if run.recipe.train.strategy not in SEARCHING:
        return 10
    images = len(run.data.train)
    steps = epochs * images / batch_size(run.recipe.train.batch_size, images)
    return max(1, min(10, int(steps / MIN_LOGS)))


def batch_size(wanted: int, images: int) -> int:
    """Images per step: fewer than wanted where an epoch of few images would have too few steps."""
    least = min(wanted, MIN_BATCH)
    return min(images, max(least, min(wanted, images // MIN_STEPS_PER_EPOCH)))


def _agreed_plan(
    run: Run,
    supernet: Supernet,
    precision: Precision,
    accelerator: Accelerator,
    searched: SearchedCosts,
) -> Plan:
    """Of the record or the recipe, else planned now; under torchrun the first process decides."""
    [plan] = broadcast_object_list([known_plan(run)])
    if plan is None:
        few = run.data.validation.subset(np.arange(min(2, len(run.data.validation))))
        timed = strategy(run, replace(searched, measure=None), few)
        seconds = phase_seconds(
            supernet,
            {"train": run.data.train, "validation": few},
            augmentation(run),
            training_recipe(run, precision, 1),
            timed,
            accelerator=accelerator,
        )
        made = make_plan(run, supernet, timed.phases(1), seconds)
        [plan] = broadcast_object_list([made])
    keep_plan(run, plan)
    return plan


def _agreed_timetable(run: Run, timetable: Timetable, point: PlanPoint) -> Timetable:
    """The timetable when a part of a phase begins; under torchrun the first process decides."""
    [agreed] = broadcast_object_list([replanned(run, timetable, point)])
    return agreed


def augmentation(run: Run) -> Augmentation:
    """How training images are varied; the blanked square has the mean colour."""
    table = run.recipe.data
    return Augmentation(
        pad=table.pad,
        flip=table.flip,
        min_crop_area=table.min_crop_area,
        colour_jitter=table.colour_jitter,
        cutout=table.cutout,
        fill=run.data.mean,
    )


@dataclass(frozen=True)
class SearchedCosts:
    """What a strategy that searches while it trains must know of the target and the limits."""

    hardware: Hardware | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    measure: Callable[[Architecture], Cost] | None = None


def strategy(
    run: Run, searched: SearchedCosts | None = None, validation: Split | None = None
) -> TrainingStrategy:
    """The training strategy that the recipe names.

    Args:
        run: whose recipe it is.
        searched: for strategies that search.
        validation: images that the strategy may ask; those of the run where None.
    """
    # A second view would teach the weights nothing and double a step.
    space, table = run.space.trainable_space(), run.recipe.train
    searched = searched or SearchedCosts()
    options = StrategyOptions(
        table.label_smoothing,
        validation or run.data.validation,
        searched.hardware,
        searched.limits,
        searched.measure,
    )
    return make_strategy(table.strategy, space, options)


def faster_precision(supernet: Supernet, batch_size: int, device: str = "cpu") -> Precision:
    """The faster of fp32 and bf16.

    A GPU with bf16 uses it. On a CPU, a step of the largest network is timed in both, since the
    processor and the layers decide which is faster.
    """
    if device != "cpu":
        return "bf16" if device == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
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
    return images.contiguous(memory_format=torch.channels_last), torch.arange(
        batch_size
    ) % space.classes


class _Log:
    """Training logs: the record (for the report), TensorBoard, and the progress bar."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self.run, self.progress = run, progress
        self.board = SummaryWriter(str(run.folder / "supernet" / "tensorboard"), purge_step=None)
        self.seconds = float(run.record.metadata("training_seconds") or 0.0)
        self.last = time.monotonic()

    def __call__(self, step: StepLog) -> None:
        self.seconds += time.monotonic() - self.last
        self.last = time.monotonic()
        losses = {f"loss {index}": loss for index, loss in enumerate(step.losses)}
        values = losses | {
            "learning_rate": step.learning_rate,
            "images_per_second": step.images_per_second,
            "overhead": step.overhead,
        }
        self.run.record.log_step(
            step.step,
            step.epoch,
            {**values, **step.measures, "losses": list(step.losses), "phase": step.phase},
        )
        self.run.record.set_metadata("training_seconds", self.seconds)
        numbers = {name: one for name, one in step.measures.items() if isinstance(one, float)}
        for name, value in (values | numbers).items():
            self.board.add_scalar(name, value, step.step)
        self.progress(
            "train",
            step.step,
            step.steps,
            f"{step.phase}, loss {step.losses[0]:.3f}, {step.images_per_second:.0f} images/s",
        )

    def close(self) -> None:
        if Path(self.board.log_dir).is_dir():  # else its thread prints a traceback
            self.board.close()
