"""The recipe of a run: all decisions behind its result, as a TOML file with one key per decision.

A recipe is named (`digits`, `fashion-mnist`, `cifar10` ship with Pliant) or a path. Options of the
command line replace single keys. The resolved recipe is written into the run directory; its digest
says whether a directory belongs to it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from pliant.errors import RecipeError, nearest
from pliant.metrics import InferencePrecision
from pliant.objective import ACCURACY, Limit, Objective, metric_name
from pliant.plugins import is_object, is_plugin
from pliant.search.registry import require_searcher
from pliant.spaces.presets import space_name
from pliant.targets import THIS_CPU
from pliant.training.registry import require_strategy
from pliant.units import parse_duration
from pliant.validation import naming, validated

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


FILE_ENDINGS = {
    "data.source": None,
    "target.name": (".json", ".toml", "/"),
    "train.start": (".safetensors", ".pth", ".pt"),
    "space": (),
    "search.searcher": (),
    "train.strategy": (),
}
"""Keys that may name a file, and the endings that tell a file from a name; any for the images.

`file.py:NAME` is a file for all of them. A path is made absolute where it exists: the run finds it
from any folder. On the command line it is relative to the working folder; in a recipe's file to the
folder of that file, or else to the working folder."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataTable(_Table):
    """Where the labelled images come from."""

    source: str = Field(min_length=1)
    """`digits`, `fashion-mnist`, a folder, a parquet or .npz file, `hf:NAME`, or `file.py:NAME`."""
    image_size: int | None = Field(None, ge=4, le=4096)
    """Height and width to which images are brought, in pixels; their own where unset."""
    fit: Literal["crop", "pad"] = "crop"
    """`crop` resizes the shorter side and crops the middle, `pad` the longer and adds mid gray."""
    background: str = "auto"
    """Colour behind transparent pictures; `auto`: white, or black behind almost white ones."""
    channels: Literal[1, 3] | None = None
    """1 for gray, 3 for RGB. Where unset: 3 for published weights, else as the pictures are."""
    splits: str = "auto"
    """`auto` by names, `none` (a folder is a class), or `train=NAME,validation=NAME,test=NAME`."""
    skip_broken: bool = False
    """Leave out pictures that cannot be decoded; they are listed in the record and the report."""
    pad: int = Field(2, ge=0, le=4096)
    """Pixels by which training images are shifted at most, in each direction."""
    flip: bool = False
    """Whether a mirrored image shows the same thing."""
    min_crop_area: float = Field(1.0, gt=0, le=1)
    """Least area of a random crop of a training image over the image's; 1 for no crop."""
    colour_jitter: float = Field(0.0, ge=0, lt=1)
    """Largest change of a training image's brightness, contrast and saturation, as a share."""
    cutout: int = Field(0, ge=0, le=4096)
    """Side of the square that is blanked in a training image, in pixels."""


class TrainTable(_Table):
    """How the supernet is trained."""

    strategy: Annotated[str, AfterValidator(require_strategy)] = "sandwich"
    """Which sub-networks a step trains, and with which losses: `sandwich`, `progressive-shrinking`,
    `fine-tune`, `proxyless`, `proxyless-all-paths`, `proxyless-reinforce` (which search while they
    train), or `file.py:NAME`."""
    start: str = "patch-pca"
    """`patch-pca`, `none`, published weights by name or file (docs/spaces.md), a .safetensors file
    of the same space, a network of your own as `file.py:NAME` or `timm:NAME` (docs/elastic.md), or
    a start of your own as `file.py:NAME`."""
    epochs: int | None = Field(None, ge=0, le=1_000_000)
    """Passes over the training images; where `time` is set, the most of them, or as many as fit.
    With 0, networks have the weights of the start: for a published supernet and images of its
    classes."""
    batch_size: int = Field(512, ge=2, le=1_000_000)
    """Images per step, of all processes together; fewer where an epoch had less than 8 steps."""
    optimizer: Literal["auto", "sgd", "adamw"] = "auto"
    """`auto` is `adamw` for transformers and `sgd` for other spaces; the strategies `fine-tune` and
    `proxyless` have their own."""
    learning_rate: float | None = Field(None, gt=0, le=1000)
    """Peak, for a batch of 256; where unset 0.375 for SGD, 0.003 for AdamW. It grows with the
    batch, for AdamW with its root."""
    weight_decay: float | None = Field(None, ge=0, le=1000)
    """Of the weights; none for normalisations, biases, positions and kernel matrices. Where unset
    0.0013 for SGD, 0.05 for AdamW."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of the label that is spread over all classes."""
    lower_rate: int = Field(2, ge=0, le=10)
    """How often training that diverges begins again with half the learning rate."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` shows as many images of each class, whatever their numbers."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` times one step of each and takes the faster."""


