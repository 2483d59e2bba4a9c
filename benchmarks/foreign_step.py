"""What does a training step of a sub-network of a user's network cost in its supernet?

    pip install --no-deps --target FOLDER timm
    PYTHONPATH=FOLDER python benchmarks/foreign_step.py

Architectures of timm at 64 pixels, forward and backward pass in fp32 over the same of the extracted
network: for each of a few random sub-networks the median of alternating pairs, in CPU time, one
thread. The gradient of a sliced weight is padded to its full size, which weighs more the fewer
images there are in a batch.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from counts import stand_in_for_torchvision
from result import publish
from torch.nn import functional as F

import pliant
from pliant.training.allocator import keep_freed_memory

NAMES = ("resnet18", "mobilenetv2_050", "vit_tiny_patch16_224")
PIXELS = 64
PAIRS, WARM_UP = 9, 2


def seconds(network, parameters, labels):
    """CPU seconds of a forward and a backward pass."""
    for parameter in parameters:
        parameter.grad = None
    started = time.process_time()
    F.cross_entropy(network(), labels).backward()
    return time.process_time() - started


def ratio(supernet, architecture, images, labels):
    """The median over pairs for one sub-network."""
    extracted = supernet.extract(architecture).train()
    ours, theirs = list(supernet.parameters()), list(extracted.parameters())
    found = []
    for _ in range(PAIRS):
        elastic = seconds(lambda: supernet(images, architecture), ours, labels)
        found.append(elastic / seconds(lambda: extracted(images), theirs, labels))
    return statistics.median(found[WARM_UP:])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--architectures", type=int, default=8)
    arguments = parser.parse_args()
    stand_in_for_torchvision()
    import timm

    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    for name in NAMES:
        size = {"img_size": PIXELS} if name.startswith("vit") else {}
        torch.manual_seed(0)
        module = timm.create_model(name, num_classes=10, **size)
        for batch in arguments.batch:
            images, labels = torch.randn(batch, 3, PIXELS, PIXELS), torch.randint(0, 10, (batch,))
            supernet = pliant.make_elastic(module, images[:2]).train()
            rng = np.random.default_rng(0)
            found = [
                ratio(supernet, supernet.space.sample(rng), images, labels)
                for _ in range(arguments.architectures)
            ]
            median = statistics.median(found)
            rows.append({"network": name, "batch": batch, "median": median, "worst": max(found)})
            print(rows[-1], flush=True)
    publish("foreign_step", rows, architectures=arguments.architectures)


if __name__ == "__main__":
    main()
