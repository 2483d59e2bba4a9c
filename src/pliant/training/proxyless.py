"""ProxylessNAS: the search is a training, of weights and of architecture parameters in turns.

H. Cai, L. Zhu, S. Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and
Hardware", 2019, arXiv:1812.00332.

1. Warm-up: paths are drawn evenly, and only weights are trained.
2. Search: weights are trained on paths that are drawn by the architecture parameters; every other
   step these are trained on validation images, through binary gates (section 3.2) or by REINFORCE
   (section 3.3.2). The expected costs stand in the loss (section 3.3).
3. Train: the most probable network within the limits gets fresh weights and is trained alone.

Where we depart from the paper: the weight of the cost in the loss follows from the limit (below),
since a weight that is chosen by hand misses it; the result is the most probable network that is
within the limits as predicted, and as measured where the target measures, not the most probable
operation of each block; and the operations that two-path updates weigh against each other see the
difference of their own costs, so that an update keeps the probability of the pair in the cost too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from pliant.errors import InfeasibleError
from pliant.metrics import Cost
from pliant.networks.mixed import Gate, MixedNetwork, mixed_blocks
from pliant.networks.supernet import Supernet
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space
from pliant.training.expected_cost import ExpectedCost, Hardware
from pliant.training.schedule import Phase, TrainingRecipe
from pliant.training.strategy import ParameterGroup, TrainingStrategy, Turn, decay_groups
from pliant.units import format_cost

SHARES = {"warm-up": 0.15, "search": 0.35, "train": 0.5}
"""Of the epochs."""
ALPHA_TRAVEL = 15.0
"""Learning rate of the architecture parameters times their steps: how far one can move, since Adam
moves it by about the rate. The paper's code has a rate of 0.001 for 25,000 steps; a search on a CPU
has a few hundred."""
MAX_ALPHA_RATE = 0.1
ALPHA_BETAS = (0.0, 0.999)
"""Of Adam, as in the paper's code: no momentum, so that operations that were not drawn stay."""
WEIGHT_STEPS = 2
"""Steps of the weights for one of the architecture parameters."""
PENALTY_TRAVEL = 6.0
"""Growth of a cost's weight over all steps, were it twice its limit all the time."""
UNUSED = 0.05
"""Share of a limit that the chosen network may leave unused, where a network can use more."""
MARGIN = 0.015
"""Share of a limit that stays free when the network is chosen; measurements repeat to about 1 %."""
MEASURED_NETWORKS = 6
"""Networks that are measured before one is chosen, at most."""
REINFORCE_PATHS = 8
"""Paths of one update; 10 in the paper's code."""
BASELINE_DECAY = 0.9
LOSS_WEIGHT = 0.1
"""Weight of a cost over its bound in the loss `add`."""
LOSS_POWER = 0.6
"""Power of a cost over its bound in the loss `multiply`, as in the paper's code."""

EXPECTED = "expected "
"""Before the name of a metric in the log."""

Penalty = Literal["limit", "add", "multiply", "none"]
Gradient = Literal["two-path", "all-path", "reinforce"]
Measure = Callable[[Architecture], Cost]


@dataclass(frozen=True, slots=True)
class ArchitectureSettings:
    """How the architecture parameters are trained."""

    gradient: Gradient = "two-path"
    """Two operations of a block weigh against each other in a step, or all; or REINFORCE."""
    penalty: Penalty = "limit"
    """`limit` adapts the weight of each cost until its bound is met; `add` has a fixed weight,
    `multiply` a fixed power (section 3.3.1); `none` leaves costs out."""
    alpha_rate: float | None = None
    """Learning rate; None for one by the number of steps."""
    loss_weight: float = LOSS_WEIGHT
    loss_power: float = LOSS_POWER


