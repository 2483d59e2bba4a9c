"""ONNX Runtime, which runs what Pliant delivers."""

from __future__ import annotations

import numpy as np
import onnxruntime

from pliant.devices.runtimes.runtime import Runtime, example_input
from pliant.devices.timings import Settings

LEVELS = {
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
"""Only `all` changes the memory layout of convolutions, which makes them several times as fast."""


def session_options(settings: Settings) -> onnxruntime.SessionOptions:
    """How a model is opened for a measurement."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = LEVELS[settings.optimisation]
    options.log_severity_level = 4  # errors are raised, and printed where they are caught
    # Threads that spin while they wait would count as CPU time and slow down other programs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


class OnnxRuntime(Runtime):
    """The CPU provider of ONNX Runtime."""

    name = "onnxruntime"
    package = "onnxruntime"
    module = "onnxruntime"
    levels = ("basic", "extended", "all")

    def open(self, model: bytes, settings: Settings) -> _Session:
        """A session whose input and output are bound once."""
        return _Session(model, settings)


class _Session:
    def __init__(self, model: bytes, settings: Settings) -> None:
        self._session = onnxruntime.InferenceSession(
            model, session_options(settings), providers=["CPUExecutionProvider"]
        )
        name, image = example_input(model, settings.batch)
        self._binding = self._session.io_binding()
        self._binding.bind_cpu_input(name, image)
        self._binding.bind_output(self._session.get_outputs()[0].name)

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def output(self) -> np.ndarray:
        found: np.ndarray = self._binding.copy_outputs_to_cpu()[0]
        return found
