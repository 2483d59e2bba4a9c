"""What does a training step of a photograph network cost in the supernet?

    python benchmarks/elastic_step.py

Networks of the space `photos` at 96 to 160 pixels, forward and backward pass in fp32 and bf16, over
the same of the extracted network: the median of alternating pairs, in CPU time, one thread.
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


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--architectures", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    space = preset("photos", channels=3, image_size=160, classes=10)
    supernet = Supernet(space, mean=[0.5] * 3, std=[0.25] * 3)
    supernet = supernet.to(memory_format=torch.channels_last).train()
    images = torch.rand(arguments.batch, 3, 160, 160).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (arguments.batch,))
    rng = np.random.default_rng(0)
    networks = [
        space.largest(),
        space.smallest(),
        *(
            space.sample_choices(rng, {"r": RESOLUTIONS})
            for _ in range(arguments.architectures - 2)
        ),
    ]
    rows = []
    for precision in ("fp32", "bf16"):
        ratios = [elastic_over_plain(supernet, one, images, labels, precision) for one in networks]
        rows.append(
            {
                "space": "photos",
                "precision": precision,
                "networks": len(networks),
                "median": statistics.median(ratios),
                "worst": max(ratios),
            }
        )
    publish("elastic_step", rows, batch=arguments.batch)


if __name__ == "__main__":
    main()
