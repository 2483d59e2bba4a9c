"""Well-known networks as workloads, from the tables of their papers; no weights.

    workload = network("resnet-50")

They are what accelerators are compared on. Every BatchNorm is folded into the convolution before
it, so a convolution has one addend an output channel.

- M. Sandler, A. Howard, M. Zhu, A. Zhmoginov, L.-C. Chen, "MobileNetV2: Inverted Residuals and
  Linear Bottlenecks", CVPR 2018, arXiv:1801.04381, table 2
- F. N. Iandola, S. Han, M. W. Moskewicz, K. Ashraf, W. J. Dally, K. Keutzer, "SqueezeNet:
  AlexNet-level Accuracy with 50x Fewer Parameters and <0.5MB Model Size", 2016, arXiv:1602.07360,
  in its version 1.1
- M. Tan, B. Chen, R. Pang, V. Vasudevan, M. Sandler, A. Howard, Q. V. Le, "MnasNet:
  Platform-Aware Neural Architecture Search for Mobile", CVPR 2019, arXiv:1807.11626: MNASNet-B1
- K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016,
  arXiv:1512.03385, table 1, with the stride in the 3x3 convolution
- K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
  ICLR 2015, arXiv:1409.1556, configuration D
- O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image
  Segmentation", MICCAI 2015, arXiv:1505.04597, with convolutions that keep the size
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pliant.errors import RecipeError, nearest
from pliant.workload.layer import NETWORK_INPUT, Kind, Layer, Workload

IMAGENET_SIZE: Final = 224
UNET_SIZE: Final = 256
"""Pixels; U-Net's 572 lose their border in convolutions without padding."""
CLASSES: Final = 1000


class _Layers:
    """Layers in running order; each method adds one and returns its name."""

    def __init__(self, channels: int, size: int) -> None:
        self.layers: list[Layer] = []
        self.input_elements = channels * size**2
        self._shape = {NETWORK_INPUT: (channels, size)}

    def conv(
        self,
        name: str,
        reads: str,
        outputs: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        depthwise: bool = False,
        padded: bool = True,
    ) -> str:
        """A square convolution, over a concatenation where `reads` names several with `+`."""
        channels, size = self._read(reads)
        size = -(-size // stride) if padded else (size - kernel) // stride + 1
        groups, inside, own = (outputs, 1, 1) if depthwise else (1, outputs, channels)
        return self._add(
            name,
            "conv",
            reads,
            (outputs, size),
            G=groups,
            K=inside,
            C=own,
            R=kernel,
            S=kernel,
            strides=(stride, stride),
        )

    def up(self, name: str, reads: str, outputs: int) -> str:
        """A transposed 2x2 convolution of stride 2: a 1x1 convolution into each of 4 places."""
        channels, size = self._read(reads)
        stored = 4 * channels * outputs + outputs
        shape = (outputs, size)
        self._add(name, "conv", reads, shape, K=4 * outputs, C=channels, stored=stored)
        self._shape[name] = (outputs, 2 * size)
        return name

    def pool(self, name: str, reads: str, kernel: int, stride: int, *, padded: bool = False) -> str:
        """Maximum or mean of windows."""
        channels, size = self._read(reads)
        size = -(-size // stride) if padded else (size - kernel) // stride + 1
        return self._add(
            name,
            "pool",
            reads,
            (channels, size),
            G=channels,
            R=kernel,
            S=kernel,
            strides=(stride, stride),
            bias=False,
        )

    def add(self, name: str, one: str, other: str) -> str:
        """The sum of two tensors."""
        channels, size = self._shape[one]
        layer = Layer(name, "elementwise", (one, other), G=channels, P=size, Q=size, bias=False)
        self.layers.append(layer)
        self._shape[name] = (channels, size)
        return name

    def linear(self, name: str, reads: str, outputs: int) -> str:
        """A product of the flattened input with a matrix."""
        channels, size = self._read(reads)
        inputs = channels * size**2
        return self._add(name, "matmul", reads, (outputs, 1), K=outputs, C=inputs)

    def workload(self) -> Workload:
        """All of them, with weights and activations of 8 bits."""
        return Workload(tuple(self.layers), self.input_elements, input_bits=8)

    def _read(self, reads: str) -> tuple[int, int]:
        shapes = [self._shape[name] for name in reads.split("+")]
        return sum(channels for channels, _ in shapes), shapes[0][1]

    def _add(self, name: str, kind: Kind, reads: str, shape: tuple[int, int], **loops: Any) -> str:
        first, *others = reads.split("+")
        layer = Layer(
            name,
            kind,
            (first,),
            P=shape[1],
            Q=shape[1],
            bits=8,
            concatenated=tuple(others),
            **loops,
        )
        self.layers.append(layer)
        self._shape[name] = shape
        return name


def mobilenet_v2() -> Workload:
    """MobileNetV2 at 224 pixels: 300.8 million MACs."""
    net = _Layers(3, IMAGENET_SIZE)
    x, width = net.conv("stem", NETWORK_INPUT, 32, 3, stride=2), 32
    table = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]
    for stage, (expansion, outputs, blocks, stride) in enumerate(table, 1):
        for block in range(1, blocks + 1):
            name, step = f"stage{stage}.{block}", stride if block == 1 else 1
            x = _inverted_residual(net, name, x, width, outputs, expansion, 3, step)
            width = outputs
    return _classified(net, net.conv("last", x, 1280))


def mnasnet() -> Workload:
    """MNASNet-B1 at 224 pixels: 314.4 million MACs."""
    net = _Layers(3, IMAGENET_SIZE)
    x = net.conv("stem", NETWORK_INPUT, 32, 3, stride=2)
    x = net.conv("separable.depthwise", x, 32, 3, depthwise=True)
    x, width = net.conv("separable.project", x, 16), 16
    table = [
        (3, 24, 3, 2, 3),
        (3, 40, 3, 2, 5),
        (6, 80, 3, 2, 5),
        (6, 96, 2, 1, 3),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    ]
    for stage, (expansion, outputs, blocks, stride, kernel) in enumerate(table, 1):
        for block in range(1, blocks + 1):
            name, step = f"stage{stage}.{block}", stride if block == 1 else 1
            x = _inverted_residual(net, name, x, width, outputs, expansion, kernel, step)
            width = outputs
    return _classified(net, net.conv("last", x, 1280))


def squeezenet() -> Workload:
    """SqueezeNet 1.1 at 224 pixels: 349.2 million MACs."""
    net = _Layers(3, IMAGENET_SIZE)
    x = net.conv("stem", NETWORK_INPUT, 64, 3, stride=2, padded=False)
    x = net.pool("pool1", x, 3, 2, padded=False)
    table = [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
    for number, (squeeze, expand) in enumerate(table, 2):
        x = net.conv(f"fire{number}.squeeze", x, squeeze)
        one = net.conv(f"fire{number}.expand1", x, expand)
        x = one + "+" + net.conv(f"fire{number}.expand3", x, expand, 3)
        if number in (3, 5):
            halves = [net.pool(f"pool{number}.{half}", part, 3, 2) for half, part in _parts(x)]
            x = "+".join(halves)
    x = net.conv("classifier", x, CLASSES)
    net.pool("mean", x, 13, 13)
    return net.workload()


def resnet_50() -> Workload:
    """ResNet-50 at 224 pixels: 4.09 billion MACs."""
    net = _Layers(3, IMAGENET_SIZE)
    x = net.conv("stem", NETWORK_INPUT, 64, 7, stride=2)
    x = net.pool("pool", x, 3, 2, padded=True)
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], 1):
        for block in range(1, blocks + 1):
            name, first = f"stage{stage}.{block}", block == 1
            stride = 2 if first and stage > 1 else 1
            y = net.conv(f"{name}.reduce", x, width)
            y = net.conv(f"{name}.conv", y, width, 3, stride=stride)
            y = net.conv(f"{name}.expand", y, 4 * width)
            if first:
                x = net.conv(f"{name}.shortcut", x, 4 * width, stride=stride)
            x = net.add(f"{name}.add", x, y)
    return _classified(net, x)


