"""A network grows, keeps what it computes, is trained further, and is written as deliveries are."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from pliant.accuracy.calibration import calibrate, calibration_images
from pliant.accuracy.evaluation import pixels, top1
from pliant.data import Augmentation, DataSet
from pliant.deploy.delivered import DeliveredNetwork
from pliant.deploy.module_source import write_module
from pliant.deploy.package import write_model
from pliant.deploy.sums import write_sums
from pliant.deploy.verify import (
    ONNX_TOLERANCE,
    SUPERNET_TOLERANCE,
    relative_difference,
    run_model_py,
    run_onnx,
)
from pliant.errors import DataError, MorphError, RecipeError, VerificationError
from pliant.files import write_atomically
from pliant.networks.morph.amount import Amount, parse_amount
from pliant.networks.morph.attach import add_skip, add_squeeze_excite
from pliant.networks.morph.channel_graph import ChannelGraph, Group
from pliant.networks.morph.check import Change, change
from pliant.networks.morph.deepening import deepen
from pliant.networks.morph.grow_blocks import (
    deepened,
    widened,
    with_kernel,
    with_squeeze_excite,
)
from pliant.networks.morph.inheritance import inherit
from pliant.networks.morph.kernel import grow_kernel
from pliant.networks.morph.widening import widen
from pliant.networks.plain import Network
from pliant.networks.returned import describe_output
from pliant.progress import Progress, silent
from pliant.spaces.block import Block
from pliant.training.loop import StepLog, make_accelerator, train
from pliant.training.schedule import TrainingRecipe
from pliant.training.scratch import FromScratch

CHECKED_IMAGES = 16
LEARNING_RATE = 0.1
"""Peak learning rate over that of training from scratch: Net2Net's tenth (Chen et al. 2015, section
3.1.2), since the weights are trained already."""


@dataclass(frozen=True)
class Plan:
    """What grows, as `LAYER=AMOUNT` or names of layers."""

    widen: tuple[str, ...] = ()
    deepen: tuple[str, ...] = ()
    kernel: tuple[str, ...] = ()
    squeeze_excite: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not any((self.widen, self.deepen, self.kernel, self.squeeze_excite, self.skip)):
            raise RecipeError(
                "growing names what grows, received nothing. Use --widen stage2=1.5x, --deepen"
                " stage3=+1, --kernel stage1=5, --squeeze-excite stage2 or --skip LAYER."
            )

    def amounts(self, what: str) -> list[Amount]:
        """The parsed texts of widen, deepen or kernel."""
        example = {"widen": "stage2=1.5x", "deepen": "stage3=+1", "kernel": "stage1=5"}[what]
        texts: tuple[str, ...] = getattr(self, what)
        return [parse_amount(text, what=f"--{what}", example=example) for text in texts]


@dataclass(frozen=True)
class Grown:
    """A child, and what is known about it."""

    network: nn.Module
    change: Change
    """Of the outputs before any training."""
    parameters: tuple[int, int]
    """Before and after."""
    steps: tuple[str, ...] = ()
    """What was done, in words."""
    blocks: tuple[Block, ...] = ()
    """The description of one of Pliant's networks; empty for others."""
    validation: Mapping[str, float] = field(default_factory=dict)
    """Top-1 of the parent and of the trained child, where there are images."""


def grow_delivered(
    delivered: DeliveredNetwork, plan: Plan, images: Tensor, rng: np.random.Generator
) -> Grown:
    """A larger network of the same blocks, with the weights of a delivered one.

    Args:
        delivered: the parent.
        plan: names stages and slots.
        images: (N, channels, size, size) pixels from 0 to 1, at least 2, for the check.
        rng: of copied channels and new weights.

    Raises:
        MorphError: a part of the plan is not possible, and which alternative there is.
    """
    if plan.skip:
        raise MorphError(
            "blocks of Pliant's networks add their input wherever shapes allow it. --skip is for a"
            " network of your own, named as file.py:NAME."
        )
    blocks = delivered.blocks
    for amount in plan.amounts("widen"):
        blocks = widened(blocks, amount)
    for amount in plan.amounts("kernel"):
        blocks = with_kernel(blocks, amount)
    for layer in plan.squeeze_excite:
        blocks = with_squeeze_excite(blocks, layer)
    for amount in plan.amounts("deepen"):
        blocks = deepened(blocks, amount)
    found = inherit(delivered.network, delivered.blocks, blocks, images, rng)
    if found.approximations or found.change is None:
        raise MorphError(
            "a network grows by what keeps its outputs; here "
            f"{'; '.join(found.approximations)}. Leave this part of the plan out."
        )
    parameters = (_parameters(delivered.network), _parameters(found.network))
    return Grown(found.network.eval(), found.change, parameters, blocks=blocks)


