"""Score many networks without training them, on all cores, and never one of them twice.

    space = preset("mobile-32", channels=3, image_size=32, classes=10)
    rows = score_networks(space, ["zen", "az-nas"], architectures=["...", "..."])

With a table, every row is recorded next to it as soon as it is there: a killed run resumes, and
further networks or scores are added.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from torch import nn

from pliant.accuracy.zero_shot import Aggregate, AnyMethod, Method
from pliant.errors import RecipeError
from pliant.metrics import Score
from pliant.plugins import is_plugin
from pliant.progress import Progress, given_or_shown, silent
from pliant.record import Evaluation, Record
from pliant.scoring.images import AnyImages, Batch, Shape, as_batch, default_shape, noise_batch
from pliant.scoring.networks import (
    FileNetworks,
    ModuleNetworks,
    NetworkSource,
    SpaceNetworks,
    preset_networks,
    require_accepts,
)
from pliant.scoring.process_pool import ScorePool, ScoreRow, Worker
from pliant.scoring.score_tables import read_architectures, require_table_name, write_rows
from pliant.scoring.selection import MethodScorer, Selection, select_methods
from pliant.spaces.architecture import Architecture
from pliant.spaces.presets import space_name
from pliant.spaces.space import Space
from pliant.workers.choose import AnyWorkers

AnySpace = Space | Callable[[], Space] | SpaceNetworks | str
"""A space, a function that makes one, or a name: of a shipped space, or `file.py:NAME`."""

Networks = NetworkSource | AnySpace | nn.Module | Mapping[str, nn.Module | Callable[[], nn.Module]]
"""Networks by name: those of a space by the text of the architecture, or modules."""


def score_networks(
    networks: Networks,
    methods: AnyMethod | Sequence[AnyMethod] = "all",
    *,
    architectures: Sequence[str | Architecture] | Path | None = None,
    batch: AnyImages | None = None,
    seed: int = 0,
    workers: AnyWorkers = 1,
    table: str | Path | None = None,
    progress: Progress | None = None,
) -> list[ScoreRow]:
    """Score networks of a space, or modules; parameters and MACs are always among the scores.

        score_networks("mobile", "zen,gradsign", architectures=Path("mine.csv"), batch="cifar10/")
        score_networks("model.py:build", "all", batch="fashion-mnist")

    Args:
        networks: a space, a function that makes one, or its name; a module, modules by name (or
            functions that make them), or `file.py:NAME` of such a function. With more than one
            worker it must be picklable: a function, a name or a source, not a space.
        methods: `all`, names of `pliant.accuracy.zero_shot.SCORES` or `AGGREGATES` (az-nas),
            several of them with commas between, `file.py:NAME`, or functions of your own from a
            `ScoringInput` to a number.
        architectures: which networks of a space, or a CSV file with a column `arch` or
            `architecture`; for modules, None for all.
        batch: the images: a `Batch`, or a data set, its name or a `Shape`, of which 64 are drawn;
            where None, noise of the space's shape, enough for scores that use no images.
        seed: of the weights and of everything that the scores draw.
        workers: that score at the same time: processes, one per core where None, or a Ray cluster.
        table: .parquet or .csv file to write, and to resume from. Only networks of a space are
            looked up, since the code of others may have changed.
        progress: called after every network; shown where None, `pliant.progress.silent` for none.

    Returns:
        One row per network and score, in the order of the networks.

    Raises:
        RecipeError: an unknown score, one that needs images or several networks, no networks, or
            networks or scores that cannot be sent to other processes.
        DataError: images or a list of architectures that cannot be used, or a network that does not
            take the images.
        MeasurementError: a process was killed.
    """
    table = None if table is None else Path(table)
    if table is not None:
        require_table_name(table)
    if isinstance(architectures, Path):
        architectures = read_architectures(architectures)
    shown = None if batch is None else as_batch(batch, seed=seed)
    if isinstance(networks, str) and architectures is None and is_plugin(networks):
        source: NetworkSource = FileNetworks(networks)
    else:
        source = as_source(networks, shown)
    batch = shown or default_batch(source)
    if isinstance(source, FileNetworks):
        require_accepts(source.network(source.text), batch, source.text)
    names = _names(source, architectures)
    selection = select_methods(
        methods, labelled=batch.labels is not None, several=len(set(names)) > 1
    )
    scorer = MethodScorer({one.name: one for one in selection.methods})
    worker = Worker(source, batch, scorer, seed)
    with ExitStack() as stack:
        told = stack.enter_context(given_or_shown(progress))
        record, context = None, ""
        if table is not None and isinstance(source, SpaceNetworks):
            record = stack.enter_context(open_score_record(table))
            context = score_context(source.space, batch, seed)
        pool = stack.enter_context(ScorePool(worker, 1 if len(set(names)) == 1 else workers))
        rows = score_in_pool(names, selection, pool, record=record, context=context, progress=told)
    if table is not None:
        write_rows(rows, table)
    return rows


def as_source(networks: Networks, batch: Batch | None = None) -> NetworkSource:
    """Where networks come from, as the processes need it.

    Args:
        networks: as of `score_networks`.
        batch: whose shape a space that is named gets; None for the shape of the preset.

    Raises:
        RecipeError: neither a space, nor a function that makes one, nor modules.
    """
    if isinstance(networks, nn.Module):
        return ModuleNetworks({type(networks).__name__: networks})
    if isinstance(networks, Mapping):
        return ModuleNetworks(networks)
    if isinstance(networks, str):
        return space_networks(networks, batch)
    if hasattr(networks, "network"):
        return networks
    if isinstance(networks, Space) or callable(networks):
        return space_networks(networks)
    raise RecipeError(
        "networks come from a space, a function that makes one, or modules by name; received "
        f"{type(networks).__name__}."
    )


def space_networks(space: AnySpace, batch: Batch | None = None) -> SpaceNetworks:
    """The networks of a space, or of the space that a function or a name means.

    Args:
        space: which one.
        batch: whose shape a space that is named gets; None for the shape of the preset.
    """
    if isinstance(space, SpaceNetworks):
        return space
    if isinstance(space, str):
        name = space_name(space)
        return preset_networks(name, batch.shape if batch else default_shape(name))
    return SpaceNetworks(_Constant(space) if isinstance(space, Space) else space)


class _Constant:
    """A space that is there already, as a function that makes it."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def __call__(self) -> Space:
        return self.space


