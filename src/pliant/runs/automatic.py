"""The recipe of a run that has none: space, start, resolution, batch and epochs follow from the
images, the limits and the time.

Photographs, and small pictures of which there are few, are taught to published weights (space
`photos`); other small pictures train a space of their size from nothing. What was decided is
written as a recipe like any other, so the same file repeats the run.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pliant.data.inspection import SourceFacts, inspect_source, listed
from pliant.errors import RecipeError
from pliant.metrics import InferencePrecision, as_precision
from pliant.objective import Limit
from pliant.plugins import call_plugin, is_plugin
from pliant.record import Record
from pliant.runs.recipe import Recipe, load_recipe, parse_recipe, replace_keys
from pliant.spaces.photos import RESOLUTIONS
from pliant.spaces.presets import FOREIGN, PRESETS, preset, space_name
from pliant.spaces.space import Space
from pliant.targets import THIS_CPU
from pliant.units import parse_duration

PUBLISHED = {
    "photos": "efficientnet-lite0",
    "photos-lite1": "efficientnet-lite1",
    "photos-lite2": "efficientnet-lite2",
    "ofa-mobilenetv3": "ofa_mbv3_d234_e346_k357_w1.0",
    "ofa-mobilenetv3-w1.2": "ofa_mbv3_d234_e346_k357_w1.2",
    "ofa-resnet50": "ofa_resnet50",
}
"""The published weights that each space for photographs starts from."""
OFA_SIZE = 224
"""Of the images for Once-for-All's spaces, in pixels."""
RGB = 3
"""Channels of the images that published weights were trained on; gray ones are read as RGB."""

FOREIGN_SIZES = (128, 224, 96, 64, 32)
"""Sizes of images that are tried for a network that does not say which it takes, in pixels."""
PHOTOGRAPH = 48
"""Images with a larger shorter side are photographs."""
FEW_IMAGES = 5000
"""Up to so many colour images are taught to published weights, enlarged where they are small."""
SMALLEST_ENLARGED = 24
"""Smaller images show too little for that."""
ENLARGED = 128
"""Resolution up to which small images may be enlarged, in pixels."""
DIGITS = 12
"""Images up to this size take the space `digits`."""

IMAGES_SEEN = 50_000
"""Images times epochs of a fine-tuning without a time."""
FINE_TUNE_EPOCHS = (12, 60)
FINE_TUNE_RATE = 2e-3
"""Peak learning rate of AdamW, whose steps are as large whatever the batch. Lower ones do not leave
the linear classifier far enough behind in the few hundred steps that few images get."""
RECIPE_BATCH = 256
"""A recipe states the learning rate for a batch of so many images."""
STEPS_FROM_NOTHING = 2000
EPOCHS_FROM_NOTHING = (10, 200)
MIN_EPOCHS = 6
"""In a time, the resolution is lowered until so many fit."""
LEAST_RESOLUTION_FOR_TIME = 96
TRAINING_SHARE = 0.6
"""Of the time, for training."""
STEP_OVER_LARGEST = 1.4
"""Mean time of a step of the fine-tuning over one of the largest network alone."""


@dataclass(frozen=True)
class Automatic:
    """A recipe, and what a person should know about it."""

    recipe: Recipe
    notes: tuple[str, ...]


def automatic_recipe(changes: Mapping[str, Any]) -> Automatic:
    """The recipe for the images, limits and time that a person named.

    Args:
        changes: dotted keys of the recipe to what the person chose; `data.source` at least.

    Raises:
        DataError: the images cannot be used.
        RecipeError: a limit, a time or another choice cannot be understood.
    """
    facts = inspect_source(changes["data.source"], changes.get("data.splits", "auto"))
    limits = [Limit.parse(text) for text in changes.get("limits", ())]
    chosen = changes.get("space") or _space_of(changes.get("train.start"))
    name = _space_for(facts) if chosen is None else space_name(chosen)
    if name == FOREIGN:
        tree = _fine_tuned(facts, str(changes.get("train.start")))
    elif name in PUBLISHED:
        tree = _fine_tuned(facts, PUBLISHED[name])
    else:
        tree = _from_nothing(facts)
    tree |= {"name": run_name(str(changes["data.source"])), "space": name}
    size = changes.get("data.image_size")
    if size is None and name == FOREIGN:
        size = foreign_size(str(changes.get("train.start")), facts)
    elif size is None and name in PUBLISHED:
        size = OFA_SIZE if name.startswith("ofa") else useful_size(name, facts, limits, changes)
    elif size is None and chosen is None:
        size = max(facts.side, PRESETS[name].smallest_image)
    if size is not None:
        tree["data"]["image_size"] = size
    if "time" in changes:
        del tree["train"]["epochs"]
    replace_keys(tree, changes)
    return Automatic(parse_recipe(tree, "the command"), tuple(_notes(facts, name, size)))


