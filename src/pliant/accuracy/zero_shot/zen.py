"""Zen score (Lin et al. 2021): how much does the last feature map move when a Gaussian image moves a little?

For weights, images x and perturbations e drawn from N(0, 1):

    z1 = log E_x || f(x) - f(x + 0.01 e) ||_F        the norm of each image's difference over all channels and positions
    z2 = sum over BatchNorms of log sqrt(mean over channels of the variance over the batch of x)
    zen = z1 + z2

f ends where global pooling begins. z2 gives back what the BatchNorms divided away. A BatchNorm that sees the same value
everywhere, on a path that is cut, has variance 0 and no logarithm: it is left out of z2 and named in the notes.

`zen-reference` is what the authors' public code computes instead: the L1 norm in z1, and in z2 PyTorch's running variance. It
starts at 1, moves a tenth of the way at each of the two passes of a repeat, and carries over from repeat to repeat, so that
score grows with the number of repeats. Both are means over `repeats` draws.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pliant.accuracy.zero_shot.subject import (
    RefusedError,
    Score,
    Subject,
    batch_norms,
    clone,
    require_usual,
)
from pliant.accuracy.zero_shot.watch import last_map
from pliant.accuracy.zero_shot.weights import draw_gaussian

MIXTURE = 0.01
"""Size of the perturbation; alpha in the paper, gamma in the code."""
REPEATS = 4
"""Draws of weights and images behind a score, where not told otherwise."""
_MOMENTUM = 0.1


class _Variances:
    """The mean variance over channels of each BatchNorm, in the running pass."""

    def __init__(self, network: nn.Module) -> None:
        self.by_name: dict[str, float] = {}
        self.values: dict[str, int] = {}
        """How many values a channel were seen."""
        for name, norm in batch_norms(network):
            require_usual(name, norm)
            norm.forward = partial(self._normalise, name, norm)  # type: ignore[method-assign]

    def _normalise(self, name: str, norm: _BatchNorm, x: Tensor) -> Tensor:
        made, _, inverse = torch.native_batch_norm(
            x, norm.weight, norm.bias, None, None, True, 0.0, norm.eps
        )
        variance = float((inverse.double().square().reciprocal() - norm.eps).mean())
        # Of exactly equal values rounding leaves about 1e-7 of eps.
        self.by_name[name] = variance if variance > 1e-4 * norm.eps else 0.0
        self.values[name] = x.numel() // x.shape[1]
        return made


def zen(subject: Subject, *, repeats: int = REPEATS) -> Score:
    """The score as the paper defines it.

    Args:
        repeats: draws of weights, images and perturbations; the interval is that of their mean.

    Raises:
        RefusedError: no feature map, or one that does not depend on the images.
    """
    network = clone(subject.network)
    variances, generator = _Variances(network), subject.generator()
    found, dead = [], set()
    for _ in range(repeats):
        difference, variance, _ = _moved(network, variances, subject, generator)
        difference = difference.flatten(1)
        z1 = _log(float(torch.linalg.vector_norm(difference, dim=1, dtype=torch.float64).mean()))
        alive = [value for value in variance.values() if value > 0]
        dead |= {name for name, value in variance.items() if not value > 0}
        found.append(z1 + sum(0.5 * math.log(value) for value in alive))
    return _mean(
        found, (f"BatchNorm without variance, left out: {', '.join(sorted(dead))}",) if dead else ()
    )


def zen_reference(subject: Subject, *, repeats: int = REPEATS) -> Score:
    """The score as the authors' public code computes it.

    Args:
        repeats: as of `zen`; the running variances carry over from one to the next.

    Raises:
        RefusedError: as of `zen`.
    """
    network = clone(subject.network)
    variances, generator = _Variances(network), subject.generator()
    running = dict.fromkeys((name for name, _ in batch_norms(network)), 1.0)
    found = []
    for _ in range(repeats):
        difference, first, second = _moved(network, variances, subject, generator)
        for seen in (first, second):
            for name, value in seen.items():
                unbiased = value * variances.values[name] / (variances.values[name] - 1)
                running[name] = (1 - _MOMENTUM) * running[name] + _MOMENTUM * unbiased
        z1 = _log(
            float(difference.abs().sum(list(range(1, difference.ndim)), dtype=torch.float64).mean())
        )
        found.append(z1 + sum(0.5 * math.log(value) for value in running.values()))
    return _mean(found, ())


@torch.inference_mode()
def _moved(
    network: nn.Module, variances: _Variances, subject: Subject, generator: torch.Generator
) -> tuple[Tensor, dict[str, float], dict[str, float]]:
    """What the last feature map moves by under new weights, and the variances of both passes."""
    draw_gaussian(network, generator)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, shift = subject.noise(generator), subject.noise(generator)
    order = torch.channels_last if images.ndim == 4 else torch.contiguous_format
    maps, seen = [], []
    for shown in (images, images + MIXTURE * shift):
        variances.by_name = {}
        maps.append(last_map(network, shown.contiguous(memory_format=order)))
        seen.append(variances.by_name)
    return maps[0] - maps[1], seen[0], seen[1]


def _log(value: float) -> float:
    if not 0 < value < math.inf:
        what = (
            "does not depend on the image"
            if value == 0
            else "overflows, as in a deep network without normalisation"
        )
        raise RefusedError(f"the last feature map {what}: it moved by {value}.")
    return math.log(value)


def _mean(found: list[float], notes: tuple[str, ...]) -> Score:
    interval = None
    if len(found) > 1:
        half = float(
            stats.t.ppf(0.975, len(found) - 1) * np.std(found, ddof=1) / math.sqrt(len(found))
        )
        interval = (float(np.mean(found)) - half, float(np.mean(found)) + half)
    return Score(float(np.mean(found)), interval, len(found), notes=notes)
