"""Random networks and random morphs of them, for the tests and for `benchmarks/morphs.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.errors import MorphError
from pliant.networks import build
from pliant.networks.morph.attach import add_skip, add_squeeze_excite
from pliant.networks.morph.channel_graph import ChannelGraph
from pliant.networks.morph.deepening import deepen
from pliant.networks.morph.inheritance import inherit
from pliant.networks.morph.kernel import grow_kernel
from pliant.networks.morph.widening import widen
from pliant.spaces.cell import CellSpace
from pliant.spaces.convolutional_blocks import InvertedResidual
from pliant.spaces.presets import preset
from pliant.spaces.space import Space

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU)
SPACES = ("digits", "mobile-32", "plain-32", "wide-32", "nas-bench-201")


@dataclass(frozen=True)
class Morph:
    """A network, what was done to it, and what came of it."""

    what: str
    parent: nn.Module
    child: nn.Module
    images: Tensor


def conv(inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, groups: int = 1):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


class ConvNorm(nn.Sequential):
    def __init__(self, inputs, outputs, act, kernel=3, **options):
        layer = conv(inputs, outputs, kernel, **options)
        super().__init__(layer, nn.BatchNorm2d(outputs), act())


class Residual(nn.Module):
    """A basic block, or an inverted residual with squeeze-and-excitation."""

    def __init__(self, channels, act, rng):
        super().__init__()
        mid = channels * int(rng.integers(1, 3))
        self.expand = ConvNorm(channels, mid, act, int(rng.choice([1, 3])))
        self.middle = ConvNorm(mid, mid, act, groups=mid) if rng.random() < 0.5 else nn.Identity()
        self.squeeze = nn.Linear(mid, 4) if rng.random() < 0.5 else None
        self.excite = nn.Linear(4, mid)
        self.project, self.norm = conv(mid, channels, 1), nn.BatchNorm2d(channels)

    def forward(self, x):
        y = self.middle(self.expand(x))
        if self.squeeze is not None:
            gate = torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3))))))
            y = y * gate[:, :, None, None]
        return x + self.norm(self.project(y))


class Concatenation(nn.Module):
    """Two branches side by side, one of them with groups, and the input (DenseNet, Inception)."""

    def __init__(self, channels, act):
        super().__init__()
        self.left = ConvNorm(channels, channels, act, 1)
        self.right = ConvNorm(channels, channels, act, groups=channels // 4)

    def forward(self, x):
        return torch.cat([self.left(x), x, F.avg_pool2d(self.right(x), 3, 1, 1)], 1)


class RandomNetwork(nn.Module):
    """Blocks of all kinds in a random order, with one of two heads."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        act = ACTIVATIONS[rng.integers(len(ACTIVATIONS))]
        channels = 4 * int(rng.integers(2, 4))
        self.stem = ConvNorm(3, channels, act)
        blocks: list[nn.Module] = []
        for _ in range(int(rng.integers(1, 4))):
            kind = rng.integers(4)
            if kind == 0:
                outputs = 4 * int(rng.integers(2, 5))
                blocks.append(ConvNorm(channels, outputs, act, stride=int(rng.integers(1, 3))))
                channels = outputs
            elif kind == 1:
                parts = [Residual(channels, act, rng) for _ in range(rng.integers(1, 3))]
                blocks.append(nn.Sequential(*parts))
            elif kind == 2:
                blocks.append(ConvNorm(channels, 2 * channels, act, groups=4))
                channels *= 2
            else:
                blocks.append(Concatenation(channels, act))
                channels *= 3
        self.blocks = nn.Sequential(*blocks)
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.is_flat = bool(rng.random() < 0.5)
        self.hidden = nn.Linear(channels * 16 if self.is_flat else channels, 12)
        self.dropout, self.classifier = nn.Dropout(0.2), nn.Linear(12, 5)

    def forward(self, x):
        y = F.adaptive_avg_pool2d(self.blocks(self.stem(x)) * self.scale, 4 if self.is_flat else 1)
        return self.classifier(self.dropout(F.relu(self.hidden(y.flatten(1)))))


