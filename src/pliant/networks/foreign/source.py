"""The network of a user by its name: `file.py:NAME`, a function or class, or `timm:NAME`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from pliant.errors import ForeignError
from pliant.plugins import call_plugin

TIMM = "timm:"
NAMED = 3
"""Tensors that an error names."""


def foreign_module(name: str, weights: Path | None = None) -> nn.Module:
    """A network in evaluation mode.

    Args:
        name: `file.py:NAME`, which is called without arguments, or `timm:NAME`.
        weights: a .safetensors file of the network's state; where None the network has its own, and
            those of timm are its pretrained ones.

    Raises:
        ForeignError: it is no network, timm or its weights are not there, or the weights of the
            file are those of another network.
        RecipeError: the file ends in an error.
    """
    if name.startswith(TIMM):
        module = _of_timm(name.removeprefix(TIMM), pretrained=weights is None)
    else:
        module = call_plugin(name, what="a network")
    if not isinstance(module, nn.Module):
        raise ForeignError(
            f"a network is a torch.nn.Module, {name} gives a {type(module).__name__}. Name a"
            " function or a class that returns one without arguments."
        )
    if weights is not None:
        _load(module, weights)
    return module.eval()


def _of_timm(name: str, *, pretrained: bool) -> nn.Module:
    try:
        import timm
    except Exception as error:  # a torchvision for another PyTorch ends in a RuntimeError
        version = torch.__version__.partition("+")[0]
        raise ForeignError(
            f"timm:{name} needs timm, which needs torchvision; here its import ended in: {error}."
            f" Install both for this PyTorch: `pip install timm torchvision torch=={version}`."
        ) from error
    try:
        module: nn.Module = timm.create_model(name, pretrained=pretrained)
    except Exception as error:  # of a name, of a missing file, of the network
        reason = str(error).strip().splitlines()[0][:200]
        raise ForeignError(
            f"timm gives no network {name!r} with weights: {type(error).__name__}: {reason}. Name"
            " one of timm.list_models(pretrained=True), or give its weights as a .safetensors file"
            " to a function of your own, file.py:NAME."
        ) from error
    return module


def _load(module: nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ForeignError(
            f"weights are a .safetensors file, {path} cannot be read: {error}."
        ) from error
    expected = module.state_dict()
    wrong = [f"{name} is missing there" for name in expected if name not in found]
    wrong += [f"{name} is unknown here" for name in found if name not in expected]
    for name, tensor in found.items():
        if name in expected and tensor.shape != expected[name].shape:
            here, there = tuple(expected[name].shape), tuple(tensor.shape)
            wrong.append(f"{name} is {there} there and {here} here")
    wrong = [one for one in wrong if not one.startswith(tuple(_optional(expected)))]
    if wrong:
        more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise ForeignError(
            f"weights are those of the network; {path} differs in {len(wrong)} tensors:"
            f" {'; '.join(wrong[:NAMED])}{more}. Give the file of this network."
        )
    module.load_state_dict(found, strict=False)


def _optional(state: dict[str, Tensor]) -> list[str]:
    """Counters, which files of other programs leave out."""
    return [f"{name} " for name in state if name.endswith("num_batches_tracked")]


def module_digest(module: nn.Module) -> str:
    """Equal for networks with equal weights, 12 hexadecimal digits."""
    found = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        found.update(name.encode())
        found.update(
            tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return found.hexdigest()[:12]
