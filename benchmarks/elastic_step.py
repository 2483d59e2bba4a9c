"""What does a training step of a sub-network cost in the supernet?

    python benchmarks/elastic_step.py                   # photographs
    python benchmarks/elastic_step.py --space vit-32    # vision transformers

Networks of the space `photos` at 96 to 160 pixels, or of another one, forward and backward pass in
fp32 and bf16, over the same of the extracted network: the median of alternating pairs, in CPU time,
one thread.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
import torch
from result import publish
from training_rate import elastic_over_plain

from pliant.networks.supernet import Supernet
from pliant.spaces.presets import preset
from pliant.training.allocator import keep_freed_memory

RESOLUTIONS = (96, 112, 128, 160)
SIZES = {"photos": 160, "vit-32": 32}
"""Images of each space, in pixels."""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", default="photos", choices=sorted(SIZES))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--architectures", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    size = SIZES[arguments.space]
    space = preset(arguments.space, channels=3, image_size=size, classes=10)
    frozen = {"r": RESOLUTIONS} if arguments.space == "photos" else None
    supernet = Supernet(space, mean=[0.5] * 3, std=[0.25] * 3)
    supernet = supernet.to(memory_format=torch.channels_last).train()
    images = torch.rand(arguments.batch, 3, size, size)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (arguments.batch,))
    rng = np.random.default_rng(0)
    networks = [
        space.largest(),
        space.smallest(),
        *(space.sample_choices(rng, frozen) for _ in range(arguments.architectures - 2)),
    ]
    rows = []
    for precision in ("fp32", "bf16"):
        ratios = [elastic_over_plain(supernet, one, images, labels, precision) for one in networks]
        rows.append(
            {
                "space": arguments.space,
                "precision": precision,
                "networks": len(networks),
                "median": statistics.median(ratios),
                "worst": max(ratios),
            }
        )
    name = "elastic_step" if arguments.space == "photos" else f"elastic_step-{arguments.space}"
    publish(name, rows, batch=arguments.batch)


if __name__ == "__main__":
    main()
