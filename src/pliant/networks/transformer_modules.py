"""The blocks of a vision transformer as modules, plain and elastic.

Sources are those of `pliant.spaces.transformer_blocks`. They are registered as a user's own blocks
are, and `model.py` carries their source only where a network has them. Elastic blocks run the first
channels, heads and mid channels (Chen et al. 2021, AutoFormer, arXiv:2107.00651, section 3.2).

Between blocks tokens are the pixels of a square image, (N, channels, size, size). With the channels
last in memory, as in training, turning one into the other moves nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.networks.elastic_blocks import ElasticBlock, register_block
from pliant.networks.plain import BlockModule, mean_over_flips
from pliant.spaces import transformer_blocks


def to_tokens(x: Tensor) -> Tensor:
    """(N, channels, size, size) to (N, size, size, channels): a token is the last axis."""
    return x.permute(0, 2, 3, 1)


def to_image(tokens: Tensor) -> Tensor:
    """(N, size, size, channels) to (N, channels, size, size)."""
    return tokens.permute(0, 3, 1, 2)


def attend(qkv: Tensor, heads: int) -> Tensor:
    """All tokens attend to all: (N, size, size, heads x 3 x head size) to (..., heads x size)."""
    # (N, tokens, heads, 3, head size) to three of (N, heads, tokens, head size).
    by_head = qkv.flatten(1, 2).unflatten(2, (heads, 3, -1))
    queries, keys, values = by_head.permute(3, 0, 2, 1, 4).unbind(0)
    y = F.scaled_dot_product_attention(queries, keys, values)
    return y.transpose(1, 2).flatten(2).unflatten(1, qkv.shape[1:3])


class PlainPatchEmbedding(BlockModule):
    """A linear layer of each patch, plus learned positions."""

    def __init__(self, *, size: int, inputs: int, outputs: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        # `same` pads no multiple of the stride: patches lie side by side.
        self.embed = self.conv(inputs, outputs, patch, stride=patch, bias=True, padding="same")
        self.positions = nn.Parameter(torch.zeros(outputs, size // patch, size // patch))

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(x) + self.positions


class PlainAttention(BlockModule):
    """x + W2 attention(W1 norm(x))."""

    def __init__(self, *, size: int, channels: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.layer_norm = self.layer_norm_type(channels, eps=1e-6)
        self.qkv = self.linear_type(channels, 3 * heads * head_size)
        self.project = self.linear_type(heads * head_size, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = to_tokens(x)
        x = x + self.project(attend(self.qkv(self.layer_norm(x)), self.heads))
        return to_image(x)


class PlainMlp(BlockModule):
    """x + W2 gelu(W1 norm(x))."""

    def __init__(self, *, size: int, channels: int, mid_channels: int) -> None:
        super().__init__()
        self.layer_norm = self.layer_norm_type(channels, eps=1e-6)
        self.expand = self.linear_type(channels, mid_channels)
        self.project = self.linear_type(mid_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = to_tokens(x)
        x = x + self.project(F.gelu(self.expand(self.layer_norm(x))))
        return to_image(x)


class PlainTokenHead(BlockModule):
    """LayerNorm, the mean over tokens and views, a linear classifier: (N, classes) logits."""

    def __init__(self, *, size: int, inputs: int, classes: int, views: int = 1) -> None:
        super().__init__()
        self.views = views
        self.layer_norm = self.layer_norm_type(inputs, eps=1e-6)
        self.classifier = self.linear_type(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = to_image(self.layer_norm(to_tokens(x))).mean((2, 3))
        return self.classifier(mean_over_flips(y, self.views))


class ElasticPatchEmbedding(ElasticBlock, PlainPatchEmbedding):
    """Elastic output channels, of the positions too."""

    def forward(self, x: Tensor, active: transformer_blocks.PatchEmbedding) -> Tensor:
        """Embed into the active channels."""
        return self.embed(x, active.outputs, self.patch) + self.positions[: active.outputs]


class ElasticAttention(ElasticBlock, PlainAttention):
    """Elastic channels and heads."""

    def forward(self, x: Tensor, active: transformer_blocks.AttentionBlock) -> Tensor:
        """Run the active heads, over the channels of the input."""
        x = to_tokens(x)
        qkv = self.qkv(self.layer_norm(x), 3 * active.heads * active.head_size)
        x = x + self.project(attend(qkv, active.heads), active.channels)
        return to_image(x)


class ElasticMlp(ElasticBlock, PlainMlp):
    """Elastic channels and mid channels."""

    def forward(self, x: Tensor, active: transformer_blocks.MlpBlock) -> Tensor:
        """Run the active mid channels, over the channels of the input."""
        x = to_tokens(x)
        y = F.gelu(self.expand(self.layer_norm(x), active.mid_channels))
        return to_image(x + self.project(y, active.channels))


class ElasticTokenHead(ElasticBlock, PlainTokenHead):
    """Elastic input channels."""

    def forward(self, x: Tensor, active: transformer_blocks.TokenHead) -> Tensor:
        """Logits of the channels that there are."""
        y = to_image(self.layer_norm(to_tokens(x))).mean((2, 3))
        return self.classifier(mean_over_flips(y, active.views))


register_block(transformer_blocks.PatchEmbedding, PlainPatchEmbedding, ElasticPatchEmbedding)
register_block(transformer_blocks.AttentionBlock, PlainAttention, ElasticAttention)
register_block(transformer_blocks.MlpBlock, PlainMlp, ElasticMlp)
register_block(transformer_blocks.TokenHead, PlainTokenHead, ElasticTokenHead)
