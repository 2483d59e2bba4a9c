"""GradSign: equal to the loop over images, whatever the layers; refused where it cannot be."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pliant.accuracy.zero_shot import RefusedError, ScoringInput, score
from pliant.accuracy.zero_shot.average_pooling import avg_pool_as_conv
from pliant.accuracy.zero_shot.gradsign import gradsign
from pliant.metrics import Failed

Make = Callable[[], nn.Module]


def by_loop(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The definition: one pass an image, BatchNorm by the image alone, dropout off."""
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    weights = [one for one in network.parameters() if one.ndim > 1]
    counts = [torch.zeros_like(weight) for weight in weights]
    for image, label in zip(images.split(1), labels.split(1), strict=True):
        gradients = torch.autograd.grad(
            F.cross_entropy(network(image), label), weights, allow_unused=True
        )
        for count, gradient in zip(counts, gradients, strict=True):
            count += 0 if gradient is None else gradient.sign()
    return sum(float(count.abs().sum()) for count in counts)


def test_equals_the_loop_for_every_kind_of_layer(
    make_network: Make, images: Tensor, labels: Tensor
) -> None:
    network = make_network()
    found = gradsign(ScoringInput(network, images, labels, 0)).value
    assert found == pytest.approx(by_loop(network, images, labels), rel=5e-3)


@pytest.mark.parametrize("images_per_pass", [1, 3, 5, 12])
def test_does_not_depend_on_how_many_images_share_a_pass(
    make_network: Make, images: Tensor, labels: Tensor, images_per_pass: int
) -> None:
    network = make_network()
    whole = gradsign(ScoringInput(network, images, labels, 0)).value
    assert gradsign(
        ScoringInput(network, images, labels, 0), images_per_pass=images_per_pass
    ).value == pytest.approx(whole, rel=5e-3)


def test_by_hand() -> None:
    """One weight matrix: the gradient of a logit's row is (softmax - label) times the input."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    images = torch.tensor([[1.0, 2.0], [3.0, -1.0], [1.0, 0.0]]).reshape(3, 1, 1, 2)
    # Labels 0: the first row's gradient is negative times the input, the second row's positive.
    # Signs of the first row: (-,-), (-,+), (-,0): sums -3 and 0; the second row mirrors them.
    assert gradsign(ScoringInput(network, images, torch.zeros(3, dtype=torch.long), 0)).value == 6


def test_equal_images_agree_in_full(images: Tensor) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)
    )
    twins, labels = images[:1].expand(6, *images.shape[1:]), torch.ones(6, dtype=torch.long)
    weights = [
        module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    gradients = torch.autograd.grad(F.cross_entropy(network(images[:1]), labels[:1]), weights)
    assert gradsign(ScoringInput(network, twins, labels, 0)).value == 6 * sum(
        int(one.count_nonzero()) for one in gradients
    )


def test_other_dimensions() -> None:
    labels = torch.tensor([0, 1, 2, 1])
    sequences = nn.Sequential(
        nn.Conv1d(3, 4, 3, stride=2), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)
    )
    tokens = nn.Sequential(
        nn.Linear(5, 7), nn.LayerNorm(7), nn.GELU(), nn.Linear(7, 2), nn.Flatten(), nn.Linear(6, 3)
    )
    volumes = nn.Sequential(nn.Conv3d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    for network, shape in ((sequences, (4, 3, 8)), (tokens, (4, 3, 5)), (volumes, (4, 1, 3, 3, 3))):
        inputs = torch.randn(shape)
        assert gradsign(ScoringInput(network, inputs, labels, 0)).value == pytest.approx(
            by_loop(network, inputs, labels), rel=5e-3
        )


def test_layers_without_use_count_nothing(
    make_network: Make, images: Tensor, labels: Tensor
) -> None:
    network = make_network()
    before = gradsign(ScoringInput(network, images, labels, 0)).value
    network.unused = nn.Conv2d(8, 99, 3)
    assert gradsign(ScoringInput(network, images, labels, 0)).value == before


class Mixing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(432, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.head(x - 0.9 * x.mean(0))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(self.conv(x)).mean((2, 3)))


class InParts(nn.Module):
    """A convolution from the halves of its weights, and a product of a list of operands."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head, self.last = nn.Conv2d(3, 6, 3), nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([F.conv2d(x, half) for half in self.conv.weight.chunk(2)], 1).mean((2, 3))
        return self.last(torch.einsum("bc,oc->bo", [x, self.head.weight]))


def tied() -> nn.Module:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(432, 4))
    network[1].weight = network[0].weight
    return network


class Recurring(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.LSTM(12, 6, batch_first=True), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x[:, 0])[0][:, -1])


@pytest.mark.parametrize(
    "network",
    [
        Twice(),
        tied(),
        nn.Sequential(nn.ConvTranspose2d(3, 3, 2), nn.Flatten(), nn.Linear(507, 4)),
        Recurring(),
        InParts(),
    ],
    ids=["twice", "tied", "transposed", "recurrent", "in parts"],
)
def test_weights_of_other_layers_get_a_pass_for_each_image(
    network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    found = gradsign(ScoringInput(network, images, labels, 0)).value
    assert found == pytest.approx(by_loop(network, images, labels), rel=5e-3)


def test_logits_that_are_not_finite_are_said_to_be(images: Tensor, labels: Tensor) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(432, 4))
    with torch.no_grad():
        network[1].weight.fill_(math.nan)
    with pytest.raises(RefusedError, match="logits of this network are not finite"):
        gradsign(ScoringInput(network, images, labels, 0))


@pytest.mark.parametrize(
    ("network", "what"),
    [
        (Mixing(), "depends on the others"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(432, 5), nn.BatchNorm1d(5), nn.Linear(5, 4)),
            "BatchNorm '2' sees one value",
        ),
    ],
)
def test_what_it_cannot_count_is_refused_by_name(
    network: nn.Module, what: str, images: Tensor, labels: Tensor
) -> None:
    with pytest.raises(RefusedError, match=what):
        gradsign(ScoringInput(network, images, labels, 0))


def test_without_labels_it_fails(make_network: Make, images: Tensor) -> None:
    found = score(make_network(), ["gradsign"], images)["gradsign"]
    assert isinstance(found, Failed)
    assert "labels" in found.reason


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "counted"),
    [(3, 1, 1, False), (3, 2, 1, True), (2, 2, 0, True), (3, 2, 1, False)],
)
def test_pooling_as_a_convolution_gives_the_same_averages(
    kernel: int, stride: int, padding: int, counted: bool, images: Tensor
) -> None:
    found = avg_pool_as_conv(
        images, (kernel, kernel), (stride, stride), (padding, padding), counted
    )
    torch.testing.assert_close(
        found, F.avg_pool2d(images, kernel, stride, padding, count_include_pad=counted)
    )
