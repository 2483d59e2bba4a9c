"""Networks as loop nests, without PyTorch: layers, and what they cost by arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pliant.lazy import lazy_names

if TYPE_CHECKING:
    from pliant.workload.layer import NETWORK_INPUT as NETWORK_INPUT
    from pliant.workload.layer import Activation as Activation
    from pliant.workload.layer import Kind as Kind
    from pliant.workload.layer import Layer as Layer
    from pliant.workload.layer import Operation as Operation
    from pliant.workload.layer import Workload as Workload
    from pliant.workload.layer import gates as gates
    from pliant.workload.layer import lifetimes as lifetimes
    from pliant.workload.layer import peak_activation_bytes as peak_activation_bytes
    from pliant.workload.layer import with_bits as with_bits
    from pliant.workload.onnx_reader import onnx_workload as onnx_workload
    from pliant.workload.roofline import LayerBound as LayerBound
    from pliant.workload.roofline import Roofline as Roofline
    from pliant.workload.roofline import layer_bounds as layer_bounds
    from pliant.workload.roofline import least_seconds as least_seconds
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "layer": [
                "NETWORK_INPUT",
                "Activation",
                "Kind",
                "Layer",
                "Operation",
                "Workload",
                "gates",
                "lifetimes",
                "peak_activation_bytes",
                "with_bits",
            ],
            "onnx_reader": ["onnx_workload"],
            "roofline": ["LayerBound", "Roofline", "layer_bounds", "least_seconds"],
        },
    )