def vgg_16() -> Workload:
    """VGG-16 at 224 pixels: 15.5 billion MACs."""
    net, x = _Layers(3, IMAGENET_SIZE), NETWORK_INPUT
    table = [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]
    for stage, (width, convolutions) in enumerate(table, 1):
        for number in range(1, convolutions + 1):
            x = net.conv(f"conv{stage}.{number}", x, width, 3)
        x = net.pool(f"pool{stage}", x, 2, 2)
    for number, outputs in enumerate([4096, 4096, CLASSES], 1):
        x = net.linear(f"linear{number}", x, outputs)
    return net.workload()


def u_net() -> Workload:
    """U-Net at 256 pixels, one channel in and two classes for every pixel: 48.1 billion MACs."""
    net, x = _Layers(1, UNET_SIZE), NETWORK_INPUT
    kept = []
    for depth, width in enumerate([64, 128, 256, 512, 1024]):
        if depth:
            kept.append(x)
            x = net.pool(f"pool{depth}", x, 2, 2)
        x = net.conv(f"down{depth}.1", x, width, 3)
        x = net.conv(f"down{depth}.2", x, width, 3)
    for depth, width in enumerate([512, 256, 128, 64]):
        x = net.up(f"up{depth}.0", x, width)
        x = net.conv(f"up{depth}.1", f"{kept.pop()}+{x}", width, 3)
        x = net.conv(f"up{depth}.2", x, width, 3)
    net.conv("classes", x, 2)
    return net.workload()


NETWORKS: Final[Mapping[str, Callable[[], Workload]]] = {
    "mobilenet-v2": mobilenet_v2,
    "squeezenet": squeezenet,
    "mnasnet": mnasnet,
    "resnet-50": resnet_50,
    "vgg-16": vgg_16,
    "u-net": u_net,
}


def network(name: str) -> Workload:
    """A shipped workload.

    Raises:
        RecipeError: there is none of this name.
    """
    if name not in NETWORKS:
        raise RecipeError(f"no network is called {name!r}. {nearest(name, NETWORKS)}")
    return NETWORKS[name]()


def _inverted_residual(
    net: _Layers,
    name: str,
    reads: str,
    width: int,
    outputs: int,
    expansion: int,
    kernel: int,
    stride: int,
) -> str:
    x, mid = reads, expansion * width
    if expansion > 1:
        x = net.conv(f"{name}.expand", x, mid)
    x = net.conv(f"{name}.depthwise", x, mid, kernel, stride=stride, depthwise=True)
    x = net.conv(f"{name}.project", x, outputs)
    return net.add(f"{name}.add", reads, x) if stride == 1 and width == outputs else x


def _classified(net: _Layers, reads: str) -> Workload:
    net.linear("classifier", net.pool("mean", reads, 7, 7), CLASSES)
    return net.workload()


def _parts(reads: str) -> list[tuple[int, str]]:
    return list(enumerate(reads.split("+"), 1))
