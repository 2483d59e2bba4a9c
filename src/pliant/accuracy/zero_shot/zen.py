"""Zen score: how far does the last feature map move when a Gaussian image moves a little?

M. Lin, P. Wang, Z. Sun, H. Chen, X. Sun, Q. Qian, H. Li, R. Jin, "Zen-NAS: A Zero-Shot NAS for
High-Performance Image Recognition", ICCV 2021, arXiv:2102.01063, Algorithm 1.

For weights, images x and perturbations e drawn from N(0, 1):

    z1 = log E_x || f(x) - f(x + 0.01 e) ||_F                                               (1)
    z2 = sum over BatchNorms of log sqrt( mean over channels of the batch variance at x )   (2)
    zen = z1 + z2                                                                           (3)

f ends where global pooling begins; the norm is over all channels and positions of one image. (2)
restores what the BatchNorms divided by. A BatchNorm whose input is constant, on a disconnected
path, has variance 0 and no logarithm: it is left out of (2) and named in the notes.

`zen-reference` is what the authors' public code computes instead: the L1 norm in (1), and PyTorch's
running variance in (2). That starts at 1, moves by a tenth at each of the two passes of a repeat,
and carries over from repeat to repeat, so this score grows with the number of repeats. Both scores
are means over `repeats` draws.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from pliant.accuracy.zero_shot.activations import last_feature_map
from pliant.accuracy.zero_shot.copies import copy_own_weights
from pliant.accuracy.zero_shot.initial_weights import standard_normal
from pliant.accuracy.zero_shot.normalisations import BatchNormCall, replace_batch_norms
from pliant.accuracy.zero_shot.scoring_input import (
    RefusedError,
    ScoringInput,
    ZeroShotScore,
    batch_norms,
)

MIXTURE = 0.01
"""Size of the perturbation; alpha in the paper, gamma in the code."""
REPEATS = 4
"""Draws of weights and images per score, unless given."""
_MOMENTUM = 0.1


class _Variances:
    """What the BatchNorms of a network divided by in the last pass."""

    def __init__(self, network: nn.Module) -> None:
        self.by_name: dict[str, float] = {}
        """Mean variance over channels."""
        self.values: dict[str, int] = {}
        """Number of values per channel."""
        self.functions = replace_batch_norms(network, self._normalise)

    def _normalise(self, norm: BatchNormCall, x: Tensor) -> Tensor:
        """Normalises by the batch, and keeps its variance."""
        made, _, inverse = torch.native_batch_norm(
            x, norm.weight, norm.bias, None, None, True, 0.0, norm.eps
        )
        variance = float((inverse.double().square().reciprocal() - norm.eps).mean())
        # Rounding leaves about 1e-7 of eps where all values are equal.
        self.by_name[norm.name] = variance if variance > 1e-4 * norm.eps else 0.0
        self.values[norm.name] = x.numel() // x.shape[1]
        return made


def zen(inputs: ScoringInput, *, repeats: int = REPEATS) -> ZeroShotScore:
    """The score as the paper defines it.

    Args:
        inputs: network, shape of the images, seed.
        repeats: draws of weights, images and perturbations; the interval is that of their mean.

    Raises:
        RefusedError: no feature map, or one that does not depend on the images.
    """
    network = copy_own_weights(inputs.network)
    variances, generator = _Variances(network), inputs.generator()
    found, dead = [], set()
    for _ in range(repeats):
        difference, variance, _ = _perturb(network, variances, inputs, generator)
        difference = difference.flatten(1)
        norms = torch.linalg.vector_norm(difference, dim=1, dtype=torch.float64)
        z1 = _log(float(norms.mean()))  # (1)
        alive = [value for value in variance.values() if value > 0]
        dead |= {name for name, value in variance.items() if not value > 0}
        z2 = sum(0.5 * math.log(value) for value in alive)  # (2)
        found.append(z1 + z2)  # (3)
    return _mean(
        found, (f"BatchNorm without variance, left out: {', '.join(sorted(dead))}",) if dead else ()
    )


def zen_reference(inputs: ScoringInput, *, repeats: int = REPEATS) -> ZeroShotScore:
    """The score as the authors' public code computes it.

    Args:
        inputs: network, shape of the images, seed.
        repeats: as of `zen`; the running variances carry over from one to the next.

    Raises:
        RefusedError: as of `zen`.
    """
    network = copy_own_weights(inputs.network)
    variances, generator = _Variances(network), inputs.generator()
    running = dict.fromkeys((name for name, _ in batch_norms(network)), 1.0)
    found = []
    for _ in range(repeats):
        difference, first, second = _perturb(network, variances, inputs, generator)
        for seen in (first, second):
            for name, value in seen.items():
                unbiased = value * variances.values[name] / (variances.values[name] - 1)
                running[name] = (1 - _MOMENTUM) * running.get(name, 1.0) + _MOMENTUM * unbiased
        z1 = _log(
            float(difference.abs().sum(list(range(1, difference.ndim)), dtype=torch.float64).mean())
        )
        found.append(z1 + sum(0.5 * math.log(value) for value in running.values()))
    return _mean(found, ())


@torch.inference_mode()
def _perturb(
    network: nn.Module, variances: _Variances, inputs: ScoringInput, generator: torch.Generator
) -> tuple[Tensor, dict[str, float], dict[str, float]]:
    """One repeat: f(x) - f(x + 0.01 e) under new weights, and the variances of both passes."""
    standard_normal(network, generator, inputs.images[:2])
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, shift = inputs.noise(generator), inputs.noise(generator)
    order = torch.channels_last if images.ndim == 4 else torch.contiguous_format
    maps, seen = [], []
    for shown in (images, images + MIXTURE * shift):
        variances.by_name = {}
        with variances.functions:
            maps.append(last_feature_map(network, shown.contiguous(memory_format=order)))
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


def _mean(found: list[float], notes: tuple[str, ...]) -> ZeroShotScore:
    interval = None
    if len(found) > 1:
        half = float(
            stats.t.ppf(0.975, len(found) - 1) * np.std(found, ddof=1) / math.sqrt(len(found))
        )
        interval = (float(np.mean(found)) - half, float(np.mean(found)) + half)
    return ZeroShotScore(float(np.mean(found)), interval, len(found), notes=notes)
