"""Checkpoints of a training run: one safetensors file a checkpoint, replaced atomically, the last two kept.

A file holds the model (`model.`), the optimiser's momentum (`momentum.`) and a schedule's teacher (`teacher.`), with the step
in its header. Nothing random is stored: it follows from seed and step.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pliant.errors import DamagedFileError
from pliant.files import replace_atomically


class Checkpoints:
    """The checkpoints in one folder.

    Args:
        folder: made where it does not exist.
        seconds: least time between two that are not the last.
    """

    def __init__(self, folder: Path, *, seconds: float = 20.0) -> None:
        self.folder = folder
        self.seconds = seconds
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for the next one."""
        return time.monotonic() - self._saved >= self.seconds

    def files(self) -> list[Path]:
        """Existing checkpoints, the newest last."""
        return sorted(self.folder.glob("checkpoint-*.safetensors"))

    def save(
        self,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        teacher: dict[str, Tensor],
    ) -> None:
        """Write the state after `step` steps, then remove all but the last two."""
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        for parameter, state in optimizer.state.items():
            tensors[f"momentum.{names[id(parameter)]}"] = state["momentum_buffer"]
        tensors |= {f"teacher.{name}": tensor for name, tensor in teacher.items()}
        save_tensors(
            self.folder / f"checkpoint-{step:09d}.safetensors", tensors, {"step": str(step)}
        )
        for old in self.files()[:-2]:
            old.unlink()
        self._saved = time.monotonic()

    def load(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[int, dict[str, Tensor]]:
        """Restore the newest one; its step and its teacher. 0 and nothing where there is none.

        Raises:
            DamagedFileError: the newest file cannot be read, is no checkpoint, or belongs to another network. No file is touched.
        """
        files = self.files()
        if not files:
            return 0, {}
        tensors, metadata = load_tensors(files[-1])
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "momentum": {}, "teacher": {}}
        try:
            step = int(metadata["step"])
            for name, tensor in tensors.items():
                part, _, rest = name.partition(".")
                parts[part][rest] = tensor
        except (KeyError, ValueError) as error:
            raise DamagedFileError(
                f"{files[-1]} is not a checkpoint of a training run ({error}). Move it away."
            ) from error
        try:
            model.load_state_dict(parts["model"])
        except RuntimeError as error:
            raise DamagedFileError(
                f"checkpoint {files[-1]} does not fit this network: {error}. Use another run directory."
            ) from error
        for name, parameter in model.named_parameters():
            if name in parts["momentum"]:
                optimizer.state[parameter]["momentum_buffer"] = parts["momentum"][name].to(
                    parameter.device
                )
        return step, parts["teacher"]


def save_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file beside its place and move it there, so that the place never holds half a file."""
    whole = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    replace_atomically(path, lambda partial: save_file(whole, partial, metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the header of a safetensors file.

    Raises:
        DamagedFileError: the file cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise DamagedFileError(
            f"{path} cannot be read ({error}). The run's other files are whole: remove this one, and the run goes on from them."
        ) from error