class TargetTable(_Table):
    """What the network will run on, and how."""

    name: str = THIS_CPU
    """`this-cpu`, a device profile (.json), a folder of them (`my-board/`), a chip by name or
    .toml, or `file.py:NAME`."""
    runtime: str | None = None
    """`onnxruntime`, `openvino`, `pytorch` or `pytorch-compiled` on this machine. Where unset,
    that of a given profile, or else `onnxruntime`."""
    threads: int = Field(1, ge=1, le=4096)
    """Threads of the runtime."""
    batch: int = Field(1, ge=1, le=65536)
    """Images per inference."""
    precision: InferencePrecision = "fp32"
    """`fp32` or `int8`: of the network that is delivered, limited, measured and searched."""
    optimisation: Literal["basic", "extended", "all"] = "all"
    """Graph optimisation level of ONNX Runtime."""
    mapping: str = "edp"
    """What the mappings of a chip minimise: `energy`, `latency`, `edp` or a weighted product."""
    energy: str | None = None
    """Where the energy of a measured machine comes from: `rapl`, `nvml`, a power log (.csv), or a
    stated power such as `6W`, which makes it a model. Where unset, it reports no energy."""


def _metric_name(name: str | None) -> str | None:
    return None if name is None else metric_name(name)


def _metric_names(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(metric_name(name) for name in names)


class ObjectiveTable(_Table):
    """What the delivered network is chosen for, within the limits."""

    maximise: Literal["accuracy"] | None = None
    """The default; it may be written out."""
    minimise: Annotated[str | None, AfterValidator(_metric_name)] = None
    """A cost metric: the network with the least of it is chosen, so limit the accuracy as well."""
    costs: Annotated[tuple[str, ...], AfterValidator(_metric_names)] = Field((), strict=False)
    """Cost metrics of the front; they follow from the limits and the target where empty."""


class SearchTable(_Table):
    """How the front is found."""

    searcher: Annotated[str, AfterValidator(require_searcher)] = "linas"
    """`linas`, `nsga2`, `evolution`, `random`, or `file.py:NAME`."""
    estimates: int = Field(200, ge=20, le=1_000_000)
    """Sub-networks evaluated with supernet weights; the predictor is refitted after each round."""
    rounds: int = Field(4, ge=1, le=10_000)
    """Rounds of evaluations."""
    candidates: int = Field(20_000, ge=100, le=100_000_000)
    """Architectures searched by predictor and table in each round."""
    front: int = Field(8, ge=2, le=10_000)
    """Networks of the front that are validated on all images and measured on the device."""
    images: int = Field(2500, ge=50, le=100_000_000)
    """Validation images behind one estimate."""


PLANNED = ("epochs", "estimates", "phase_epochs")
"""Keys of the table `resolved` that follow from `time`."""


class ResolvedTable(_Table):
    """What a run decided or found by itself; written with its recipe, so that the file repeats it.

    None of it is part of the digest: another machine may resume or repeat a run.
    """

    precision: Literal["fp32", "bf16"] | None = None
    """What `train.precision = "auto"` became. A new run with this recipe uses it, too."""
    epochs: int | None = None
    """What fits into `time`, as planned when training began. A new run uses it, too."""
    estimates: int | None = None
    """Likewise, of the search."""
    phase_epochs: dict[str, float] = Field(default_factory=dict)
    """Of the phases of training whose epochs were planned again. Likewise."""
    target: str | None = None
    """Identity of the target: of the profile or the chip that was used."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of Python and of the packages that compute."""


def _limit_texts(limits: Any) -> Any:
    """The texts of `Limit` objects; a recipe is a file, which has texts only."""
    if isinstance(limits, Limit | str):
        return (str(limits),)
    if isinstance(limits, Iterable) and not isinstance(limits, Mapping):
        return tuple(str(one) if isinstance(one, Limit) else one for one in limits)
    return limits


class Recipe(_Table):
    """All decisions of a run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Of the run, and of its directory under runs/."""
    seed: int = Field(0, ge=0, le=2**32 - 1)
    """Of everything random."""
    space: str
    """A shipped space by name or short name, such as `plain-32` or `mobile`; `file.py:NAME`; or
    `start`: the network of `train.start` made elastic."""
    time: str | None = None
    """For the whole run, such as `30min` or `2h`; epochs and estimates are planned to fit."""
    limits: Annotated[tuple[str, ...], BeforeValidator(_limit_texts)] = Field((), strict=False)
    """As `latency_ms=2`, `parameters=300k`, `peak_memory=256kB`."""
    confidence: float | None = Field(None, gt=0, lt=1)
    """With which a network's measured costs shall be within its limits, such as 0.95; the search
    then keeps a distance from them. None compares predictions with limits as they are."""
    data: DataTable
    train: TrainTable
    target: TargetTable = TargetTable()
    objective: ObjectiveTable = ObjectiveTable()
    search: SearchTable = SearchTable()
    resolved: ResolvedTable | None = None

    @property
    def time_seconds(self) -> float | None:
        """The time as a number."""
        return None if self.time is None else parse_duration(self.time)

    @property
    def parsed_limits(self) -> tuple[Limit, ...]:
        """The limits as values."""
        return tuple(Limit.parse(text) for text in self.limits)

    @property
    def digest(self) -> str:
        """Equal for two recipes with the same trained weights: limits and search may differ.

        So may where the images are, which a run knows by their content, and where a space of one's
        own is, which a run knows by what it describes. Keys at their defaults are left out, so that
        a run may be resumed by a version that has more keys.
        """
        decides = {"seed", "space", "data", "train"} | ({"time"} if self.time else set())
        hidden = {"data": {"source"}}
        deciding = self.model_dump(include=decides, exclude=hidden, exclude_defaults=True)
        if is_plugin(self.space):
            deciding["space"] = "own"
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]

    def to_toml(self) -> str:
        """The recipe as a file; keys that are unset are left out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def builtin_recipes() -> dict[str, str]:
    """Name to text of the recipes that ship."""
    folder = resources.files("pliant") / "recipes"
    return {
        entry.name.removesuffix(".toml"): entry.read_text("utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    }


def load_recipe(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe by name or path, with single keys replaced.

    Args:
        changes: dotted keys to values, as `{"data.source": "photos/"}`; None changes nothing.

    Raises:
        RecipeError: no such recipe, a file that is not TOML, an unknown key, or a value that its
            key does not take.
    """
    known = builtin_recipes()
    folders: tuple[Path, ...] = ()
    if name in known:
        text, origin = known[name], f"recipe {name!r}"
    elif name.endswith(".toml") or Path(name).is_file():
        origin = name
        folders = (Path(name).parent, Path())
        try:
            text = Path(name).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"a recipe is a TOML file, {name} cannot be read: {error}."
            ) from error
    else:
        raise RecipeError(
            f"a recipe is one of {', '.join(sorted(known))}, a path that ends in .toml, or the "
            f"directory of a run that was started; received {name!r}. {nearest(name, known)}"
        )
    try:
        tree = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(f"a recipe is a TOML file, {origin} is not: {error}.") from error
    tree.setdefault("name", Path(name).stem)
    for key in FILE_ENDINGS:
        if (value := _value(tree, key)) is not None:
            _replace(tree, key, _from_anywhere(key, value, folders))
    if (changes or {}).get("time") not in (None, tree.get("time")):
        resolved = tree.get("resolved", {})  # what was planned for another time
        tree["resolved"] = {k: v for k, v in resolved.items() if k not in PLANNED}
    replace_keys(tree, changes or {})
    return parse_recipe(tree, origin)


