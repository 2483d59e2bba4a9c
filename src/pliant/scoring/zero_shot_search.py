"""Search without training: evolution that maximises a score under hard limits, beside chance and parameter count.

No weights are trained. Limits on MACs, parameters and peak memory are arithmetic; a latency limit takes a device profile, as in
the search of a supernet. The folder holds a record, from which a killed search goes on, and `search.json` with the result.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pliant.devices.profile import load_profile
from pliant.errors import InfeasibleError, RecipeError
from pliant.files import write_atomically
from pliant.metrics import Cost, Quality, Score
from pliant.objective import Candidate, CostModel, Limit, Objective
from pliant.progress import Progress, silent
from pliant.record import Record
from pliant.scoring.pool import ScoreEstimator, ScorePool
from pliant.scoring.score import context_digest
from pliant.search.ask_tell import Evaluate, Searcher, combined, memoized, run_search
from pliant.search.evolution import EvolutionSearch, depth, no_deeper
from pliant.search.feasible import FeasibleRange, check_feasible
from pliant.search.random import RandomSearch
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

STAGE = "score"
SHOWN = 5
"""Networks of a result that are shown."""
_ARITHMETIC = frozenset({"macs", "parameters", "peak_memory_bytes"})


@dataclass(frozen=True)
class Question:
    """What a search without training looks for."""

    space: Space
    method: str
    """The score to maximise."""
    limits: tuple[Limit, ...] = ()
    evaluations: int = 1000
    """Networks that the evolution scores at most, and random search as many."""
    max_depth: int | None = None
    """Most layers with weights on the longest way through a network."""
    profile: Path | None = None
    """Of the device, for a limit on latency."""
    seed: int = 0

    @property
    def objective(self) -> Objective:
        """The score against latency where the device is known, else against MACs."""
        return Objective(("latency_ms",) if self.profile else ("macs",), self.limits)

    @property
    def population(self) -> int:
        """Small at first, so that few evaluations are enough for many generations; that of Zen-NAS at its end."""
        return int(np.clip(self.evaluations // 40, 16, 256))

    @property
    def batch(self) -> int:
        """Networks of one step of the evolution, scored side by side; a killed search loses at most these."""
        return int(np.clip(self.evaluations // 25, 8, 32))


@dataclass(frozen=True, slots=True)
class Pick:
    """A network, its score, and what it costs."""

    by: str
    """What found it: `evolution`, `random search` or `parameter count`."""
    architecture: Architecture
    score: float | None
    cost: Cost
    depth: int
    failure: str | None = None


@dataclass(frozen=True)
class Answer:
    """What a search without training found."""

    best: tuple[Pick, ...]
    """Of the evolution, highest score first; at most `SHOWN`."""
    front: tuple[Pick, ...]
    """Of the evolution: what no other network beats in score and cost, cheapest first."""
    random: Pick | None
    """The highest score of as many random networks within the limits."""
    largest: Pick
    """The network of most parameters within the limits that as many steps of evolution found."""
    reach: FeasibleRange
    scored: int
    """Networks that the evolution scored."""
    random_scored: int
    failed: int
    """Of both."""
    failure: str | None
    """The first reason."""

    @property
    def chosen(self) -> Pick | None:
        """The highest score of all, whatever found it; None where every network failed."""
        scored = [
            pick
            for pick in (*self.best, self.random, self.largest)
            if pick is not None and pick.score is not None
        ]
        return max(scored, key=lambda pick: pick.score or 0.0, default=None)


def search_without_training(
    folder: Path, question: Question, pool: ScorePool, *, progress: Progress = silent
) -> Answer:
    """Find the networks of the highest score within the limits.

    Every network that is scored stands in the record of the folder; started again, the search goes on from there, and with other
    limits or more evaluations it looks up what was scored before.

    Raises:
        InfeasibleError: no network holds the limits; with the range that can be reached.
        RecipeError: a limit that cannot be told without a device.
        RunConflictError: the folder belongs to another score, space or seed, or another process writes it.
    """
    space, objective = question.space, question.objective
    costs = cost_model(question)
    reach = check_feasible(space, objective, costs, np.random.default_rng((question.seed, 1)))
    digest = context_digest(
        space=[space.name, space.channels, space.image_size, space.classes],
        images=pool.worker.batch.digest,
        seed=pool.worker.seed,
    )
    with Record.open(
        folder / "record.sqlite", recipe_digest=context_digest(of=digest, method=question.method)
    ) as record:
        scored = _evaluation(question, costs, pool, record, digest)
        evolution = _evolution(question, costs, reach)
        history = run_search(
            evolution, _watched(scored, question, 0, progress), question.evaluations
        )
        chance = RandomSearch(space, objective, costs, batch=question.batch, seed=question.seed + 1)
        random_history = run_search(
            chance, _watched(scored, question, len(history), progress), len(history)
        )
        largest = _most_parameters(_evolution(question, costs, reach), question, costs)
        [largest_scored] = scored([largest])
    both = [*history, *random_history]
    answer = Answer(
        best=tuple(_pick("evolution", space, one) for one in _highest(history)[:SHOWN]),
        front=tuple(_pick("evolution", space, one) for one in objective.front(history)),
        random=next((_pick("random search", space, one) for one in _highest(random_history)), None),
        largest=_pick("parameter count", space, largest_scored),
        reach=reach,
        scored=len(history),
        random_scored=len(random_history),
        failed=sum(one.failure is not None for one in both),
        failure=next((one.failure for one in both if one.failure is not None), None),
    )
    write_atomically(
        folder / "search.json", json.dumps(_summary(question, answer), indent=2) + "\n"
    )
    return answer


def cost_model(question: Question) -> CostModel:
    """What networks cost, by arithmetic or a device profile; networks that are too deep fail.

    Raises:
        InfeasibleError: even the smallest network is too deep.
        RecipeError: a limit that neither can tell.
        ProfileMismatchError: the profile is of another space.
        DamagedFileError: the profile cannot be read.
    """
    space = question.space
    costs: CostModel = lambda architectures: [space.cost(one) for one in architectures]  # noqa: E731
    beyond = [limit for limit in question.limits if limit.metric not in _ARITHMETIC]
    if question.profile is not None:
        costs = load_profile(question.profile).table(space)
    elif beyond:
        raise RecipeError(
            f"without a device only {', '.join(sorted(_ARITHMETIC))} can be limited, received {beyond[0]}. Measure this machine with "
            f"pliant profile RECIPE --space {space.name}, then give its device.json with --target."
        )
    if question.max_depth is None:
        return costs
    if (shallowest := depth(space.lower(space.smallest()))) > question.max_depth:
        raise InfeasibleError(
            f"the smallest network of space {space.name!r} is {shallowest} layers deep, received a greatest depth of {question.max_depth}. "
            f"Raise --max-depth to at least {shallowest}."
        )
    return no_deeper(space, costs, question.max_depth)


def _evolution(question: Question, costs: CostModel, reach: FeasibleRange) -> EvolutionSearch:
    return EvolutionSearch(
        question.space,
        question.objective,
        costs,
        population=question.population,
        batch=question.batch,
        start=[reach.example],
        seed=question.seed,
    )


def _evaluation(
    question: Question, costs: CostModel, pool: ScorePool, record: Record, digest: str
) -> Evaluate:
    """Scores from the record or the processes; costs from the cost model, which another device replaces."""
    arithmetic = lambda architectures: [question.space.cost(one) for one in architectures]  # noqa: E731
    scores = memoized(
        combined(ScoreEstimator(pool, question.method), arithmetic),
        record,
        stage=STAGE,
        context=digest,
        split="train",
        batch=question.batch,
    )

    def evaluate(architectures: Sequence[Architecture]) -> list[Candidate]:
        known = scores(architectures)
        return [
            Candidate(one.architecture, one.quality, cost)
            for one, cost in zip(known, costs(architectures), strict=True)
        ]

    return evaluate


def _watched(evaluate: Evaluate, question: Question, before: int, progress: Progress) -> Evaluate:
    done = before

    def watched(architectures: Sequence[Architecture]) -> list[Candidate]:
        nonlocal done
        found = evaluate(architectures)
        done += len(found)
        progress(
            "search",
            done,
            2 * question.evaluations,
            f"networks scored by {question.method}" + (", at random" if before else ""),
        )
        return found

    return watched


def _most_parameters(searcher: Searcher, question: Question, costs: CostModel) -> Architecture:
    """The same evolution with parameter count as its score: arithmetic, so it costs seconds."""

    history = run_search(
        searcher, combined(_ParameterCount(question.space), costs), question.evaluations
    )
    return _highest(history)[0].architecture


@dataclass(frozen=True)
class _ParameterCount:
    """The baseline: larger networks are expected to be better."""

    space: Space

    def estimate(self, architectures: Sequence[Architecture]) -> list[Quality]:
        """Parameter counts as scores."""
        return [Score(float(self.space.cost(one).parameters or 0)) for one in architectures]


def _highest(history: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that did not fail, highest score first; of equal ones the smaller."""
    sound = [one for one in history if one.failure is None]
    return sorted(sound, key=lambda one: (-one.value, one.known_cost.parameters))