def trained(network: nn.Module, images: Tensor, rng: np.random.Generator) -> nn.Module:
    """Random scales, shifts and statistics, as training leaves them, so that nothing hides."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                count = len(module.weight)
                module.weight.copy_(torch.from_numpy(rng.uniform(0.5, 1.5, count)))
                module.bias.copy_(torch.from_numpy(rng.normal(0, 0.2, count)))
        network.train()
        network(images)
    return network.eval()


def module_morph(rng: np.random.Generator) -> Morph:
    """A random network of the user's own, and a random operation where it is possible."""
    images = torch.from_numpy(rng.random((8, 3, 12, 12), dtype=np.float32))
    parent = trained(RandomNetwork(rng), images, rng)
    layers = [name for name, _ in parent.named_modules() if name]
    operations: dict[str, Callable[[str], nn.Module]] = {
        "widen": partial(_widened, parent, images, rng),
        "deepen": lambda layer: deepen(parent, layer, images, rng)[0],
        "kernel": lambda layer: grow_kernel(parent, layer, 5, images),
        "squeeze-and-excite": lambda layer: add_squeeze_excite(parent, layer, images, rng),
        "skip": lambda layer: add_skip(parent, layer, images),
    }
    name = list(operations)[rng.integers(len(operations))]
    for layer in map(str, rng.permutation(layers)):
        child = _possible(operations[name], layer)
        if child is not None:
            return Morph(f"{name} {layer}", parent, child, images)
    raise AssertionError(f"no layer of the network takes the morph {name}")


def _possible(operation: Callable[[str], nn.Module], layer: str) -> nn.Module | None:
    """The child, or None where the operation is refused before there is any."""
    try:
        return operation(layer)
    except MorphError as error:
        if "of its largest output" in str(error):
            raise
        return None


def _widened(parent: nn.Module, images: Tensor, rng: np.random.Generator, layer: str) -> nn.Module:
    group = ChannelGraph(parent, images).group(layer)
    more = group.unit * int(rng.integers(1, 9)) if group else 1
    return widen(parent, {layer: (group.width if group else 0) + more}, images, rng)


def space_morph(rng: np.random.Generator) -> Morph:
    """A random network of a space, and a random larger one that inherits its weights."""
    name = SPACES[rng.integers(len(SPACES))]
    channels, size = (1, 8) if name == "digits" else (3, 32)
    space = preset(name, channels=channels, image_size=size, classes=10).trainable_space()
    images = torch.from_numpy(rng.random((8, channels, size, size), dtype=np.float32))
    one = space.sample_choices(rng)
    if isinstance(space, CellSpace):
        one = space.prune_dead_edges(one)
    parent = build(space, one, mean=[0.5] * channels, std=[0.25] * channels)
    trained(parent, images, rng)
    theirs = space.blocks(one)
    ours = list(space.blocks(larger(space, dict(one.options), rng)))
    for place, block in enumerate(ours):
        if isinstance(block, InvertedResidual) and rng.random() < 0.3:
            ours[place] = dataclasses.replace(block, squeeze_excite=True)
    found = inherit(parent, theirs, ours, images, rng)
    assert not found.approximations, found.approximations
    return Morph(f"{name} {one}", parent, found.network, images)


def larger(space: Space, options: dict, rng: np.random.Generator):
    """Every choice at its option or a later one; resolution stays, and edges of cells grow."""
    if isinstance(space, CellSpace):
        # none may become a convolution, and a convolution of one pixel one of three.
        none, _, _, small, large = range(5)
        grown = {none: (none, small, large), small: (small, large)}
        for name, option in options.items():
            options[name] = int(rng.choice(grown.get(option, (option,))))
        return space.architecture(options)
    for choice in space.choices:
        if choice.dimension not in ("resolution", "views"):
            start = choice.options.index(options.get(choice.name, choice.options[0]))
            options[choice.name] = choice.options[rng.integers(start, len(choice.options))]
    return space.architecture(options)


def random_morph(seed: int) -> Morph:
    """One of both kinds, by the seed."""
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return space_morph(rng) if seed % 2 else module_morph(rng)
