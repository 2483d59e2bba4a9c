"""Estimates latencies from raw timings and checks their repeatability; arithmetic on arrays only.

The estimate of a model is the minimum of each round, then the median over rounds. Interference only
ever adds time, hence the minimum; it comes in bursts that spoil whole rounds, hence the median.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pliant.errors import MeasurementError

Optimisation = Literal["basic", "extended", "all"]
QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)
"""Of the timings of one model, that a measurement keeps."""
FINEST_CLOCK_S = 1e-6
"""Coarser thread clocks, as on Windows, cannot time short runs."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How models are run and timed.

    The first four define what is measured, the others how precisely.
    """

    threads: int = 1
    batch: int = 1
    optimisation: Optimisation = "all"
    runtime: str = "onnxruntime"
    """A name of `pliant.devices.runtimes.RUNTIMES`."""
    min_rounds: int = 5
    rounds: int = 12
    """Maximum number of rounds; a model that has not converged by then is reported as it is."""
    tolerance: float = 0.01
    """Half-width of the 95 % confidence interval, relative to the latency, at convergence."""
    samples: int = 5
    """Timings per model and round."""
    sample_us: float = 1500.0
    """Target duration of one timing, in microseconds: short models are repeated to fill it."""
    noise_limit: float = 0.05
    """Maximum of the 90th percentile of the split-half errors; noisier results are refused."""

    @property
    def by_cpu(self) -> bool:
        """Whether the latency is CPU time, which with one thread excludes only waiting."""
        return self.threads == 1 and time.get_clock_info("thread_time").resolution <= FINEST_CLOCK_S


@dataclass(frozen=True, slots=True)
class Measurement:
    """Latency of one model for one batch."""

    latency_ms: float
    spread_ms: float
    """Half the interquartile range over rounds."""
    cpu_us: tuple[float, ...]
    """`QUANTILES` of the CPU time per run over all timings."""
    wall_us: tuple[float, ...]
    """The same of the wall-clock time, preemption included."""
    split_half_error: float
    """Relative difference between the estimates from even and from odd rounds."""
    runs: int
    preempted_share: float
    """Share of timings with an involuntary context switch."""
    source: Literal["cpu", "wall"]

    @property
    def wall_ms(self) -> float:
        """Median wall-clock time."""
        return self.wall_us[QUANTILES.index(0.5)] / 1e3


@dataclass(frozen=True, slots=True)
class Timings:
    """Raw times per run of one model; each array has the shape (rounds, samples)."""

    cpu_us: np.ndarray
    wall_us: np.ndarray
    preempted: np.ndarray
    repeats: int
    """Number of runs that each timing is the mean of."""

    def by_round(self, settings: Settings) -> np.ndarray:
        """The minimum of each round, since interference only ever adds time; shape (rounds,)."""
        times: np.ndarray = self.cpu_us if settings.by_cpu else self.wall_us
        return times.min(axis=1)


Sample = tuple[float, float, bool]
"""CPU and wall time per run, in microseconds, and whether the thread was preempted."""


def timings_of(rows: Sequence[Sequence[Sample]], repeats: int = 1) -> Timings:
    """Timings from one sequence of samples per round."""
    table = np.array(rows, dtype=np.float64)
    return Timings(table[..., 0], table[..., 1], table[..., 2], repeats)


def has_converged(timings: Timings, settings: Settings) -> bool:
    """Whether the 95 % confidence interval of the median over rounds is within the tolerance.

    The standard deviation is estimated from the median absolute deviation, so that a single spoilt
    round does not prevent convergence.
    """
    rounds = timings.by_round(settings)
    middle = float(np.median(rounds))
    # For normal noise the deviation is 1.4826 MAD, and the median's standard error is
    # sqrt(pi / 2) = 1.2533 times that of the mean.
    deviation = 1.4826 * float(np.median(np.abs(rounds - middle)))
    return 1.96 * 1.2533 * deviation / np.sqrt(len(rounds)) <= settings.tolerance * middle


def require_repeatable(found: Mapping[str, Measurement], settings: Settings) -> None:
    """Refuse results that are too noisy.

    Raises:
        MeasurementError: more than one model in ten has a split-half error above the limit.
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
            f"two halves of a measurement agree to {settings.noise_limit:.0%}; these differ by "
            f"{error:.1%}. Other programs preempted {preempted:.0%} of the timings, and wall time "
            f"was {clock:.1f} times the latency. Stop other programs on this machine and try again."
        )


def summarise(timings: Timings, settings: Settings) -> Measurement:
    """The estimate of one model: the minimum of each round, then the median over rounds."""
    rounds = timings.by_round(settings) / 1e3
    latency_ms = float(np.median(rounds))
    low, high = np.quantile(rounds, [0.25, 0.75])
    return Measurement(
        latency_ms=latency_ms,
        spread_ms=float(high - low) / 2,
        cpu_us=_quantiles(timings.cpu_us),
        wall_us=_quantiles(timings.wall_us),
        split_half_error=split_half_error(timings, settings),
        runs=timings.cpu_us.size * timings.repeats,
        preempted_share=float(timings.preempted.mean()),
        source="cpu" if settings.by_cpu else "wall",
    )


def _quantiles(times: np.ndarray) -> tuple[float, ...]:
    return tuple(map(float, np.quantile(times, QUANTILES)))


def split_half_error(timings: Timings, settings: Settings) -> float:
    """Relative difference between the estimates from even and from odd rounds.

    Of a single round, between the fastest of its even and of its odd samples; 0 of a single sample.
    """
    values = timings.by_round(settings)
    if len(values) == 1:
        [values] = timings.cpu_us if settings.by_cpu else timings.wall_us
    if len(values) == 1:
        return 0.0
    middle = np.min if len(timings.cpu_us) == 1 else np.median
    even, odd = float(middle(values[0::2])), float(middle(values[1::2]))
    return abs(even - odd) / float(np.median(values))


def reference_time(anchors: Sequence[Timings]) -> tuple[float, float]:
    """Median CPU and wall time of the anchor over the rounds of all groups, in microseconds."""
    cpu = np.concatenate([np.median(anchor.cpu_us, axis=1) for anchor in anchors])
    wall = np.concatenate([np.median(anchor.wall_us, axis=1) for anchor in anchors])
    return float(np.median(cpu)), float(np.median(wall))


def detrend(timings: Timings, anchor: Timings, reference: tuple[float, float]) -> Timings:
    """Correct for drift: divide by the anchor's slowdown in the same round.

    Args:
        timings: of one model.
        anchor: of the anchor, with at least as many rounds.
        reference: CPU and wall time of the anchor, in microseconds; see `reference_time`.
    """
    cpu_us = timings.cpu_us / _slowdown(timings.cpu_us, anchor.cpu_us, reference[0])
    wall_us = timings.wall_us / _slowdown(timings.wall_us, anchor.wall_us, reference[1])
    return Timings(cpu_us, wall_us, timings.preempted, timings.repeats)


def _slowdown(times: np.ndarray, anchor: np.ndarray, reference: float) -> np.ndarray:
    """Of the anchor in each round of a model, relative to the reference time; (rounds, 1)."""
    slowdown: np.ndarray = np.median(anchor[: len(times)], axis=1) / reference
    return slowdown[:, None]
