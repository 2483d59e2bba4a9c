"""The files of a delivered network: model.onnx, predict.py, model.safetensors and model.py.

`model.onnx` goes from pictures to probabilities, and `predict.py` from picture files to them.
`model.py` is the source of the plain blocks, followed by the description of the network. It needs
PyTorch and safetensors, not Pliant, so the network can be read, changed and fine-tuned anywhere.
"""

from __future__ import annotations

import inspect
import json
import pprint
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch.fx import GraphModule

from pliant.accuracy.calibration import require_calibrated
from pliant.deploy.module_source import module_source
from pliant.deploy.own_source import own_source
from pliant.deploy.sums import SUMS
from pliant.files import write_atomically
from pliant.metrics import InferencePrecision
from pliant.networks import plain
from pliant.networks.foreign.onnx import foreign_model
from pliant.networks.onnx import network_model
from pliant.networks.supernet import describe
from pliant.picture import preprocess
from pliant.spaces.block import Block
from pliant.spaces.foreign import ForeignNetwork
from pliant.training.checkpoint import save_tensors

MODEL, INT8_MODEL = "model.onnx", "model.int8.onnx"
"""The delivered network in fp32 and in int8."""

_LOADER = '''

DESCRIPTION = {description}

CLASSES = {classes}


def load(weights: str | None = None) -> Network:
    """The network with its weights, in eval mode.

    From pixels from 0 to 1, (N, {channels}, {size}, {size}), to logits, (N, {count}).
    """
    from pathlib import Path

    from safetensors.torch import load_file

    network = Network(DESCRIPTION)
    network.load_state_dict(load_file(weights or Path(__file__).with_name("model.safetensors")))
    network.register_forward_pre_hook(require_pixels)
    return network.eval()


def require_pixels(network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Refuse images of another size, and pixels that are not from 0 to 1."""
    images = inputs[0]
    if images.ndim != 4 or tuple(images.shape[1:]) != ({channels}, {size}, {size}):
        raise ValueError(
            f"images are (N, {channels}, {size}, {size}), received {{tuple(images.shape)}}."
        )
    if torch.jit.is_tracing() or torch.compiler.is_compiling() or not len(images):
        return
    low, high = float(images.min()), float(images.max())
    if not images.is_floating_point() or not (low >= -0.01 and high <= 1.01):
        raise ValueError(
            f"pixels are fractions from 0 to 1, received {{images.dtype}} from {{low:g}} to "
            f"{{high:g}}. Divide bytes by 255."
        )
'''


def write_model(
    folder: Path,
    network: plain.Network,
    blocks: Sequence[Block],
    *,
    classes: Sequence[str],
    metadata: Mapping[str, str] | None = None,
    preprocessing: Mapping[str, object] | None = None,
    precision: InferencePrecision = "fp32",
) -> None:
    """Write the files of a network but its card; each file is replaced atomically.

    Args:
        folder: made where it does not exist.
        network: calibrated.
        blocks: of the network, in running order.
        classes: names of the labels, in the order of the logits.
        metadata: of the ONNX file.
        preprocessing: options of `pliant.picture.preprocess` that are not its defaults.
        precision: of the file that is meant to be used: of model.onnx, or of model.int8.onnx.

    Raises:
        UncalibratedError: a BatchNorm has no statistics.
    """
    require_calibrated(network)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SUMS).unlink(missing_ok=True)  # of the files that are replaced now
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()
    }
    save_tensors(folder / "model.safetensors", state)
    used = MODEL if precision == "fp32" else INT8_MODEL
    options = dict(preprocessing or {})
    carried = dict(metadata or {}) | {
        "classes": json.dumps(list(classes)),
        "preprocessing": json.dumps(options),
        "use": used,
    }
    write_atomically(folder / MODEL, onnx_bytes(network, blocks, metadata=carried))
    if isinstance(network, GraphModule):
        shape = (1, blocks[0].in_channels, blocks[0].size, blocks[0].size)
        source = module_source(network, torch.zeros(shape), classes)
    else:
        source = model_source(blocks, classes)
    write_atomically(folder / "model.py", source)
    write_atomically(
        folder / "predict.py", predict_source(blocks[0].in_channels, blocks[0].size, options, used)
    )


def write_int8(folder: Path, model: bytes) -> None:
    """Write model.int8.onnx beside model.onnx, with the same metadata.

    Args:
        folder: with model.onnx.
        model: the quantized network, ONNX.
    """
    quantized, original = onnx.load_from_string(model), onnx.load(folder / MODEL)
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(original.metadata_props)
    write_atomically(folder / INT8_MODEL, quantized.SerializeToString())


def onnx_bytes(
    network: plain.Network,
    blocks: Sequence[Block],
    *,
    metadata: Mapping[str, str] | None = None,
    batch: int | None = None,
    pictures: bool = True,
) -> bytes:
    """The network as an ONNX model, BatchNorm folded into the convolutions.

    Args:
        network: calibrated.
        blocks: of the network, in running order.
        metadata: of the ONNX file.
        batch: number of images per run; dynamic where None.
        pictures: from pictures to probabilities, as it is delivered, or from pixels to logits.
    """
    if isinstance(blocks[0], ForeignNetwork):
        model = foreign_model(network, blocks[0], batch=batch, metadata=metadata, pictures=pictures)
        onnx.checker.check_model(model)
        return model.SerializeToString()
    state: dict[str, np.ndarray] = {
        name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()
    }
    model = network_model(blocks, state, batch=batch, metadata=metadata, pictures=pictures)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def model_source(blocks: Sequence[Block], classes: Sequence[str]) -> str:
    """The text of model.py."""
    first = blocks[0]
    loader = _LOADER.format(
        description=pprint.pformat(describe(blocks), width=120, sort_dicts=False),
        classes=pprint.pformat(list(classes), width=120),
        channels=first.in_channels,
        size=first.size,
        count=len(classes),
    )
    own = own_source(type(block).__name__ for block in blocks)
    return inspect.getsource(plain).rstrip() + "\n" + own + loader


def predict_source(
    channels: int, size: int, preprocessing: Mapping[str, object], model: str
) -> str:
    """The text of predict.py.

    Args:
        channels: 1 for gray, 3 for RGB.
        size: height and width of the network's input, in pixels.
        preprocessing: options of `preprocess` that are not its defaults.
        model: name of the ONNX file.
    """
    template = templates().get_template("predict.py.jinja")
    arguments = preprocess_arguments(channels, size, preprocessing)
    return template.render(preprocess=preprocess_source(), arguments=arguments, model=model)


def preprocess_arguments(channels: int, size: int, preprocessing: Mapping[str, object]) -> str:
    """What follows the picture where `preprocess` is called, as Python. Args as above."""
    options = "".join(f", {name}={value!r}" for name, value in preprocessing.items())
    return f'{size}, "{picture_mode(channels)}"{options}'


def picture_mode(channels: int) -> str:
    """Pillow's name of pictures with so many channels."""
    return "L" if channels == 1 else "RGB"


def preprocess_source() -> str:
    """The function that data loading calls for every picture."""
    return inspect.getsource(preprocess)


def templates() -> Environment:
    """What a delivered network is described with: Markdown and Python, not HTML."""
    return Environment(
        autoescape=False,
        loader=PackageLoader("pliant.deploy", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
