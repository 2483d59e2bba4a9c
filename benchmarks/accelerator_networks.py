"""What the accelerator benchmarks map: shipped networks, AlexNet, and a block of a Transformer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from pliant.workload import NETWORK_INPUT, Layer, Workload
from pliant.workload.networks import network


def batched(workload: Workload, images: int) -> Workload:
    """The same network for several images at once."""
    layers = tuple(replace(layer, N=images) for layer in workload.layers)
    return replace(workload, layers=layers, input_elements=images * workload.input_elements)


def alexnet(images: int = 1) -> Workload:
    """Krizhevsky et al. 2012, with the two groups of the original, as the Eyeriss papers ran it."""
    # Name, kind, groups, outputs and inputs of a group, output pixels, kernel, stride.
    table = [
        ("conv1", "conv", 1, 96, 3, 55, 11, 4),
        ("pool1", "pool", 96, 1, 1, 27, 3, 2),
        ("conv2", "conv", 2, 128, 48, 27, 5, 1),
        ("pool2", "pool", 256, 1, 1, 13, 3, 2),
        ("conv3", "conv", 1, 384, 256, 13, 3, 1),
        ("conv4", "conv", 2, 192, 192, 13, 3, 1),
        ("conv5", "conv", 2, 128, 192, 13, 3, 1),
        ("pool5", "pool", 256, 1, 1, 6, 3, 2),
        ("fc1", "matmul", 1, 4096, 9216, 1, 1, 1),
        ("fc2", "matmul", 1, 4096, 4096, 1, 1, 1),
        ("fc3", "matmul", 1, 1000, 4096, 1, 1, 1),
    ]
    layers: list[Layer] = []
    for name, kind, groups, outputs, inputs, pixels, kernel, stride in table:
        reads = layers[-1].name if layers else NETWORK_INPUT
        layers.append(
            Layer(
                name,
                kind,  # type: ignore[arg-type]
                (reads,),
                G=groups,
                K=outputs,
                C=inputs,
                P=pixels,
                Q=pixels,
                R=kernel,
                S=kernel,
                strides=(stride, stride),
            )
        )
    return batched(Workload(tuple(layers), 3 * 227 * 227), images)


NETWORKS: dict[str, Callable[[], Workload]] = {
    "mobilenet-v2": partial(network, "mobilenet-v2"),
    "resnet-50": partial(network, "resnet-50"),
    "vgg-16": partial(network, "vgg-16"),
    "alexnet": alexnet,
}


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
