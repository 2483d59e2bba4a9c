"""Vision transformers with elastic embedding width, depth, heads and MLP width.

M. Chen, H. Peng, J. Fu, H. Ling, "AutoFormer: Searching Transformers for Visual Recognition", 2021,
arXiv:2107.00651, section 3: one width for the whole network, a number of blocks, and for each block
heads of a fixed size and an MLP ratio. Every smaller network is the first part of the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from pliant.errors import EncodingError
from pliant.spaces.architecture import Architecture
from pliant.spaces.block import Block
from pliant.spaces.input_output_blocks import Preprocess
from pliant.spaces.space import Choice, Optimizer, Space
from pliant.spaces.transformer_blocks import AttentionBlock, MlpBlock, PatchEmbedding, TokenHead


class TransformerSpace(Space):
    """Patch embedding, pairs of attention and MLP blocks, head; options smallest first.

    Args:
        name: of the space.
        widths: channels of every token.
        depths: numbers of pairs of blocks.
        heads: of each attention block on its own.
        ratios: mid channels of each MLP block over the width, of each block on its own.
        head_size: channels of a head.
        patch: height and width of a patch in pixels. Images whose size is no multiple of it are
            resized to the next smaller one.
        channels: of the images.
        image_size: height and width of the images.
        classes: number of labels.

    Raises:
        EncodingError: a network may have no blocks, or images are smaller than a patch.
    """

    optimizer: Optimizer = "adamw"

    def __init__(
        self,
        name: str,
        *,
        widths: Sequence[int],
        depths: Sequence[int],
        heads: Sequence[int],
        ratios: Sequence[float],
        head_size: int,
        patch: int,
        channels: int,
        image_size: int,
        classes: int,
    ) -> None:
        super().__init__(name, channels=channels, image_size=image_size, classes=classes)
        self.widths, self.depths = tuple(widths), tuple(depths)
        self.heads, self.ratios = tuple(heads), tuple(ratios)
        self.head_size, self.patch = head_size, patch
        if min(self.depths) < 1 or image_size < patch:
            raise EncodingError(
                "a transformer has at least one block and one patch, received depths"
                f" {self.depths} and patches of {patch} pixels for images of {image_size}."
            )

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """Width and depth; then by block its heads and its MLP ratio."""
        found = [Choice("w", self.widths, "width"), Choice("1d", self.depths, "depth")]
        for block in range(1, max(self.depths) + 1):
            condition = ("1d", block)
            found.append(Choice(f"1.{block}h", self.heads, "width", condition))
            found.append(Choice(f"1.{block}m", self.ratios, "width", condition))
        return tuple(found)

    def layout(self, architecture: Architecture) -> tuple[Block, ...]:
        """Preprocess, patch embedding, blocks, head."""
        chosen = architecture.mapping
        width, side = int(chosen["w"]), self.image_size // self.patch
        resolution = side * self.patch
        blocks: list[Block] = [
            Preprocess(
                slot="preprocess",
                size=self.image_size,
                channels=self.channels,
                resolution=resolution,
            ),
            PatchEmbedding(
                slot="patches",
                size=resolution,
                inputs=self.channels,
                outputs=width,
                patch=self.patch,
            ),
        ]
        for block in range(1, int(chosen["1d"]) + 1):
            heads, mid = int(chosen[f"1.{block}h"]), int(width * float(chosen[f"1.{block}m"]))
            attention = AttentionBlock(
                slot=f"stage1_attention{block}",
                size=side,
                channels=width,
                heads=heads,
                head_size=self.head_size,
            )
            mlp = MlpBlock(slot=f"stage1_mlp{block}", size=side, channels=width, mid_channels=mid)
            blocks += [attention, mlp]
        return (*blocks, TokenHead(slot="head", size=side, inputs=width, classes=self.classes))


def vit_32(channels: int, image_size: int, classes: int) -> Space:
    """For images of 28 to 32 pixels: vision transformers of 0.3 to 3 million parameters."""
    return TransformerSpace(
        "vit-32",
        widths=(96, 128, 160, 192),
        depths=(4, 5, 6, 7, 8),
        heads=(2, 3, 4),
        ratios=(2, 3, 4),
        head_size=32,
        patch=4,
        channels=channels,
        image_size=image_size,
        classes=classes,
    )
