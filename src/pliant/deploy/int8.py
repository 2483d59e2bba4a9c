"""The int8 form of a network: calibrated on training images, and chosen by others of them.

Each rule for the ranges of activations gives a network. The one that keeps most of the float
network's accuracy on training images that did not calibrate is taken, and of equal ones the one
with the nearest logits. Validation and test images decide nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime

from pliant.accuracy.evaluation import Answers
from pliant.data.splits import Split
from pliant.metrics import Accuracy
from pliant.networks.quantize import RANGE_RULES, Range, float_operators, observe, quantized_model
from pliant.training.quantization_aware import fine_tune_quantized

CALIBRATION_IMAGES = 256
MAX_INT8_LOSS = 0.01
"""Of accuracy against fp32; a larger one is worth fine-tuning."""
HELD_OUT_IMAGES = 512
"""Training images that choose the rule."""
_BATCH = 32


def loses_little(fp32: Accuracy, int8: Accuracy) -> bool:
    """Whether a network in int8 loses at most `MAX_INT8_LOSS` of its accuracy in fp32."""
    return fp32.top1 - int8.top1 <= MAX_INT8_LOSS + 1e-9  # 0.95 - 0.94 is not quite 0.01


@dataclass(frozen=True)
class Int8Network:
    """A quantized network, and how it became one."""

    model: bytes
    """ONNX, from pictures to probabilities."""
    rule: str
    """Which of `RANGE_RULES` gave the ranges."""
    ranges: Mapping[str, Range]
    """Of the activations, by name."""
    fine_tuned: bool = False
    """Whether the weights were trained with quantization in place."""

    @property
    def how(self) -> str:
        """In words: the ranges, and what stays in float because there is no integer kernel."""
        in_float = float_operators(onnx.load_from_string(self.model))
        words = [f"ranges by {self.rule}", *(["fine-tuned"] if self.fine_tuned else [])]
        if in_float:
            counts = ", ".join(f"{count} {name}" for name, count in in_float.items())
            words.append(f"in float: {counts}")
        return "; ".join(words)


def to_int8(model: bytes, train: Split, *, seed: int) -> Int8Network:
    """Quantize a network without training.

    Args:
        model: in float, as it is delivered.
        train: whose images calibrate, and choose the rule.
        seed: of the choice of images.
    """
    network = onnx.load_from_string(model)
    chosen = np.random.default_rng((seed, 8)).permutation(len(train))
    kept = min(CALIBRATION_IMAGES, len(train) // 2)
    observed = observe(network, _pictures(train, chosen[:kept]))
    held_out = train.subset(np.sort(chosen[kept : kept + HELD_OUT_IMAGES]))
    expected = logits(model, held_out)
    best: tuple[tuple[float, float], Int8Network] | None = None
    for rule, range_of in RANGE_RULES.items():
        ranges = {name: range_of(values) for name, values in observed.items()}
        candidate = quantized_model(network, ranges).SerializeToString()
        found = logits(candidate, held_out)
        right = float((found.argmax(1) == held_out.labels).mean())
        quality = right, -float(np.mean((found - expected) ** 2))
        if best is None or quality > best[0]:
            best = quality, Int8Network(candidate, rule, ranges)
    assert best is not None
    return best[1]


def fine_tuned(model: bytes, int8: Int8Network, train: Split, *, seed: int) -> Int8Network:
    """The same network after a short training with quantization in place.

    Args:
        model: in float, as it is delivered.
        int8: with the ranges.
        train: whose images are learned from.
        seed: of their order.
    """
    network = fine_tune_quantized(onnx.load_from_string(model), int8.ranges, train, seed=seed)
    trained = quantized_model(network, int8.ranges).SerializeToString()
    return Int8Network(trained, int8.rule, int8.ranges, fine_tuned=True)


def model_answers(model: bytes, split: Split) -> Answers:
    """What a delivered network answers on each image of a split."""
    found = logits(model, split)
    best = found.argmax(1)
    surest = np.exp(found.max(1) - np.logaddexp.reduce(found, 1)).astype(np.float32)
    return Answers(split.labels, best, surest)


def logits(model: bytes, split: Split) -> np.ndarray:
    """Logits of a delivered network, (images, classes), with one thread of ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rows = np.arange(len(split))
    parts = [session.run(["logits"], {"pictures": batch})[0] for batch in _pictures(split, rows)]
    return np.concatenate(parts)


def _pictures(split: Split, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Images as a delivered network reads them, in batches: uint8 (N, size, size, channels)."""
    for start in range(0, len(rows), _BATCH):
        images, _ = split.batch(rows[start : start + _BATCH])
        yield np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
