"""What is the least time that a network can take on a device, and what does each layer wait for?

A device computes at most `peak_macs_per_s`, and its memory delivers at most
`bandwidth_bytes_per_s`.
A layer that does few multiply-accumulates per byte waits for memory, one that does many waits for
arithmetic (Williams, Waterman, Patterson: "Roofline: an insightful visual performance model for
multicore architectures", 2009, doi:10.1145/1498765.1498785). Operations are MACs here, so a data
sheet's FLOPs per second count half.

Caches have bandwidths of their own (Ilic, Pratas, Sousa: "Cache-aware roofline model: upgrading
the loft", IEEE Computer Architecture Letters, 2014, doi:10.1109/L-CA.2013.6). A layer whose tensors
fit into a cache stands under the roof of that cache: at batch 1 those of mobile networks do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pliant.errors import RecipeError
from pliant.workload.layer import NETWORK_INPUT, Layer, Workload

Bound = Literal["compute", "memory"]
"""What a layer waits for."""

MEMORY = "memory"
"""Name of the last level of the hierarchy, which holds everything."""

NAMED_LAYERS = 3
"""Layers that an explanation names."""

FUSED = "fused"
"""In place of the time of a layer that the kernel of another layer includes."""

SHARED = "shared"
"""In place of the time of a layer that ran in one kernel with the layers above, as in an LSTM."""


@dataclass(frozen=True, slots=True)
class MemoryLevel:
    """One level of the memory hierarchy.

    Args:
        name: as L2, or `MEMORY`.
        capacity_bytes: the largest working set that it holds.
        bandwidth_bytes_per_s: reads and writes together.

    Raises:
        RecipeError: a number that is not positive.
    """

    name: str
    capacity_bytes: float
    bandwidth_bytes_per_s: float

    def __post_init__(self) -> None:
        if not (self.capacity_bytes > 0 and self.bandwidth_bytes_per_s > 0):
            raise RecipeError(
                "a level of memory has a positive capacity and bandwidth, received"
                f" {self.capacity_bytes} bytes and {self.bandwidth_bytes_per_s} B/s for"
                f" {self.name!r}."
            )


@dataclass(frozen=True, slots=True)
class Roofline:
    """The roofs of a device for one precision.

    Args:
        peak_macs_per_s: multiply-accumulates per second when data are always there.
        bandwidth_bytes_per_s: bytes per second between memory and chip.
        caches: smallest first; none where a data sheet states only the memory.

    Raises:
        RecipeError: a roof that is not positive, or caches that do not grow.
    """

    peak_macs_per_s: float
    bandwidth_bytes_per_s: float
    caches: tuple[MemoryLevel, ...] = ()

    def __post_init__(self) -> None:
        if not (self.peak_macs_per_s > 0 and self.bandwidth_bytes_per_s > 0):
            raise RecipeError(
                "a roofline has a positive peak and bandwidth, received"
                f" {self.peak_macs_per_s} MACs/s and {self.bandwidth_bytes_per_s} B/s."
            )
        capacities = [cache.capacity_bytes for cache in self.caches]
        if sorted(set(capacities)) != capacities:
            raise RecipeError(
                "the caches of a roofline are in order, smallest first, received capacities of"
                f" {capacities} bytes."
            )

    @property
    def levels(self) -> tuple[MemoryLevel, ...]:
        """The caches, then the memory."""
        return *self.caches, MemoryLevel(MEMORY, math.inf, self.bandwidth_bytes_per_s)

    def level(self, working_set_bytes: float) -> MemoryLevel:
        """The first level that holds so many bytes."""
        return next(one for one in self.levels if working_set_bytes <= one.capacity_bytes)

    @property
    def ridge_macs_per_byte(self) -> float:
        """The least operational intensity at which the peak can be reached from memory."""
        return self.peak_macs_per_s / self.bandwidth_bytes_per_s

    def attainable_macs_per_s(
        self, macs_per_byte: float, working_set_bytes: float = math.inf
    ) -> float:
        """The lower of the two roofs at an operational intensity (the paper's formula, section
        3).

        Args:
            macs_per_byte: multiply-accumulates per byte of traffic.
            working_set_bytes: decides the level of memory; the last one where left out.
        """
        bandwidth = self.level(working_set_bytes).bandwidth_bytes_per_s
        return min(self.peak_macs_per_s, bandwidth * macs_per_byte)

    def bound(self, macs_per_byte: float, working_set_bytes: float = math.inf) -> Bound:
        """What limits work of this operational intensity; `compute` at the ridge itself."""
        bandwidth = self.level(working_set_bytes).bandwidth_bytes_per_s
        return "compute" if macs_per_byte >= self.peak_macs_per_s / bandwidth else "memory"

    def least_seconds(
        self, macs: float, traffic_bytes: float, working_set_bytes: float = math.inf
    ) -> float:
        """Lower bound of the time of work whose arithmetic and traffic overlap perfectly."""
        bandwidth = self.level(working_set_bytes).bandwidth_bytes_per_s
        return max(macs / self.peak_macs_per_s, traffic_bytes / bandwidth)


@dataclass(frozen=True, slots=True)
class LayerBound:
    """One layer under the roofs."""

    name: str
    macs: int
    traffic_bytes: float
    """Every operand and the result crossing memory once; it is also the working set."""
    level: str
    """The level of memory whose roof counts."""
    bound: Bound
    compute_seconds: float
    """What the arithmetic alone takes at the peak."""
    memory_seconds: float
    """What the traffic alone takes at the bandwidth of the level."""

    @property
    def least_seconds(self) -> float:
        """Lower bound of the layer's time."""
        return max(self.compute_seconds, self.memory_seconds)

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
        level = roofline.level(traffic)
        bound = LayerBound(
            layer.name,
            layer.macs,
            traffic,
            level.name,
            roofline.bound(layer.macs / traffic, traffic),
            compute_seconds=layer.macs / roofline.peak_macs_per_s,
            memory_seconds=traffic / level.bandwidth_bytes_per_s,
        )
        found.append(bound)
    return tuple(found)


