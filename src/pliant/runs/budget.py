"""What a run does within a time: how many epochs it trains and how many networks it estimates.

Both follow from the time that is left when training begins (this machine was measured by then) and
from a few timed steps. When a phase of the training begins, its epochs are planned again, and the
estimates when the search begins: by then other programs may have made the machine slower, or have
ended. Within a phase, its rest is shortened where the time would not be kept. All of it is kept in
the record and in the recipe: a resumed run ends as an uninterrupted one would, and the recipe
repeats the run, whatever the machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pliant.accuracy.calibration import calibration_images
from pliant.accuracy.evaluation import pixels
from pliant.errors import RecipeError
from pliant.networks.supernet import Supernet
from pliant.runs.run import Run
from pliant.training.schedule import PARTS, Phase, PlanPoint, Timetable
from pliant.units import format_duration

SAFETY = 0.9
"""Share of the time that is planned with; a step is not always as fast as those that were timed."""
SEARCH_SHARE = 0.15
"""Of the time, for estimates of networks."""
MIN_ESTIMATES = 20
SMALLER = 0.5
"""Mean time of a network of the space over that of the largest."""
DELIVERY_S = 25.0
"""Export, measurements in other processes, and the report."""
SHORTEST = 0.1
"""Of a phase that is planned again, over its planned epochs."""
LATE = 0.9
"""Share of the rest of a phase for which the time must be enough, else the phase is shortened: a
change within a phase is a step of its learning rate."""
RECENT_REPORTS = 20
"""Of the training, that tell how fast the machine is now."""
TELLING = 0.1
"""Share of the planned time from which on a phase tells how fast the machine is. A shorter one was
timed by a first step alone, which also prepares kernels."""


@dataclass(frozen=True)
class Plan:
    """What a run does within its time."""

    epochs: int
    estimates: int
    """Of the search; random search gets as many."""


def known_plan(run: Run) -> Plan | None:
    """What the recipe states or was planned before; None where it is still to be planned."""
    recipe, resolved = run.recipe, run.recipe.resolved
    epochs, estimates = recipe.train.epochs, recipe.search.estimates
    if recipe.time is None or epochs == 0:
        assert epochs is not None  # the recipe was refused otherwise
        return Plan(epochs, estimates)
    planned = run.record.metadata("plan")
    if planned is None and resolved is not None and resolved.epochs and resolved.estimates:
        planned = [resolved.epochs, resolved.estimates]
    if planned is None:
        return None
    return Plan(min(planned[0], epochs or planned[0]), min(planned[1], estimates))


def keep_plan(run: Run, plan: Plan) -> None:
    """Note a plan in the record and in the recipe."""
    if run.recipe.time is not None:
        run.record.set_metadata("plan", [plan.epochs, plan.estimates])
        run.resolve(epochs=plan.epochs, estimates=plan.estimates)


def make_plan(
    run: Run, supernet: Supernet, phases: Sequence[Phase], seconds: Mapping[str, float]
) -> Plan:
    """Epochs and estimates that fit into what is left of the run's time.

    Args:
        run: its recipe states the time; it began when it was opened. Its record keeps the seconds
            that were planned with.
        supernet: whose largest network's forward pass is timed.
        phases: of the training; their shares of the epochs count.
        seconds: of an epoch in each phase, as timed.

    Raises:
        RecipeError: less than one epoch fits.
    """
    recipe = run.recipe
    assert recipe.time_seconds is not None
    total = sum(phase.epochs for phase in phases)
    epoch_seconds = sum(seconds[phase.name] * phase.epochs / total for phase in phases)
    left = recipe.time_seconds * SAFETY - (time.monotonic() - run.opened)
    image_seconds = forward_seconds(run, supernet) * SMALLER
    data, search = run.data, recipe.search
    calibrated, quick = (
        min(len(data.train), calibration_images(data.image_size, quick=quick))
        for quick in (False, True)
    )
    estimate = image_seconds * (quick + min(search.images, len(data.validation)))
    # Of both searches the front and the largest network.
    shortlisted = search.front + max(2, search.front // 2) + 2
    evaluated = calibrated + len(data.validation) + 2 * len(data.test)
    delivery = DELIVERY_S + shortlisted * image_seconds * evaluated
    afforded = int(SEARCH_SHARE * recipe.time_seconds / (2 * estimate))
    estimates = min(search.estimates, max(MIN_ESTIMATES, afforded))
    after = delivery + 2 * estimates * estimate
    training = left - after
    epochs = int(training / epoch_seconds)
    if epochs < 1:
        spent = time.monotonic() - run.opened
        fewest, most = (
            2 * estimate * min(search.estimates, number)
            for number in (MIN_ESTIMATES, search.estimates)
        )
        needed = _needed_seconds(spent + epoch_seconds + delivery, fewest, most)
        raise RecipeError(
            f"a run trains for at least one epoch, which takes {format_duration(epoch_seconds)} "
            f"here; of {recipe.time} there is not enough left. Give it {format_duration(needed)} "
            "or more, smaller images (data.image_size) or a smaller space."
        )
    shares = {one.name: seconds[one.name] * one.epochs / total / epoch_seconds for one in phases}
    kept: dict[str, Any] = {"phases": dict(seconds), "shares": shares, "estimate": estimate}
    run.record.set_metadata("planned_seconds", kept | {"delivery": delivery, "after": after})
    return Plan(min(epochs, recipe.train.epochs or epochs), estimates)


def _needed_seconds(fixed: float, fewest: float, most: float) -> float:
    """The time of a run in which all fits: a longer one also spends more of it on estimates.

    Args:
        fixed: seconds of everything but the searches.
        fewest: seconds of the searches in a short time.
        most: seconds of the searches in a long one; in between they take their share.
    """
    shared = fixed / (SAFETY - SEARCH_SHARE)
    return max((fixed + fewest) / SAFETY, min(shared, (fixed + most) / SAFETY))


def plan_search(run: Run) -> Plan:
    """The plan with as many estimates as fit into the time that is left when the search begins.

    Args:
        run: trained. Its plan stays as it is where its time was planned by an earlier run.
    """
    plan, planned = known_plan(run), run.record.metadata("planned_seconds")
    assert plan is not None
    if planned is None or run.record.metadata("search_planned"):
        return plan
    recipe, slowdown = run.recipe, _slowdown(run, planned)
    assert recipe.time_seconds is not None
    left = recipe.time_seconds * SAFETY - (time.monotonic() - run.opened)
    afforded = int((left / slowdown - planned["delivery"]) / (2 * planned["estimate"]))
    plan = replace(plan, estimates=min(recipe.search.estimates, max(MIN_ESTIMATES, afforded)))
    keep_plan(run, plan)
    run.record.set_metadata("search_planned", True)
    return plan


def replanned(run: Run, timetable: Timetable, point: PlanPoint) -> Timetable:
    """The timetable with as much of a phase as the time allows now, and less of those after it.

    A phase that begins may also become longer; within it, what is left is only shortened.

    Args:
        run: whose record has what was planned, and the speed of the steps until now.
        timetable: as planned.
        point: the part of a phase that begins.

    Returns:
        The same timetable where the recipe states no time, or was planned by an earlier run.
    """
    phase, resolved = timetable.phases[point.phase], run.recipe.resolved
    known = run.record.metadata("phase_epochs") or dict(resolved.phase_epochs if resolved else {})
    key = f"{phase.name}-{point.part}-of-{PARTS}" if point.part else phase.name
    if key not in known:
        epochs = _affordable_epochs(run, timetable, point)
        if epochs is None:
            return timetable
        known[key] = epochs
        run.record.set_metadata("phase_epochs", known)
    changed = {} if point.part and known[key] == phase.epochs else {key: known[key]}
    if changed:
        run.resolve(phase_epochs=dict(resolved.phase_epochs if resolved else {}) | changed)
    left = phase.epochs * (1 - point.part / PARTS)
    factor = 1 + (known[key] - phase.epochs) / left if left else 1.0
    later = [
        replace(one, epochs=one.epochs * factor) for one in timetable.phases[point.phase + 1 :]
    ]
    now = replace(phase, epochs=known[key])
    phases = (*timetable.phases[: point.phase], now, *later)
    return Timetable(phases, timetable.steps_per_epoch)


def _affordable_epochs(run: Run, timetable: Timetable, point: PlanPoint) -> float | None:
    """Epochs of a phase with which the time is kept; None where none was planned here."""
    recipe, planned = run.recipe, run.record.metadata("planned_seconds")
    is_over = point.part > 0 and timetable.phase_index(point.step) != point.phase  # left early
    if recipe.time_seconds is None or planned is None or is_over:
        return None
    slowdown, seconds = _slowdown(run, planned), planned["phases"]
    phase, *later = timetable.phases[point.phase :]
    share = 1 - point.part / PARTS
    needed = share * phase.epochs * seconds[phase.name]
    needed += sum(one.epochs * seconds[one.name] for one in later)
    left = recipe.time_seconds * SAFETY - (time.monotonic() - run.opened)
    factor = max(SHORTEST, (left / slowdown - planned["after"]) / max(needed, 1e-9))
    plan = known_plan(run)
    if plan is not None and plan.epochs == recipe.train.epochs:
        factor = min(1.0, factor)
    if point.part == 0:
        return phase.epochs * factor
    if factor >= LATE:
        return phase.epochs
    first = timetable.part_start(point.phase, 0)
    taken = (point.step + 1.5 - first) / timetable.steps_per_epoch  # and one more step
    return max(taken, phase.epochs * (1 - share + share * factor))


def _slowdown(run: Run, planned: Mapping[str, Any]) -> float:
    """Time of the last steps over that which was planned, in the median; 1 where unknown."""
    planned_seconds, ratios = planned["phases"], []
    shares = planned.get("shares", dict.fromkeys(planned_seconds, 1.0))  # none in older records
    for step in run.record.steps():
        values = step.values
        phase = values.get("phase")
        if values.get("images_per_second") and shares.get(phase, 0.0) >= TELLING:
            seconds = len(run.data.train) / values["images_per_second"]
            ratios.append(seconds / planned_seconds[phase])
    return statistics.median(ratios[-RECENT_REPORTS:]) if ratios else 1.0


@torch.no_grad()
def forward_seconds(run: Run, supernet: Supernet) -> float:
    """Of one image through the largest network, in a batch, on the CPU."""
    rows = np.arange(min(16, len(run.data.train)))
    images = pixels(run.data.train.batch(rows)[0]).to(next(supernet.parameters()).device)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        supernet(images, run.space.largest())
        times.append(time.perf_counter() - started)
    return min(times) / len(rows)
