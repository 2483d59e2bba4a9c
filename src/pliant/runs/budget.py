"""What a run does within a time: how many epochs it trains and how many networks it estimates.

Both follow from the time that is left when training begins (this machine was measured by then) and
from a few timed steps. They are planned once and kept in the record and in the recipe: a resumed
run ends as an uninterrupted one would, and the recipe repeats the run, whatever the machine.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from pliant.accuracy.calibration import calibration_images
from pliant.accuracy.evaluation import pixels
from pliant.errors import RecipeError
from pliant.networks.supernet import Supernet
from pliant.runs.run import Run
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


def make_plan(run: Run, supernet: Supernet, epoch_seconds: float) -> Plan:
    """Epochs and estimates that fit into what is left of the run's time.

    Args:
        run: its recipe states the time; it began when it was opened.
        supernet: whose largest network's forward pass is timed.
        epoch_seconds: of training, as timed.

    Raises:
        RecipeError: less than one epoch fits.
    """
    recipe = run.recipe
    assert recipe.time_seconds is not None
    left = recipe.time_seconds * SAFETY - (time.monotonic() - run.opened)
    image_seconds = forward_seconds(run, supernet) * SMALLER
    data, search = run.data, recipe.search
    calibrated, quick = (
        min(len(data.train), calibration_images(data.image_size, quick=quick))
        for quick in (False, True)
    )
    estimate = image_seconds * (quick + min(search.images, len(data.validation)))
    shortlisted = search.front + max(2, search.front // 2)
    evaluated = calibrated + len(data.validation) + 2 * len(data.test)
    delivery = DELIVERY_S + shortlisted * image_seconds * evaluated
    afforded = int(SEARCH_SHARE * recipe.time_seconds / (2 * estimate))
    estimates = min(search.estimates, max(MIN_ESTIMATES, afforded))
    training = left - delivery - 2 * estimates * estimate
    epochs = int(training / epoch_seconds)
    if epochs < 1:
        needed = (recipe.time_seconds - training + epoch_seconds) / SAFETY
        raise RecipeError(
            f"a run trains for at least one epoch, which takes {format_duration(epoch_seconds)} "
            f"here; of {recipe.time} there is not enough left. Give it {format_duration(needed)} "
            "or more, smaller images (data.image_size) or a smaller space."
        )
    return Plan(min(epochs, recipe.train.epochs or epochs), estimates)


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
