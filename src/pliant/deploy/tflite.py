"""model.tflite beside model.onnx: for LiteRT on phones and boards, verified against ONNX Runtime.

LiteRT's converter is the optional extra `pliant[tflite]`. The file has one picture per run, uint8
(1, size, size, channels), and gives the same probabilities.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.deploy.classifier import Classifier
from pliant.deploy.package import MODEL
from pliant.errors import RecipeError, VerificationError
from pliant.files import replace_atomically
from pliant.networks import plain

TFLITE_MODEL = "model.tflite"
TOLERANCE = 1e-4
"""Maximum difference of probabilities to ONNX Runtime."""
COMPARED_PICTURES = 8


def require_converter() -> None:
    """Refuse to begin without the converter.

    Raises:
        RecipeError: it is not installed; names the extra.
    """
    if importlib.util.find_spec("litert_torch") is None:
        raise RecipeError(
            "model.tflite is written by LiteRT's converter, litert-torch is not installed. Install"
            " it with `pip install 'pliant[tflite]'`."
        )


class FromPictures(nn.Module):
    """A network from pictures to probabilities, of operators that the converter knows.

    Args:
        network: calibrated; its first block is the preprocessing.
    """

    resizing: Tensor

    def __init__(self, network: plain.Network) -> None:
        super().__init__()
        first, *rest = network.blocks.values()
        assert isinstance(first, plain.Preprocess)
        self.first, self.rest = first, nn.Sequential(*rest)
        lines = torch.eye(first.size)[None, None]
        size = (first.resolution, first.size)
        resized = F.interpolate(lines, size=size, mode="bilinear", antialias=True)
        self.register_buffer("resizing", resized[0, 0])

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 (N, size, size, channels) to (N, classes)."""
        first = self.first
        images = pictures.permute(0, 3, 1, 2).float() / 255
        images = (images - first.mean[:, None, None]) / first.std[:, None, None]
        if first.size != first.resolution:  # an antialiased resizing is linear in rows and columns
            images = self.resizing @ images @ self.resizing.T
        return self.rest(plain.add_flipped(images, first.views)).softmax(1)


def write_tflite(folder: Path, network: plain.Network) -> float:
    """Write model.tflite beside model.onnx.

    Args:
        folder: with model.onnx.
        network: calibrated.

    Returns:
        The largest difference of probabilities to model.onnx, on random pictures.

    Raises:
        RecipeError: the converter is not installed.
        VerificationError: the two files differ by more than the tolerance.
    """
    require_converter()
    converter: Any = importlib.import_module("litert_torch")
    interpreter: Any = importlib.import_module("ai_edge_litert.interpreter")
    reference = Classifier(folder / MODEL)
    shape = (1, reference.size, reference.size, len(reference.mode))
    module = FromPictures(network.cpu()).eval()
    converted = converter.convert(module, (torch.zeros(shape, dtype=torch.uint8),))
    path = folder / TFLITE_MODEL
    replace_atomically(path, lambda partial: converted.export(str(partial)))
    runner = interpreter.Interpreter(model_path=str(path))
    runner.allocate_tensors()
    [source], [target] = runner.get_input_details(), runner.get_output_details()
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(COMPARED_PICTURES):
        picture = rng.integers(0, 256, shape, np.uint8)
        runner.set_tensor(source["index"], picture)
        runner.invoke()
        found = runner.get_tensor(target["index"])
        worst = max(worst, float(np.abs(found - reference.probabilities(picture)).max()))
    if not worst <= TOLERANCE:
        raise VerificationError(
            f"model.tflite gives the probabilities of model.onnx to {TOLERANCE:g}; it differs by"
            f" {worst:.2e} in {folder}. Use model.onnx, and please report it."
        )
    return worst
