"""LiteRT (TensorFlow Lite), the runtime of phones; networks are converted from ONNX first.

The interpreter is the extra `pliant[litert]`, the converter `pliant[tflite]`. Converting takes half
a minute per network, so whole networks are measured only.
"""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx

from pliant.devices.runtimes.resizing import resize_by_products
from pliant.devices.runtimes.runtime import Runtime, example_input
from pliant.devices.timings import Settings
from pliant.errors import RecipeError


class LiteRt(Runtime):
    """The interpreter on this CPU, with XNNPACK."""

    name = "litert"
    package = "ai-edge-litert"
    module = "ai_edge_litert"
    extra = "litert"
    precisions = ("fp32",)
    why_not: ClassVar = {
        "int8": "its networks come from the converter litert-torch, which writes float operators"
    }
    times_blocks = False

    @property
    def is_installed(self) -> bool:
        """Whether interpreter and converter can be imported."""
        return super().is_installed and has_converter()

    def require_installed(self) -> None:
        """Refuse to begin without the interpreter or the converter.

        Raises:
            RecipeError: one of them is not installed; names its extra.
        """
        if super().is_installed and not has_converter():
            raise RecipeError(
                "runtime litert runs converted networks, the converter litert-torch is not "
                "installed. Install it with `pip install 'pliant[tflite]'`, or measure a bundle."
            )
        super().require_installed()

    def open(self, model: bytes, settings: Settings) -> _Session:
        """An interpreter of the converted model."""
        content = to_tflite(model, settings.batch)
        library: Any = importlib.import_module("ai_edge_litert.interpreter")
        interpreter = library.Interpreter(model_content=content, num_threads=settings.threads)
        return _Session(interpreter, example_input(model, settings.batch)[1], content)


class _Session:
    def __init__(self, interpreter: Any, image: np.ndarray, content: bytes) -> None:
        self._content = content  # the interpreter reads it and may not keep it alive
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        self._output = interpreter.get_output_details()[0]["index"]
        self._interpreter = interpreter

    def run(self) -> None:
        self._interpreter.invoke()

    def output(self) -> np.ndarray:
        found: np.ndarray = self._interpreter.get_tensor(self._output)
        return found


def has_converter() -> bool:
    """Whether ONNX models can be converted here."""
    return importlib.util.find_spec("litert_torch") is not None


def to_tflite(model: bytes, batch: int) -> bytes:
    """An ONNX model of this package, in float, as a TFLite model.

    Args:
        model: as `pliant.networks.onnx` writes it.
        batch: size of every free dimension.
    """
    import torch

    from pliant.networks.onnx_module import OnnxModule

    library: Any = importlib.import_module("litert_torch")
    graph = resize_by_products(onnx.load_model_from_string(model))
    module: Any = OnnxModule(graph)
    if graph.graph.output[0].name == "probabilities":  # of the module, the result is the logits
        module = torch.nn.Sequential(module, torch.nn.Softmax(1))
    image = torch.from_numpy(example_input(model, batch)[1])
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # the converter's own
        path = Path(folder) / "model.tflite"
        library.convert(module.eval(), (image,)).export(str(path))
        return path.read_bytes()
