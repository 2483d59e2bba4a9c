"""The result of a run: built from its record and what was found, for programs and for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

import pliant
from pliant.accuracy.predictor import PredictorQuality
from pliant.errors import RecipeError
from pliant.metrics import Claim
from pliant.networks.mixed import MixedNetwork
from pliant.objective import Candidate, Objective
from pliant.plugins import is_plugin, load_plugin
from pliant.report.run_page import write_report
from pliant.report.summary import (
    ArchitectureSearch,
    ArchitectureStep,
    BlockResult,
    DataFacts,
    FoundBy,
    NetworkResult,
    PredictorFacts,
    SearchFacts,
    SearchPoint,
    SpaceFacts,
    SplitOpening,
    Summary,
    TargetFacts,
    TrainingFacts,
    TrainingStep,
    read_summary_file,
    write_summary_file,
)
from pliant.runs import evidence
from pliant.runs.classification import classification
from pliant.runs.deliver import Delivered
from pliant.runs.recipe import tomllib
from pliant.runs.roofline import delivered_roofline
from pliant.runs.run import Run, machine
from pliant.runs.search import SearchResult
from pliant.runs.session import Session
from pliant.runs.shortlist import ShortlistedNetwork, selected_errors
from pliant.training.proxyless import EXPECTED
from pliant.training.registry import SEARCHING

SUMMARY, REPORT, RECIPE = "summary.json", "report.html", "recipe.toml"


def write_summary(session: Session, found: SearchResult, delivered: Delivered | None) -> Summary:
    """Write summary.json and return what it holds.

    Args:
        session: of the run whose directory it is written to.
        found: by the search.
        delivered: None where nothing was delivered yet.
    """
    summary = summarise(session, found, delivered)
    write_summary_file(summary, session.run.folder / SUMMARY)
    return summary


def write_page(folder: Path) -> None:
    """Write report.html of a run's directory from its summary.json.

    Raises:
        DamagedFileError: there is no summary yet, or it cannot be read.
    """
    summary = read_summary_file(folder / SUMMARY)
    _define_own_blocks(folder / RECIPE)
    write_report(summary, folder / REPORT)


def _define_own_blocks(recipe: Path) -> None:
    """Run the file of an own space, which defines the blocks that the page draws.

    The recipe names it; the copy of the recipe in the summary, which is data, runs nothing. Where
    either is gone or has errors, the page has the names and sizes of these blocks.
    """
    with suppress(RecipeError, OSError, ValueError):
        space = tomllib.loads(recipe.read_text("utf-8")).get("space", "")
        if is_plugin(space):
            load_plugin(space, what="a space")


def summarise(session: Session, found: SearchResult, delivered: Delivered | None) -> Summary:
    """All that a report shows; arguments as for `write_summary`."""
    run, seed = session.run, session.run.recipe.seed
    history, random_history = found.history, found.random_history
    predictor = evidence.fitted_predictor(run.space, history, seed)
    ranking = evidence.predictor_ranking(run.space, predictor, history, random_history, seed)
    target = _target(session)
    chosen = _network(run, found.chosen, delivered)
    claims: list[Claim] = []
    if delivered is not None:
        of = delivered
        claims += evidence.delivery_claims(of.agreement, of.pytorch_test, of.files)
        claims += evidence.limit_claims(session.objective, chosen, target)
    claims += evidence.choice_claims(session, found.chosen, found.shortlist)
    claims += evidence.confidence_claims(
        session.objective, session.target, session.confidence, selected_errors(found.shortlist)
    )
    claims += evidence.baseline_claims(chosen, session.baselines)
    claims += session.target.evidence()
    if random_history:  # a search while training has none
        claims += evidence.search_claims(history, random_history, session.objective, seed)
    claims += [evidence.share_claim(found.share_within), *evidence.ranking_claims(ranking)]
    return Summary(
        pliant=pliant.__version__,
        name=run.recipe.name,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=f"pliant run {run.folder / 'recipe.toml'} --run-dir NEW_DIRECTORY",
        recipe_toml=run.recipe.to_toml(),
        seed=seed,
        machine=machine(),
        space=_space(run),
        data=_data(run),
        target=target,
        objective=session.objective,
        chosen=chosen,
        front=tuple(_network(run, one, delivered) for one in found.shortlist),
        random_front=tuple(_network(run, one, delivered) for one in found.random_shortlist),
        blocks=_blocks(session, found.chosen),
        evidence=tuple(claims),
        predictor=None if predictor is None else _predictor(predictor.quality),
        ranking=ranking,
        search=_search(run, history, random_history, session.objective),
        training=_training(session),
        test_openings=_openings(run),
        baselines=session.baselines,
        classification=classification(session, found.chosen.architecture),
        files=delivered.files if delivered else (),
        roofline=delivered_roofline(session, delivered) if delivered else None,
    )


def _predictor(quality: PredictorQuality) -> PredictorFacts:
    return PredictorFacts(
        quality.kendall_tau, quality.spearman, quality.mean_absolute_error, quality.rows
    )


def _space(run: Run) -> SpaceFacts:
    space = run.space
    classes = tuple(run.data.classes)
    return SpaceFacts(space.name, space.size, space.channels, space.image_size, classes)


def _data(run: Run) -> DataFacts:
    data = run.data
    return DataFacts(
        name=data.name,
        train=len(data.train),
        validation=len(data.validation),
        test=len(data.test),
        notes=tuple(run.record.metadata("data_notes") or ()),
        skipped=data.skipped,
    )


def _target(session: Session) -> TargetFacts:
    target = session.target
    return TargetFacts(target.name, target.identity, tuple(target.metrics), target.can_measure)


def _network(run: Run, one: ShortlistedNetwork, delivered: Delivered | None) -> NetworkResult:
    """One network of a front, with what its delivery found out."""
    name = str(one.architecture)
    test, measured_apart = None, one.measured_apart
    if delivered is not None:
        test = delivered.front_test.get(name)
        if delivered.architecture == one.architecture:
            measured_apart = delivered.measured_apart
    return NetworkResult(
        architecture=name,
        estimate=one.estimate,
        validated=one.validated,
        test=test,
        predicted=one.predicted,
        measured=one.measured,
        measured_apart=measured_apart,
        command=f"pliant deploy {run.folder} --architecture {name}",
    )


def _blocks(session: Session, chosen: ShortlistedNetwork) -> tuple[BlockResult, ...]:
    blocks = session.run.space.blocks(chosen.architecture)
    costs = session.target.block_costs(chosen.architecture)
    results = []
    for block, cost in zip(blocks, costs, strict=True):
        results.append(BlockResult(block.slot, type(block).__name__, block.sizes, cost))
    return tuple(results)


def _search(
    run: Run,
    history: Sequence[Candidate],
    random_history: Sequence[Candidate],
    objective: Objective,
) -> SearchFacts:
    ours, random = evidence.hypervolumes(history, random_history, objective)
    return SearchFacts(
        evaluations=len(history),
        random_evaluations=len(random_history),
        seconds=run.record.metadata("search_seconds"),
        hypervolume=ours,
        random_hypervolume=random,
        points=(*_points(history, "search"), *_points(random_history, "random")),
    )


def _points(history: Sequence[Candidate], by: FoundBy) -> list[SearchPoint]:
    """The candidates that did not fail."""
    sound = [one for one in history if one.failure is None]
    return [SearchPoint(by, str(one.architecture), one.value, one.known_cost) for one in sound]


def _training(session: Session) -> TrainingFacts:
    run = session.run
    table = run.recipe.train
    names = ("largest", "random", "smallest") if table.strategy == "sandwich" else ()
    curve = []
    for step in run.record.steps():
        losses = step.values["losses"]
        labels = [f"sub-network {number}" for number in range(1, len(losses) + 1)]
        if len(losses) == len(names):
            labels = list(names)
        elif table.strategy in SEARCHING:  # the second in steps of the architecture parameters
            labels = ["weights", "architecture with costs"][: len(losses)]
        finite = (loss if math.isfinite(loss) else None for loss in losses)
        curve.append(
            TrainingStep(
                step.step,
                step.epoch,
                step.values["phase"],
                step.values["learning_rate"],
                dict(zip(labels, finite, strict=True)),
            )
        )
    return TrainingFacts(
        table.strategy,
        session.plan.epochs,
        run.record.metadata("training_seconds"),
        run.record.metadata("precision"),
        tuple(curve),
        _architecture_search(session),
    )


MAX_ARCHITECTURE_STEPS = 60
"""Kept of a search by training; more would not show in a picture."""


def _architecture_search(session: Session) -> ArchitectureSearch | None:
    """What the architecture parameters did; None where the strategy has none."""
    supernet = session.supernet
    if not isinstance(supernet, MixedNetwork):
        return None
    rows = [step for step in session.run.record.steps() if "probabilities" in step.values]
    each = max(1, -(-len(rows) // MAX_ARCHITECTURE_STEPS))
    steps = []
    for row in [*rows[:-1:each], *rows[-1:]]:
        expected = {
            name.removeprefix(EXPECTED): value
            for name, value in row.values.items()
            if name.startswith(EXPECTED)
        }
        probabilities = {slot: tuple(p) for slot, p in row.values["probabilities"].items()}
        steps.append(ArchitectureStep(row.epoch, expected, row.values["entropy"], probabilities))
    operations, chosen = {}, {}
    for mixed in supernet.mixed:
        pairs = zip(mixed.choice.options, mixed.operations, strict=True)
        names = ["left out" if block is None else str(option) for option, block in pairs]
        operations[mixed.slot] = tuple(names)
        for network in supernet.trained:
            option = network.mapping[mixed.choice.name]
            chosen[mixed.slot] = names[mixed.choice.options.index(option)]
    return ArchitectureSearch(operations, chosen, tuple(steps))


def _openings(run: Run) -> tuple[SplitOpening, ...]:
    events = run.record.events("test split opened")
    return tuple(SplitOpening(event.details["purpose"], event.created) for event in events)
