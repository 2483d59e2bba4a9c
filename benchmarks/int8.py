"""int8 against fp32: accuracy, latency and size of EfficientNet-Lite0 at 128 pixels.

python benchmarks/int8.py [--data ../shared/data/clothing] [--epochs 5] [--quantization-aware]

The full network of the space for photographs starts from the published weights and is fine-tuned by
a plain loop (AdamW, cosine, random crops and flips), once; `benchmarks/work/` keeps the weights. It
is then delivered in both precisions. Accuracy is of the validation images and of those that are cut
off for testing, together. Latencies are of one thread, in interleaved rounds.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from result import publish
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from pliant.data import Augmentation, load
from pliant.data.dataset import DataSet
from pliant.data.splits import Split
from pliant.deploy.int8 import fine_tuned, model_answers, to_int8
from pliant.deploy.package import onnx_bytes
from pliant.devices.measure import Settings
from pliant.devices.profile import measure_networks
from pliant.networks.backbones.registry import published
from pliant.networks.plain import Network
from pliant.networks.supernet import build
from pliant.spaces.presets import preset

SIZE, BATCH = 128, 32
BODY_RATE, HEAD_RATE = 7e-4, 7e-3
WORK = Path(__file__).parent / "work"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="../shared/data/clothing")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quantization-aware", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    data = load(arguments.data, seed=0, image_size=SIZE)
    space = preset("photos", channels=3, image_size=SIZE, classes=len(data.classes))
    largest = space.largest()
    network = build(space, largest, mean=data.mean, std=data.std)
    published("efficientnet-lite0").apply(network, lambda: None)
    kept = WORK / f"int8-{data.fingerprint[:8]}-{arguments.epochs}-{arguments.seed}.safetensors"
    if not kept.is_file():
        fine_tune(network, data, arguments.epochs, arguments.seed)
        WORK.mkdir(exist_ok=True)
        save_file({name: one.contiguous() for name, one in network.state_dict().items()}, kept)
    network.load_state_dict(load_file(kept))

    blocks = space.blocks(largest)
    fp32 = onnx_bytes(network.eval(), blocks)
    int8 = to_int8(fp32, data.train, seed=arguments.seed)
    models = {"fp32": fp32, "int8": int8.model}
    if arguments.quantization_aware:  # as delivery does where the loss exceeds a point
        tuned = fine_tuned(fp32, int8, data.train, seed=arguments.seed)
        models["int8, fine-tuned"] = tuned.model
    measured = measure_networks(models, Settings(), seed=arguments.seed)
    splits = (data.validation, data.test.open("accuracy of int8 against fp32"))
    answers = {name: together(model, splits) for name, model in models.items()}
    labels = np.concatenate([split.labels for split in splits])
    rows = [
        {
            "network": name,
            "images": len(labels),
            "accuracy": float((answers[name] == labels).mean()),
            "same_answer_as_fp32": float((answers[name] == answers["fp32"]).mean()),
            "latency_ms": measured[name].latency_ms,
            "latency_over_fp32": measured[name].latency_ms / measured["fp32"].latency_ms,
            "size_mb": len(model) / 1e6,
            "size_over_fp32": len(model) / len(fp32),
        }
        for name, model in models.items()
    ]
    publish("int8", rows, pixels=SIZE, range_rule=int8.rule, seeds=[arguments.seed])


def together(model: bytes, splits: tuple[Split, ...]) -> np.ndarray:
    """The classes that a model gives the images of all splits."""
    return np.concatenate([model_answers(model, split).answers for split in splits])


def fine_tune(network: Network, data: DataSet, epochs: int, seed: int) -> None:
    """The whole network, from published weights."""
    network.train().to(memory_format=torch.channels_last)
    head = [one for name, one in network.named_parameters() if "classifier" in name]
    body = [one for name, one in network.named_parameters() if "classifier" not in name]
    groups = [{"params": body, "lr": BODY_RATE}, {"params": head, "lr": HEAD_RATE}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    steps = epochs * (len(data.train) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / 30) * (1 + math.cos(math.pi * step / steps)) / 2,
    )
    augment = Augmentation(flip=True, min_crop_area=0.35)
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        if step % (len(data.train) // BATCH) == 0:
            order = rng.permutation(len(data.train))
        images, labels = data.train.batch(order[:BATCH])
        order = order[BATCH:]
        pixels = augment(images, generator).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(network(pixels), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            print(f"step {step} of {steps}, loss {loss.detach():.3f}", flush=True)


if __name__ == "__main__":
    main()
