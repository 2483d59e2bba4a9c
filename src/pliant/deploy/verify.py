"""Verifies that the exported files are the network that the search chose, by outputs and accuracy.

Four programs must agree: the supernet running the architecture, the extracted network, `model.py`
in a subprocess without Pliant, and `model.onnx` in ONNX Runtime.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from pliant.accuracy.calibration import fitting_batch
from pliant.accuracy.evaluation import pixels, top1
from pliant.child import run_python
from pliant.data.splits import Split
from pliant.errors import VerificationError
from pliant.networks.plain import Network
from pliant.networks.statistics import BATCH_NORMS
from pliant.networks.supernet import Supernet
from pliant.spaces.architecture import Architecture

SUPERNET_TOLERANCE = 1e-5
"""Maximum difference of logits, relative to the largest, between extracted network and supernet."""
ONNX_TOLERANCE = 1e-4
"""The same for ONNX Runtime against PyTorch, where BatchNorm is folded and sums are reordered."""
ACCURACY_TOLERANCE = 2e-3
"""Largest difference of top-1 accuracies of a network and its export, of 1."""

_RUN_ALONE = """
import importlib.util, sys
import torch
from safetensors.torch import load_file, save_file
folder, source, target = sys.argv[1:]
spec = importlib.util.spec_from_file_location("model", folder + "/model.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
assert "pliant" not in sys.modules
with torch.no_grad():
    save_file({"logits": module.load()(load_file(source)["images"])}, target)
"""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Largest relative differences of logits between the four programs."""

    supernet: float
    model_py: float
    onnx: float


def relative_difference(one: Tensor, other: Tensor) -> float:
    """Largest absolute difference over the largest absolute value."""
    return float((one - other).abs().max() / one.abs().max().clamp_min(1e-12))


@torch.no_grad()
def verify_outputs(
    folder: Path, supernet: Supernet, network: Network, architecture: Architecture, images: Tensor
) -> Agreement:
    """Compare the four programs on the same images.

    Args:
        folder: with model.onnx, model.safetensors and model.py.
        network: extracted and calibrated.
        images: uint8 (N, channels, size, size), at least 2.

    Raises:
        VerificationError: two programs differ by more than the tolerance.
    """
    pictures, images = images.cpu().numpy(), pixels(images.cpu()).contiguous()
    network = copy.deepcopy(network).cpu().eval()
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    expected = network(images)
    found = Agreement(
        supernet=_difference_to_supernet(supernet, network, architecture, images),
        model_py=relative_difference(expected, run_model_py(folder, images)),
        onnx=relative_difference(
            expected, torch.from_numpy(run_onnx(folder / "model.onnx", pictures))
        ),
    )
    for name, value, tolerance in (
        ("the supernet", found.supernet, SUPERNET_TOLERANCE),
        ("model.py", found.model_py, SUPERNET_TOLERANCE),
        ("ONNX Runtime", found.onnx, ONNX_TOLERANCE),
    ):
        if not value <= tolerance:
            raise VerificationError(
                f"a delivered network gives the supernet's outputs to {tolerance:g}; {name} "
                f"differs by {value:.2e} in {folder}. "
                "Deliver it again; if it stays so, please report it."
            )
    return found


def _difference_to_supernet(
    supernet: Supernet, network: Network, architecture: Architecture, images: Tensor
) -> float:
    """In double precision on the CPU, so that rounding of different kernels does not matter."""
    by_batch = copy.deepcopy(network).double()
    for module in by_batch.modules():
        # By batch statistics, as the supernet computes.
        module.training = isinstance(module, BATCH_NORMS)
    shared = copy.deepcopy(supernet).cpu().double().eval()
    return relative_difference(by_batch(images.double()), shared(images.double(), architecture))


def run_onnx(
    path: Path, images: np.ndarray, *, threads: int = 1, batch_size: int | None = None
) -> np.ndarray:
    """Logits of a delivered ONNX model.

    Args:
        path: of the file.
        images: uint8 (N, channels, size, size).
        threads: of ONNX Runtime.
        batch_size: of one run; 500 for images of up to 32 pixels where None.

    Raises:
        VerificationError: the file is not an ONNX model.
    """
    model = path.read_bytes()
    try:
        onnx.checker.check_model(model)
    except (ValueError, onnx.checker.ValidationError) as error:
        raise VerificationError(
            f"{path} is an ONNX model; it cannot be read as one: {error}. Deliver it again."
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    pictures = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    batch_size = batch_size or fitting_batch(images.shape[-1], 500)
    parts = [
        session.run(["logits"], {"pictures": pictures[start : start + batch_size]})[0]
        for start in range(0, len(pictures), batch_size)
    ]
    return np.concatenate(parts)


def run_model_py(folder: Path, images: Tensor) -> Tensor:
    """Logits of model.py in a fresh Python process that does not import Pliant.

    Raises:
        VerificationError: the process ends with an error.
    """
    import tempfile

    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "images.safetensors", Path(scratch) / "logits.safetensors"
        save_file({"images": images.contiguous()}, source)
        done = run_python(_RUN_ALONE, str(folder.absolute()), str(source), str(target))
        if done.returncode:
            raise VerificationError(
                f"model.py in {folder} runs on its own; it ended with: "
                f"{done.stderr.strip().splitlines()[-1:]}"
            )
        return load_file(target)["logits"]


def onnx_top1(path: Path, split: Split, *, batch_size: int = 1000) -> float:
    """Share of a split's images that the ONNX model labels right."""
    right = 0
    for start in range(0, len(split), batch_size):
        images, labels = split.batch(np.arange(start, min(start + batch_size, len(split))))
        logits = run_onnx(path, images.numpy())
        right += int((logits.argmax(1) == labels.numpy()).sum())
    return right / len(split)


def verify_accuracy(folder: Path, network: Network, split: Split) -> tuple[float, float]:
    """Top-1 of the network in PyTorch and of its ONNX file on the same images.

    Raises:
        VerificationError: they differ by more than `accuracy_tolerance`.
    """
    ours, theirs = top1(network.cpu(), split).top1, onnx_top1(folder / "model.onnx", split)
    if not equally_accurate(ours, theirs, len(split)):
        raise VerificationError(
            "the exported network is as accurate as its source, to "
            f"{accuracy_tolerance(len(split)):.2%}; ONNX Runtime gives {theirs:.2%}, PyTorch "
            f"{ours:.2%} of {len(split)} images in {folder}. Deliver it again; if it stays so, "
            "please report it."
        )
    return ours, theirs


def accuracy_tolerance(images: int) -> float:
    """Difference of top-1 accuracies that rounding explains: at least one image.

    Rounding may change the answer for an image whose two best classes are equally probable.

    Args:
        images: number of them behind the accuracies.
    """
    return max(ACCURACY_TOLERANCE, 1 / images)


def equally_accurate(one: float, other: float, images: int) -> bool:
    """Whether two top-1 accuracies on the same images differ by rounding at most."""
    return abs(one - other) <= accuracy_tolerance(images) + 1e-9  # 0.3 - 0.2 is not quite 0.1