def least_seconds(workload: Workload, roofline: Roofline) -> float:
    """Lower bound of the time of a network whose layers run one after another.

    Args:
        workload: the network.
        roofline: the device. Tensors go through memory between layers; a runtime that fuses
            layers beyond BatchNorm and activations may be faster.
    """
    return sum(bound.least_seconds for bound in layer_bounds(workload, roofline))


@dataclass(frozen=True, slots=True)
class NetworkRoofline:
    """A network under the roofs of a device, with the times of its layers where there are any.

    Args:
        name: of the network.
        layers: under the roofs, in running order.
        achieved_seconds: time of each layer on the device; None where it is not known, as of
            a layer that the runtime fused into another one. Empty where nothing was timed.
        runtime_seconds: time that belongs to no layer, by operator: what the runtime adds of its
            own.
        row_of: of layers that ran in one kernel with earlier ones, the layer that has the time of
            all of them.
        widened: how many layers the runtime computes with more bits than the file has; they are
            under the roofs of what it computes.
    """

    name: str
    layers: tuple[LayerBound, ...]
    achieved_seconds: tuple[float | None, ...] = ()
    runtime_seconds: tuple[tuple[str, float], ...] = ()
    row_of: Mapping[str, str] = field(default_factory=dict)
    widened: int = 0

    def __post_init__(self) -> None:
        assert len(self.achieved_seconds) in (0, len(self.layers)), "one time per layer, or none"

    @property
    def achieved(self) -> tuple[float | None, ...]:
        """One time per layer, in seconds; all None where nothing was timed."""
        return self.achieved_seconds or (None,) * len(self.layers)

    @property
    def attainable_seconds(self) -> tuple[float, ...]:
        """Lower bound of what the time of each row includes: its layer, and those of its kernel."""
        bounds = {layer.name: layer.least_seconds for layer in self.layers}
        for name, row in self.row_of.items():
            bounds[row] += bounds[name]
        return tuple(bounds[layer.name] for layer in self.layers)

    @property
    def shares_of_roof(self) -> tuple[float | None, ...]:
        """Attainable time over achieved time of each row; None where there is no time."""
        times = zip(self.attainable_seconds, self.achieved, strict=True)
        return tuple(least / seconds if seconds else None for least, seconds in times)

    @property
    def notes(self) -> tuple[str, ...]:
        """What else a reader of the rows has to know, in a sentence each."""
        found = []
        if self.row_of:
            found.append(
                f"{SHARED}: in one kernel with the row above that has a time; its share of the roof"
                " is that of all of them."
            )
        if self.widened:
            found.append(
                f"The runtime computes {self.widened} of {len(self.layers)} layers with more bits"
                " than the file has; they are under the roofs of what it computes."
            )
        above = []
        for layer, share in zip(self.layers, self.shares_of_roof, strict=True):
            if share is not None and round(100 * share) > 100:
                above.append(f"{layer.name} ({share:.0%})")
        if above:
            named = ", ".join(above[:NAMED_LAYERS])
            more = len(above) - NAMED_LAYERS
            found.append(
                f"Faster than the roofs: {named}{f' and {more} more' if more > 0 else ''}. Roofs"
                " are the best of Pliant's kernels, which another kernel or a smaller cache may"
                " beat, and times of a few microseconds are inexact; take such a layer as being at"
                " its roof."
            )
        return tuple(found)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(layer.macs for layer in self.layers)

    @property
    def traffic_bytes(self) -> float:
        """Bytes that cross memory at least."""
        return sum(layer.traffic_bytes for layer in self.layers)

    @property
    def compute_seconds(self) -> float:
        """What the arithmetic alone takes at the peak."""
        return sum(layer.compute_seconds for layer in self.layers)

    @property
    def least_seconds(self) -> float:
        """Lower bound of the time."""
        return sum(layer.least_seconds for layer in self.layers)

    @property
    def memory_bound_layers(self) -> int:
        """How many layers wait for memory."""
        return sum(layer.bound == "memory" for layer in self.layers)

    @property
    def seconds(self) -> float | None:
        """Time on the device; None where nothing was timed."""
        if not self.achieved_seconds:
            return None
        layers = sum(time for time in self.achieved_seconds if time is not None)
        return layers + sum(time for _, time in self.runtime_seconds)

    @property
    def parts_seconds(self) -> dict[str, float]:
        """The time as a sum: arithmetic at the peak, the wait for memory that the roofs demand,
        and, where it was timed, what the device needs beyond its roofs."""
        parts = {
            "arithmetic": self.compute_seconds,
            "memory": self.least_seconds - self.compute_seconds,
        }
        if self.seconds is not None:
            parts["beyond the roofs"] = self.seconds - self.least_seconds
        return parts