class Proxyless(TrainingStrategy):
    """The strategy; it trains a `MixedNetwork`.

    Args:
        space: in which every choice picks the operation of one block.
        hardware: that the network is for.
        limits: bounds by metric of `Cost`.
        measure: measures a network on the hardware; None where that cannot be.
        label_smoothing: for the losses of the weights.
        settings: of the architecture parameters.

    Raises:
        RecipeError: the space has other choices, or a limit that no operation changes.
    """

    def __init__(
        self,
        space: Space,
        hardware: Hardware,
        limits: Mapping[str, float],
        *,
        measure: Measure | None = None,
        label_smoothing: float = 0.1,
        settings: ArchitectureSettings | None = None,
    ) -> None:
        self.space, self.limits, self.measure = space, dict(limits), measure
        self.label_smoothing = label_smoothing
        self.settings = settings or ArchitectureSettings()
        self._mixed = mixed_blocks(space)
        self.costs = ExpectedCost(space, self._mixed, hardware, tuple(limits))
        self._weights = dict.fromkeys(limits, 0.0)
        """Of the costs in the loss, where they follow from the limits."""
        self._updates = 1
        """Of the architecture parameters, in the phase."""
        self._baseline = math.nan
        """Mean reward of REINFORCE; unknown before its first step."""
        self._pairs: dict[str, Sequence[int]] = {}
        self._mass: dict[str, Tensor] = {}
        """Of two-path updates: the operations of this step, and the logarithm of their mass."""

    def make_supernet(
        self, space: Space, *, mean: Sequence[float], std: Sequence[float]
    ) -> Supernet:
        """Weights of every operation."""
        return MixedNetwork(space, mean=mean, std=std)

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """The three phases."""
        return tuple(Phase(name, epochs * share) for name, share in SHARES.items())

    def parameter_groups(self, model: nn.Module, recipe: TrainingRecipe) -> list[ParameterGroup]:
        """All parameters but those of the architecture."""
        assert isinstance(model, MixedNetwork)
        alphas = {id(alpha) for alpha in model.alpha.values()}
        groups = []
        for group in decay_groups(model, recipe):
            kept = [one for one in group["params"] if id(one) not in alphas]
            if kept:
                groups.append({**group, "params": kept})
        return groups

    def optimizers(self, model: nn.Module, recipe: TrainingRecipe) -> Mapping[str, Optimizer]:
        """SGD for the weights, Adam with a constant rate for the architecture."""
        assert isinstance(model, MixedNetwork)
        self._adam = torch.optim.Adam(model.alpha.values(), lr=0.0, betas=ALPHA_BETAS)
        return {**super().optimizers(model, recipe), "architecture": self._adam}

    def turns(self, phase: str, step: int) -> Sequence[Turn]:
        """Weights in every step; during the search the architecture in every other."""
        if phase == "search" and step % WEIGHT_STEPS == 0:
            return Turn("weights"), Turn("architecture", split="validation")
        return (Turn("weights"),)

    def on_phase_start(self, phase: str, model: nn.Module) -> None:
        """Choose the network before it is trained alone."""
        assert isinstance(model, MixedNetwork)
        if phase == "train":
            model.choose(self.choose(model.probabilities()))

    def on_step_start(self, phase: str, model: nn.Module, step: int, steps: int) -> None:
        """The rate of the architecture parameters is constant, and follows from their steps."""
        self._updates = max(1, steps // WEIGHT_STEPS)
        by_steps = min(MAX_ALPHA_RATE, ALPHA_TRAVEL / self._updates)
        for group in self._adam.param_groups:
            group["lr"] = self.settings.alpha_rate or by_steps

    def turn_losses(
        self,
        turn: Turn,
        phase: str,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        rng: np.random.Generator,
    ) -> Iterator[Tensor]:
        """Cross-entropy of one path; for the architecture with the costs."""
        network = _bare(model)
        _train_weights(network, turn.optimizer == "weights")
        if turn.optimizer == "weights":
            logits = model(images, self._path(phase, network, rng))
            yield F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        elif self.settings.gradient == "reinforce":
            yield self._reinforce(model, network, images, labels, rng)
        else:
            gates = self._gates(network, rng)
            yield self._with_costs(
                F.cross_entropy(model(images, gates=gates), labels),
                dict(network.alpha.items()),
                gates,
            )

    def _path(self, phase: str, network: MixedNetwork, rng: np.random.Generator) -> Architecture:
        if phase == "train":
            assert network.trained
            return network.trained[0]
        probabilities = None if phase == "warm-up" else network.probabilities()
        return self._drawn(probabilities, rng)

    def _drawn(
        self, probabilities: Mapping[str, Tensor] | None, rng: np.random.Generator
    ) -> Architecture:
        """A network by the probabilities of its operations; evenly where None."""
        chosen = dict(self.space.largest().mapping)
        for mixed in self._mixed:
            p = None if probabilities is None else _shares(probabilities[mixed.slot])
            index = int(rng.choice(len(mixed.operations), p=p))
            chosen[mixed.choice.name] = mixed.choice.options[index]
        return self.space.architecture(chosen)

    def _gates(self, network: MixedNetwork, rng: np.random.Generator) -> dict[str, Gate]:
        """Which operations of each block weigh against each other, and which of them runs."""
        gates = {}
        for mixed in self._mixed:
            p = _shares(network.alpha[mixed.slot].softmax(0))
            operations: Sequence[int] = range(len(p))
            if self.settings.gradient == "two-path":
                operations = [int(one) for one in _two(p, rng)]
            own = p[list(operations)]
            gates[mixed.slot] = Gate(operations, int(rng.choice(len(own), p=own / own.sum())))
        return gates

    def _with_costs(
        self, loss: Tensor, alpha: Mapping[str, Tensor], gates: Mapping[str, Gate]
    ) -> Tensor:
        """The loss with the expected costs; notes the mass that two-path updates keep."""
        taking_part = {slot: gate.operations for slot, gate in gates.items()}
        if self.settings.gradient == "two-path":
            self._pairs = taking_part
            self._mass = {
                slot: alpha[slot].detach()[list(pair)].logsumexp(0)
                for slot, pair in taking_part.items()
            }
        for metric, bound in self.limits.items():
            ratio = self._ratio(metric, bound, alpha, taking_part)
            match self.settings.penalty:
                case "limit":
                    loss = loss + self._weights[metric] * ratio
                case "add":
                    loss = loss + self.settings.loss_weight * (ratio - 1)
                case "multiply":
                    loss = loss * ratio**self.settings.loss_power
                case "none":
                    pass
        return loss

    def _ratio(
        self,
        metric: str,
        bound: float,
        alpha: Mapping[str, Tensor],
        taking_part: Mapping[str, Sequence[int]],
    ) -> Tensor:
        """An expected cost over its bound; its gradient is that of the operations taking part.

        Where these are a pair, its costs are weighted as if its mass were 1, as the loss is, which
        sees the pair alone.
        """
        probabilities = {slot: one.softmax(0) for slot, one in alpha.items()}
        value = self.costs.expected(metric, probabilities) / bound
        if self.settings.gradient != "two-path":
            return value.float()
        pairs = {}
        for slot, pair in taking_part.items():
            own = torch.zeros_like(alpha[slot])
            pairs[slot] = own.index_add(
                0, torch.tensor(list(pair)), alpha[slot][list(pair)].softmax(0)
            )
        of_pairs = self.costs.expected(metric, pairs) / bound
        return (value.detach() + of_pairs - of_pairs.detach()).float()

    def _reinforce(
        self,
        model: nn.Module,
        network: MixedNetwork,
        images: Tensor,
        labels: Tensor,
        rng: np.random.Generator,
    ) -> Tensor:
        """A loss whose gradient is that of the expected reward (section 3.3.2, eq. 7).

        The reward is the accuracy of a path on these images less its costs over their bounds.
        """
        probabilities = {slot: one.detach() for slot, one in network.probabilities().items()}
        paths = [self._drawn(probabilities, rng) for _ in range(REINFORCE_PATHS)]
        costs = self.costs.hardware.predict(paths)
        rewards = []
        for path, cost in zip(paths, costs, strict=True):
            with torch.no_grad():
                right = (model(images, path).argmax(1) == labels).float().mean()
            rewards.append(float(right) - self._price(cost))
        mean = float(np.mean(rewards))
        if math.isnan(self._baseline):
            self._baseline = mean
        loss = torch.zeros(())
        for path, reward in zip(paths, rewards, strict=True):
            loss = loss - (reward - self._baseline) * self._log_probability(network, path)
        self._baseline = BASELINE_DECAY * self._baseline + (1 - BASELINE_DECAY) * mean
        return loss / len(paths)

    def _price(self, cost: object) -> float:
        """Costs over their bounds, weighted; a network without a cost is worth nothing."""
        if not isinstance(cost, Cost):
            return 1.0
        return sum(
            self._reward_weight(metric) * cost.metric(metric) / bound
            for metric, bound in self.limits.items()
        )

    def _reward_weight(self, metric: str) -> float:
        if self.settings.penalty == "none":
            return 0.0
        fixed = self.settings.loss_weight
        return self._weights[metric] if self.settings.penalty == "limit" else fixed

    def _log_probability(self, network: MixedNetwork, path: Architecture) -> Tensor:
        found = torch.zeros(())
        for mixed in self._mixed:
            logs = network.alpha[mixed.slot].log_softmax(0)
            found = found + logs[self.costs.index_of(mixed, path)]
        return found

    @torch.no_grad()
    def on_step_end(self, phase: str, model: nn.Module, step: int) -> None:
        """Keep the mass of each pair, and move the weights of the costs towards their limits."""
        assert isinstance(model, MixedNetwork)
        if phase != "search" or step % WEIGHT_STEPS:
            return
        for slot, pair in self._pairs.items():
            alpha = model.alpha[slot]
            index = list(pair)
            alpha[index] -= alpha[index].logsumexp(0) - self._mass[slot]
        self._pairs, self._mass = {}, {}
        for metric, bound in self.limits.items():
            excess = float(self.costs.expected(metric, model.probabilities())) / bound - 1
            growth = PENALTY_TRAVEL / self._updates * excess
            self._weights[metric] = max(0.0, self._weights[metric] + growth)

    def choose(self, probabilities: Mapping[str, Tensor]) -> Architecture:
        """The most probable network within the limits, as measured where that can be.

        It leaves at most a share of `UNUSED` of the first limit unused, where a network can use it.

        Args:
            probabilities: (operations,) by slot.

        Raises:
            InfeasibleError: none is within the limits.
        """
        scale = dict.fromkeys(self.limits, 1.0)
        """Of a metric: measured over predicted."""
        best: Architecture | None = None
        at_limit: Architecture | None = None
        """Within the limits without the margin."""
        for _ in range(MEASURED_NETWORKS):
            found = self._most_probable(probabilities, scale)
            if self.measure is None:
                return found
            measured = self.measure(found)
            known = [name for name in self.limits if name in measured.metrics]
            used = [measured.metric(name) / self._bound(name) for name in known]
            if max(used, default=0.0) <= 1 / (1 - MARGIN):
                at_limit = at_limit or found
            if max(used, default=0.0) <= 1:
                best = found
                if not used or max(used) >= 1 - UNUSED / 2 or self._is_largest(found):
                    return found
            [predicted] = self.costs.hardware.predict([found])
            assert isinstance(predicted, Cost)
            before = dict(scale)
            for name in known:  # at least 1: a delivered network is within its limits as predicted
                scale[name] = max(1.0, measured.metric(name) / predicted.metric(name))
            if best is not None and scale == before:
                return best
        best = best or at_limit
        if best is None:
            raise InfeasibleError(
                f"none of {MEASURED_NETWORKS} networks is within the limits as measured, though "
                "their predictions are. Raise the limit, or measure on a quieter machine."
            )
        return best

    def _bound(self, metric: str) -> float:
        return self.limits[metric] * (1 - MARGIN)

    def _is_largest(self, architecture: Architecture) -> bool:
        return architecture == self.space.largest()

    def _most_probable(
        self, probabilities: Mapping[str, Tensor], scale: Mapping[str, float]
    ) -> Architecture:
        """By predictions that are scaled to what was measured; checked by the target itself.

        The margin is given up where no network keeps it, as with a limit at the end of the range.

        Raises:
            InfeasibleError: none is within the limits.
        """
        for margin in (MARGIN, 0.0):
            bounds = {name: bound * (1 - margin) for name, bound in self.limits.items()}
            found = self._within(probabilities, bounds, scale)
            if found is not None:
                return found
        asked = ", ".join(
            f"{name}={format_cost(name, bound)}" for name, bound in self.limits.items()
        )
        measured = {name: one for name, one in scale.items() if one > 1}
        raise InfeasibleError(
            f"no network of space {self.space.name!r} is within {asked}"
            + "".join(
                f"; {name} is measured {one:.2f} times its prediction"
                for name, one in measured.items()
            )
            + ". Raise the limit, or choose a space with smaller networks."
        )

    def _within(
        self,
        probabilities: Mapping[str, Tensor],
        bounds: Mapping[str, float],
        scale: Mapping[str, float],
    ) -> Architecture | None:
        """The most probable network whose scaled predictions are within bounds; None for none."""

        def is_within(network: Architecture) -> bool:
            [cost] = self.costs.hardware.predict([network])
            return isinstance(cost, Cost) and all(
                cost.metric(name) * scale[name] <= bound for name, bound in bounds.items()
            )

        for percent in range(100):
            # The sum over blocks leaves out what the target adds to whole networks.
            limits = {
                name: bound * (1 - percent / 100) / scale[name] for name, bound in bounds.items()
            }
            floors = {name: bound * (1 - UNUSED / 2) for name, bound in list(limits.items())[:1]}
            try:
                found = self.costs.most_probable(probabilities, limits, floors)
            except InfeasibleError:
                try:
                    found = self.costs.most_probable(probabilities, limits)
                except InfeasibleError:
                    break
            if is_within(found):
                return found
        smallest = self.space.smallest()
        return smallest if is_within(smallest) else None

    def measures(self, model: nn.Module) -> dict[str, Any]:
        """For the log: expected costs, weights of the costs, entropy, and every probability."""
        assert isinstance(model, MixedNetwork)
        if model.trained:
            return {}
        with torch.no_grad():
            probabilities = model.probabilities()
            found: dict[str, Any] = {
                f"{EXPECTED}{metric}": float(self.costs.expected(metric, probabilities))
                for metric in self.limits
            }
            entropies = [float(-(p * p.log()).sum()) for p in probabilities.values()]
        found |= {f"weight of {metric}": weight for metric, weight in self._weights.items()}
        found["entropy"] = float(np.mean(entropies))
        found["probabilities"] = {
            slot: [round(float(one), 4) for one in p] for slot, p in probabilities.items()
        }
        return found

    def state(self) -> dict[str, Tensor]:
        """Weights of the costs and the baseline of REINFORCE."""
        return {
            "cost weights": torch.tensor(list(self._weights.values()), dtype=torch.float64),
            "baseline": torch.tensor(self._baseline, dtype=torch.float64),
        }

    def load_state(self, model: nn.Module, state: dict[str, Tensor]) -> None:
        """Take them from a checkpoint."""
        self._weights = dict(zip(self.limits, state["cost weights"].tolist(), strict=True))
        self._baseline = float(state["baseline"])


def _bare(model: nn.Module) -> MixedNetwork:
    network = getattr(model, "model", model)
    assert isinstance(network, MixedNetwork)
    return network


def _train_weights(network: MixedNetwork, trained: bool) -> None:
    """In a step of the architecture parameters, gradients of the weights would be wasted."""
    network.blocks.requires_grad_(trained)


def _shares(p: Tensor) -> np.ndarray:
    """Probabilities that sum to 1 in double precision, as NumPy asks."""
    found: np.ndarray = p.detach().double().cpu().numpy()
    return found / found.sum()


def _two(p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two different positions, drawn one after the other by their probabilities."""
    if (p > 0).sum() < 2:
        p = p + 1e-12
        p = p / p.sum()
    return rng.choice(len(p), size=2, replace=False, p=p)