def _names(source: NetworkSource, architectures: Sequence[str | Architecture] | None) -> list[str]:
    if architectures is None and isinstance(source, ModuleNetworks):
        names = list(source.modules)
    elif architectures is None and isinstance(source, FileNetworks):
        names = [source.text]
    else:
        names = [str(one) for one in architectures or ()]
    if not names:
        raise RecipeError("scores are of networks, received none. Pass their architectures.")
    return names


def default_batch(source: NetworkSource) -> Batch:
    """Noise of the shape that a space is made for, which is enough for scores without images.

    Raises:
        RecipeError: the networks are not those of a space.
    """
    if not isinstance(source, SpaceNetworks):
        raise RecipeError(
            "a network needs images to be scored. Pass batch: a data set or its name, or a Shape "
            "for scores that use none."
        )
    space = source.space
    return noise_batch(Shape(space.channels, space.image_size, space.classes))


def score_in_pool(
    names: Sequence[str],
    selection: Selection,
    pool: ScorePool,
    *,
    record: Record | None = None,
    context: str = "",
    progress: Progress = silent,
) -> list[ScoreRow]:
    """One row per network and score, in the order of the networks.

    Args:
        names: of the networks; one that is there twice is scored once.
        selection: the scores.
        pool: its worker knows the networks, and the scores by name.
        record: where rows are kept and looked up.
        context: what else the scores depend on, such as the digest of the images.
        progress: called after every network.

    Raises:
        MeasurementError: a process was killed.
    """
    distinct = list(dict.fromkeys(names))
    known = _recorded(record, context, selection.methods) if record else {}
    jobs = []
    for name in distinct:
        missing = [one.name for one in selection.methods if (name, one.name) not in known]
        if missing:
            jobs.append((name, tuple(missing)))
    versions = {one.name: one.version for one in selection.methods}
    done = len(distinct) - len(jobs)
    progress("score", done, len(distinct), "networks")
    for rows in pool.score(jobs):
        for row in rows:
            known[row.architecture, row.method] = row
            if record:
                _add(record, context + versions[row.method], row)
        done += 1
        progress("score", done, len(distinct), "networks")
    for aggregate in selection.aggregates:
        known |= _aggregated(aggregate, distinct, known)
    return [known[name, method] for name in distinct for method in selection.names]


def _aggregated(
    aggregate: Aggregate, names: Sequence[str], known: Mapping[tuple[str, str], ScoreRow]
) -> dict[tuple[str, str], ScoreRow]:
    """The rows of an aggregate. They depend on all networks of the table: never looked up."""
    components = aggregate.components
    scores = [{one: known[name, one].score for one in components} for name in names]
    notes = f"among {len(names)} networks"
    rows = {}
    for name, value in zip(names, aggregate.combine(scores, components), strict=True):
        seconds = sum(known[name, one].seconds or 0.0 for one in components)
        row = ScoreRow(name, aggregate.name, value, seconds=seconds, notes=notes)
        rows[name, aggregate.name] = row
    return rows


def context_digest(**settings: object) -> str:
    """A short text for everything that scores depend on other than network and method."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def score_context(space: Space, batch: Batch, seed: int) -> str:
    """The digest of a space by its definition, the images and the seed."""
    return context_digest(space=space.identity, images=batch.digest, seed=seed)


def open_score_record(table: Path) -> Record:
    """The record next to a table of scores, with the rows of every setting under its context."""
    return Record.open(table.with_name(f"{table.name}.record"), recipe_digest="scores")


def _add(record: Record, context: str, row: ScoreRow) -> None:
    measures = {"seconds": row.seconds, "low": row.low, "high": row.high, "notes": row.notes}
    record.add_evaluation(
        row.method,
        row.architecture,
        context=context,
        split="train",
        quality=row.quality,
        measures=measures,
    )


def _recorded(
    record: Record, context: str, methods: Sequence[Method]
) -> dict[tuple[str, str], ScoreRow]:
    contexts = {one.name: context + one.version for one in methods}
    rows = {}
    for row in record.evaluations():
        if row.context == contexts.get(row.stage):
            rows[row.architecture, row.stage] = _score_row(row)
    return rows


def _score_row(row: Evaluation) -> ScoreRow:
    value = row.quality.value if isinstance(row.quality, Score) else None
    failure = row.failure.reason if row.failure else None
    return ScoreRow(row.architecture, row.stage, value, failure=failure, **row.measures)