def grow_module(module: nn.Module, plan: Plan, images: Tensor, rng: np.random.Generator) -> Grown:
    """A larger copy of any module that `torch.export` can trace; arguments as `grow_delivered`.

    A name is that of a layer, or of a part of the module: all of its layers that can be wider.

    Raises:
        MorphError: a part of the plan is not possible, which layer, and which alternative there is.
    """
    _require_one_tensor(module, images)
    child, steps = module, []
    for amount in plan.amounts("widen"):
        widths = _widths(child, amount, images)
        child = widen(child, widths, images, rng)
        steps += [f"{layer} has {width} channels" for layer, width in widths.items()]
    for amount in plan.amounts("kernel"):
        child = grow_kernel(child, amount.layer, int(amount.value), images)
        steps.append(f"{amount.layer} has a kernel of {int(amount.value)}")
    for layer in plan.squeeze_excite:
        child = add_squeeze_excite(child, layer, images, rng)
        steps.append(f"{layer} is gated by squeeze-and-excitation")
    for layer in plan.skip:
        child = add_skip(child, layer, images)
        steps.append(f"{layer} has a skip around it")
    for amount in plan.amounts("deepen"):
        for _ in range(int(amount.value)):
            child, how = deepen(child, amount.layer, images, rng)
            steps.append(f"{amount.layer} is deeper by {how}")
    parameters = (_parameters(module), _parameters(child))
    return Grown(child.eval(), change(module, child, images), parameters, tuple(steps))


def _require_one_tensor(module: nn.Module, images: Tensor) -> None:
    """A morph keeps any outputs; model.onnx and the training further need logits.

    In training mode too: some networks have auxiliary heads there only. What does not run at all is
    left to the export, whose message names the place.
    """
    outputs = []
    try:
        for training in (False, True):
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                outputs.append(copy.deepcopy(module).train(training)(images[:2]))
    except Exception:
        return
    others = [one for one in outputs if not isinstance(one, Tensor)]
    if others:
        output = others[0]
        raise MorphError(
            f"a network to grow returns one tensor; this one returns {describe_output(output)}."
        )


