"""How fast does a supernet train, how near to the machine's peak, and what does elasticity cost?

    python benchmarks/training_rate.py

First the convolution peak: the best of a few plain 3x3 convolutions, forward and backward pass, in
fp32 and bf16. Then for each 32-pixel preset:

* the training rate of the largest network, and its share of that peak;
* the time of a step of a sub-network in the supernet over that of the extracted network (median of
  alternating pairs);
* the share of a training step outside forward pass, backward pass and optimizer step.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from result import publish
from torch import nn
from torch.nn import functional as F

from pliant.data.augment import Augmentation
from pliant.data.splits import ImagesInMemory, Split
from pliant.networks.depthwise import depthwise_conv
from pliant.networks.supernet import Supernet
from pliant.spaces.presets import preset
from pliant.training.allocator import keep_freed_memory
from pliant.training.loop import make_accelerator, train
from pliant.training.sandwich import Sandwich
from pliant.training.schedule import TrainingRecipe

PRESETS = ("plain-32", "mobile-32")


def median_seconds(function, times=5):
    function()
    found = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def convolution_peak_gflops(dtype):
    """Forward and backward of 3x3 convolutions, channels last: the best rate of four shapes."""
    best = 0.0
    for channels, size, batch in ((64, 32, 64), (128, 16, 128), (256, 16, 64), (384, 8, 128)):
        x = (
            torch.randn(batch, channels, size, size)
            .to(dtype)
            .to(memory_format=torch.channels_last)
            .requires_grad_()
        )
        weight = (
            torch.randn(channels, channels, 3, 3)
            .to(dtype)
            .to(memory_format=torch.channels_last)
            .requires_grad_()
        )

        def step(x=x, weight=weight):
            F.conv2d(x, weight, padding=1).sum().backward()

        best = max(best, 6 * batch * channels**2 * 9 * size**2 / median_seconds(step) / 1e9)
    return best


def passes(model, images, labels, precision):
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = model(images)
    F.cross_entropy(logits.float(), labels).backward()


def elastic_over_plain(supernet, architecture, images, labels, precision):
    """Step time of the sub-network in the supernet over that of the extracted network.

    The median of alternating pairs, in CPU time, which other work on the machine hardly changes.
    The extracted network computes its depthwise gradients like the supernet, so that only
    elasticity is timed.
    """
    plain = supernet.extract(architecture).to(memory_format=torch.channels_last).train()
    for layer in plain.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            layer.forward = lambda x, layer=layer: depthwise_conv(
                x, layer.weight, layer.stride[0], layer.padding[0]
            )

    def seconds(model):
        started = time.process_time()
        passes(model, images, labels, precision)
        return time.process_time() - started

    ratios = []
    for turn in range(8):
        if turn % 2:
            elastic, alone = seconds(lambda x: supernet(x, architecture)), seconds(plain)
        else:
            alone, elastic = seconds(plain), seconds(lambda x: supernet(x, architecture))
        ratios.append(elastic / alone)
    return statistics.median(ratios[2:])


def overhead_share(supernet, precision):
    """Share of real training steps outside forward, backward and the optimiser."""
    shares = []
    split = Split(
        ImagesInMemory(torch.randint(0, 256, (2560, 3, 32, 32), dtype=torch.uint8)),
        np.arange(2560) % 10,
    )
    recipe = TrainingRecipe(epochs=2, batch_size=512, precision=precision)
    accelerator = make_accelerator(precision, "cpu")
    schedule = Sandwich(supernet.space)
    train(
        supernet,
        split,
        Augmentation(4, True, 8),
        recipe,
        schedule,
        accelerator=accelerator,
        on_step=lambda log: shares.append(log.overhead),
        report_every=5,
    )
    return statistics.median(shares)


def subject(name, batch):
    """A fresh supernet of a preset, and a batch for it."""
    space = preset(name, channels=3, image_size=32, classes=10)
    supernet = (
        Supernet(space, mean=[0.5] * 3, std=[0.25] * 3)
        .to(memory_format=torch.channels_last)
        .train()
    )
    images = torch.rand(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    return supernet, images, torch.randint(0, 10, (batch,))


def rate_rows(name, peaks, batch, architectures):
    supernet, images, labels = subject(name, batch)
    space, largest = supernet.space, supernet.space.largest()
    rows = []
    for precision in ("fp32", "bf16"):
        seconds = median_seconds(
            lambda p=precision: passes(lambda x: supernet(x, largest), images, labels, p)
        )
        gflops = 6 * space.cost(largest).macs * batch / seconds / 1e9
        row = {
            "preset": name,
            "precision": precision,
            "images_per_second": batch / seconds,
            "gflops": gflops,
        }
        rows.append(row | {"share_of_peak": gflops / peaks[precision]})
    fastest = max(rows, key=lambda row: row["images_per_second"])
    rng = np.random.default_rng(0)
    ratios = [
        elastic_over_plain(
            supernet, space.sample_choices(rng), images, labels, fastest["precision"]
        )
        for _ in range(architectures)
    ]
    fastest |= {
        "elastic_over_plain": statistics.median(ratios),
        "worst_elastic_over_plain": max(ratios),
    }
    fastest["overhead_share"] = overhead_share(supernet, fastest["precision"])
    return rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--architectures", type=int, default=6)
    arguments = parser.parse_args()
    keep_freed_memory()
    peaks = {
        "fp32": convolution_peak_gflops(torch.float32),
        "bf16": convolution_peak_gflops(torch.bfloat16),
    }
    rows = [
        row
        for name in PRESETS
        for row in rate_rows(name, peaks, arguments.batch, arguments.architectures)
    ]
    publish(
        "training_rate",
        rows,
        peak_fp32_gflops=peaks["fp32"],
        peak_bf16_gflops=peaks["bf16"],
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()
