"""One network written in several ways has one score each: as modules, as functions, with layers
that are fused, with weights that are computed."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from pliant.accuracy.zero_shot import SCORES, ZeroShotScore, score
from pliant.metrics import Failed


class Modules(nn.Module):
    """Two blocks of convolution, BatchNorm and ReLU, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1, self.act1 = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
        self.conv2, self.norm2, self.act2 = nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.ReLU()
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.norm1(self.conv1(x)))
        return self.head(self.act2(self.norm2(self.conv2(x))).mean((2, 3)))


class Functional(nn.Module):
    """The same with parameters and functions only."""

    def __init__(self, plain: Modules) -> None:
        super().__init__()
        for name, value in plain.state_dict().items():
            if "num_batches" in name:
                continue
            flat = name.replace(".", "_")
            if "running" in name:
                self.register_buffer(flat, value.clone())
            else:
                self.register_parameter(flat, nn.Parameter(value.clone()))

    def layer(self, x: Tensor, number: int) -> Tensor:
        parts = [f"conv{number}_weight", f"conv{number}_bias"]
        x = F.conv2d(x, *(getattr(self, part) for part in parts))
        parts = [f"norm{number}_{part}" for part in ("running_mean", "running_var")]
        parts += [f"norm{number}_{part}" for part in ("weight", "bias")]
        return F.batch_norm(x, *(getattr(self, part) for part in parts)).clamp(min=0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(self.layer(x, 1), 2).mean((2, 3))
        return x @ self.head_weight.t() + self.head_bias


class CalledActivations(Modules):
    def forward(self, x: Tensor) -> Tensor:
        x = torch.maximum(self.norm1(self.conv1(x)), torch.zeros(()))
        return self.head(F.relu(self.norm2(self.conv2(x))).mean((2, 3)))


class Arithmetic(Modules):
    """A ReLU as sums, and one as a gate."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv1(x))
        x = (x + x.abs()) / 2
        x = self.norm2(self.conv2(x))
        return self.head((0.5 * (torch.abs(x) + x)).mean((2, 3)))


class BatchNormAct(nn.BatchNorm2d):
    """A BatchNorm that holds its activation, as timm's."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        training = self.training or self.running_mean is None
        statistics = self.running_mean, self.running_var
        x = F.batch_norm(x, *statistics, self.weight, self.bias, training, 0.1, self.eps)
        return self.act(self.drop(x))


class Fused(Modules):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = BatchNormAct(8), BatchNormAct(6)
        self.act1, self.act2 = nn.Identity(), nn.Identity()


class LowRank(nn.Module):
    """Adds a product of two matrices, as adapters do."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(len(weight), 2))
        self.b = nn.Parameter(torch.randn(2, weight[0].numel()))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.a @ self.b).view_as(weight)


def adapted(layer: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", LowRank(layer.weight))


def require_equal(
    one: nn.Module,
    other: nn.Module,
    images: Tensor,
    labels: Tensor,
) -> None:
    """All scores of two networks, to 1e-4."""
    first, second = (score(network, list(SCORES), images, labels) for network in (one, other))
    for name, found in first.items():
        assert isinstance(found, ZeroShotScore), found
        assert isinstance(second[name], ZeroShotScore), second[name]
        assert second[name].value == pytest.approx(found.value, rel=1e-4, abs=1e-4), name


def test_functions_score_as_modules(images: Tensor, labels: Tensor) -> None:
    plain = Modules()
    require_equal(plain, Functional(plain), images, labels)


def test_parts_of_functions_score_as_parts_of_modules(images: Tensor, labels: Tensor) -> None:
    """The two blocks are found within a part that is a network."""

    def wrapped(body: nn.Module) -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(body, nn.Linear(4, 4))

    plain = Modules()
    require_equal(wrapped(plain), wrapped(Functional(plain)), images, labels)


class Residual(nn.Module):
    """A stem, a strided layer with a gate, and a shortcut around a third one, all in one list."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6)
        self.conv3, self.norm3 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.act, self.pool, self.swish = nn.ReLU(), nn.AvgPool2d(2), nn.SiLU()
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm1(self.conv1(x)))
        x = self.pool(self.swish(self.norm2(self.conv2(x))))
        x = self.act(self.norm3(self.conv3(x)) + x)
        return self.head(x.mean((2, 3)))


