"""The card of a delivered network: what it is, how good, how that was found out, how to run it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pliant.deploy.verify import Agreement
from pliant.files import write_atomically


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The facts of a card."""

    name: str
    architecture: str
    space: str
    image: tuple[int, int, int]
    classes: tuple[str, ...]
    data: str
    parameters: int
    macs: int
    peak_memory_bytes: int
    limits: tuple[str, ...]
    validation_top1: float
    test_top1: float
    test_images: int
    test_openings: int
    predicted_ms: float | None
    measured_ms: float | None
    device: str
    agreement: Agreement


_TEXT = """# {name}

A classifier of {channels}x{size}x{size} images into {count} classes, found by Pliant: `{architecture}` of space `{space}`,
trained on {data} as part of one supernet and taken from it without further training.

| what | value | how |
|---|---|---|
| test accuracy | {test_top1:.2%} | {test_images} images that training and search never saw; opened {openings} in this run |
| validation accuracy | {validation_top1:.2%} | the split that the search chose by |
| latency, measured | {measured} | ONNX Runtime in a fresh process; {device} |
| latency, predicted | {predicted} | from the device's table, before any measurement |
| limits | {limits} | |
| parameters | {parameters:,} | BatchNorm folded |
| multiply-accumulates | {macs:,} | one image |
| peak memory | {peak_memory_bytes:,} bytes | parameters and the largest sum of live activations, fp32, by arithmetic |
| outputs against the supernet | {supernet:.1e} | largest difference over largest logit |
| outputs of model.py against PyTorch | {model_py:.1e} | in a process without Pliant |
| outputs of model.onnx against PyTorch | {onnx:.1e} | ONNX Runtime |

## Running it

Pixels go in as numbers from 0 to 1, shape (N, {channels}, {size}, {size}); logits come out, shape (N, {count}). Normalisation and
resizing are inside.

```python
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
logits = session.run(None, {{"image": np.zeros((1, {channels}, {size}, {size}), dtype=np.float32)}})[0]
```

`model.py` is the same network in plain PyTorch: `from model import load; network = load()`. It needs torch and safetensors only.

Classes, in the order of the logits: {classes}.
"""


def write_card(path: Path, card: Card) -> None:
    """Write the card as Markdown."""
    channels, size, _ = card.image
    write_atomically(
        path,
        _TEXT.format(
            name=card.name,
            architecture=card.architecture,
            space=card.space,
            data=card.data,
            channels=channels,
            size=size,
            count=len(card.classes),
            classes=", ".join(card.classes),
            test_top1=card.test_top1,
            test_images=card.test_images,
            openings="once" if card.test_openings == 1 else f"{card.test_openings} times",
            validation_top1=card.validation_top1,
            measured=_milliseconds(card.measured_ms),
            predicted=_milliseconds(card.predicted_ms),
            device=card.device,
            limits=", ".join(card.limits) or "none",
            parameters=card.parameters,
            macs=card.macs,
            peak_memory_bytes=card.peak_memory_bytes,
            supernet=card.agreement.supernet,
            model_py=card.agreement.model_py,
            onnx=card.agreement.onnx,
        ),
    )


def _milliseconds(value: float | None) -> str:
    return "not measured: the device is elsewhere" if value is None else f"{value:.4g} ms"
