"""A run: directory, recipe, record, data and space, opened together and checked for consistency.

runs/<name>/
  recipe.toml       the recipe as resolved
  record.sqlite     every evaluation
  supernet/         weights.safetensors, checkpoints, TensorBoard logs
  device.json       the device profile
  best/             model.onnx, model.safetensors, model.py, card.md
  front/            the same for other networks that were asked for
  summary.json      the result, for programs
  report.html       the result, for people
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import pliant
from pliant.data import load
from pliant.data.dataset import DataSet
from pliant.data.preparing import LARGEST_DEFAULT_SIZE
from pliant.deploy.own_source import own_source
from pliant.devices.energy import parse_energy
from pliant.errors import DataError, InfeasibleError, PliantError, RecipeError, RunConflictError
from pliant.files import write_atomically
from pliant.host import machine_name
from pliant.networks.backbones.published import read_checkpoint
from pliant.networks.backbones.registry import NAMES
from pliant.plugins import is_object, is_plugin, load_plugin
from pliant.progress import Progress, silent
from pliant.record import Record
from pliant.runs.objects import split_objects
from pliant.runs.recipe import Recipe, ResolvedTable, load_recipe
from pliant.spaces.architecture import Architecture
from pliant.spaces.check import check_space
from pliant.spaces.foreign import ForeignSpace
from pliant.spaces.presets import FOREIGN, largest_image, preset, spaces_for
from pliant.spaces.space import Space
from pliant.targets import TargetOptions, require_known
from pliant.training.checkpoint import load_tensors
from pliant.training.start import require_start_name

if TYPE_CHECKING:
    import pyarrow as pa


class Run:
    """One run directory, held by this process until closed. A context manager.

    Of the processes that torchrun starts, the first holds the directory. The others read it, and
    write to a temporary record that is discarded.

    Args:
        folder: of the run; created once the images and the space have been checked.
        recipe: what the run is.
        objects: parts that the recipe names as `object:NAME`, by their keys.
        progress: told how many images are read; a session replaces it by its own.

    Raises:
        RunConflictError: the directory belongs to another recipe, or another process writes it.
        DamagedFileError: the record or the recipe cannot be read.
        DataError: a new run's images cannot be used.
        RecipeError: a file of a new run has no such strategy, start or searcher.
        EncodingError: a new run's images are smaller than its space can handle.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        objects: Mapping[str, Any] | None = None,
        progress: Progress = silent,
    ) -> None:
        self.objects = dict(objects or {})
        self.progress = progress
        self.notes: tuple[str, ...] = ()
        """What there is to say of the images of a run that begins."""
        self.opened = time.monotonic()
        """When this process began to work on the run."""
        self.folder = folder
        self.recipe = recipe
        self._previous: str | None = None
        if int(os.environ.get("RANK", "0")) > 0:
            self._scratch = tempfile.TemporaryDirectory(prefix="pliant-")
            self.record = Record.open(
                Path(self._scratch.name) / "record.sqlite", recipe_digest=recipe.digest
            )
            return
        begun = self._is_begun()
        if not begun:
            _require_parts(recipe)  # checked first: a mistake leaves no directory behind
            _ = self._space
            self.notes = self._data_notes
        folder.mkdir(parents=True, exist_ok=True)
        self.record = Record.open(folder / "record.sqlite", recipe_digest=recipe.digest)
        try:
            for partial in folder.rglob(".*.partial*"):
                partial.unlink(missing_ok=True)  # of a process that was killed while it wrote
            self._previous = (folder / "recipe.toml").read_text("utf-8") if begun else None
            if begun:
                known = load_recipe(str(folder / "recipe.toml"))
                if known.space != recipe.space:
                    _ = self.space  # the same one from another place, else it keeps its recipe
                resolved = known.resolved or recipe.resolved
                self.recipe = recipe.model_copy(update={"resolved": resolved})
            write_atomically(folder / "recipe.toml", self.recipe.to_toml())
        except (OSError, PliantError):
            self.record.close()
            raise

    @classmethod
    def create(cls, recipe: str, *, folder: str | Path | None = None, **changes: object) -> Run:
        """Begin a run or resume it.

        Args:
            recipe: a name or a path.
            folder: `runs/<name of the recipe>` where not given.
            changes: keys of the recipe to replace; a double underscore is the dot, as in
                `train__epochs=5`. `space`, `data__source`, `target__name` and `search__searcher`
                may be Python objects: what `file.py:NAME` names, or what that returns.
        """
        texts, objects = split_objects(changes)
        resolved = load_recipe(recipe, texts)
        return cls(Path(folder) if folder else Path("runs") / resolved.name, resolved, objects)

    @classmethod
    def reopen(cls, folder: str | Path, **changes: object) -> Run:
        """Resume the run of a directory, with the recipe in it.

        Args:
            folder: of the run.
            changes: as of `create`; Python objects are given again.

        Raises:
            RunConflictError: the directory holds no run.
        """
        path = Path(folder) / "recipe.toml"
        require_readable(Path(folder))
        if not path.is_file():
            raise RunConflictError(
                f"a run directory holds recipe.toml, found none in {folder}. "
                "Name a directory that `pliant run` made."
            )
        texts, objects = split_objects(changes)
        return cls(Path(folder), load_recipe(str(path), {"name": None} | texts), objects)

    def part(self, key: str) -> Any:
        """What a key of the recipe means: the object that was given for it, else its text."""
        if key in self.objects:
            return self.objects[key]
        table, _, field = key.rpartition(".")
        return getattr(getattr(self.recipe, table) if table else self.recipe, field)

    def _is_begun(self) -> bool:
        """Whether the directory holds this run already; compared before anything is written."""
        path = self.folder / "recipe.toml"
        if not path.is_file():
            # A start that was killed at once may have left its record and half a recipe.
            foreign = [
                entry
                for entry in self.folder.glob("*")
                if not entry.name.startswith(("record.sqlite", ".recipe.partial"))
            ]
            if foreign:
                raise RunConflictError(
                    f"a run begins in an empty directory, {self.folder} holds other files, such as "
                    f"{foreign[0].name}. Choose another with --run-dir."
                )
            return False
        require_readable(self.folder)
        known = load_recipe(str(path))
        if known.data.source != self.recipe.data.source and known.digest == self.recipe.digest:
            self._require_same_images()
        if known.digest != self.recipe.digest:
            if self._is_unused():
                return False
            differing = _differences(known, self.recipe)
            raise RunConflictError(
                f"{self.folder} belongs to another recipe; it differs in {', '.join(differing)}. "
                "Use --run-dir NEW_DIRECTORY, or the same recipe to resume that run."
            )
        return True

    def _is_unused(self) -> bool:
        """Whether the run ended before its first result, as one that was refused for a mistake."""
        path = self.folder / "record.sqlite"
        others = {entry.name for entry in self.folder.iterdir()} - {"recipe.toml"}
        if not path.is_file() or not all(name.startswith(path.name) for name in others):
            return False
        with Record.read(path) as record:
            return not record.has_results()

    def close(self) -> None:
        """Let go of the record."""
        self.record.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        refused = kind is not None and issubclass(kind, (InfeasibleError, RecipeError))
        if refused:  # limits that nothing meets, or a mistyped option
            self.restore_recipe()
        try:
            if kind is None or issubclass(kind, Exception):
                self.record.require_in_place()  # which may be why it failed
        finally:
            self.close()

    def restore_recipe(self) -> None:
        """Write the recipe that a run which was begun had before it was opened now."""
        if self._previous is not None:
            write_atomically(self.folder / "recipe.toml", self._previous)

    @cached_property
    def data(self) -> DataSet:
        """The images, loaded once; every opening of the test split is written into the record.

        Raises:
            DataError: the source cannot be used.
            RunConflictError: the images are not those with which the run began.
        """
        data = self._images
        known = self.record.metadata("data_fingerprint")
        if known is None:
            self.record.set_metadata("data_fingerprint", data.fingerprint)
            shape = {"channels": data.channels, "image_size": data.image_size}
            self.record.set_metadata("image_shape", shape | {"classes": len(data.classes)})
            self.record.set_metadata("data_notes", list(self._data_notes))
            self.record.set_metadata("data_skipped", list(data.skipped))
        elif known != data.fingerprint:
            raise self._other_images()
        data.test.on_open = lambda purpose: self.record.event("test split opened", purpose=purpose)
        return data

    def _require_same_images(self) -> None:
        """Compare images that moved with those of the run, before anything is written."""
        path = self.folder / "record.sqlite"
        if not path.is_file():
            return
        with Record.read(path) as record:
            known = record.metadata("data_fingerprint")
        if known is not None and known != self._images.fingerprint:
            raise self._other_images()

    def _require_present(self, source: object) -> None:
        """Say what to do where the images of a run that began are gone."""
        if not isinstance(source, str) or is_plugin(source) or os.sep not in source:
            return  # no path
        if (self.folder / "recipe.toml").is_file() and not Path(source).exists():
            raise DataError(
                f"the images of {self.folder} were in {source}, which does not exist. Name where "
                "they are by --data."
            )

    def _other_images(self) -> RunConflictError:
        return RunConflictError(
            f"the images of {self.recipe.data.source} changed since {self.folder} was begun, or "
            "are others. Name those of the run by --data, or use --run-dir NEW_DIRECTORY."
        )

    @property
    def _data_notes(self) -> tuple[str, ...]:
        """What there is to say of the images, of their size in this space, and of their classes."""
        return (*self._images.notes, *self._size_notes(), *self._classifier_notes())

    def _size_notes(self) -> list[str]:
        """Where pictures lose pixels that another space would keep."""
        largest = self._largest_image
        pictures = self._images.picture_size or 0
        if self.recipe.data.image_size or pictures <= largest or largest == LARGEST_DEFAULT_SIZE:
            return []
        larger = spaces_for(pictures) or spaces_for(LARGEST_DEFAULT_SIZE)
        return [
            f"Space {self.recipe.space} is for images of up to {largest} pixels; for larger ones "
            f"use --space {larger[0]}."
        ]

    def _classifier_notes(self) -> list[str]:
        """What becomes of the classifier of a network of the user's own."""
        if not isinstance(self._space, ForeignSpace):
            return []
        from pliant.networks.foreign.template import (
            has_linear_head,
            head_layers,
            replaced_classifier,
        )

        layers, fitted = replaced_classifier(self._space), has_linear_head(self._space)
        notes = []
        if layers:
            begins = (
                "begins as a linear classifier on the network's features"
                if fitted and self.recipe.train.strategy == "fine-tune"
                else "learns them from nothing"
            )
            notes.append(
                f"The network had other classes: its classifier ({', '.join(layers)}) was replaced"
                f" by a new one for these {self._space.classes}, which {begins}."
            )
        if not fitted:
            last = ", ".join(head_layers(self._space)) or "none is the last"
            notes.append(
                "No linear classifier on the frozen network is fitted: its logits are not those of"
                f" one linear layer that reads one vector per image ({last})."
            )
        return notes

    @property
    def _largest_image(self) -> int:
        """The largest size that pictures get by themselves, in pixels."""
        own = largest_image(self.part("space"))
        return LARGEST_DEFAULT_SIZE if own is None else min(LARGEST_DEFAULT_SIZE, own)

    @cached_property
    def _images(self) -> DataSet:
        table = self.recipe.data
        source = self.part("data.source")
        self._require_present(source)
        return load(
            source,
            seed=self.recipe.seed,
            image_size=table.image_size,
            largest_size=self._largest_image,
            fit=table.fit,
            background=table.background,
            channels=table.channels or (3 if self.recipe.train.start in NAMES else None),
            splits=table.splits,
            skip_broken=table.skip_broken,
            progress=lambda *step: self.progress(*step),
        )

    @cached_property
    def space(self) -> Space:
        """The search space for these images, known by what it describes.

        Flips are used only if the recipe allows them.

        Raises:
            EncodingError: the images are smaller than the space can handle, the networks of the
                space do not fit together, or its blocks cannot be delivered.
            RunConflictError: the space is not the one with which the run began.
        """
        space = self._space
        known = self.record.metadata("space_identity")
        if known is None:
            self.record.set_metadata("space_identity", space.identity)
        elif known != space.identity:
            raise RunConflictError(
                f"a run keeps its space; the choices or blocks of {self.recipe.space} changed "
                f"since {self.folder} was begun. Restore them, or use --run-dir NEW_DIRECTORY."
            )
        return space

    @cached_property
    def _space(self) -> Space:
        images = self._images
        space = self._space_for(images.channels, images.image_size, len(images.classes))
        check_space(space)
        if not isinstance(space, ForeignSpace):
            own_source(type(block).__name__ for block in space.blocks(space.largest()))
            from pliant.networks.own_blocks import require_own_described

            require_own_described(space)
        return space

    def parse(self, text: str) -> Architecture:
        """An architecture of the run's space, without reading the images of a run that began.

        Raises:
            EncodingError: the text names none.
        """
        shape = self.record.metadata("image_shape")
        return (self._space_for(**shape) if shape else self.space).parse(text)

    def _space_for(self, channels: int, image_size: int, classes: int) -> Space:
        if self.part("space") == FOREIGN:
            from pliant.networks.foreign.template import foreign_space  # heavy

            start = self.recipe.train.start
            return foreign_space(start, channels=channels, image_size=image_size, classes=classes)
        found = preset(
            self.part("space"), channels=channels, image_size=image_size, classes=classes
        )
        return found if self.recipe.data.flip else found.trainable_space()

    def resolve(self, **decided: Any) -> None:
        """Write what the run decided or found by itself into its recipe.

        Args:
            decided: fields of `ResolvedTable`.
        """
        before = self.recipe.resolved or ResolvedTable()
        after = before.model_copy(update={"versions": versions(), **decided})
        if after != before and int(os.environ.get("RANK", "0")) == 0:
            self.recipe = self.recipe.model_copy(update={"resolved": after})
            write_atomically(self.folder / "recipe.toml", self.recipe.to_toml())

    def evaluations(self) -> pa.Table:
        """All evaluations of the run as one table; see `pliant.evaluations`."""
        from pliant.evaluations import evaluation_table

        return evaluation_table(self.record)

    def rng(self, *purpose: int) -> np.random.Generator:
        """A generator of the run's seed for one purpose, the same at every start."""
        return np.random.default_rng((self.recipe.seed, *purpose))

    @property
    def weights(self) -> Path:
        """The trained supernet."""
        return self.folder / "supernet" / "weights.safetensors"

    @property
    def profile_path(self) -> Path:
        """The device profile."""
        target = self.recipe.target
        path = TargetOptions(
            folder=self.folder, precision=target.precision, runtime=target.runtime
        ).profile
        assert path is not None, "options with a folder have a profile"
        return path

    @property
    def best(self) -> Path:
        """The delivered network."""
        return self.folder / "best"


