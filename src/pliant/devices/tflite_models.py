"""ONNX models of this package as TFLite models, by LiteRT's converter where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from pliant.devices.runtimes.resizing import resize_by_products
from pliant.devices.runtimes.runtime import example_input
from pliant.metrics import InferencePrecision


def converter(precision: InferencePrecision) -> Callable[[bytes, int], bytes] | None:
    """A function from an ONNX model and a batch to a TFLite model.

    None where litert-torch is not installed, and for int8: it would write float operators.
    """
    if precision != "fp32" or importlib.util.find_spec("litert_torch") is None:
        return None
    return _converted


def _converted(model: bytes, batch: int) -> bytes:
    import torch

    from pliant.networks.onnx_module import OnnxModule

    library: Any = importlib.import_module("litert_torch")
    graph = resize_by_products(onnx.load_model_from_string(model))
    image = torch.from_numpy(example_input(model, batch)[1])
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # the converter's own
        path = Path(folder) / "model.tflite"
        library.convert(OnnxModule(graph).eval(), (image,)).export(str(path))
        return path.read_bytes()
