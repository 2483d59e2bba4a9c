"""A sub-network as an ONNX model, as it is delivered: from pictures to probabilities.

Pixels are normalised and resized by the nodes that every network of Pliant has; what follows is
what PyTorch's exporter makes of the network.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from torch import nn

from pliant.networks.foreign.extraction import without_preprocessing
from pliant.networks.onnx import Graph, preprocessing_nodes, written_model
from pliant.networks.statistics import BATCH_NORMS
from pliant.spaces.foreign import ForeignNetwork
from pliant.spaces.input_output_blocks import Preprocess

OPSET = 18
"""The first that resizes with antialiasing."""


def foreign_model(
    network: nn.Module,
    block: ForeignNetwork,
    *,
    batch: int | None = None,
    metadata: Mapping[str, str] | None = None,
    pictures: bool = True,
) -> onnx.ModelProto:
    """A calibrated sub-network as a model.

    Args:
        network: as it was extracted.
        block: its description.
        batch: images a run; any number where None.
        metadata: text that the file carries.
        pictures: from `pictures`, uint8 (N, size, size, channels), to `probabilities` and
            `logits`; else from `image`, (N, channels, size, size) pixels from 0 to 1, to `logits`.
    """
    inner, mean, std = without_preprocessing(network)
    graph = Graph(pictures=pictures)
    prepared = graph.input
    if block.description.preprocesses:
        resize = Preprocess(
            slot="preprocess",
            size=block.size,
            channels=block.channels,
            resolution=block.resolution,
        )
        prepared = preprocessing_nodes(graph, resize, mean, std)
    shape = (2, block.channels, block.resolution, block.resolution)
    exported = _exported(inner, torch.zeros(shape), batch).graph
    for node in exported.node:
        for names, known, new in (
            (node.input, exported.input[0].name, prepared),
            (node.output, exported.output[0].name, "logits"),
        ):
            for position, name in enumerate(names):
                if name == known:
                    names[position] = new
    for node in exported.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constant = node.attribute[0].t
            constant.name = node.output[0]
            graph.constants.append(constant)
        else:
            graph.nodes.append(node)
    graph.constants += exported.initializer
    classes = exported.output[0].type.tensor_type.shape.dim[-1].dim_value
    images: int | str = batch or "N"
    size, channels = block.size, block.channels
    source = [images, size, size, channels] if pictures else [images, channels, size, size]
    outputs = ["logits"]
    if pictures:
        outputs = [graph.node("Softmax", ["logits"], "probabilities", axis=-1), "logits"]
    return written_model(graph, source, outputs, [images, classes], metadata, opset=OPSET)


def _exported(module: nn.Module, images: torch.Tensor, batch: int | None) -> onnx.ModelProto:
    axes = None if batch else {"image": {0: "N"}, "logits": {0: "N"}}
    if batch:
        images = images[:1].expand(batch, -1, -1, -1).contiguous()
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (images,),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes=axes,
        )
        return onnx.load(path)


def random_foreign_model(block: ForeignNetwork) -> onnx.ModelProto:
    """The model of a sub-network with the weights of the network, which is as fast as any."""
    from pliant.networks.foreign.template import foreign_space, foreign_supernet
    from pliant.spaces.architecture import Architecture

    source, _, size = block.description.source, block.options, block.size
    classes = block.layers()[-1].K
    space = foreign_space(source, channels=block.channels, image_size=size, classes=classes)
    supernet = foreign_supernet(space, mean=[0.5] * block.channels, std=[0.5] * block.channels)
    network: nn.Module = supernet.extract(Architecture(block.options))
    for module in network.modules():
        if isinstance(module, BATCH_NORMS):
            module.reset_running_stats()
    return foreign_model(network, block)