def replace_keys(tree: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Put values of the command line into the tables of a recipe.

    Args:
        tree: the tables; changed in place.
        changes: dotted keys to values; None values are passed over.
    """
    for key, value in changes.items():
        if value is not None:
            _replace(tree, key, _from_anywhere(key, value, (Path(),)))


def parse_recipe(tree: Mapping[str, Any], origin: str) -> Recipe:
    """A recipe from its tables.

    Raises:
        RecipeError: naming the key, what it takes and what was received.
    """
    with naming(origin):
        return _parsed(validated(Recipe, tree, origin, "recipe"))


def _parsed(recipe: Recipe) -> Recipe:
    """The recipe with the full name of its space, if its keys agree with one another."""
    recipe = recipe.model_copy(update={"space": space_name(recipe.space)})
    limits = recipe.parsed_limits
    if len({limit.metric for limit in limits}) != len(limits):
        raise RecipeError(
            f"every metric takes one limit, received {', '.join(recipe.limits)}. "
            "Keep the stricter one."
        )
    if recipe.time is not None and recipe.time_seconds is None:
        raise RecipeError(f"a time reads 90s, 30min or 1.5h, received {recipe.time!r}.")
    if recipe.time is None and recipe.train.epochs is None:
        raise RecipeError(
            "training ends after `train.epochs` or in time for `time`; the recipe has "
            "neither. Add one of them, such as --epochs 20 or --time 30min."
        )
    aim = recipe.objective
    if aim.minimise is not None:
        if aim.maximise is not None:
            raise RecipeError(
                "an objective maximises accuracy or minimises one cost metric, received "
                "both. Drop one of them; a limit on the accuracy reads accuracy=90%."
            )
        _ = Objective((aim.minimise,), limits, aim.minimise)  # refuses unknown metrics
        if all(limit.metric != ACCURACY for limit in limits):
            raise RecipeError(
                f"the network with the least {aim.minimise} is the smallest one unless "
                "the accuracy has a floor. Add a limit such as accuracy=90%."
            )
    return recipe


def _from_anywhere(key: str, value: Any, folders: Iterable[Path]) -> Any:
    """A value; one that names a file of these folders as an absolute path."""
    if key not in FILE_ENDINGS or not isinstance(value, (str, Path)):
        return value
    text, endings = str(value), FILE_ENDINGS[key]
    if is_object(text):
        return text
    if is_plugin(text):
        file, colon, name = text.rpartition(":")
    elif endings is None or text.endswith(endings) or _is_checkpoint(key, text):
        file, colon, name = text, "", ""
    else:
        return value
    if not file:
        return value
    paths = [folder / Path(file).expanduser() for folder in folders]
    found = next((path for path in paths if path.exists()), None)
    if found is None and key.startswith("train."):
        found = next(iter(paths), None)  # it may be gone since; the same words name the same run
    if found is None or (key == "data.source" and _is_known_data(text)):
        return value
    return f"{found.resolve()}{colon}{name}"


def _is_known_data(name: str) -> bool:
    from pliant.data.loading import KNOWN  # heavy, and few data sets are called like a file here

    return name in KNOWN


def _value(tree: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key; None where there is none."""
    inner: Any = tree
    for name in key.split("."):
        inner = inner.get(name) if isinstance(inner, Mapping) else None
    return inner


def _is_checkpoint(key: str, text: str) -> bool:
    """Whether a start is a file without an ending, as Once-for-All publishes them."""
    return key == "train.start" and Path(text).expanduser().is_file()


def _replace(tree: dict[str, Any], key: str, value: Any) -> None:
    *tables, last = key.split(".")
    inner: Any = tree
    for table in tables:
        inner = inner.setdefault(table, {})
        if not isinstance(inner, dict):
            return  # a value in place of a table: the check of the recipe names it
    inner[last] = value
