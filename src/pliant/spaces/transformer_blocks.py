"""Blocks of a vision transformer: patch embedding, attention, MLP, head.

A. Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
2020, arXiv:2010.11929. Elastic as in M. Chen, H. Peng, J. Fu, H. Ling, "AutoFormer: Searching
Transformers for Visual Recognition", 2021, arXiv:2107.00651. Between blocks the tokens are the
pixels of a square image, so there is no class token: the head averages over tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from pliant.spaces.block import Block, computes
from pliant.workload import NETWORK_INPUT, Layer, Operation

LAYER_NORM_EPSILON = 1e-6
"""Of every LayerNorm (Dosovitskiy et al. 2020, their code)."""


class TokenBlock(Block):
    """A block whose pixels are tokens: linear layers run at each of them."""

    __slots__ = ()

    def _norm(self, reads: str, channels: int) -> Layer:
        """LayerNorm of each token."""
        return self._elementwise(
            "norm",
            reads,
            channels=channels,
            size=self.size,
            stored_per_channel=2,
            operation=computes("layer_norm", module="layer_norm", epsilon=LAYER_NORM_EPSILON),
        )

    def _linear(self, name: str, reads: str, into: int, out: int, computed: Operation) -> Layer:
        """A linear layer at each token: a matrix product with one row per token."""
        rows = self.views * self.size**2
        return Layer(
            f"{self.slot}.{name}", "matmul", (reads,), N=rows, K=out, C=into, operation=computed
        )

    def _add(self, reads: str, branch: str, channels: int) -> Layer:
        """The input plus the branch."""
        return self._elementwise(
            "add", reads, branch, channels=channels, size=self.size, operation=computes("add")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchEmbedding(Block):
    """A linear layer of each patch, plus a learned number for each position and channel."""

    inputs: int
    outputs: int
    patch: int
    """Height and width of a patch in pixels; patches do not overlap."""

    @property
    def in_channels(self) -> int:
        return self.inputs

    def layers(self, reads: str = NETWORK_INPUT) -> tuple[Layer, ...]:
        size = self.size // self.patch
        embed = self._conv(
            "embed",
            reads,
            into=self.inputs,
            out=self.outputs,
            size=size,
            kernel=self.patch,
            stride=self.patch,
            operation=computes("conv", module="embed", padding=(0, 0)),
        )
        positions = self._elementwise(
            "add",
            embed.name,
            channels=self.outputs,
            size=size,
            stored_per_channel=size**2,
            operation=computes("add_stored", module="positions"),
        )
        return embed, positions


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionBlock(TokenBlock):
    """x + W2 attention(W1 norm(x)), with all tokens attending to all tokens."""

    channels: int
    heads: int
    head_size: int
    """Channels of the queries, keys and values of one head; the same in every network."""

    @property
    def in_channels(self) -> int:
        return self.channels

    def layers(self, reads: str = NETWORK_INPUT) -> tuple[Layer, ...]:
        tokens, heads, width = self.size**2, self.heads, self.heads * self.head_size
        norm = self._norm(reads, self.channels)
        # Outputs are ordered by head, and in each head queries, keys, values: the first heads are
        # the first rows of the weight.
        operation = computes("token_linear", module="qkv")
        qkv = self._linear("qkv", norm.name, self.channels, 3 * width, operation)
        # Equation 1 of A. Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762. A
        # product of two computed tensors: one group per image and head, one row per query.
        groups = self.views * heads
        scores = Layer(
            f"{self.slot}.scores",
            "matmul",
            (qkv.name,),
            N=tokens,
            G=groups,
            K=tokens,
            C=self.head_size,
            bias=False,
            stored=0,
            operation=computes("attention_scores"),
        )
        softmax = self._layer(
            "softmax",
            "elementwise",
            scores.name,
            G=heads,
            P=tokens,
            Q=tokens,
            operation=computes("softmax"),
        )
        values = Layer(
            f"{self.slot}.values",
            "matmul",
            (softmax.name, qkv.name),
            N=tokens,
            G=groups,
            K=self.head_size,
            C=tokens,
            bias=False,
            stored=0,
            operation=computes("attention_values"),
        )
        operation = computes("token_linear", module="project")
        project = self._linear("project", values.name, width, self.channels, operation)
        add = self._add(reads, project.name, self.channels)
        return norm, qkv, scores, softmax, values, project, add


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpBlock(TokenBlock):
    """x + W2 gelu(W1 norm(x)) at every token."""

    channels: int
    mid_channels: int

    @property
    def in_channels(self) -> int:
        return self.channels

    def layers(self, reads: str = NETWORK_INPUT) -> tuple[Layer, ...]:
        wide, mid = self.channels, self.mid_channels
        norm = self._norm(reads, wide)
        operation = computes("token_linear", "gelu", "expand")
        expand = self._linear("expand", norm.name, wide, mid, operation)
        operation = computes("token_linear", module="project")
        project = self._linear("project", expand.name, mid, wide, operation)
        return norm, expand, project, self._add(reads, project.name, wide)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenHead(TokenBlock):
    """LayerNorm, the mean over tokens (and views), a linear classifier."""

    inputs: int
    classes: int

    @property
    def in_channels(self) -> int:
        return self.inputs

    def layers(self, reads: str = NETWORK_INPUT) -> tuple[Layer, ...]:
        norm = self._norm(reads, self.inputs)
        pool = self._layer(
            "pool",
            "pool",
            norm.name,
            G=self.inputs,
            R=self.size,
            S=self.size,
            strides=(self.size, self.size),
            operation=computes("global_pool"),
        )
        layers = [norm, pool]
        if self.views > 1:
            mean = computes("mean_over_flips")
            name = f"{self.slot}.views"
            layers.append(Layer(name, "elementwise", (pool.name,), G=self.inputs, operation=mean))
        classifier = Layer(
            f"{self.slot}.classifier",
            "matmul",
            (layers[-1].name,),
            K=self.classes,
            C=self.inputs,
            operation=computes("linear", module="classifier"),
        )
        return (*layers, classifier)
