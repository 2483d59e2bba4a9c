"""What is the least time a network can take on a device of which only two numbers are known?

A device computes at most `peak_macs_per_s`, and its memory delivers at most
`bandwidth_bytes_per_s`.
A layer that does few multiply-accumulates per byte waits for memory, one that does many waits for
arithmetic (Williams, Waterman, Patterson: "Roofline: an insightful visual performance model for
multicore architectures", 2009, doi:10.1145/1498765.1498785). Operations are MACs here, so a data
sheet's FLOPs per second count half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pliant.errors import RecipeError
from pliant.workload.layer import NETWORK_INPUT, Layer, Workload

Bound = Literal["compute", "memory"]
"""What a layer waits for."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """The two roofs of a device.

    Args:
        peak_macs_per_s: multiply-accumulates per second when data are always there.
        bandwidth_bytes_per_s: bytes per second between memory and chip.

    Raises:
        RecipeError: a roof that is not positive.
    """

    peak_macs_per_s: float
    bandwidth_bytes_per_s: float

    def __post_init__(self) -> None:
        if not (self.peak_macs_per_s > 0 and self.bandwidth_bytes_per_s > 0):
            raise RecipeError(
                "a roofline has a positive peak and bandwidth, received"
                f" {self.peak_macs_per_s} MACs/s and {self.bandwidth_bytes_per_s} B/s."
            )

    @property
    def ridge_macs_per_byte(self) -> float:
        """The least operational intensity at which the peak can be reached."""
        return self.peak_macs_per_s / self.bandwidth_bytes_per_s

    def attainable_macs_per_s(self, macs_per_byte: float) -> float:
        """The lower of the two roofs at an operational intensity (the paper's formula, section
        3)."""
        return min(self.peak_macs_per_s, self.bandwidth_bytes_per_s * macs_per_byte)

    def bound(self, macs_per_byte: float) -> Bound:
        """What limits work of this operational intensity; `compute` at the ridge itself."""
        return "compute" if macs_per_byte >= self.ridge_macs_per_byte else "memory"

    def least_seconds(self, macs: float, traffic_bytes: float) -> float:
        """Lower bound of the time of work whose arithmetic and traffic overlap perfectly."""
        return max(macs / self.peak_macs_per_s, traffic_bytes / self.bandwidth_bytes_per_s)


@dataclass(frozen=True, slots=True)
class LayerBound:
    """One layer under the roofs."""

    name: str
    macs: int
    traffic_bytes: float
    """Every operand and the result crossing memory once."""
    bound: Bound
    least_seconds: float

    @property
    def macs_per_byte(self) -> float:
        """Operational intensity; 0 for layers that only move data."""
        return self.macs / self.traffic_bytes


def layer_bounds(workload: Workload, roofline: Roofline) -> tuple[LayerBound, ...]:
    """Every layer of a network under the roofs, in running order.

    Args:
        workload: the network.
        roofline: the device.
    """
    found = []
    for layer, traffic in zip(workload.layers, least_traffic_bytes(workload), strict=True):
        bound = roofline.bound(layer.macs / traffic)
        seconds = roofline.least_seconds(layer.macs, traffic)
        found.append(LayerBound(layer.name, layer.macs, traffic, bound, seconds))
    return tuple(found)


def least_seconds(workload: Workload, roofline: Roofline) -> float:
    """Lower bound of the time of a network whose layers run one after another.

    Args:
        workload: the network.
        roofline: the device. Tensors go through memory between layers; a runtime that fuses
            layers beyond BatchNorm and activations may be faster.
    """
    return sum(bound.least_seconds for bound in layer_bounds(workload, roofline))


def least_traffic_bytes(workload: Workload) -> tuple[float, ...]:
    """For each layer the bytes that must cross memory: operands read once, the result written
    once."""
    elements = {NETWORK_INPUT: workload.input_elements}
    elements |= {layer.name: layer.output_elements for layer in workload.layers}
    return tuple(
        (_weights(layer) + _read(layer, elements) + layer.output_elements) * layer.bits / 8
        for layer in workload.layers
    )


def _weights(layer: Layer) -> int:
    """Elements of the operand that every row meets (weights, or the keys of attention) and
    biases."""
    if not layer.weighted:
        # Of a table (an embedding) no more is read than is written.
        return min(layer.parameters, layer.output_elements)
    return layer.G * layer.K * (layer.C * layer.R * layer.S + layer.bias)


def _read(layer: Layer, elements: Mapping[str, int]) -> int:
    """Elements of the inputs that the layer needs: those its loops touch, and no more than
    exist."""
    if layer.kind == "elementwise":
        # An input may be broadcast, or be a part of what its layer wrote.
        return sum(min(elements[name], layer.output_elements) for name in layer.reads)
    rows = _touched(layer.P, layer.R, layer.strides[0], layer.dilations[0])
    columns = _touched(layer.Q, layer.S, layer.strides[1], layer.dilations[1])
    touched = layer.N * layer.G * layer.C * rows * columns
    if not layer.reads:  # Stored numbers.
        return touched
    return min(touched, sum(elements[name] for name in layer.reads))


def _touched(outputs: int, kernel: int, stride: int, dilation: int) -> int:
    """Distinct input positions along one axis, padding among them."""
    return len({out * stride + tap * dilation for out in range(outputs) for tap in range(kernel)})
