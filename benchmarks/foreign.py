"""Networks of other people made elastic: 30 architectures of timm, without weights.

    pip install --no-deps --target FOLDER timm
    PYTHONPATH=FOLDER python benchmarks/foreign.py [--only NAME] [--again]

Of each network: the whole supernet against the network itself, extracted sub-networks against the
same ones in the supernet (by batch statistics, as they are trained), their ONNX files in ONNX
Runtime against PyTorch, all relative to the largest logit; the share of the parameters that the
smallest sub-network does not have, with the residual branches left out and without leaving any out;
and the seconds it takes to make the network elastic. Sub-networks are the smallest, and two at
random. Weights are drawn, and BatchNorms have seen two batches. A row is written as soon as it is
there, so the benchmark resumes where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings

import numpy as np
import onnxruntime
import torch
from counts import stand_in_for_torchvision
from result import RESULTS, publish
from torch import nn

from pliant import make_elastic
from pliant.deploy.module_source import module_onnx
from pliant.errors import PliantError
from pliant.networks.trace import module_workload

NAME = "foreign"
NETWORKS = {
    # family: network: height and width of the image, and what else the network is made with
    "convolutional": {
        "resnet18": (64, {}),
        "resnet50": (64, {}),
        "resnext50_32x4d": (64, {}),
        "seresnet33ts": (64, {}),
        "densenet121": (64, {}),
        "fbnetc_100": (64, {}),
        "mobilenetv2_050": (64, {}),
        "mobilenetv3_large_100": (64, {}),
        "efficientnet_b0": (64, {}),
        "efficientnet_lite0": (64, {}),
        "regnety_002": (64, {}),
        "ghostnet_050": (64, {}),
        "repvgg_a0": (64, {}),
        "dla34": (64, {}),
        "hrnet_w18_small": (64, {}),
        "res2net50_14w_8s": (64, {}),
        "mobilenetv4_conv_small": (64, {}),
        "convnext_atto": (64, {}),
        "convnextv2_atto": (64, {}),
        "rexnet_100": (64, {}),
    },
    "transformer": {
        "vit_tiny_patch16_224": (64, {"img_size": 64}),
        "deit_tiny_distilled_patch16_224": (64, {"img_size": 64}),
        "cait_xxs24_224": (64, {"img_size": 64}),
        "swin_tiny_patch4_window7_224": (56, {"img_size": 56, "window_size": 7}),
        "pvt_v2_b0": (64, {}),
        "mixer_s32_224": (224, {}),
    },
    "hybrid": {
        "mobilevit_xxs": (64, {}),
        "poolformer_s12": (64, {}),
        "levit_128s": (224, {}),
        "efficientformer_l1": (224, {}),
    },
}


def made(name: str, options: dict, size: int) -> nn.Module:
    """The network with drawn weights and statistics of its own."""
    import timm

    torch.manual_seed(0)
    module = timm.create_model(name, pretrained=False, num_classes=10, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=(1 / parameter[0].numel()) ** 0.5)
            elif not bool(parameter.any()):
                parameter.fill_(0.01)
        module.train()
        for _ in range(2):
            module(torch.randn(4, 3, size, size))
    return module.eval()


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest, relative to the largest logit."""
    return float((one - other).abs().max() / other.abs().max())


@torch.no_grad()
def row(family: str, name: str, size: int, options: dict) -> dict:
    """All figures of one network."""
    module = made(name, options, size)
    images = torch.randn(3, 3, size, size)
    began = time.process_time()
    supernet = make_elastic(module, images[:1])
    seconds = time.process_time() - began
    space = supernet.space
    whole = difference(supernet.eval()(images), module(images))
    supernet.sort_channels()
    is_sorted = difference(supernet(images), module(images))
    rng = np.random.default_rng(0)
    extracted, onnx, costs = 0.0, 0.0, True
    for architecture in (space.smallest(), space.sample_choices(rng), space.sample_choices(rng)):
        network = supernet.extract(architecture)
        active = supernet.train()(images, architecture)
        extracted = max(extracted, difference(network.train()(images), active))
        workload, cost = module_workload(network.eval(), images[:1]), space.cost(architecture)
        costs &= (workload.macs, workload.parameters) == (cost.macs, cost.parameters)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            session = onnxruntime.InferenceSession(
                module_onnx(network, images[:2]), providers=["CPUExecutionProvider"]
            )
        [logits] = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        onnx = max(onnx, difference(torch.from_numpy(logits), network(images)))
    full = space.cost(space.largest()).metric("parameters")
    deep = space.architecture(
        {c.name: c.options[-1 if c.dimension == "depth" else 0] for c in space.choices}
    )
    return {
        "family": family,
        "network": name,
        "full_size": max(whole, is_sorted),
        "extracted": extracted,
        "onnx": onnx,
        "costs_equal": costs,
        "narrower": round(1 - space.cost(deep).metric("parameters") / full, 3),
        "smallest": round(1 - space.cost(space.smallest()).metric("parameters") / full, 3),
        "choices": len(space.choices),
        "fixed": len(supernet.space.description.fixed),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only")
    parser.add_argument("--again", action="store_true", help="also those that are there")
    options = parser.parse_args()
    stand_in_for_torchvision()
    path = RESULTS / f"{NAME}.json"
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    for family, networks in NETWORKS.items():
        for name, (size, made_with) in networks.items():
            known = [one for one in rows if one["network"] == name and "refused" not in one]
            if (known and not options.again) or (options.only and options.only != name):
                continue
            try:
                found = row(family, name, size, made_with)
            except (PliantError, RuntimeError) as error:
                reason = str(error).splitlines()[0][:200]
                found = {"family": family, "network": name, "refused": reason}
            rows = [one for one in rows if one["network"] != name] + [found]
            print(found, flush=True)
            publish(NAME, rows, **summary(rows))


def summary(rows: list[dict]) -> dict:
    """The worst of each figure, and the shares by family."""
    good = [one for one in rows if "refused" not in one]
    found = {
        key: max((one[key] for one in good), default=None)
        for key in ("full_size", "extracted", "onnx", "seconds")
    }
    for family in NETWORKS:
        for share in ("narrower", "smallest"):
            values = [one[share] for one in good if one["family"] == family]
            found[f"{family}_{share}"] = float(np.median(values)) if values else None
    return found | {"networks": len(good), "refused": len(rows) - len(good)}


if __name__ == "__main__":
    main()