def run_name(source: str) -> str:
    """The name of images as one that a directory may have: `photos` for the folder `../photos/`."""
    path = Path(source).expanduser()
    if source.startswith("hf:"):
        name = source.removeprefix("hf:").partition(":")[0].rpartition("/")[2]
    else:
        name = path.stem if path.is_file() else path.resolve().name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("._-") or "run"


def resumed_recipe(folder: Path, changes: Mapping[str, Any]) -> Recipe | None:
    """The recipe of a run that began in a folder; None where there is none.

    Its images may have moved: a run knows them by their content, and refuses others when it is
    opened. A run that never read its images claims no others.

    Args:
        folder: of the run.
        changes: dotted keys to what the person chose.

    Raises:
        RecipeError: its recipe cannot be read.
    """
    path = folder / "recipe.toml"
    if not path.is_file():
        return None
    tree: dict[str, Any] = {}
    replace_keys(tree, {"data.source": changes["data.source"]})
    known = load_recipe(str(path))
    if known.data.source != tree["data"]["source"] and not _has_read_images(folder):
        return None
    return load_recipe(str(path), changes)


def _has_read_images(folder: Path) -> bool:
    if not (folder / "record.sqlite").is_file():
        return False
    with Record.read(folder / "record.sqlite") as record:
        return record.metadata("data_fingerprint") is not None


def _space_of(start: str | None) -> str | None:
    """The space of published weights, by their name or their file; None for other starts."""
    found = [space for space, name in PUBLISHED.items() if name == start]
    if found or start is None:
        return found[0] if found else None
    if start.startswith("timm:"):
        return FOREIGN
    if is_plugin(start):
        from torch import nn  # heavy

        return FOREIGN if isinstance(call_plugin(start, what="a start"), nn.Module) else None
    from pliant.networks.backbones.registry import space_of_file  # heavy

    return space_of_file(Path(start).expanduser())


def _space_for(facts: SourceFacts) -> str:
    few = sum(facts.images.values()) <= FEW_IMAGES and facts.channels == 3
    if facts.side > PHOTOGRAPH or (few and facts.side >= SMALLEST_ENLARGED):
        return "photos"
    return "digits" if facts.side <= DIGITS else "plain-32"


def foreign_size(start: str, facts: SourceFacts) -> int:
    """The size of the images for a network of the user's own, in pixels.

    It is what the network says of itself, as those of timm do, else the first of the usual sizes
    that it takes, from the images' own size down.

    Args:
        start: the network's name.
        facts: of the images.

    Raises:
        RecipeError: it takes none of them.
    """
    import torch

    from pliant.networks.foreign.source import foreign_module

    module = foreign_module(start)
    known = getattr(module, "pretrained_cfg", None)
    if isinstance(known, dict) and "input_size" in known:
        return int(known["input_size"][-1])
    own = max(facts.side, FOREIGN_SIZES[-1])
    tried = [*(size for size in FOREIGN_SIZES if size <= own), *FOREIGN_SIZES]
    for size in dict.fromkeys(tried):
        try:
            with torch.no_grad():
                module(torch.zeros((1, RGB, size, size)))
        except Exception:
            continue
        return size
    raise RecipeError(
        f"{start} takes images of none of {', '.join(map(str, FOREIGN_SIZES))} pixels. Give the"
        " size that it takes by --image-size."
    )


