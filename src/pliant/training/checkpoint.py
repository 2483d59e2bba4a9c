"""Checkpoints of a training run: one safetensors file each, replaced atomically, the last two kept.

A file holds the model (`model.`), the state of each optimizer (`NAME/KEY.`, such as
`weights/momentum_buffer.`) and a strategy's own tensors (`strategy.`), with the step in its header.
Nothing random is stored: it follows from seed and step. Every file that is written here has a
SHA-256 of its content in its header, which is verified when it is read.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from pliant.errors import DamagedFileError
from pliant.files import replace_atomically


class Checkpoints:
    """The checkpoints in one folder.

    Args:
        folder: made where it does not exist.
        seconds: least time between two that are not the last.
    """

    def __init__(self, folder: str | Path, *, seconds: float = 20.0) -> None:
        self.folder = Path(folder)
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
        optimizers: Mapping[str, Optimizer],
        strategy: Mapping[str, Tensor],
    ) -> None:
        """Write the state after `step` steps, then remove all but the last two.

        Args:
            step: number of steps done.
            model: its parameters name those of the optimizers.
            optimizers: by name; every tensor of their state is kept.
            strategy: tensors of the strategy.
        """
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        for own_name, optimizer in optimizers.items():
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    if value is not None:
                        tensors[f"{own_name}/{key}.{names[id(parameter)]}"] = torch.as_tensor(value)
        tensors |= {f"strategy.{name}": tensor for name, tensor in strategy.items()}
        path = self.folder / f"checkpoint-{step:09d}.safetensors"
        save_tensors(path, tensors, {"step": str(step)})
        for old in self.files()[:-2]:
            old.unlink()
        self._saved = time.monotonic()

    def load(
        self, model: nn.Module, optimizers: Mapping[str, Optimizer]
    ) -> tuple[int, dict[str, Tensor]]:
        """Restore the newest one; its step and the strategy's tensors. 0 and nothing if none.

        Raises:
            DamagedFileError: the newest file cannot be read, is no checkpoint, or belongs to
                another network or strategy. No file is touched.
        """
        files = self.files()
        if not files:
            return 0, {}
        tensors, metadata = load_tensors(files[-1], require_digest=True)
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "strategy": {}}
        try:
            step = int(metadata["step"])
            if not any(name.startswith("model.") for name in tensors):
                raise ValueError("it holds no model")
        except (KeyError, ValueError) as error:
            raise DamagedFileError(
                f"{files[-1]} is not a checkpoint of a training run ({error}). Move it away."
            ) from error
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = tensor
        try:
            model.load_state_dict(parts.pop("model"))
        except RuntimeError as error:
            raise DamagedFileError(
                f"checkpoint {files[-1]} does not fit this network: {error}. "
                "Use another run directory."
            ) from error
        strategy = parts.pop("strategy")
        parameters = dict(model.named_parameters())
        for part, found in parts.items():
            own_name, _, key = part.partition("/")
            if own_name not in optimizers or not found.keys() <= parameters.keys():
                raise DamagedFileError(
                    f"checkpoint {files[-1]} holds {part!r}, which this strategy has not. "
                    "Use another run directory."
                )
            for name, tensor in found.items():
                # Counters have no dimension and stay on the CPU, as PyTorch's optimizers keep them.
                device = parameters[name].device if tensor.ndim else "cpu"
                optimizers[own_name].state[parameters[name]][key] = tensor.to(device)
        return step, strategy


DIGEST = "sha256"
"""Key of the header under which a file keeps the digest of its content."""


def save_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file atomically, with its digest in the header."""
    whole = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    header = dict(metadata or {})
    header |= {DIGEST: tensors_digest(whole, header)}
    replace_atomically(path, lambda partial: save_file(whole, partial, header))


def load_tensors(
    path: Path, *, require_digest: bool = False
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the header of a safetensors file, verified where its header has a digest.

    Args:
        path: of the file.
        require_digest: whether `save_tensors` wrote it, so that it must have one.

    Raises:
        DamagedFileError: the file cannot be read, or is not what was written.
    """
    intact = "The run's other files are intact: remove this one, and the run resumes from them."
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedFileError(f"{path} cannot be read ({error}). {intact}") from error
    stated = metadata.pop(DIGEST, None)
    if stated != tensors_digest(tensors, metadata) and (require_digest or stated is not None):
        raise DamagedFileError(f"{path} is not what was written: its checksum differs. {intact}")
    return tensors, metadata


def tensors_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of names, types, shapes and bytes of the tensors, and of the header's other keys."""
    digest = hashlib.sha256(repr(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
