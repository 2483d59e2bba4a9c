"""A run: its directory, recipe, record, data and space, opened together and checked against each other.

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

import platform
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np

from pliant.data import load
from pliant.data.dataset import DataSet
from pliant.devices.profile import machine_name
from pliant.errors import RunConflictError
from pliant.files import write_atomically
from pliant.pipeline.recipe import Recipe, load_recipe, parse_recipe, tomllib
from pliant.record import Record
from pliant.spaces.presets import preset
from pliant.spaces.space import Space

Progress = Callable[[str, int, int, str], None]
"""Called with a step's name, how much is done, of how much, and a note."""


def silent(step: str, done: int, total: int, note: str) -> None:
    """Progress that nobody watches."""


class Run:
    """One run directory, held by this process until closed. A context manager.

    Args:
        folder: of the run; made where it does not exist.
        recipe: what the run is.

    Raises:
        RunConflictError: the directory belongs to another recipe, or another process writes it.
        DamagedFileError: the record cannot be read.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder = folder
        self.recipe = recipe
        self._require_own()
        folder.mkdir(parents=True, exist_ok=True)
        self.record = Record.open(folder / "record.sqlite", recipe_digest=recipe.digest)
        write_atomically(folder / "recipe.toml", recipe.to_toml())

    @classmethod
    def create(cls, recipe: str, *, folder: str | Path | None = None, **changes: object) -> Run:
        """Begin a run or go on with it.

        Args:
            recipe: a name or a path.
            folder: `runs/<name of the recipe>` where not given.
            changes: keys of the recipe to replace; a double underscore stands for the dot, as `train__epochs=5`.
        """
        resolved = load_recipe(recipe, {key.replace("__", "."): value for key, value in changes.items()})
        return cls(Path(folder) if folder else Path("runs") / resolved.name, resolved)

    @classmethod
    def reopen(cls, folder: str | Path, **changes: object) -> Run:
        """Go on with the run of a directory, under the recipe that it holds.

        Raises:
            RunConflictError: the directory holds no run.
        """
        path = Path(folder) / "recipe.toml"
        if not path.is_file():
            raise RunConflictError(f"a run directory holds recipe.toml, found none in {folder}. Name a directory that `pliant run` made.")
        recipe = load_recipe(str(path), {"name": None} | {key.replace("__", "."): value for key, value in changes.items()})
        return cls(Path(folder), recipe)

    def _require_own(self) -> None:
        """Compare the recipes before anything is written."""
        path = self.folder / "recipe.toml"
        if not path.is_file():
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise RunConflictError(f"a run begins in an empty directory, {self.folder} holds other files. Choose another with --into.")
            return
        known = parse_recipe(tomllib.loads(path.read_text("utf-8")), str(path))
        if known.digest != self.recipe.digest:
            differing = _differences(known, self.recipe)
            raise RunConflictError(
                f"{self.folder} belongs to another recipe; it differs in {', '.join(differing)}. "
                "Use --into NEW_DIRECTORY, or the same recipe to go on with that run."
            )

    def close(self) -> None:
        """Let go of the record."""
        self.record.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @cached_property
    def data(self) -> DataSet:
        """The images, loaded once; every opening of the test split is written into the record.

        Raises:
            DataError: the source cannot be used.
            RunConflictError: the images are not those with which the run began.
        """
        table = self.recipe.data
        data = load(table.source, seed=self.recipe.seed, image_size=table.image_size, memory_budget_bytes=table.memory_budget_mb * 10**6)
        known = self.record.fact("data_fingerprint")
        if known is None:
            self.record.set_fact("data_fingerprint", data.fingerprint)
        elif known != data.fingerprint:
            raise RunConflictError(f"the images of {table.source} changed since {self.folder} was begun. Use --into NEW_DIRECTORY.")
        data.test.on_open = lambda purpose: self.record.event("test split opened", purpose=purpose)
        return data

    @cached_property
    def space(self) -> Space:
        """The search space for these images.

        Raises:
            EncodingError: the images are smaller than the space can handle.
        """
        return preset(self.recipe.space, channels=self.data.channels, image_size=self.data.image_size, classes=len(self.data.classes))

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
        return self.folder / "device.json"

    @property
    def best(self) -> Path:
        """The delivered network."""
        return self.folder / "best"


def _differences(one: Recipe, other: Recipe) -> list[str]:
    """Dotted keys in which two recipes differ, among those that decide the weights."""
    found = []
    for table in ("seed", "space", "data", "train"):
        left, right = getattr(one, table), getattr(other, table)
        if left == right:
            continue
        if table in ("seed", "space"):
            found.append(f"{table} ({left} there, {right} here)")
            continue
        keys = [key for key in type(left).model_fields if getattr(left, key) != getattr(right, key)]
        found += [f"{table}.{key} ({getattr(left, key)} there, {getattr(right, key)} here)" for key in keys]
    return found


def machine() -> dict[str, str | int]:
    """What the figures of a run were taken on."""
    import os
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
