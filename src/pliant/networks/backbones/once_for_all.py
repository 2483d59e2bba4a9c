"""The published supernets of Once-for-All: the spaces `ofa-mobilenetv3`, `-w1.2`, `ofa-resnet50`.

Cai, H., Gan, C., Wang, T., Zhang, Z., Han, S., Once-for-All: Train One Network and Specialize it
for Efficient Deployment, ICLR 2020, arXiv:1908.09791. They were trained on ImageNet with all their
sub-networks, so that each of them is of use without further training.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn

from pliant.errors import RecipeError
from pliant.networks.backbones.published import Family, Tensors, mobile_slots
from pliant.spaces.architecture import Architecture, Option
from pliant.spaces.space import Space

FILES = "https://raw.githubusercontent.com/han-cai/files/master/ofa/ofa_nets"
LARGE_FILES = "https://media.githubusercontent.com/media/han-cai/files/master/ofa/ofa_nets"
URLS = {
    "ofa_mbv3_d234_e346_k357_w1.0": f"{FILES}/ofa_mbv3_d234_e346_k357_w1.0",
    "ofa_mbv3_d234_e346_k357_w1.2": f"{FILES}/ofa_mbv3_d234_e346_k357_w1.2",
    "ofa_resnet50": f"{LARGE_FILES}/ofa_resnet50_d0-1-2_e0.2-0.25-0.35_w0.65-0.8-1.0",
}
"""Where Once-for-All's own code fetches its supernets from, by their names there."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

MOBILE_BLOCK = {
    ("inverted_bottleneck", "conv"): "expand",
    ("inverted_bottleneck", "bn"): "expand_norm",
    ("depth_conv", "conv"): "depthwise",
    ("depth_conv", "bn"): "depthwise_norm",
    ("fc", "reduce"): "squeeze_reduce",
    ("fc", "expand"): "squeeze_expand",
    ("point_linear", "conv"): "project",
    ("point_linear", "bn"): "project_norm",
}
"""Layers of an inverted residual, theirs and ours."""
MOBILE_ENDS = {
    ("first_conv", "conv"): "stem.conv1",
    ("first_conv", "bn"): "stem.norm1",
    ("final_expand_layer", "conv"): "head.expand",
    ("final_expand_layer", "bn"): "head.expand_norm",
    ("feature_mix_layer", "conv"): "head.hidden",
    ("classifier", "linear"): "head.classifier",
}
KERNEL_MATRICES = {"7to5_matrix": "to5", "5to3_matrix": "to3"}

RESIDUAL_BLOCK = {
    ("conv1", "conv"): "conv1",
    ("conv1", "bn"): "norm1",
    ("conv2", "conv"): "conv2",
    ("conv2", "bn"): "norm2",
    ("conv3", "conv"): "conv3",
    ("conv3", "bn"): "norm3",
    ("downsample", "conv"): "shortcut",
    ("downsample", "bn"): "shortcut_norm",
}
"""Layers of a bottleneck block, theirs and ours."""


def download(name: str) -> Path:
    """The file of a supernet that the user named, fetched once into PyTorch's cache.

    Args:
        name: one of `URLS`.

    Raises:
        RecipeError: it cannot be fetched.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(URLS[name], str(path), progress=False)
        except (URLError, OSError) as error:
            raise RecipeError(
                f"the weights {name} are fetched from {URLS[name]}, which failed ({error})."
                " Fetch them where there is a network, and name the file as the start."
            ) from error
    return path


def _parts(name: str) -> list[str]:
    """A name in its places: older files nest fewer modules than newer ones."""
    parts = name.replace("mobile_inverted_conv", "conv").split(".")
    return [part for part, _ in itertools.groupby(parts)]


def translate_mobile(tensors: Tensors, network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a MobileNetV3 supernet by the names of ours."""
    slots = mobile_slots(network)
    found = {}
    for name, tensor in tensors.items():
        *place, module, layer, end = ["", *_parts(name)]
        slot = slots[int(place[2])] if place[1:2] == ["blocks"] and _inside(place[2], slots) else ""
        if end in KERNEL_MATRICES and slot:
            ours = f"{slot}.depthwise.kernel_matrices.{KERNEL_MATRICES[end]}"
        elif slot and (module, layer) in MOBILE_BLOCK:
            ours = f"{slot}.{MOBILE_BLOCK[module, layer]}.{end}"
        elif (module, layer) in MOBILE_ENDS:
            ours = f"{MOBILE_ENDS[module, layer]}.{end}"
        else:
            ours = ""
        found[f"blocks.{ours}" if ours else name] = tensor
    mix = found.get("blocks.head.hidden.weight")
    if mix is not None:  # theirs is a 1x1 convolution without a bias
        found["blocks.head.hidden.weight"] = mix.flatten(1)
        found["blocks.head.hidden.bias"] = mix.new_zeros(len(mix))
    return found


