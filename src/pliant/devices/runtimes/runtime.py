"""What a runtime does for a measurement: it opens a model and runs it on a fixed input."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, Protocol

import numpy as np
import onnx
from onnx import TensorProto

from pliant.devices.timings import Optimisation, Settings
from pliant.errors import RecipeError
from pliant.metrics import InferencePrecision


class Session(Protocol):
    """An open model with its input in place."""

    def run(self) -> None:
        """One inference, complete when it returns."""
        ...

    def output(self) -> np.ndarray:
        """The first output of the last run."""
        ...


class Runtime(ABC):
    """One inference runtime on the CPU of this machine."""

    name: ClassVar[str]
    package: ClassVar[str]
    """The Python distribution that it comes with."""
    module: ClassVar[str]
    """What Python imports."""
    extra: ClassVar[str | None] = None
    """The optional dependency of Pliant that installs it; None where Pliant always does."""
    precisions: ClassVar[tuple[InferencePrecision, ...]] = ("fp32", "int8")
    """Of the networks that it can run with kernels of that precision."""
    why_not: ClassVar[Mapping[str, str]] = {}
    """Why it lacks a precision, by precision."""
    levels: ClassVar[tuple[Optimisation, ...]] = ("all",)
    """Graph optimisation levels that it can be asked for."""
    times_blocks: ClassVar[bool] = True
    """Whether a model opens so fast that all blocks of a space can be timed in isolation."""
    networks: ClassVar[int] = 32
    """Whole networks of a profile, on which its predictor is fitted and validated."""

    @property
    def is_installed(self) -> bool:
        """Whether it can be imported."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def version(self) -> str:
        """Of the installed distribution.

        Raises:
            RecipeError: it is not installed.
        """
        self.require_installed()
        return importlib.metadata.version(self.package)

    def require_installed(self) -> None:
        """Refuse to begin without it.

        Raises:
            RecipeError: it is not installed; names the extra.
        """
        if not self.is_installed:
            raise RecipeError(
                f"runtime {self.name} is a package of its own, {self.package} is not installed. "
                f"Install it with `pip install 'pliant[{self.extra}]'`."
            )

    def require(self, settings: Settings, precision: InferencePrecision) -> None:
        """Refuse what it cannot run.

        Args:
            settings: of the runs.
            precision: of the networks.

        Raises:
            RecipeError: it is not installed, or has no kernels of the precision or no such level of
                optimisation.
        """
        for what, wanted, known in (
            ("precisions", precision, self.precisions),
            ("optimisation levels", settings.optimisation, self.levels),
        ):
            if wanted not in known:
                reason = self.why_not.get(wanted)
                raise RecipeError(
                    f"the {what} of runtime {self.name} are {', '.join(known)}, "
                    f"received {wanted!r}{f': {reason}' if reason else ''}. Choose one of them, "
                    "or another runtime."
                )
        self.require_installed()

    @contextmanager
    def prepared(self, settings: Settings) -> Iterator[None]:
        """What holds for the whole process while its sessions run; undone afterwards."""
        yield

    @abstractmethod
    def open(self, model: bytes, settings: Settings) -> Session:
        """A session with a random input, the same one in every runtime.

        Args:
            model: serialised ONNX model with one input.
            settings: threads, batch and optimisation level.
        """


def example_input(model: bytes, batch: int) -> tuple[str, np.ndarray]:
    """The name of a model's input and a random value for it, always the same one.

    Args:
        model: serialised ONNX model.
        batch: size of every free dimension.

    Returns:
        Pixels from 0 to 1 as float32, or from 0 to 255 as uint8, in the shape of the input.
    """
    source = onnx.load_model_from_string(model).graph.input[0]
    kind = source.type.tensor_type
    shape = [dim.dim_value or batch for dim in kind.shape.dim]
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    if kind.elem_type == TensorProto.UINT8:
        image = (255 * image).astype(np.uint8)
    return source.name, image
