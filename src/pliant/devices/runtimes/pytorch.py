"""PyTorch on this CPU, eager and compiled, for those who deploy their training framework.

The network is the graph that is delivered, with every BatchNorm folded, as a PyTorch module in
channels-last layout. int8 graphs are refused: here PyTorch would only simulate them in float.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import onnx

from pliant.devices.runtimes.runtime import Runtime, example_input
from pliant.devices.timings import Settings

if TYPE_CHECKING:
    from torch import Tensor


class EagerPyTorch(Runtime):
    """Operator by operator, as `module(images)` runs."""

    name = "pytorch"
    package = "torch"
    module = "torch"
    precisions = ("fp32",)
    networks = 100  # its blocks do not add up to networks

    @contextmanager
    def prepared(self, settings: Settings) -> Iterator[None]:
        """The threads of PyTorch, which are one number for the whole process."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(settings.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def open(self, model: bytes, settings: Settings) -> _Session:
        """A module without gradients."""
        import torch

        from pliant.networks.onnx_module import OnnxModule

        graph = onnx.load_model_from_string(model)
        module = self._callable(OnnxModule(graph).eval())
        image = torch.from_numpy(example_input(model, settings.batch)[1])
        return _Session(module, image, graph.graph.output[0].name)

    def _callable(self, module: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return module


class CompiledPyTorch(EagerPyTorch):
    """`torch.compile` with its default backend, which needs a C++ compiler."""

    name = "pytorch-compiled"
    times_blocks = False
    networks = Runtime.networks  # each takes seconds to compile

    def _callable(self, module: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        import torch

        torch.compiler.reset()  # else graphs of many networks exceed the limit of recompilations
        compiled: Callable[[Tensor], Tensor] = torch.compile(module, dynamic=False)
        return compiled


class _Session:
    def __init__(
        self, forward: Callable[[Tensor], Tensor], image: Tensor, output_name: str
    ) -> None:
        import torch

        self._forward, self._image, self._output_name = forward, image, output_name
        self._inference = torch.inference_mode
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's own, about its imports
            self.run()

    def run(self) -> None:
        with self._inference():
            self._result = self._forward(self._image)

    def output(self) -> np.ndarray:
        is_classifier = self._output_name == "probabilities"  # the module returns its logits
        result = self._result.softmax(1) if is_classifier else self._result
        found: np.ndarray = result.numpy()
        return found
