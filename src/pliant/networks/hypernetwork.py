"""A hypernetwork: a supernet whose weights are computed from the architecture that runs.

Each weight is a free tensor plus a correction that a small network generates for the architecture;
the elastic layers then slice it as they slice any shared weight. Without the correction this is
weight sharing, exactly. Two encoders describe the architecture:

- `code`: one code of the whole architecture for all layers, as in Brock, A. et al., SMASH: one-shot
  model architecture search through hypernetworks, 2017, arXiv:1708.05344.
- `graph`: a token per layer, which attend to each other with a bias by their distance in the
  graph, as in Zhang, C. et al., Graph hypernetworks for neural architecture search, 2019,
  arXiv:1810.05749, and, for attention in place of recurrent message passing, Knyazev, B. et al.,
  Can we scale transformers to predict parameters of diverse ImageNet models?, 2023,
  arXiv:2303.04143.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import shortest_path
from torch import Tensor, nn
from torch.func import functional_call

from pliant.errors import RecipeError
from pliant.networks import plain
from pliant.networks.supernet import Supernet
from pliant.spaces.architecture import Architecture
from pliant.spaces.space import Space

Encoder = Literal["code", "graph"]
FEATURES = 7
"""Numbers that describe a layer: the logarithms of its loop sizes, and its stride."""
MAX_DISTANCE = 8
"""Layers further apart than this in the graph share one bias."""


class WeightGenerator(nn.Module):
    """From an architecture to corrections of the weights of its layers.

    Args:
        space: of the architectures.
        shapes: of the generated weights, by parameter name.
        encoder: `code` or `graph`.
        width: of a token.
        rank: of a correction, as a matrix of (outputs, inputs times kernel).

    Raises:
        RecipeError: there is no such encoder.
    """

    def __init__(
        self,
        space: Space,
        shapes: dict[str, torch.Size],
        *,
        encoder: Encoder = "graph",
        width: int = 32,
        rank: int = 8,
    ) -> None:
        super().__init__()
        if encoder not in ("code", "graph"):
            raise RecipeError(f"an encoder is code or graph, received {encoder!r}.")
        self.space, self.shapes, self.encoder, self.rank = space, shapes, encoder, rank
        self._index = {name: row for row, name in enumerate(shapes)}
        self.place = nn.Embedding(len(shapes) + 1, width)  # the last one: layers without weights
        self.sizes = nn.Linear(FEATURES, width)
        if encoder == "code":
            code = space.features([space.largest()]).shape[1]
            self.code = nn.Sequential(nn.Linear(code, width), nn.ReLU(), nn.Linear(width, width))
        else:
            self.distance = nn.Parameter(torch.zeros(MAX_DISTANCE + 1))
            layer = [
                nn.TransformerEncoderLayer(
                    width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True
                )
                for _ in range(2)
            ]
            self.attention = nn.ModuleList(layer)
        self.norm = nn.LayerNorm(width)
        rows = {_key(name): nn.Linear(width, shape[0] * rank) for name, shape in shapes.items()}
        columns = {
            _key(name): nn.Linear(width, shape[1:].numel() * rank) for name, shape in shapes.items()
        }
        self.rows, self.columns = nn.ModuleDict(rows), nn.ModuleDict(columns)
        for decoder in self.columns.values():  # training begins with the free tensors alone
            assert isinstance(decoder, nn.Linear)
            nn.init.zeros_(decoder.weight)
            nn.init.zeros_(decoder.bias)

    def train(self, mode: bool = True) -> WeightGenerator:
        """Stay in training mode, which differs in nothing: there is no dropout.

        In evaluation PyTorch 2.13 runs a fused attention, whose outputs were NaN with this bias.
        """
        super().train(True)
        return self

    def forward(self, architecture: Architecture) -> dict[str, Tensor]:
        """A correction of the full shape for each weight that the architecture uses."""
        names, features, distances = self._described(architecture)
        device = self.place.weight.device
        places = [self._index.get(name, len(self._index)) for name in names]
        tokens = self.place(torch.tensor(places, device=device))
        tokens = tokens + self.sizes(torch.from_numpy(features).to(device))  # (layers, width)
        if self.encoder == "code":
            code = self.space.features([architecture]).astype(np.float32)
            tokens = tokens + self.code(torch.from_numpy(code).to(device))
        else:
            bias = self.distance[torch.from_numpy(distances).to(device)]  # (layers, layers)
            for layer in self.attention:
                tokens = layer(tokens[None], src_mask=bias)[0]
        tokens = self.norm(tokens)
        return {
            name: self._decoded(name, token)
            for name, token in zip(names, tokens, strict=True)
            if name in self.shapes
        }

    def _decoded(self, name: str, token: Tensor) -> Tensor:
        shape, key = self.shapes[name], _key(name)
        inputs = shape[1:].numel()
        left = self.rows[key](token).view(shape[0], self.rank)
        right = self.columns[key](token).view(self.rank, inputs)
        return ((left @ right) / (self.rank * inputs) ** 0.5).view(shape)

    def _described(self, architecture: Architecture) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Weight names, sizes (layers, features) and distances (layers, layers) of the layers."""
        names = []
        for block in self.space.blocks(architecture):
            for layer in block.layers():
                module = layer.operation.module if layer.operation else None
                names.append(f"blocks.{block.slot}.{module}.weight")
        layers = self.space.lower(architecture).layers
        row = {layer.name: index for index, layer in enumerate(layers)}
        edges = [
            (row[name], index)
            for index, layer in enumerate(layers)
            for name in layer.inputs
            if name in row
        ]
        one, other = np.array(edges).T
        graph = coo_matrix((np.ones(len(edges)), (one, other)), shape=(len(layers), len(layers)))
        far = shortest_path(graph, directed=False, unweighted=True)
        sizes = [
            [*np.log2([one.G, one.K, one.C, one.P, one.R, one.S]), one.strides[0]] for one in layers
        ]
        distances = np.minimum(far, MAX_DISTANCE).astype(np.int64)
        return names, np.array(sizes, dtype=np.float32), distances