def _pick(by: str, space: Space, one: Candidate) -> Pick:
    score = one.quality.value if isinstance(one.quality, Score) else None
    layers = depth(space.lower(one.architecture))
    return Pick(by, one.architecture, score, one.known_cost, layers, one.failure)


def _told(pick: Pick | None) -> dict[str, object] | None:
    if pick is None:
        return None
    finite = pick.score is not None and np.isfinite(pick.score)  # JSON has no infinity
    return asdict(pick) | {
        "architecture": str(pick.architecture),
        "score": pick.score if finite else None,
    }


def _summary(question: Question, answer: Answer) -> dict[str, object]:
    """The result for programs."""
    space = question.space
    return {
        "space": {
            "name": space.name,
            "channels": space.channels,
            "image_size": space.image_size,
            "classes": space.classes,
        },
        "score": question.method,
        "limits": [str(limit) for limit in question.limits],
        "max_depth": question.max_depth,
        "seed": question.seed,
        "scored": answer.scored,
        "random_scored": answer.random_scored,
        "failed": answer.failed,
        "share_within_limits": answer.reach.share,
        "chosen": _told(answer.chosen),
        "best": [_told(pick) for pick in answer.best],
        "front": [_told(pick) for pick in answer.front],
        "random": _told(answer.random),
        "largest": _told(answer.largest),
    }
