"""The result of a run as one typed value: what programs read as `summary.json`, and a report shows.

Everything that a run decides once is in here, with the objective and the target that it was for;
a reader takes it by attribute. The file is strict: one of another version, or with a wrong field,
is refused in one sentence and never half read. So is one that was edited: its checksum differs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pliant.accuracy.ranking import RankCorrelations
from pliant.errors import DamagedFileError
from pliant.files import CHECKSUM, has_checksum, with_checksum, write_atomically
from pliant.metrics import Accuracy, Claim, Cost, DeliveredFile, Measured
from pliant.objective import Objective
from pliant.workload.roofline import NetworkRoofline, Roofline

VERSION: Literal[2] = 2
FoundBy = Literal["search", "random"]
"""Which search found a network: that of the run, or random search at equal cost."""


@dataclass(frozen=True, slots=True)
class SpaceFacts:
    """The search space of a run, and the images that its networks take."""

    name: str
    size: int
    """Number of networks."""
    channels: int
    image_size: int
    """Pixels along each edge."""
    classes: tuple[str, ...]
    """In the order of the logits."""


@dataclass(frozen=True, slots=True)
class DataFacts:
    """The images of a run: where they are from, and how many are in each split."""

    name: str
    train: int
    validation: int
    test: int
    notes: tuple[str, ...] = ()
    """What was recognised, decided or left out."""
    skipped: tuple[str, ...] = ()
    """Broken pictures that were left out, with the reason."""


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """What the networks are for."""

    name: str
    """For people: the machine or chip, and how it runs networks."""
    identity: str
    """Digest of all that decides its predictions."""
    metrics: tuple[str, ...]
    """The fields of `Cost` that it predicts."""
    measured: bool
    """Whether networks were measured on it; a chip on paper only predicts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkResult:
    """One network: what the search expected of it, and what it turned out to be."""

    architecture: str
    """Its text form."""
    estimate: Accuracy
    """On the validation images of the search."""
    validated: Accuracy
    """On all validation images."""
    test: Accuracy | None
    """None where it was not tested yet."""
    predicted: Cost
    measured: Measured | None
    """Side by side with the other networks of the front; None where the target does not measure."""
    measured_apart: Measured | None = None
    """In a subprocess, as it is delivered."""
    command: str
    """What delivers it."""


@dataclass(frozen=True, slots=True)
class BlockResult:
    """One block of the chosen network, and what it adds to the network's predicted cost."""

    slot: str
    """Its place in the network."""
    type: str
    sizes: Mapping[str, Any]
    cost: Cost


@dataclass(frozen=True, slots=True)
class ClassResult:
    """One class on the validation images."""

    name: str
    images: int
    right: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """Images of one class that the network took for another; classes by their index."""

    label: int
    answer: int
    images: int


@dataclass(frozen=True, slots=True)
class Mistake:
    """One image that the network got wrong."""

    label: int
    answer: int
    probability: float
    """That the network gave its answer, 0 to 1."""
    webp: str
    """The image, small, as WebP in base64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """What the chosen network answers on the validation images, class by class.

    Validation images, since who looks at mistakes may mend labels, and no test image should be
    mended by what a network says of it.
    """

    classes: tuple[ClassResult, ...]
    """In the order of the logits."""
    confusions: tuple[Confusion, ...]
    """Most images first; pairs that never occur are left out."""
    mistakes: tuple[Mistake, ...]
    """The wrong answers of which the network was surest."""


@dataclass(frozen=True, slots=True)
class PredictorFacts:
    """How well the accuracy predictor predicts networks that it was not fitted on."""

    kendall_tau: float | None
    """-1 to 1; None where predictions or accuracies are constant."""
    spearman: float | None
    mean_absolute_error: float
    """Of the top-1 accuracy, 0 to 1."""
    rows: int
    """Networks that it was fitted on."""


@dataclass(frozen=True, slots=True)
class SearchPoint:
    """One network that a search evaluated."""

    by: FoundBy
    architecture: str
    top1: float
    """Estimated accuracy, 0 to 1."""
    cost: Cost
    """As predicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchFacts:
    """The search of a run, and random search at equal cost."""

    evaluations: int
    random_evaluations: int
    seconds: float | None
    hypervolume: float
    """Of accuracy and the costs of the objective, each 0 to 1 at the worst seen."""
    random_hypervolume: float
    points: tuple[SearchPoint, ...]


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """A logged step of the training."""

    step: int
    epoch: float
    phase: str
    learning_rate: float
    losses: Mapping[str, float | None]
    """By sub-network; None where a loss was not finite."""


