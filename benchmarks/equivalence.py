"""Is the sub-network active in the supernet equal to the extracted and to the exported one?

    python benchmarks/equivalence.py [--architectures 20]

Random architectures of every preset, with random weights.
"""

from __future__ import annotations

import argparse

import numpy as np
import onnxruntime
import torch
from result import publish

from pliant.accuracy.calibration import calibrate
from pliant.deploy.package import onnx_bytes
from pliant.deploy.verify import relative_difference
from pliant.networks.supernet import Supernet
from pliant.spaces.presets import preset

IMAGES = {
    "digits": (1, 8, 64),
    "mobile-32": (3, 32, 32),
    "plain-32": (3, 32, 32),
    "ofa-mobilenetv3": (3, 224, 4),
    "ofa-resnet50": (3, 224, 4),
}


@torch.no_grad()
def differences(supernet, architecture, images):
    plain = supernet.extract(architecture)
    for module in plain.modules():
        module.training = isinstance(module, torch.nn.BatchNorm2d)
    active = relative_difference(plain(images), supernet(images, architecture))
    calibrate(plain, images)
    session = onnxruntime.InferenceSession(
        onnx_bytes(plain, supernet.space.blocks(architecture), pictures=False),
        providers=["CPUExecutionProvider"],
    )
    exported = torch.from_numpy(session.run(None, {"image": images.numpy()})[0])
    return active, relative_difference(plain(images), exported)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architectures", type=int, default=20)
    arguments = parser.parse_args()
    rows = []
    for name, (channels, size, batch) in IMAGES.items():
        space = preset(name, channels=channels, image_size=size, classes=10)
        torch.manual_seed(0)
        supernet = Supernet(space, mean=[0.4] * channels, std=[0.3] * channels).eval()
        for parameter in supernet.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        rng = np.random.default_rng(0)
        count = arguments.architectures if size < 100 else max(2, arguments.architectures // 5)
        tried = [
            space.largest(),
            space.smallest(),
            *(space.sample_choices(rng) for _ in range(count - 2)),
        ]
        found = [
            differences(supernet, one, torch.rand(batch, channels, size, size)) for one in tried
        ]
        rows.append(
            {
                "preset": name,
                "architectures": len(tried),
                "worst_extracted": max(a for a, _ in found),
                "worst_onnx": max(b for _, b in found),
            }
        )
    publish("equivalence", rows, note="largest difference of logits over the largest logit")


if __name__ == "__main__":
    main()
