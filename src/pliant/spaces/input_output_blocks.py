"""The blocks at the two ends of every network: pixels to activations, features to logits."""

from __future__ import annotations

from dataclasses import dataclass

from pliant.spaces.block import Block, computes
from pliant.workload import NETWORK_INPUT, Activation, Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess(Block):
    """Normalises pixels from 0 to 1 by the training images' mean and deviation, and resizes them.

    Of two views the second is mirrored.
    """

    channels: int
    resolution: int

    @property
    def in_channels(self) -> int:
        return self.channels

    @property
    def in_views(self) -> int:
        """One: the others are made here."""
        return 1

    def layers(self, reads: str = NETWORK_INPUT) -> tuple[Layer, ...]:
        return (
            self._elementwise(
                "resize",
                reads,
                channels=self.channels,
                size=self.resolution,
                operation=computes("preprocess"),
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Head(Block):
    """Global average pooling and a linear classifier.

    Optional before them: BatchNorm with its activation, a 1x1 convolution; between them: the mean
    over views, a hidden linear layer.
    """

    inputs: int
    classes: int
    expand: int = 0
    """Outputs of the 1x1 convolution with BatchNorm before pooling; 0 for none."""
    hidden: int = 0
    """Width of the linear layer between pooling and classifier; 0 for none."""
    activation: Activation = "relu"
    dropout: float = 0.0
    """Share of the classifier's inputs dropped while training; nothing at inference."""
    input_norm: bool = False
    """BatchNorm and activation of the input, in networks that activate before they convolve."""

    @property
    def in_channels(self) -> int:
        return self.inputs

    def layers(self, reads: str = NETWORK_INPUT) -> tuple[Layer, ...]:
        layers: list[Layer] = []
        if self.input_norm:
            layers.append(
                self._elementwise(
                    "norm",
                    reads,
                    channels=self.inputs,
                    size=self.size,
                    operation=computes("batch_norm", self.activation, "input_norm"),
                )
            )
        if self.expand:
            layers.append(
                self._conv(
                    "expand",
                    layers[-1].name if layers else reads,
                    into=self.inputs,
                    out=self.expand,
                    size=self.size,
                    operation=computes("conv", self.activation, "expand", "expand_norm"),
                )
            )
        width = self.expand or self.inputs
        layers.append(
            self._layer(
                "pool",
                "pool",
                layers[-1].name if layers else reads,
                G=width,
                R=self.size,
                S=self.size,
                strides=(self.size, self.size),
                operation=computes("global_pool"),
            )
        )
        if self.views > 1:
            mean = computes("mean_over_flips")
            layers.append(
                Layer(
                    f"{self.slot}.views",
                    "elementwise",
                    (layers[-1].name,),
                    G=width,
                    operation=mean,
                )
            )
        if self.hidden:
            layers.append(self._linear("hidden", layers[-1].name, width, self.hidden))
            width = self.hidden
        layers.append(self._linear("classifier", layers[-1].name, width, self.classes))
        return tuple(layers)

    def _linear(self, name: str, reads: str, inputs: int, outputs: int) -> Layer:
        """A linear layer of one view's features, named as its module."""
        activation = self.activation if name == "hidden" else "none"
        computed = computes("linear", activation, name)
        return Layer(
            f"{self.slot}.{name}", "matmul", (reads,), K=outputs, C=inputs, operation=computed
        )