@dataclass(frozen=True, slots=True)
class ArchitectureStep:
    """Architecture parameters at a logged step of a search by training."""

    epoch: float
    expected: Mapping[str, float]
    """Costs that the probabilities expect, by limited metric."""
    entropy: float
    """Mean over blocks, in nat."""
    probabilities: Mapping[str, tuple[float, ...]]
    """Of the operations of each block, by slot."""


@dataclass(frozen=True, slots=True)
class ArchitectureSearch:
    """How a search by training moved between the operations of each block."""

    operations: Mapping[str, tuple[str, ...]]
    """Their names, by slot."""
    chosen: Mapping[str, str]
    """The operation of the network that was delivered, by slot."""
    steps: tuple[ArchitectureStep, ...]


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """How the supernet was trained."""

    strategy: str
    epochs: float
    seconds: float | None
    precision: str | None
    curve: tuple[TrainingStep, ...]
    architecture: ArchitectureSearch | None = None
    """None where the strategy does not search."""


@dataclass(frozen=True, slots=True)
class SplitOpening:
    """One use of the test images."""

    purpose: str
    created: str
    """ISO 8601."""


@dataclass(frozen=True, slots=True)
class Baselines:
    """What the images give with little work, on the validation images."""

    chance: float
    """One over the number of classes."""
    majority: Accuracy
    """Of always answering the most frequent class."""
    linear: Accuracy | None
    """Of logistic regression on frozen features; None where the start is no pretrained network."""
    features: str | None
    """Which those are: the start and the resolution."""


@dataclass(frozen=True, slots=True)
class RooflineFacts:
    """The delivered network under the roofs of its target."""

    device: str
    source: str
    """Of the roofs: the data sheet, or how they were measured."""
    roofs: Roofline
    network: NetworkRoofline


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The result of a run."""

    # Strict for all parts: an unknown or missing field and a number as text are errors.
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    version: Literal[2] = VERSION
    pliant: str
    """Version of the package that made it."""
    name: str
    created: str
    """ISO 8601."""
    command: str
    """What reproduces the run."""
    recipe_toml: str
    seed: int
    machine: Mapping[str, str | int]
    """That did the work: processor, cores, operating system, versions."""
    space: SpaceFacts
    data: DataFacts
    target: TargetFacts
    objective: Objective
    chosen: NetworkResult
    front: tuple[NetworkResult, ...]
    """Cheapest first."""
    random_front: tuple[NetworkResult, ...]
    """The best that random search found at equal cost."""
    blocks: tuple[BlockResult, ...]
    """Of the chosen network, in running order."""
    evidence: tuple[Claim, ...]
    predictor: PredictorFacts | None
    ranking: tuple[RankCorrelations, ...]
    """Rank correlations on random networks: of the predictor, of parameters and of MACs."""
    search: SearchFacts
    training: TrainingFacts | None
    test_openings: tuple[SplitOpening, ...]
    classification: Classification | None = None
    """None in a summary that was written without the images."""
    files: tuple[DeliveredFile, ...] = ()
    """Of the delivered network, fp32 first; none where nothing was delivered yet."""
    baselines: Baselines | None = None
    """None in a summary that was written without the images."""
    roofline: RooflineFacts | None = None
    """None where nothing was delivered yet, or the target has no roofs."""
    note: str | None = None
    """A remark for the head of the report."""


def write_summary_file(summary: Summary, path: Path) -> None:
    """Write a summary as JSON, replacing an old one at once."""
    write_atomically(path, summary_to_json(summary))


def summary_to_json(summary: Summary) -> str:
    """A summary as JSON text, field by field, and its checksum."""
    return json.dumps(with_checksum(asdict(summary)), indent=1, allow_nan=False) + "\n"


def read_summary_file(path: Path) -> Summary:
    """Read the summary of a run.

    Raises:
        DamagedFileError: there is none, it is of another version, or a field is wrong; the message
            names file and field.
    """
    again = f"Run `pliant search {path.parent}`, or `pliant deploy {path.parent}`, to write it."
    try:
        text = path.read_text("utf-8")
        content = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFileError(
            f"a report is made from a summary, {path} cannot be read: {error}. {again}"
        ) from error
    version = content.get("version", "none") if isinstance(content, dict) else "none"
    if version != VERSION:
        raise DamagedFileError(
            f"this Pliant reads a summary of version {VERSION}, {path} has {version}. {again}"
        )
    fields = {key: value for key, value in content.items() if key != CHECKSUM}
    try:
        summary = TypeAdapter(Summary).validate_json(json.dumps(fields))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the whole file"
        raise DamagedFileError(
            f"a summary has the fields that Pliant wrote, {path} is wrong at {field}: "
            f"{first['msg'].rstrip('.')}. {again}"
        ) from error
    if not has_checksum(content):
        raise DamagedFileError(
            f"a summary is read as it was written, {path} was changed: its checksum differs. "
            f"{again}"
        )
    return summary
