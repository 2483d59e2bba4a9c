"""AZ-NAS (Lee and Ham 2024): four views of a network at the start, on Gaussian images and with He's weights.

Let F_1 ... F_n be the feature maps at the ends of the blocks (`zero_shot.blocks`), and S_i the entropy of the spectrum of F_i:
the eigenvalues of the covariance between its channels, over images and positions, divided by their sum.

    az-expressivity   sum over i of S_i                              features use all channels
    az-progressivity  min over i of S_i+1 - S_i                      each block adds to them
    az-trainability   mean over i of 2 - s_i - 1 / (s_i + 1e-6)      gradients keep their size from block to block
    az-complexity     MACs

s_i is the largest singular value of the mean over images and positions of g_in g_out', where g_out is a random +1 or -1 for each
value of F_i+1, and g_in what a pass back through the block makes of it. Where a block makes maps smaller, the positions of g_in
that belong to one of g_out are laid side by side as channels.

`aggregate` joins the four over a set of networks: sum over the views of log(rank / n), 0 for a network that leads in all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.accuracy.zero_shot.blocks import block_ends
from pliant.accuracy.zero_shot.pools import run
from pliant.accuracy.zero_shot.size import macs
from pliant.accuracy.zero_shot.subject import RefusedError, Score, Subject, clone
from pliant.accuracy.zero_shot.weights import draw_he
from pliant.errors import DataError
from pliant.metrics import Failed

VIEWS = ("az-expressivity", "az-progressivity", "az-trainability", "az-complexity")
complexity = macs


def expressivity(subject: Subject) -> Score:
    """How much of their channels all feature maps use.

    Raises:
        RefusedError: a feature map is constant, or there are no two blocks.
    """
    return Score(float(sum(_entropies(subject))))


def progressivity(subject: Subject) -> Score:
    """By how much the least useful block adds to the channels in use.

    Raises:
        RefusedError: as of `expressivity`.
    """
    return Score(float(np.diff(_entropies(subject)).min()))


def trainability(subject: Subject) -> Score:
    """How well gradients keep their size from block to block; 0 at best.

    Raises:
        RefusedError: a block hands its gradient on unchanged, or makes maps larger.
    """
    network, generator = clone(subject.network), subject.generator()
    draw_he(network, generator)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    passed = _maps(network, subject.noise(generator), cut=True)
    found = []
    while len(passed) > 1:
        made, _ = passed.pop()
        given = passed[-1][1]
        g_out = (
            torch.empty(made.shape).bernoulli_(0.5, generator=generator).mul_(2).sub_(1).to(made)
        )
        g_in = (
            torch.autograd.grad(made, given, g_out, allow_unused=True)[0]
            if made.requires_grad
            else None
        )
        found.append(_kept(torch.zeros_like(given) if g_in is None else g_in, g_out))
    return Score(float(np.mean(found)))


@torch.no_grad()
def _entropies(subject: Subject) -> list[float]:
    network, generator = clone(subject.network), subject.generator()
    draw_he(network, generator)
    return [_entropy(one) for one, _ in _maps(network, subject.noise(generator), cut=False)]


def _entropy(feature: Tensor) -> float:
    values = feature.transpose(0, 1).flatten(1)
    values = values - values.mean(1, keepdim=True)
    spectrum = torch.linalg.eigvalsh(values @ values.T).clamp_(min=0)
    if not float(spectrum.sum()) > 0:
        raise RefusedError(
            "this score looks at how feature maps vary; that of a block is constant."
        )
    share = spectrum / spectrum.sum()
    return float(-(share * (share + 1e-8).log()).sum())


def _maps(network: nn.Module, images: Tensor, *, cut: bool) -> list[tuple[Tensor, Tensor]]:
    """Each block's feature map as the block made it, and as the next block got it; with `cut` gradients end between them."""
    found: list[tuple[Tensor, Tensor]] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], made: Tensor) -> Tensor | None:
        given = made.detach().requires_grad_(cut)
        found.append((made, given))
        # A copy, as what follows may write into what it gets.
        return given.clone()

    for end in block_ends(network, images):
        end.register_forward_hook(keep)
    run(network, images)
    return found


def _kept(g_in: Tensor, g_out: Tensor) -> float:
    if g_in.shape == g_out.shape and torch.equal(g_in, g_out):
        raise RefusedError(
            "a block hands its gradient on unchanged: trainability is minus infinity."
        )
    if g_in.ndim == 4 and g_in.shape[2:] != g_out.shape[2:]:
        g_in = _side_by_side(g_in, g_out)
    if g_in.shape[2:] != g_out.shape[2:]:
        raise RefusedError(
            f"blocks keep the size of maps or make them smaller; one goes from {tuple(g_in.shape)} to {tuple(g_out.shape)}."
        )
    inner, outer = (one.transpose(0, 1).flatten(1) for one in (g_in, g_out))
    largest = float(torch.linalg.matrix_norm(inner @ outer.T / inner.shape[1], 2))
    return 2 - largest - 1 / (largest + 1e-6)


def _side_by_side(g_in: Tensor, g_out: Tensor) -> Tensor:
    stride = math.ceil(g_in.shape[2] / g_out.shape[2])
    rows, columns = (
        stride * size - had for size, had in zip(g_out.shape[2:], g_in.shape[2:], strict=True)
    )
    if stride == 1 or rows < 0 or columns < 0:
        return g_in
    return F.pixel_unshuffle(F.pad(g_in, (0, columns, 0, rows)), stride)


def aggregate(
    rows: Sequence[Mapping[str, float | Score | Failed | None]], views: Sequence[str] = VIEWS
) -> list[float]:
    """One number a network, higher is better: sum over the views of log(rank / n).

    Args:
        rows: the scores of each network by name; one that failed, or is missing, ranks last.

    Raises:
        DataError: a view that no network has.
    """
    total = np.zeros(len(rows))
    for view in views:
        if rows and not any(view in row for row in rows):
            raise DataError(
                f"AZ-NAS joins {', '.join(views)}; no network has {view}. Compute it first."
            )
        values = [_number(row.get(view)) for row in rows]
        total += np.log(stats.rankdata(values) / max(1, len(rows)))
    return [float(value) for value in total]


def _number(value: float | Score | Failed | None) -> float:
    found = value.value if isinstance(value, Score) else value
    return (
        -math.inf
        if found is None or isinstance(found, Failed) or math.isnan(found)
        else float(found)
    )