def without_time(network: NetworkRoofline, layer: LayerBound) -> str:
    """What stands in place of the time of a layer that has none; nothing where none was timed.

    Args:
        network: that has the layer.
        layer: without a time.
    """
    if not network.achieved_seconds:
        return ""
    return SHARED if layer.name in network.row_of else FUSED


def why_faster(networks: Sequence[NetworkRoofline]) -> tuple[str, ...]:
    """Why the fastest of some networks is faster than each other one, in a sentence each.

    The difference of two times is split into the parts of `NetworkRoofline.parts_seconds`: they
    add up to it, so nothing is left unexplained.

    Args:
        networks: under the roofs of one device; measured times count where all have them.
    """
    if len(networks) < 2:
        return ()
    timed = all(one.seconds is not None for one in networks)
    of = {one.name: _total_seconds(one, timed) for one in networks}
    fastest = min(networks, key=lambda one: of[one.name])
    return tuple(_difference(fastest, one, timed) for one in networks if one is not fastest)


def _total_seconds(network: NetworkRoofline, timed: bool) -> float:
    seconds = network.seconds if timed else network.least_seconds
    assert seconds is not None
    return seconds


def _difference(fast: NetworkRoofline, slow: NetworkRoofline, timed: bool) -> str:
    """One sentence: the ratio of times, and what each part adds to the difference."""
    quick, late = _total_seconds(fast, timed), _total_seconds(slow, timed)
    theirs, ours = slow.parts_seconds, fast.parts_seconds
    counted = theirs if timed else ("arithmetic", "memory")
    parts = [f"{1e3 * (theirs[part] - ours[part]):+.3g} ms {part}" for part in counted]
    macs = f"{slow.macs / fast.macs:.2f} times the MACs" if fast.macs else "no MACs to compare"
    return (
        f"{fast.name} is {late / quick:.2f} times as fast as {slow.name}"
        f"{'' if timed else ' by the roofs'}: {slow.name} takes {1e3 * (late - quick):.3g} ms more"
        f" ({', '.join(parts)}). It has {macs} and"
        f" {slow.traffic_bytes / fast.traffic_bytes:.2f} times the memory traffic;"
        f" {slow.memory_bound_layers} of its {len(slow.layers)} layers wait for memory, against"
        f" {fast.memory_bound_layers} of {len(fast.layers)}.{_furthest(slow) if timed else ''}"
    )


def _furthest(network: NetworkRoofline) -> str:
    """A sentence on the layers that lose the most time below their roofs."""
    losses = []
    rows = zip(network.layers, network.achieved, network.attainable_seconds, strict=True)
    for layer, seconds, least in rows:
        if seconds is not None and seconds > least:
            losses.append((seconds - least, layer.name))
    most = sorted(losses, reverse=True)[:NAMED_LAYERS]
    named = ", ".join(f"{name} ({1e6 * loss:.3g} µs)" for loss, name in most)
    return f" Furthest below the roofs are {named}." if named else ""


def least_traffic_bytes(workload: Workload) -> tuple[float, ...]:
    """For each layer the bytes that must cross memory: operands read once, the result written
    once."""
    elements = {NETWORK_INPUT: workload.input_elements}
    elements |= {layer.name: layer.output_elements for layer in workload.layers}
    return tuple(
        _stored_bytes(layer) + (_read(layer, elements) + layer.output_elements) * layer.bits / 8
        for layer in workload.layers
    )


def _stored_bytes(layer: Layer) -> float:
    """Bytes of the operand that every row meets (weights, or the keys of attention) and biases."""
    if not layer.weighted:
        # Of a table (an embedding) no more is read than is written.
        width = layer.addend_bits if layer.stored is None else layer.bits
        return min(layer.parameters, layer.output_elements) * width / 8
    weights = layer.G * layer.K * layer.C * layer.R * layer.S
    addends = layer.G * layer.K * layer.bias
    return (weights * layer.bits + addends * layer.addend_bits) / 8


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
