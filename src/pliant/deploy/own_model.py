"""`own_model.py`: a delivered network as an instance of the user's own class, with smaller layers.

It needs the user's code, PyTorch and safetensors. Where the class does not compute a network of
these sizes there is `model.py` alone; the card says why.
"""

from __future__ import annotations

import inspect
import pprint
from pathlib import Path
from typing import Any

import torch
from torch import fx

from pliant.errors import ForeignError
from pliant.files import write_atomically
from pliant.networks.foreign.extraction import LEFT_OUT
from pliant.networks.foreign.shrink import (
    Skipped,
    SlicedAttention,
    layer_sizes,
    shrink,
    shrunk,
)
from pliant.networks.foreign.source import foreign_module
from pliant.plugins import is_plugin, plugin_name
from pliant.spaces.foreign import ForeignNetwork

FILE = "own_model.py"
COMPARED_IMAGES = 3
"""More than a pair: a class that takes two results apart would take two images apart, too."""
_SOURCE = '''"""A network of your own class with the layer sizes that were found; its weights are in
model.safetensors.

    network = load(module)  # of {source}, with whatever weights; it is changed in place
    logits = network(prepare(pixels))  # pixels from 0 to 1, (N, {channels}, {size}, {size})
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

SIZES = {sizes}

LEFT_OUT = {left_out}

RESOLUTION = {resolution}
MEAN, STD = {mean}, {std}


{definitions}

def load(module: nn.Module, weights: str | None = None) -> nn.Module:
    """The network with the sizes and weights of this folder, in eval mode; changed in place."""
    file = weights or Path(__file__).with_name("model.safetensors")
    return shrink(module, SIZES, LEFT_OUT, load_file(file))


def prepare(pixels: Tensor) -> Tensor:
    """Pixels from 0 to 1 as the network takes them: normalised, and of its resolution."""
    if MEAN:
        mean, std = (pixels.new_tensor(one)[:, None, None] for one in (MEAN, STD))
        pixels = (pixels - mean) / std
    if RESOLUTION is None:
        return pixels
    size = (RESOLUTION, RESOLUTION)
    return F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
'''


def write_own_model(folder: Path, network: fx.GraphModule, block: ForeignNetwork) -> str:
    """Write own_model.py where the user's class computes the network.

    Args:
        folder: with model.safetensors.
        network: extracted and calibrated.
        block: its description, whose source is a name that any process can load.

    Returns:
        What became of it, a sentence for people.
    """
    path, source = folder / FILE, block.description.source
    path.unlink(missing_ok=True)
    module = foreign_module(source)
    shape = (COMPARED_IMAGES, block.channels, block.resolution, block.resolution)
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    try:
        own = shrunk(module, network, images)
    except ForeignError as error:
        return f"There is no {FILE}: {error}"
    state = network.state_dict()
    mean, std = (
        state[name].flatten().tolist() if name in state else []
        for name in ("pixel_mean", "pixel_std")
    )
    definitions: tuple[Any, ...] = (Skipped, SlicedAttention, shrink)
    text = _SOURCE.format(
        source=plugin_name(source) if is_plugin(source) else source,
        channels=block.channels,
        size=block.size,
        sizes=pprint.pformat(layer_sizes(module, network), width=96),
        left_out=pprint.pformat(network.meta[LEFT_OUT], width=96),
        resolution=block.resolution if "r" in dict(block.options) else None,
        mean=mean,
        std=std,
        definitions="\n\n".join(map(inspect.getsource, definitions)),
    )
    write_atomically(path, text)
    sliced = [name for name, one in own.named_modules() if isinstance(one, SlicedAttention)]
    attention = (
        " PyTorch's MultiheadAttention needs heads that together are as wide as its input. In its"
        f" place there is a `{SlicedAttention.__name__}` of this file, the same attention without"
        f" that rule: {', '.join(sliced)}."
    )
    return (
        f"`{FILE}` is the same network as your own class, {type(module).__name__}: `from own_model"
        " import load, prepare; network = load(module)` with a module as your code makes it."
        f"{attention if sliced else ''}"
    )
