"""OpenVINO, for processors of Intel and others with AVX2 or Arm's Neon."""

from __future__ import annotations

import importlib
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from pliant.devices.runtimes.resizing import resize_by_products
from pliant.devices.runtimes.runtime import Runtime, example_input
from pliant.devices.timings import Settings


class OpenVino(Runtime):
    """The CPU device of OpenVINO; its low-precision kernels run the int8 networks of Pliant."""

    name = "openvino"
    package = "openvino"
    module = "openvino"
    extra = "openvino"
    networks = 100  # its blocks do not add up to networks

    @cached_property
    def _library(self) -> Any:
        self.require_installed()
        return importlib.import_module("openvino")

    @cached_property
    def _core(self) -> Any:
        return self._library.Core()

    def open(self, model: bytes, settings: Settings) -> _Session:
        """A request of one stream, which computes in the calling thread."""
        name, image = example_input(model, settings.batch)
        resizing = resize_by_products(onnx.load_model_from_string(model))
        graph = self._core.read_model(resizing.SerializeToString())
        graph.reshape({name: list(image.shape)})
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": settings.threads,
            # Processors with bfloat16 would otherwise run float networks in it.
            "INFERENCE_PRECISION_HINT": "f32",
            # The measurement pins the process.
            "ENABLE_CPU_PINNING": False,
        }
        request = self._core.compile_model(graph, "CPU", options).create_infer_request()
        request.set_input_tensor(0, self._library.Tensor(image, shared_memory=True))
        return _Session(request, image)


class _Session:
    def __init__(self, request: Any, image: np.ndarray) -> None:
        self._request = request
        self._image = image  # the request reads its memory and does not keep it alive

    def run(self) -> None:
        self._request.infer()

    def output(self) -> np.ndarray:
        return np.array(self._request.get_output_tensor(0).data)