class FunctionalResidual(Residual):
    def convolve(self, x: Tensor, number: int, padding: int = 0) -> Tensor:
        """A layer of functions; its modules only hold parameters."""
        conv, norm = getattr(self, f"conv{number}"), getattr(self, f"norm{number}")
        x = F.conv2d(x, conv.weight, conv.bias, padding=padding)
        return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolve(x, 1)
        x = torch.where(x > 0, x, 0.0)
        x = self.convolve(x, 2)
        x = F.avg_pool2d(x * torch.sigmoid(x), 2)
        x = F.relu(self.convolve(x, 3, padding=1) + x)
        return x.mean((2, 3)) @ self.head.weight.t() + self.head.bias


def test_a_list_of_functions_scores_as_the_list_of_modules(images: Tensor, labels: Tensor) -> None:
    """Masks, gates, poolings and sums belong to the block before, one activation to several."""
    plain, functional = Residual(), FunctionalResidual()
    functional.load_state_dict(plain.state_dict())
    require_equal(plain, functional, images, labels)


@pytest.mark.parametrize("make", [Fused, CalledActivations, Arithmetic])
def test_fused_layers_and_called_activations_score_as_layers(
    make: Callable[[], nn.Module], images: Tensor, labels: Tensor
) -> None:
    plain, other = Modules(), make()
    other.load_state_dict(plain.state_dict())
    require_equal(plain, other, images, labels)


class Apart(nn.Module):
    """Two blocks; the channels of each come from so many convolutions that read the same map."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        width = 32 // parts
        self.first = nn.ModuleList(nn.Conv2d(3, width, 3, bias=False) for _ in range(parts))
        self.second = nn.ModuleList(nn.Conv2d(32, width, 3, bias=False) for _ in range(parts))
        self.norm, self.head = nn.BatchNorm2d(32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(torch.cat([conv(x) for conv in self.first], 1)))
        x = torch.cat([F.relu(conv(x)) for conv in self.second], 1)
        return self.head(x.mean((2, 3)))


def test_convolutions_that_are_concatenated_end_one_block(images: Tensor, labels: Tensor) -> None:
    """Their weights are drawn in the same order as those of the one convolution that they are.

    ZiCo, Zen's BatchNorm scale and the like are of each layer by their definition.
    """
    plain, apart = Apart(1), Apart(2)
    components = ["az-expressivity", "az-progressivity", "az-trainability", "az-complexity"]
    found, other = (score(one, components, images, labels) for one in (plain, apart))
    for name in components:
        assert other[name].value == pytest.approx(found[name].value, rel=1e-4, abs=1e-4), name


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "parametrised",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        adapted,
    ],
)
def test_computed_weights_score_as_plain_ones(
    parametrised: Callable[[nn.Module], nn.Module], training: bool, images: Tensor, labels: Tensor
) -> None:
    network, plain = Modules(), Modules()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The old spelling is deprecated.
        for name in ("conv1", "conv2", "head"):
            setattr(network, name, parametrised(getattr(network, name)))
    network.eval()(images)
    with torch.no_grad():
        for name, module in network.named_children():
            if getattr(module, "weight", None) is not None:
                plain.get_submodule(name).weight.copy_(module.weight)
                plain.get_submodule(name).bias.copy_(module.bias)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    require_equal(plain, network.train(training), images, labels)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


class Block(nn.Module):
    """Attention and an MLP; `fused` by PyTorch's module, else written out."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        if not fused:
            self.attention = nn.ModuleDict({"qkv": nn.Linear(12, 36), "out": nn.Linear(12, 12)})
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.wide, self.narrow = nn.Linear(12, 24), nn.Linear(24, 12)

    def attend(self, x: Tensor) -> Tensor:
        if self.fused:
            return self.attention(x, x, x, need_weights=False)[0]
        packed = self.attention["qkv"](x).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*packed.unbind(0))
        return self.attention["out"](mixed.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.attend(x))
        return self.norm2(x + self.narrow(F.relu(self.wide(x))))


class Transformer(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 12, 3, 3), nn.Parameter(torch.randn(1, 1, 12))
        self.blocks = nn.Sequential(Block(fused), Block(fused))
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        return self.head(self.blocks(x).mean(1))


