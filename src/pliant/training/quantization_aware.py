"""Short fine-tuning of a network with its quantization in place.

Jacob, B. et al., Quantization and training of neural networks for efficient integer-arithmetic-only
inference, 2018, arXiv:1712.05877, section 3. BatchNorm is folded before, and the ranges of the
activations stay as calibrated. The quantized network learns the float network's probabilities
(Hinton, G. et al., Distilling the knowledge in a neural network, 2015, arXiv:1503.02531), so it
needs few images and no more labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional as F

from pliant.data.splits import Split
from pliant.networks.onnx_module import OnnxModule
from pliant.networks.quantize import Range, quantized_model

LEARNING_RATE = 1e-4
"""Peak, of Adam; falls to 0 by a cosine."""
BATCH_SIZE = 32
EPOCHS = 4
MAX_STEPS = 100


def fine_tune_quantized(
    model: onnx.ModelProto, ranges: Mapping[str, Range], train: Split, *, seed: int
) -> onnx.ModelProto:
    """The float model with weights that suit its quantized form.

    Args:
        model: in float, from pictures to logits.
        ranges: of the activations, by name.
        train: whose images are learned from.
        seed: of their order.
    """
    weighted = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    names = {name for node in weighted for name in node.input[1:]}
    trained = {
        one.name: numpy_helper.to_array(one) for one in model.graph.initializer if one.name in names
    }
    teacher = OnnxModule(model)
    student = OnnxModule(quantized_model(model, ranges), trained)
    optimizer = torch.optim.Adam(student.parameters(), lr=LEARNING_RATE)
    batch_size = min(BATCH_SIZE, len(train))
    steps = min(MAX_STEPS, EPOCHS * (len(train) // batch_size))
    rng = np.random.default_rng((seed, 9))
    order = np.empty(0, np.int64)
    for step in range(steps):
        if len(order) < batch_size:
            order = rng.permutation(len(train))
        images, _ = train.batch(order[:batch_size])
        order = order[batch_size:]
        pictures = images.permute(0, 2, 3, 1)
        with torch.no_grad():
            target = teacher(pictures).softmax(1)
        loss = F.cross_entropy(student(pictures), target)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return _with_weights(model, student.float_weights())


def _with_weights(model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The model with other values of these constants."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for one in changed.graph.initializer:
        if one.name in weights:
            one.CopyFrom(numpy_helper.from_array(weights[one.name], one.name))
    return changed
