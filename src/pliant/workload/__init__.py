"""Networks as loop nests, without PyTorch: layers, and what they cost by arithmetic."""

from pliant.workload.layer import (
    NETWORK_INPUT,
    Activation,
    Kind,
    Layer,
    Operation,
    Workload,
    gates,
    peak_activation_bytes,
)

__all__ = [
    "NETWORK_INPUT",
    "Activation",
    "Kind",
    "Layer",
    "Operation",
    "Workload",
    "gates",
    "peak_activation_bytes",
]