def _key(name: str) -> str:
    return name.replace(".", "/")  # names of modules hold no dots


class HyperSupernet(Supernet):
    """A supernet with a generator; without one it is the plain supernet.

    Args:
        space: whose largest architecture gives the shapes.
        mean: of the training images by channel, pixels from 0 to 1.
        std: their standard deviation.
        encoder: `code`, `graph`, or None for free tensors alone, which is weight sharing.
    """

    def __init__(
        self,
        space: Space,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        encoder: Encoder | None = "graph",
    ) -> None:
        super().__init__(space, mean=mean, std=std)
        self.generator: WeightGenerator | None = None
        if encoder is not None:
            weighted = nn.Conv2d | nn.Linear
            shapes = {
                f"{name}.weight": module.weight.shape
                for name, module in self.named_modules()
                if isinstance(module, weighted)
            }
            self.generator = WeightGenerator(space, shapes, encoder=encoder)

    def generate(self, architecture: Architecture) -> dict[str, Tensor]:
        """The weights of an architecture at full shape, by parameter name."""
        if self.generator is None:
            return {}
        free = dict(self.named_parameters())
        return {name: free[name] + found for name, found in self.generator(architecture).items()}

    def forward(
        self,
        images: Tensor,
        architecture: Architecture,
        *,
        dropout: bool = False,
        generated: bool = False,
    ) -> Tensor:
        """Logits of a sub-network with the weights that are generated for it.

        (N, channels, size, size) pixels from 0 to 1 to (N, classes).
        """
        if generated or self.generator is None:
            return super().forward(images, architecture, dropout=dropout)
        options = {"dropout": dropout, "generated": True}
        weights = self.generate(architecture)
        logits: Tensor = functional_call(self, weights, (images, architecture), options)
        return logits

    @torch.no_grad()
    def extract(self, architecture: Architecture) -> plain.Network:
        """The sub-network with its generated weights, not calibrated."""
        free = dict(self.named_parameters())
        weights = self.generate(architecture)
        kept = {name: free[name].clone() for name in weights}
        try:
            for name, weight in weights.items():
                free[name].copy_(weight)
            return super().extract(architecture)
        finally:
            for name, weight in kept.items():
                free[name].copy_(weight)