def _require_parts(recipe: Recipe) -> None:
    """Refuse the name of a part that does not exist, long before its step.

    Raises:
        RecipeError: no such name or file, or the file itself ends in an error.
        DamagedFileError: there is no such target, or a start that cannot be read.
        MeasurementError: there is no such meter.
    """
    if not is_object(recipe.target.name):
        require_known(recipe.target.name)
    if recipe.target.energy is not None:
        parse_energy(recipe.target.energy)
    if not is_object(recipe.train.start):
        require_start_name(recipe.train.start)
    start = Path(recipe.train.start)
    if start.suffix == ".safetensors" and start.is_file():
        load_tensors(start)
    elif start.is_file() and not is_plugin(recipe.train.start):
        read_checkpoint(start)
    named = {
        "a start": recipe.train.start,
        "a training strategy": recipe.train.strategy,
        "a searcher": recipe.search.searcher,
    }
    for what, name in named.items():
        if is_plugin(name) and not is_object(name):
            load_plugin(name, what=what)


def _differences(one: Recipe, other: Recipe) -> list[str]:
    """Dotted keys in which two recipes differ, among those that decide the weights."""
    found = []
    for table in ("seed", "space", "time", "data", "train"):
        left, right = getattr(one, table), getattr(other, table)
        if left == right:
            continue
        if table in ("seed", "space", "time"):
            found.append(f"{table} ({_shown(left)} there, {_shown(right)} here)")
            continue
        keys = [key for key in type(left).model_fields if getattr(left, key) != getattr(right, key)]
        keys = [key for key in keys if f"{table}.{key}" != "data.source"]  # known by its content
        for key in keys:
            there, here = _shown(getattr(left, key)), _shown(getattr(right, key))
            found.append(f"{table}.{key} ({there} there, {here} here)")
    return found


def _shown(value: object) -> str:
    return "unset" if value is None else str(value)


def require_readable(folder: Path) -> None:
    """Refuse the directory of a run that another version of Pliant wrote.

    Raises:
        PliantError: it was written by another version.
        DamagedFileError: its record cannot be read.
    """
    path = folder / "record.sqlite"
    if path.is_file() and path.stat().st_size:
        Record.read(path).close()


def versions() -> dict[str, str]:
    """Of Python and of the packages that compute."""
    from importlib.metadata import version

    packages = ("torch", "numpy", "onnxruntime")
    return {"pliant": pliant.__version__, "python": platform.python_version()} | {
        name: version(name) for name in packages
    }


def machine() -> dict[str, str | int]:
    """What the figures of a run were taken on."""
    import sys

    import onnxruntime
    import torch

    return {
        "cpu": machine_name(),
        "cores": os.cpu_count() or 1,
        "os": platform.platform(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
