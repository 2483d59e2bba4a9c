"""What do raw timings say, and can they be believed? Arithmetic on arrays only: nothing here looks at a clock.

The estimate of a model is the fastest timing of each round, then the median over rounds. Interference only ever adds time, hence
the fastest; it comes in bursts that spoil whole rounds, hence the median.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pliant.errors import MeasurementError

Optimisation = Literal["basic", "extended", "all"]
FINEST_CLOCK_S = 1e-6
"""Coarser thread clocks, as on Windows, are of no use here."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How models are run and timed. The first three are part of what is measured, the others of how well."""

    threads: int = 1
    batch: int = 1
    optimisation: Optimisation = "all"
    least_rounds: int = 5
    rounds: int = 12
    """A model that has not settled by then is reported as it is."""
    precision: float = 0.01
    """A model has settled when the 95 % interval of its latency is no wider than this to either side, relative to it."""
    samples: int = 5
    """Timings of a model in a round."""
    sample_us: float = 1500.0
    """A timing repeats the model until it takes about this long, so that short ones are timed as well as long ones."""
    noise_limit: float = 0.05
    """Largest split-half error that nine models of ten keep to, or the results are refused."""

    @property
    def by_cpu(self) -> bool:
        """Whether the latency is CPU time: with one thread it is the same work, and unaffected by waiting."""
        return self.threads == 1 and time.get_clock_info("thread_time").resolution <= FINEST_CLOCK_S


@dataclass(frozen=True, slots=True)
class Measurement:
    """Latency of one model for one batch."""

    latency_ms: float
    spread_ms: float
    """Half the range between the quartiles of the rounds."""
    wall_ms: float
    """What a clock on the wall shows, interruptions included: the median over all timings."""
    split_half_error: float
    """Relative difference between the estimates of the even and of the odd rounds."""
    runs: int
    preempted_share: float
    """Share of timings in which the system gave the processor to another program."""
    source: Literal["cpu", "wall"]


@dataclass(frozen=True, slots=True)
class Timings:
    """Raw times of one model, shape (rounds, samples), of one run each."""

    cpu_us: np.ndarray
    wall_us: np.ndarray
    preempted: np.ndarray
    repeats: int
    """Runs behind each timing."""

    def by_round(self, settings: Settings) -> np.ndarray:
        """One estimate a round: the fastest timing, since interference only ever adds time. Shape (rounds,)."""
        times: np.ndarray = self.cpu_us if settings.by_cpu else self.wall_us
        return times.min(axis=1)


Row = tuple[float, float, bool]
"""CPU and wall time of one run in microseconds, and whether another program came between."""


def timings_of(rows: Sequence[Sequence[Row]], repeats: int = 1) -> Timings:
    """Timings from rows of (CPU time, wall time, interrupted), one sequence a round."""
    table = np.array(rows, dtype=np.float64)
    return Timings(table[..., 0], table[..., 1], table[..., 2], repeats)


def settled(timings: Timings, settings: Settings) -> bool:
    """Whether more rounds would change little: the 95 % interval of the median over rounds is within the precision.

    The deviation is taken from the median absolute deviation, so that one spoilt round does not keep a model open.
    """
    rounds = timings.by_round(settings)
    middle = float(np.median(rounds))
    deviation = 1.4826 * float(np.median(np.abs(rounds - middle)))
    return 1.96 * 1.2533 * deviation / np.sqrt(len(rounds)) <= settings.precision * middle


def require_repeatable(found: Mapping[str, Measurement], settings: Settings) -> None:
    """Refuse results that are too noisy.

    Raises:
        MeasurementError: more than one model of ten has a split-half error above the limit.
    """
    if not found:
        return
    error = float(
        np.quantile([one.split_half_error for one in found.values()], 0.9, method="lower")
    )
    if error > settings.noise_limit:
        preempted = float(np.mean([one.preempted_share for one in found.values()]))
        clock = float(np.median([one.wall_ms / one.latency_ms for one in found.values()]))
        raise MeasurementError(
            f"two halves of a measurement agree to {settings.noise_limit:.0%}; these differ by {error:.1%}. Other programs "
            f"interrupted {preempted:.0%} of the timings, and the clock ran {clock:.1f} times the latency. "
            "Stop what else runs on this machine and try again."
        )


def summarise(timings: Timings, settings: Settings) -> Measurement:
    """The estimate of one model: the fastest timing of each round, then the median over rounds.

    Interference only ever adds time, hence the fastest; it comes in bursts that spoil whole rounds, hence the median.
    """
    rounds = timings.by_round(settings) / 1e3
    latency_ms = float(np.median(rounds))
    halves = (
        (float(np.median(rounds[0::2])), float(np.median(rounds[1::2])))
        if len(rounds) > 1
        else (latency_ms, latency_ms)
    )
    low, high = np.quantile(rounds, [0.25, 0.75])
    return Measurement(
        latency_ms=latency_ms,
        spread_ms=float(high - low) / 2,
        wall_ms=float(np.median(timings.wall_us)) / 1e3,
        split_half_error=abs(halves[0] - halves[1]) / latency_ms,
        runs=timings.cpu_us.size * timings.repeats,
        preempted_share=float(timings.preempted.mean()),
        source="cpu" if settings.by_cpu else "wall",
    )


def usual_anchor(anchors: Sequence[Timings]) -> tuple[float, float]:
    """The anchor's CPU and wall time over all rounds of all its timings, in microseconds."""
    cpu = np.concatenate([np.median(anchor.cpu_us, axis=1) for anchor in anchors])
    wall = np.concatenate([np.median(anchor.wall_us, axis=1) for anchor in anchors])
    return float(np.median(cpu)), float(np.median(wall))


def without_drift(timings: Timings, anchor: Timings, usual: tuple[float, float]) -> Timings:
    """Times divided by how much slower than usual the anchor was in the same round.

    Args:
        anchor: at least as many rounds as the model has.
        usual: the anchor's CPU and wall time in microseconds.
    """

    def steady(times: np.ndarray, reference: np.ndarray, normal: float) -> np.ndarray:
        slower: np.ndarray = np.median(reference[: len(times)], axis=1) / normal
        return times / slower[:, None]

    cpu_us, wall_us = (
        steady(timings.cpu_us, anchor.cpu_us, usual[0]),
        steady(timings.wall_us, anchor.wall_us, usual[1]),
    )
    return Timings(cpu_us, wall_us, timings.preempted, timings.repeats)
