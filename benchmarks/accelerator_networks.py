"""The networks of the accelerator benchmarks: four CNNs, and a block of a vision Transformer."""

from __future__ import annotations

from typing import Any

from pliant.workload import NETWORK_INPUT, Layer, Workload


class _Builder:
    def __init__(self, batch: int, channels: int, size: int) -> None:
        self.layers: list[Layer] = []
        self.batch, self.channels, self.size, self.last = batch, channels, size, NETWORK_INPUT
        self.input_elements = batch * channels * size * size

    def add(self, name: str, kind: str, inputs: tuple[str, ...] | None = None, **sizes: Any) -> str:
        reads = inputs or (self.last,)
        layer = Layer(name, kind, reads, N=self.batch, **sizes)  # type: ignore[arg-type]
        self.layers.append(layer)
        self.last = name
        return name

    def conv(
        self,
        name: str,
        out: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        size: int | None = None,
        source: str | None = None,
    ) -> str:
        self.size = size or -(-self.size // stride)
        shape: dict[str, Any] = {
            "G": groups,
            "K": out // groups,
            "C": self.channels // groups,
            "P": self.size,
            "Q": self.size,
            "R": kernel,
            "S": kernel,
        }
        self.channels = out
        return self.add(
            name, "conv", (source,) if source else None, **shape, strides=(stride, stride)
        )

    def pool(self, name: str, kernel: int, stride: int, size: int | None = None) -> str:
        self.size = size or -(-self.size // stride)
        return self.add(
            name,
            "pool",
            G=self.channels,
            P=self.size,
            Q=self.size,
            R=kernel,
            S=kernel,
            strides=(stride, stride),
        )

    def add_up(self, name: str, other: str) -> str:
        return self.add(
            name, "elementwise", (self.last, other), G=self.channels, P=self.size, Q=self.size
        )

    def dense(self, name: str, out: int, inner: int) -> str:
        return self.add(name, "matmul", K=out, C=inner)

    def workload(self) -> Workload:
        return Workload(tuple(self.layers), self.input_elements)


def alexnet(batch: int = 1) -> Workload:
    """Krizhevsky et al. 2012, with the two groups of the original, as the Eyeriss papers ran it."""
    net = _Builder(batch, 3, 227)
    net.conv("conv1", 96, 11, 4, size=55)
    net.pool("pool1", 3, 2, size=27)
    net.conv("conv2", 256, 5, groups=2)
    net.pool("pool2", 3, 2, size=13)
    net.conv("conv3", 384, 3)
    net.conv("conv4", 384, 3, groups=2)
    net.conv("conv5", 256, 3, groups=2)
    net.pool("pool5", 3, 2, size=6)
    net.dense("fc1", 4096, 9216)
    net.dense("fc2", 4096, 4096)
    net.dense("fc3", 1000, 4096)
    return net.workload()


def vgg16(batch: int = 1) -> Workload:
    """Simonyan and Zisserman 2014, configuration D."""
    net = _Builder(batch, 3, 224)
    for stage, (width, depth) in enumerate(
        ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1
    ):
        for index in range(1, depth + 1):
            net.conv(f"conv{stage}-{index}", width, 3)
        net.pool(f"pool{stage}", 2, 2)
    net.dense("fc1", 4096, 25088)
    net.dense("fc2", 4096, 4096)
    net.dense("fc3", 1000, 4096)
    return net.workload()


def resnet50(batch: int = 1) -> Workload:
    """He et al. 2015, stride in the 3x3 convolution."""
    net = _Builder(batch, 3, 224)
    net.conv("conv1", 64, 7, 2)
    net.pool("pool1", 3, 2)
    for stage, (width, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=2):
        for block in range(1, depth + 1):
            stride = 2 if block == 1 and stage > 2 else 1
            name, source, channels, size = f"conv{stage}-{block}", net.last, net.channels, net.size
            net.conv(f"{name}a", width, 1)
            net.conv(f"{name}b", width, 3, stride)
            main = net.conv(f"{name}c", 4 * width, 1)
            if block == 1:
                net.channels, net.size = channels, size
                source = net.conv(f"{name}s", 4 * width, 1, stride, source=source)
            net.last = main
            net.add_up(f"{name}sum", source)
    net.add("mean", "pool", G=2048, R=7, S=7)
    net.dense("fc", 1000, 2048)
    return net.workload()


def mobilenet_v2(batch: int = 1) -> Workload:
    """Sandler et al. 2018, width 1."""
    net = _Builder(batch, 3, 224)
    net.conv("stem", 32, 3, 2)
    index = 0
    for expand, width, depth, first in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for block in range(depth):
            index += 1
            source, channels, stride = net.last, net.channels, first if block == 0 else 1
            if expand > 1:
                net.conv(f"b{index}-expand", channels * expand, 1)
            net.conv(f"b{index}-depthwise", net.channels, 3, stride, groups=net.channels)
            net.conv(f"b{index}-project", width, 1)
            if stride == 1 and channels == width:
                net.add_up(f"b{index}-sum", source)
    net.conv("head", 1280, 1)
    net.add("mean", "pool", G=1280, R=7, S=7)
    net.dense("fc", 1000, 1280)
    return net.workload()


NETWORKS = {"mobilenet_v2": mobilenet_v2, "resnet50": resnet50, "vgg16": vgg16, "alexnet": alexnet}


def dense(name: str, rows: int, outputs: int, inputs: int, groups: int = 1) -> Layer:
    """A matrix product."""
    return Layer(name, "matmul", ("x",), G=groups, N=rows, K=outputs, C=inputs)


BLOCK = (
    dense("query, key, value", 197, 2304, 768),
    dense("scores", 197, 197, 64, groups=12),
    dense("mix", 197, 64, 197, groups=12),
    dense("projection", 197, 768, 768),
    dense("expand", 197, 3072, 768),
    dense("contract", 197, 768, 3072),
)
"""The matrix products of one block of a ViT-B/16, 197 tokens."""