def translate_resnet(tensors: Tensors, network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a ResNet-50 supernet by the names of ours."""
    slots = mobile_slots(network)
    found = {}
    for name, tensor in tensors.items():
        parts = _parts(name)
        layer, end = parts[-2:]
        place = parts[1] if len(parts) > 2 else ""
        if parts[0] == "input_stem":
            ours = f"stem{int(place) + 1}.{'norm1' if layer == 'bn' else 'conv1'}.{end}"
        elif parts[0] == "classifier":
            ours = f"head.classifier.{end}"
        elif _inside(place, slots) and (parts[-3], layer) in RESIDUAL_BLOCK:
            ours = f"{slots[int(place)]}.{RESIDUAL_BLOCK[parts[-3], layer]}.{end}"
        else:
            ours = ""
        found[f"blocks.{ours}" if ours else name] = tensor
    return found


def _inside(place: str, slots: list[str]) -> bool:
    return place.isdecimal() and int(place) < len(slots)


def mobile_space(tensors: Tensors) -> str:
    """The preset of a MobileNetV3 supernet, by the width of its stem."""
    narrow = len(tensors["first_conv.conv.weight"]) == STEM_WIDTH
    return "ofa-mobilenetv3" if narrow else "ofa-mobilenetv3-w1.2"


STEM_WIDTH = 16
"""Of the supernet of width 1."""

OFA_MOBILENETV3 = Family(
    mark="first_conv.conv.weight",
    space=mobile_space,
    translate=translate_mobile,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
OFA_RESNET50 = Family(
    mark="input_stem.0.conv.conv.weight",
    space=lambda tensors: "ofa-resnet50",
    translate=translate_resnet,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)


def mobile_architecture(
    space: Space, resolution: int, *, ks: Sequence[int], e: Sequence[int], d: Sequence[int]
) -> Architecture:
    """The architecture of what `set_active_subnet` of Once-for-All takes for MobileNetV3.

    Args:
        space: `ofa-mobilenetv3`, or the wider one.
        resolution: of the images, in pixels.
        ks: kernel of each of the 20 blocks; those that the depths leave out do not matter.
        e: expansion of each of them.
        d: depth of each of the five stages.
    """
    options: dict[str, Option] = {"r": resolution}
    for stage, depth in enumerate(d):
        options[f"{stage + 1}d"] = depth
        for block in range(depth):
            options[f"{stage + 1}.{block + 1}k"] = ks[MOBILE_DEPTH * stage + block]
            options[f"{stage + 1}.{block + 1}e"] = e[MOBILE_DEPTH * stage + block]
    return space.architecture(options)


def resnet_architecture(
    space: Space, resolution: int, *, e: Sequence[float], d: Sequence[int], w: Sequence[int]
) -> Architecture:
    """The architecture of what `set_active_subnet` of Once-for-All takes for ResNet-50.

    Args:
        space: `ofa-resnet50`.
        resolution: of the images, in pixels.
        e: ratio of each of the 18 blocks; those that the depths leave out do not matter.
        d: 2 where the stem keeps its residual block; of each stage the blocks beyond the least.
        w: positions of the widths of the stem's first convolutions, its last one, and each stage.
    """
    widths = next(choice.options for choice in space.choices if choice.name == "0.2w")
    narrow = next(choice.options for choice in space.choices if choice.name == "0.1w")
    options: dict[str, Option] = {
        "r": resolution,
        "0d": int(d[0] == RESNET_EXTRA),
        # The two smaller widths round to the same channels, and are one option here.
        "0.1w": narrow[max(0, w[0] - len(widths) + len(narrow))],
        "0.2w": widths[w[1]],
    }
    first = 0
    for stage, least in enumerate(RESNET_DEPTHS, 1):
        options[f"{stage}w"] = widths[w[stage + 1]]
        options[f"{stage}d"] = depth = least + d[stage]
        for block in range(depth):
            options[f"{stage}.{block + 1}e"] = e[first + block]
        first += least + RESNET_EXTRA
    return space.architecture(options)


MOBILE_DEPTH = 4
"""Blocks of a stage of the largest MobileNetV3."""
RESNET_DEPTHS, RESNET_EXTRA = (2, 2, 4, 2), 2
"""Least blocks of the stages of ResNet-50, and how many more there may be."""