def test_fused_attention_scores_as_its_products(images: Tensor, labels: Tensor) -> None:
    fused, written = Transformer(True), Transformer(False)
    # Both register their parameters in one order.
    state = zip(written.state_dict(), fused.state_dict().values(), strict=True)
    written.load_state_dict(dict(state))
    require_equal(fused, written, images, labels)


def test_the_channels_of_tokens_are_their_last_axis(images: Tensor) -> None:
    """Expressivity of a Transformer counts 12 channels in three maps, not 16 or 17 tokens."""
    found = score(Transformer(True), ["az-expressivity"], images)["az-expressivity"]
    assert isinstance(found, ZeroShotScore)
    assert found.value < 3 * torch.tensor(12.0).log()


class Normalised(nn.Module):
    def __init__(self, normalise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.head, self.normalise = nn.Conv2d(3, 8, 3), nn.Linear(8, 4), normalise

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.normalise(self.conv(x))).mean((2, 3)))


@pytest.mark.parametrize(
    "normalise",
    [
        nn.BatchNorm2d(8),
        nn.GroupNorm(2, 8),
        nn.InstanceNorm2d(8),
        nn.LocalResponseNorm(3),
        nn.RMSNorm([8, 10, 10]),
        lambda x: F.layer_norm(x, x.shape[1:]),
        lambda x: F.instance_norm(x),
        lambda x: F.group_norm(x, 4),
        lambda x: F.rms_norm(x, [10]),
        lambda x: F.batch_norm(x, torch.zeros(8), torch.ones(8)),
    ],
)
def test_synflow_takes_every_normalisation_out_of_the_path(
    normalise: Callable[[Tensor], Tensor], images: Tensor
) -> None:
    plain, network = Normalised(nn.Identity()), Normalised(normalise)
    network.load_state_dict(plain.state_dict(), strict=False)
    found = [score(one, ["synflow"], images)["synflow"] for one in (plain, network)]
    assert found[0].value == pytest.approx(found[1].value, rel=1e-9)


@pytest.mark.parametrize(
    ("by_hand", "said"),
    [
        (lambda x: (x - x.mean(1, keepdim=True)) * torch.rsqrt(x.var(1, keepdim=True)), "var"),
        (lambda x: x * torch.rsqrt(x.square().mean(1, keepdim=True)), "rsqrt"),
        (lambda x: x / x.norm(dim=1, keepdim=True), "norm"),
    ],
)
def test_synflow_refuses_what_normalises_by_hand(
    by_hand: Callable[[Tensor], Tensor], said: str, images: Tensor
) -> None:
    found = score(Normalised(by_hand), ["synflow"], images)["synflow"]
    assert isinstance(found, Failed)
    assert f"computes with {said}" in found.reason


SMOOTH = [
    *(F.selu, F.celu, nn.RReLU()),
    lambda x: x * torch.sigmoid(x),
    lambda x: x.sigmoid() * x,
    lambda x: x * torch.sigmoid(1.702 * x),
    lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
    lambda x: 0.5 * x * (1 + torch.tanh(0.797885 * (x + 0.044715 * x.pow(3)))),
]


@pytest.mark.parametrize(
    "rectify",
    [
        nn.ReLU(),
        lambda x: x.clamp(min=0),
        lambda x: torch.clamp(x, 0),
        lambda x: torch.maximum(x, torch.zeros_like(x)),
        lambda x: torch.where(x > 0, x, 0.0),
        lambda x: x.masked_fill(x <= 0, 0.0),
        lambda x: x * (x > 0),
        lambda x: (x + x.abs()) / 2,
    ],
)
def test_naswot_knows_a_relu_however_it_is_written(
    rectify: Callable[[Tensor], Tensor], images: Tensor
) -> None:
    def found(activation: Callable[[Tensor], Tensor]) -> float:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 8, 3), Called(activation), nn.Conv2d(8, 4, 3))
        network.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten()])
        return score(network, ["naswot"], images)["naswot"].value

    assert found(rectify) == pytest.approx(found(F.relu), abs=1e-9)
    for other in SMOOTH:  # They are on where a ReLU is.
        assert found(other) == pytest.approx(found(F.relu), abs=1e-9)


class Called(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def test_naswot_names_a_clamp_that_it_does_not_see(images: Tensor) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), Called(lambda x: x.clamp(min=0.5)), nn.Flatten()
    )
    found = score(network, ["naswot"], images)["naswot"]
    assert found.notes == ("not seen as activations: clamp from 0.5",)