def _fine_tuned(facts: SourceFacts, start: str) -> dict[str, Any]:
    count = sum(facts.images.values())
    batch = 32 if count >= 1000 else 16
    least, most = FINE_TUNE_EPOCHS
    return {
        "data": {
            "channels": RGB,
            "pad": 0,
            "flip": True,
            "min_crop_area": 0.35,
            "colour_jitter": 0.2,
        },
        "train": {
            "strategy": "fine-tune",
            "start": start,
            "epochs": min(most, max(least, IMAGES_SEEN // count)),
            "batch_size": batch,
            "learning_rate": FINE_TUNE_RATE * RECIPE_BATCH / batch,
            "weight_decay": 0.02,
        },
        "search": {"estimates": 60, "rounds": 3, "candidates": 5000, "front": 4},
    }


def _from_nothing(facts: SourceFacts) -> dict[str, Any]:
    count, coloured = sum(facts.images.values()), facts.channels == 3
    batch = min(512, max(16, 2 ** ((count // 20).bit_length() - 1)))
    least, most = EPOCHS_FROM_NOTHING
    small = facts.side <= DIGITS
    return {
        # Mirror images of what is gray, such as digits, often show something else.
        "data": {
            "pad": 1 if small else 4 if coloured else 2,
            "flip": coloured,
            "cutout": 0 if small else facts.side // 4,
        },
        "train": {
            "epochs": min(most, max(least, STEPS_FROM_NOTHING * batch // count)),
            "batch_size": batch,
        },
    }


def useful_size(
    name: str, facts: SourceFacts, limits: Sequence[Limit], changes: Mapping[str, Any]
) -> int:
    """The resolution up to which networks for photographs are worth training, in pixels.

    A narrow network at a high resolution is worse than the full one at a low resolution, so no
    resolution is useful beyond the first at which the full network exceeds a limit.

    Args:
        name: of the space, `photos` or a larger one.
        facts: of the images.
        limits: of the run.
        changes: what the person chose; the target and the time count.
    """
    largest = max(facts.side, ENLARGED)
    full: dict[int, Space] = {}
    for size in RESOLUTIONS:
        space = preset(name, channels=RGB, image_size=size, classes=len(facts.images))
        if size <= largest and dict(space.largest().options)["r"] == size:
            full[size] = space
    sizes = list(full)
    if "time" in changes:
        sizes = _affordable(facts, full, parse_duration(changes["time"]))
    for limit in limits:
        named = changes.get("target.name", THIS_CPU)
        precision = as_precision(changes.get("target.precision")) or "fp32"
        costs = _costs(full, sizes, limit.metric, named, precision)
        beyond = [size for size in sizes if costs.get(size, 0.0) > limit.bound]
        sizes = [size for size in sizes if not beyond or size <= beyond[0]]
    return sizes[-1]


def _costs(
    full: Mapping[int, Space],
    sizes: Sequence[int],
    metric: str,
    target: str,
    precision: InferencePrecision,
) -> dict[int, float]:
    """A metric of the full network at each size; none where only a target can tell it."""
    if metric == "latency_ms" and target == THIS_CPU:
        return _latencies(full, sizes, precision)
    found = {}
    for size in sizes:
        space = full[size].with_bits(8) if precision == "int8" else full[size]
        cost = space.cost(space.largest())
        if metric in cost.metrics:
            found[size] = cost.metric(metric)
    return found


def _latencies(
    full: Mapping[int, Space], sizes: Sequence[int], precision: InferencePrecision
) -> dict[int, float]:
    """A quick measurement of the full network at each size on this machine."""
    import numpy as np

    from pliant.devices.measure import measure
    from pliant.devices.profile import random_network_model
    from pliant.devices.timings import Settings

    settings = Settings(min_rounds=3, rounds=5, samples=3)
    rng = np.random.default_rng(0)
    models = {
        str(size): random_network_model(full[size].blocks(full[size].largest()), rng, precision)
        for size in sizes
    }
    found = measure(models, settings, seed=0, refuse=False)
    return {size: found[str(size)].latency_ms for size in sizes}


def _affordable(facts: SourceFacts, full: Mapping[int, Space], seconds: float | None) -> list[int]:
    """The sizes at which enough epochs fit into the time, by a step of the full network at one."""
    sizes = sorted(full)
    if seconds is None:
        return sizes  # the recipe is refused with the time's form
    reference = min(sizes, key=lambda size: abs(size - ENLARGED))
    per_mac = _step_seconds(full[reference]) / full[reference].cost(
        full[reference].largest()
    ).metric("macs")
    epochs = {}
    for size in sizes:
        macs = full[size].cost(full[size].largest()).metric("macs")
        epoch = sum(facts.images.values()) * per_mac * macs * STEP_OVER_LARGEST
        epochs[size] = TRAINING_SHARE * seconds / epoch
    fitting = [size for size in sizes if epochs[size] >= MIN_EPOCHS]
    least = [size for size in sizes if size <= LEAST_RESOLUTION_FOR_TIME]
    return fitting if len(fitting) > len(least) else least or sizes[:1]


def _step_seconds(space: Space, images: int = 8) -> float:
    """Of a training step of the largest network, per image."""
    import torch

    from pliant.networks.supernet import Supernet

    with torch.random.fork_rng(devices=[]):
        network = Supernet(space, mean=[0.5] * space.channels, std=[0.5] * space.channels)
        pixels = torch.rand((images, space.channels, space.image_size, space.image_size))
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    times = []
    for _ in range(2):
        started = time.perf_counter()
        network(pixels, space.largest()).sum().backward()
        times.append(time.perf_counter() - started)
    return min(times) / images


def _notes(facts: SourceFacts, name: str, size: int | None) -> list[str]:
    notes = []
    if size is not None and facts.side < size and name in PRESETS:
        smallest = f"; the smallest resolution of {name!r} is {PRESETS[name].smallest_image}"
        notes.append(
            f"The images are {facts.side} pixels wide and enlarged to {size}"
            + (smallest if facts.side < PRESETS[name].smallest_image else "")
            + "."
        )
    if facts.few:
        notes.append(
            f"A class with few images is hard to learn and its accuracy is uncertain: "
            f"{listed(facts.few)}."
        )
    return notes
