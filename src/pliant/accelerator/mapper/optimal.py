"""What is the best way to run a layer on a chip, and is it proven?

`optimal_mapping` searches the space of `mapspace` to the end, by branch and bound. It visits
spatial splits in ascending order of a lower bound, stops where the bound reaches the best mapping
found, and inside a split prunes what cannot win: first with tiles that divide, for a good value to
beat, then with all. Among mappings of the least latency the one with the least energy is found, and
the other way round. The certificate counts what was pruned and why. If the time is up first, it
states the gap between the best so far and the bound.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pliant.accelerator.chip import Chip
from pliant.accelerator.mapper.mapspace import STATIONARY_ORDERS, SpatialSplits, spatial_splits
from pliant.accelerator.mapping import ENCODED_LENGTH, TENSORS, Mapping
from pliant.accelerator.model.cost import MappingCost, evaluate, evaluate_rows
from pliant.accelerator.model.counts import AXES, COUNTS, SCRATCH, layer_record
from pliant.accelerator.model.energy_latency import chip_record
from pliant.errors import InfeasibleError, RecipeError, nearest
from pliant.workload import Layer

if TYPE_CHECKING:
    from pliant.accelerator.mapper.bounds import Goal

MappingObjective = Literal["energy", "latency", "edp"]
_TERM: Final = re.compile(r"(energy|latency)(?:\^(\d+(?:\.\d+)?))?")
POWERS: Final = {"energy": (1.0, 0.0), "latency": (0.0, 1.0), "edp": (1.0, 1.0)}
MANY_TILES: Final = 256
"""As `Problem.many`; what it is changes the time alone. With 32, ResNet-50 on eyeriss takes three
times as long; with 1,024, a search for chips 17 % longer."""
_STEP: Final = 64
"""Splits that are searched between two looks at the clock and at an interrupt from the keyboard."""
_EQUAL: Final = 1e-12
"""Values that differ by less are equal: as much as the rounding of their sums."""
_ROUNDING: Final = 1e-9
"""Sums of floats in another order differ by less than this; bounds are lowered by it."""


@dataclass(frozen=True, slots=True)
class DataflowConstraint:
    """A part of the space, such as all weight-stationary mappings; by default, all of it."""

    keep_inner: str = TENSORS
    """Tensors out of WIO that the buffer loops may keep in place (stationary in the array)."""
    keep_outer: str = TENSORS
    """The same of the DRAM loops (stationary in the buffer)."""
    bypass: bool = True
    """Whether tensors may bypass the buffer."""
    spread: str = ""
    """Loops that the array must cover in one round."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Why the mapping is the best: how many mappings the space holds, and why each was left out.

    Counted are mappings with one of the nine orders of `mapspace`, all eight bypasses, any tiles.
    """

    mappings: int
    """In the space."""
    evaluated: int
    """Costed exactly."""
    pruned_by_spatial_bound: int
    """Compute time and least traffic of their split cannot win."""
    pruned_by_tiles: int
    """Do not fit a memory, or cannot win with the traffic that their tiles imply."""
    gap: float
    """(value - lower bound) / value; 0 where the search ran to its end. No mapping of the space is
    better by more than this share."""
    seconds: float
    """Wall-clock time of the search."""
    ties_settled: bool = True
    """Whether the cheapest of the equally good mappings was searched for to its end."""
    allowed_gap: float = 0.0
    """How far from the best the search was allowed to end."""
    airtight: bool = True
    """Whether the bounds hold for all that the constraint allows. Where it narrows the tensors that
    may stay in place, they do not: a tensor may rest under the order of another."""

    @property
    def proven(self) -> bool:
        """Whether it is certain that no mapping of the space is better."""
        return self.gap == 0.0 and self.airtight

    @property
    def complete(self) -> bool:
        """Whether the search ran to the end that was asked for, and no time limit cut it."""
        return self.gap <= self.allowed_gap and (self.ties_settled or self.allowed_gap > 0.0)


@dataclass(frozen=True, slots=True)
class BestMapping:
    """The best mapping found, its cost, and how sure that is."""

    layer: Layer
    mapping: Mapping
    cost: MappingCost
    objective: str
    value: float
    """energy^a cycles^b with the powers of the objective."""
    certificate: Certificate


def optimal_mapping(
    layer: Layer,
    chip: Chip,
    objective: str | tuple[float, float] = "edp",
    *,
    time_limit_s: float = float("inf"),
    gap: float = 0.0,
    constraint: DataflowConstraint | None = None,
) -> BestMapping:
    """The best mapping of the stated space, with its certificate.

    Args:
        layer: the loops.
        chip: the hardware.
        objective: `energy`, `latency`, `edp`, a product such as `energy^2*latency`, or its powers
            (2, 1).
        time_limit_s: after this many seconds the best so far is returned, with its gap.
        gap: share of the value by which some mapping may be better, from 0 to below 1; above 0 the
            search ends early, within the gap of the best and not proven to be it.
        constraint: a part of the space; the fixed dataflows of `baselines` are such parts.

    Raises:
        RecipeError: an unknown objective, negative powers, or a gap out of range.
        InfeasibleError: no mapping of the space fits the chip.
    """
    best = mapping_below(
        math.inf,
        layer,
        chip,
        objective,
        time_limit_s=time_limit_s,
        gap=gap,
        constraint=constraint,
    )
    if best is None:
        raise no_room(layer, chip)
    return best


def mapping_below(
    limit: float,
    layer: Layer,
    chip: Chip,
    objective: str | tuple[float, float] = "edp",
    *,
    time_limit_s: float = float("inf"),
    gap: float = 0.0,
    constraint: DataflowConstraint | None = None,
    known: NDArray[np.int64] | None = None,
) -> BestMapping | None:
    """`optimal_mapping` where only mappings below a value are of interest.

    Args:
        limit: of the value; the lower it is, the sooner the search ends.
        layer: the loops.
        chip: the hardware.
        objective: as `optimal_mapping`.
        time_limit_s: as `optimal_mapping`.
        gap: as `optimal_mapping`.
        constraint: as `optimal_mapping`.
        known: mappings of the layer within the constraint, such as the best ones on other chips, as
            rows of `Mapping.encode`. The least value of those that this chip can run, too, prunes
            from the start; what is found is the same.

    Returns:
        The best mapping, or None where none is below the limit or fits.

    Raises:
        RecipeError: an unknown objective, negative powers, or a gap out of range.
        InfeasibleError: the array cannot spread what the constraint asks for.
    """
    check_gap(gap)
    started = time.perf_counter()
    powers = objective_powers(objective)
    allowed = constraint or DataflowConstraint()
    splits = spatial_splits(layer, chip).only_spread(allowed.spread)
    if not len(splits.pes):
        raise InfeasibleError(
            f"layer {layer.name!r}: no axis of chip {chip.name!r} is long enough to spread loop "
            f"{allowed.spread}, as the dataflow asks."
        )
    search = MappingSearch(layer, chip, powers, allowed, splits, gap)
    search.begin_below(limit, np.empty((0, ENCODED_LENGTH), int) if known is None else known)
    deadline = started + time_limit_s
    left = gap  # how much better some mapping could be
    if not search.run(search.problem.goal, deadline):
        left = max(gap, (search.best - search.bound) / search.best)
    if not search.found:
        return None
    certificate = search.certificate(left)  # of the objective; ties are settled behind it
    settled = left == 0.0
    second = search.second_criterion() if settled else None
    if second is not None:
        settled = search.run(second, deadline)
    mapping = search.mapping()
    cost = evaluate(layer, chip, mapping)
    seconds = time.perf_counter() - started
    certificate = replace(
        certificate,
        seconds=seconds,
        ties_settled=settled,
        allowed_gap=gap,
        airtight=set(allowed.keep_inner) == set(allowed.keep_outer) == set(TENSORS),
    )
    return BestMapping(
        layer,
        mapping,
        cost,
        objective_name(objective),
        float(cost.energy ** powers[0] * cost.cycles ** powers[1]),
        certificate,
    )


def check_gap(gap: float) -> None:
    """Refuses a gap that is no share.

    Raises:
        RecipeError: the gap is out of range.
    """
    if not 0.0 <= gap < 1.0:
        raise RecipeError(f"gap is a share from 0 to below 1, such as 0.01, received {gap}.")


class LeastCost(NamedTuple):
    """What no mapping of a layer can go below, each by itself."""

    energy: float
    cycles: float
    edp: float
    """Energy-delay product; at least the product of the other two."""


def least_cost(layer: Layer, chip: Chip, *, bypass: bool = True) -> LeastCost:
    """What no mapping of a layer can go below, by the bound of its spatial splits.

    Args:
        layer: the loops.
        chip: the hardware.
        bypass: whether tensors may bypass the buffer.

    Raises:
        InfeasibleError: no mapping of the space fits the chip.
    """
    # Loading the kernels takes a second where they are not compiled yet.
    from pliant.accelerator.mapper.split_search import least_of_splits

    splits = spatial_splits(layer, chip)
    bypasses = 255 if bypass else 1
    least = least_of_splits(
        layer_record(layer), chip_record(chip), bypasses, splits.pes, splits.rounds
    )
    if not np.isfinite(least).all():
        raise no_room(layer, chip)
    return LeastCost(*(value * (1 - _ROUNDING) for value in least))


def no_room(layer: Layer, chip: Chip) -> InfeasibleError:
    """Says what the smallest tiles of a layer need, and what there is."""
    widths, copies = chip.word_widths, layer_record(layer)["copies"]
    weight, word = copies[0] * widths.weight_bits / 8, widths.input_bits / 8
    least = {
        "registers": weight + word + widths.partial_sum_bits / 8,
        "buffer": weight + copies[1] * word + widths.output_bits / 8,
    }
    needs = []
    for level, needed in least.items():
        held = getattr(chip, level).total_bytes / (2 if getattr(chip, level).double_buffered else 1)
        needs.append(
            f"its {level} hold {held:g} bytes, where one word of each tensor is {needed:g}"
        )
    said = f"layer {layer.name!r}: no mapping of the space fits chip {chip.name!r}"
    return InfeasibleError(f"{said}; {'; '.join(needs)}.")


def objective_name(objective: str | tuple[float, float]) -> str:
    """How an objective is called in results."""
    if isinstance(objective, str):
        return objective
    return f"energy^{objective[0]:g} cycles^{objective[1]:g}"


def objective_powers(objective: str | tuple[float, float]) -> tuple[float, float]:
    """The powers of energy and of cycles in an objective; both are 1 in `edp`.

    Raises:
        RecipeError: an unknown objective or negative powers.
    """
    if isinstance(objective, str):
        return POWERS.get(objective) or _product(objective)
    energy, cycles = objective
    if min(energy, cycles) < 0 or energy + cycles == 0:
        raise RecipeError(
            f"the powers of energy and cycles are from 0 up and not both 0, received {objective}."
        )
    return float(energy), float(cycles)


def _product(text: str) -> tuple[float, float]:
    """Powers of a product such as `energy^2*latency`."""
    terms = [_TERM.fullmatch(term.strip()) for term in text.split("*")]
    powers = {term[1]: float(term[2] or 1) for term in terms if term}
    if len(powers) < len(terms) or not any(powers.values()):
        raise RecipeError(
            f"objective is one of {', '.join(POWERS)}, or a product such as energy^2*latency; "
            f"received {text!r}. {nearest(text, POWERS)}"
        )
    return powers.get("energy", 0.0), powers.get("latency", 0.0)


class MappingSearch:
    """The state of one search: the problem as the kernels know it, and the best mapping so far."""

    def __init__(
        self,
        layer: Layer,
        chip: Chip,
        powers: tuple[float, float],
        constraint: DataflowConstraint,
        splits: SpatialSplits,
        gap: float = 0.0,
    ) -> None:
        # Loading the kernels takes a second where they are not compiled yet.
        from pliant.accelerator.mapper import bounds, problem, split_search, tile_sizes

        self._kernel, self._bounds, self.splits = split_search, bounds, splits
        loops, numbers = layer_record(layer), chip_record(chip)
        least, outer = problem.least_words(loops), _bits(constraint.keep_outer)
        dram, curved = (
            problem.least_dram_bits(loops, numbers, outer, least),
            problem.curved_loops(loops),
        )
        self._sizes = {
            ragged: tile_sizes.tile_sizes(loops, numbers, curved, ragged, splits.pes)
            for ragged in (False, True)
        }
        self.problem = problem.Problem(
            loops,
            numbers,
            bounds.Goal(powers, powers, np.inf),
            1 - max(gap, _EQUAL),
            STATIONARY_ORDERS,
            _combinations(constraint, dram),
            outer,
            least,
            dram,
            curved,
            False,
            self._sizes[False],
            MANY_TILES,
        )
        self.incumbent = problem.Incumbent(
            value=np.full(1, np.inf),
            code=np.zeros(ENCODED_LENGTH, dtype=np.int64),
            evaluated=np.zeros(1, dtype=np.int64),
        )
        self.start(self.problem.goal, ragged=False)

    def start(self, goal: Goal, *, ragged: bool) -> None:
        """Begins anew with all splits, with the best mapping so far as the one to beat."""
        self.problem = self.problem._replace(goal=goal, ragged=ragged, sizes=self._sizes[ragged])
        bounds = self._kernel.split_bounds(self.problem, self.splits.pes, self.splits.rounds)
        self.bounds: NDArray[np.float64] = bounds * (1 - _ROUNDING)
        """Least value that any mapping of each split could have."""
        self.order = np.argsort(self.bounds, kind="stable")
        self.done = 0
        """Splits that were searched, in ascending order of their bound."""

    def begin_below(self, limit: float, known: NDArray[np.int64]) -> None:
        """Looks for values below a limit, and not above those of known mappings that fit.

        Args:
            limit: of the value.
            known: as `mapping_below`.
        """
        self.incumbent.value[0] = limit
        flat = known.copy()
        flat[:, AXES : AXES + 8] = known[:, AXES : AXES + 24].reshape(-1, 3, 8).prod(axis=1)
        flat[:, AXES + 8 : AXES + 24] = 1
        energy, cycles, fits = np.empty(len(flat)), np.empty(len(flat)), np.empty(len(flat), bool)
        evaluate_rows(self.problem.layer, self.problem.chip, flat, energy, cycles, fits)
        powers = self.problem.goal.powers
        # A little more than the value, so that the search ends with the mapping that it would have
        # found anyway among equally good ones.
        values = energy ** powers[0] * cycles ** powers[1] * (1 + _ROUNDING)
        values[~fits] = np.inf
        for row in np.argsort(values, kind="stable"):
            if values[row] >= limit:
                return
            if (self.splits.pes == flat[row, AXES : AXES + 8]).all(axis=1).any():
                self.incumbent.value[0], self.incumbent.code[:] = values[row], flat[row]
                return

    def run(self, goal: Goal, deadline: float) -> bool:
        """Searches all splits, first for tiles that divide, then for all tiles.

        Args:
            goal: what is minimised.
            deadline: of `time.perf_counter`; the first mapping is searched for however late.

        Returns:
            Whether the search ran to its end.
        """
        step = 1 if np.isfinite(deadline) else _STEP
        for ragged in (False, True):
            self.start(goal, ragged=ragged)
            while self.bound < self.best * self.problem.below:
                if time.perf_counter() > deadline and self.found:
                    return False
                self.advance(step)
        return True

    def second_criterion(self) -> Goal | None:
        """Energy among mappings of equal latency, and the other way round; None for products.

        The best mapping so far stays the one to beat, by its value of the new goal.
        """
        energy, cycles = self.problem.goal.powers
        if energy and cycles:
            return None
        cap = self.best * (1 + _ROUNDING)
        goal = self._bounds.Goal((float(not energy), float(not cycles)), (energy, cycles), cap)
        work = self._bounds.Scratch(np.zeros(SCRATCH), np.empty(len(COUNTS)), np.empty(6))
        self.incumbent.value[0] = self._bounds.exact_value(
            self.problem.layer, self.problem.chip, self.incumbent.code, goal, work
        )
        return goal

    @property
    def found(self) -> bool:
        """Whether there is a mapping that fits and is below the limit."""
        return bool(self.incumbent.code[0] > 0)

    @property
    def best(self) -> float:
        """Value of the best mapping so far; the limit at first."""
        return float(self.incumbent.value[0])

    @property
    def bound(self) -> float:
        """Least value of all splits that are left; infinite after the last."""
        left = self.done < len(self.order)
        return float(self.bounds[self.order[self.done]]) if left else np.inf

    def advance(self, step: int) -> None:
        """Searches so many more splits, fewer where the bound reaches the best."""
        stop = min(self.done + step, len(self.order))
        self.done = self._kernel.search_splits(
            self.problem,
            self.splits.pes,
            self.splits.rounds,
            self.bounds,
            self.order,
            self.done,
            stop,
            self.incumbent,
        )

    def mapping(self) -> Mapping:
        """The best mapping, laid over the axes."""
        flat = Mapping.decode(self.incumbent.code, axes=1)
        return replace(flat, spatial=self.splits.axes(flat.spatial[0]))  # type: ignore[arg-type]

    def certificate(self, gap: float) -> Certificate:
        """What became of every mapping of the space, by the search that ended last."""
        mappings = self.splits.mappings
        searched = self.order[: self.done]
        evaluated, total = int(self.incumbent.evaluated[0]), int(mappings.sum())
        # Where the time is up before ragged tiles, those that divide were costed all the same.
        visited = max(int(mappings[searched].sum()), evaluated)
        return Certificate(
            mappings=total,
            evaluated=evaluated,
            pruned_by_spatial_bound=total - visited,
            pruned_by_tiles=visited - evaluated,
            gap=gap,
            seconds=0.0,
        )


def _bits(tensors: str) -> int:
    return sum(1 << TENSORS.index(tensor) for tensor in tensors)


def _combinations(constraint: DataflowConstraint, dram: NDArray[np.float64]) -> int:
    """Bits of what may stay in the array and what may bypass, as far as something fits."""
    bits = 0
    for keep, tensor in enumerate(TENSORS):
        for bypass in range(8 if constraint.bypass else 1):
            if tensor in constraint.keep_inner and np.isfinite(dram[bypass]):
                bits |= 1 << 8 * keep + bypass
    return bits