def _widths(module: nn.Module, amount: Amount, images: Tensor) -> dict[str, int]:
    """The new width of each group under a name, by the first of its layers there."""
    graph = ChannelGraph(module, images)
    groups: dict[Group, str] = {}
    for layer in graph.produced:
        group = graph.produced[layer].root()
        inside = layer == amount.layer or layer.startswith(f"{amount.layer}.")
        if inside and (not group.fixed or layer == amount.layer):
            groups.setdefault(group, layer)
    if not groups:
        return {amount.layer: int(amount.value)}  # refused by `widen`, which says why
    found = {}
    for group, layer in groups.items():
        width = amount.of(group.width, math.ceil)
        found[layer] = -(-width // group.unit) * group.unit if amount.is_factor else width
    return found


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def require_fitting(data: DataSet, classes: Sequence[str], channels: int, size: int) -> None:
    """Refuse images that are not those of the network.

    Raises:
        DataError: they have other classes or channels.
    """
    if classes and tuple(classes) != data.classes:
        raise DataError(
            f"a network is trained further on its own classes, {', '.join(classes)}; the images"
            f" have {', '.join(data.classes)}. Use the images that it was trained on."
        )
    if data.channels != channels or data.image_size != size:
        raise DataError(
            f"the network takes {channels}x{size}x{size}, the images are {data.channels}x"
            f"{data.image_size}x{data.image_size}."
        )


def train_further(
    grown: Grown,
    parent: nn.Module,
    data: DataSet,
    *,
    epochs: int,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    progress: Progress = silent,
) -> Grown:
    """The child after some epochs; as it was grown where they make it worse.

    Args:
        grown: in evaluation mode.
        parent: for its accuracy.
        data: whose training images are learned from, and whose validation images judge.
        epochs: passes over the training images.
        learning_rate: peak, over that of training from scratch.
        seed: of the order of images.
        progress: called after steps.
    """
    usual = TrainingRecipe(epochs)
    recipe = replace(
        usual,
        learning_rate=usual.learning_rate * learning_rate,
        batch_size=min(usual.batch_size, 256, len(data.train)),
        bias_rate=1.0,
        seed=seed,
    )
    before = top1(copy.deepcopy(parent), data.validation).top1
    child = copy.deepcopy(grown.network)

    def on_step(log: StepLog) -> None:
        progress("train", log.step, log.steps, f"loss {log.losses[0]:.3f}")

    train(
        child,
        data.train,
        Augmentation(),
        recipe,
        FromScratch(recipe.label_smoothing),
        accelerator=make_accelerator("fp32", "cpu"),
        on_step=on_step,
    )
    if isinstance(child, Network):
        rows = np.random.default_rng(seed).permutation(len(data.train))
        subset = data.train.batch(rows[: calibration_images(data.image_size)])[0]
        calibrate(child, pixels(subset))
    after = top1(child.eval(), data.validation).top1
    found = {"parent": before, "trained": after}
    return replace(grown, network=child if after >= before else grown.network, validation=found)


def write_grown(
    folder: Path,
    grown: Grown,
    images: Tensor,
    *,
    classes: Sequence[str],
    preprocessing: Mapping[str, object],
    source: str,
) -> tuple[str, ...]:
    """Write the files of a grown network and compare them with it.

    Args:
        folder: made where it does not exist.
        grown: to write.
        images: (N, channels, size, size) pixels from 0 to 1 on which the files are compared.
        classes: names of the labels.
        preprocessing: options of `pliant.picture.preprocess` that are not its defaults.
        source: what it was grown from, for the record.

    Returns:
        What the files cannot do, in sentences.

    Raises:
        VerificationError: a file computes something else.
    """
    network = copy.deepcopy(grown.network).cpu().eval()
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    images = (images * 255).round().clamp(0, 255)
    notes: tuple[str, ...] = ()
    if isinstance(network, Network):
        write_model(
            folder,
            network,
            grown.blocks,
            classes=classes,
            metadata={"grown from": source},
            preprocessing=preprocessing,
        )
        exported = run_onnx(folder / "model.onnx", images.byte().numpy())
    else:
        notes = write_module(folder, network, images / 255, classes=classes)
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
        exported = session.run(["logits"], {"image": (images / 255).numpy()})[0]
    with torch.no_grad():
        expected = network(images / 255)
    _require_close("model.py", expected, run_model_py(folder, images / 255), SUPERNET_TOLERANCE)
    _require_close("model.onnx", expected, torch.from_numpy(exported), ONNX_TOLERANCE)
    write_atomically(folder / "growth.json", json.dumps(_growth(grown, source), indent=2))
    write_sums(folder)
    return notes


def _require_close(name: str, expected: Tensor, found: Tensor, tolerance: float) -> None:
    difference = relative_difference(expected, found)
    if not difference <= tolerance:
        raise VerificationError(
            f"{name} computes what the grown network computes to {tolerance:g}; it differs by"
            f" {difference:.1e}. Please report it."
        )


def _growth(grown: Grown, source: str) -> dict[str, object]:
    return {
        "grown_from": source,
        "steps": list(grown.steps),
        "parameters": {"before": grown.parameters[0], "after": grown.parameters[1]},
        "relative_change": {
            "evaluation": grown.change.evaluation,
            "training": grown.change.training,
        },
        "validation_top1": dict(grown.validation),
    }
