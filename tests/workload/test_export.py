"""An exported module and a watched one have the same layers; what PyTorch fuses is counted."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from pliant.accuracy.zero_shot import size
from pliant.accuracy.zero_shot.scoring_input import ScoringInput
from pliant.errors import EncodingError
from pliant.networks.trace import module_workload
from pliant.workload import Layer, Workload
from pliant.workload.onnx_reader import onnx_workload


class Calls(nn.Module):
    """A function as a module, with the modules that it uses."""

    def __init__(self, function: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(self, *inputs)


ACTIVATIONS = (
    nn.ReLU(True),
    nn.ReLU6(),
    nn.SiLU(),
    nn.Hardswish(True),
    nn.GELU("tanh"),
    nn.Mish(),
    nn.PReLU(6),
    nn.Softplus(),
    nn.Softsign(),
    nn.LogSigmoid(),
    nn.Tanh(),
    nn.SELU(),
    nn.Dropout(),
)


def gated(self: Calls, x: Tensor) -> Tensor:
    left, right = self.conv(x).chunk(2, 1)
    return left * torch.sigmoid(right)


def written_in_parts(self: Calls, x: Tensor) -> Tensor:
    y = self.conv(x)
    buffer = torch.zeros(2, 6, 8, 8)
    buffer[:, :2] = y[:, 4:]
    buffer[:, 2:] = y[:, :4]
    buffer[:, 0].zero_()
    return self.last(buffer)


def swin_window(self: Calls, x: Tensor) -> Tensor:
    y = self.conv(x).permute(0, 2, 3, 1)
    y = torch.roll(y, (1, 1), (1, 2)).reshape(2, 2, 4, 2, 4, 6).transpose(2, 3).flatten(3, 4)
    y = self.norm(y)
    y = y + self.mlp(y)
    return y.std(-1)


IMAGES, TOKENS = torch.zeros(2, 3, 8, 8), torch.zeros(2, 16, 12)
MODULES: dict[str, tuple[nn.Module, Tensor]] = {
    "activations": (
        nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), *ACTIVATIONS, nn.Conv2d(6, 4, 1)
        ),
        IMAGES,
    ),
    "convolutions": (
        nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1, groups=3),
            nn.Conv2d(6, 6, 3, dilation=2, padding=2),
            nn.Flatten(2),
            nn.Conv1d(6, 2, 3),
        ),
        IMAGES,
    ),
    "pools": (
        nn.Sequential(
            nn.MaxPool2d(2),
            nn.AvgPool2d(3, 1, 1),
            nn.AdaptiveAvgPool2d(3),
            nn.AdaptiveMaxPool2d(2),
            nn.AdaptiveAvgPool2d(1),
        ),
        IMAGES,
    ),
    "norms": (
        nn.Sequential(
            nn.Conv2d(3, 4, 1),
            nn.GroupNorm(2, 4),
            nn.InstanceNorm2d(4),
            nn.LayerNorm([4, 8, 8]),
            nn.BatchNorm2d(4),
        ),
        IMAGES,
    ),
    "shared": (Calls(lambda self, x: self.conv(self.conv(x)), conv=nn.Conv2d(3, 3, 1)), IMAGES),
    "shortcut": (
        Calls(lambda self, x: self.conv(x).add_(x).relu_() * 2, conv=nn.Conv2d(3, 3, 1)),
        IMAGES,
    ),
    "gated": (Calls(gated, conv=nn.Conv2d(3, 6, 1)), IMAGES),
    "swish by hand": (
        Calls(lambda self, x: (y := self.conv(x)) * torch.sigmoid(y), conv=nn.Conv2d(3, 6, 1)),
        IMAGES,
    ),
    "buffer": (Calls(written_in_parts, conv=nn.Conv2d(3, 6, 1), last=nn.Conv2d(6, 3, 1)), IMAGES),
    "glu": (nn.Sequential(nn.Conv2d(3, 6, 1), nn.GLU(1)), IMAGES),
    "windows": (
        Calls(
            swin_window,
            conv=nn.Conv2d(3, 6, 1),
            norm=nn.LayerNorm(6),
            mlp=nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 6)),
        ),
        IMAGES,
    ),
    "einsum": (
        Calls(lambda self, x: torch.einsum("bic,bjc->bij", self.q(x), x), q=nn.Linear(12, 12)),
        TOKENS,
    ),
    "resize": (
        nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(3, 2, 1), nn.PixelShuffle(1)
        ),
        IMAGES,
    ),
    "embedding": (
        nn.Sequential(nn.Embedding(10, 12), nn.Linear(12, 3)),
        torch.zeros(2, 5, dtype=torch.long),
    ),
    "attention": (
        Calls(lambda self, x: self.a(x, x, x)[0], a=nn.MultiheadAttention(12, 3, batch_first=True)),
        TOKENS,
    ),
    "even heads": (nn.TransformerEncoderLayer(12, 4, 24, batch_first=True), TOKENS),
    "encoder": (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 3, 24), 2, enable_nested_tensor=False),
        TOKENS,
    ),
    "causal": (
        Calls(lambda self, x: functional.scaled_dot_product_attention(x, x, x, is_causal=True)),
        TOKENS[None],
    ),
    "lstm": (
        Calls(
            lambda self, x: self.r(x)[0], r=nn.LSTM(12, 8, 2, bidirectional=True, batch_first=True)
        ),
        TOKENS,
    ),
    "projected": (
        Calls(lambda self, x: self.r(x)[1][0], r=nn.LSTM(12, 8, proj_size=5, bias=False)),
        TOKENS,
    ),
    "gru": (
        Calls(lambda self, x: self.p(self.r(x)[0]), r=nn.GRU(12, 8), p=nn.Linear(8, 2)),
        TOKENS,
    ),
    "rnn": (
        nn.Sequential(Calls(lambda self, x: self.r(x)[0], r=nn.RNN(12, 8, nonlinearity="relu"))),
        TOKENS,
    ),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", MODULES)
def test_exported_and_watched_modules_have_the_same_layers(name: str) -> None:
    module, example = MODULES[name]
    watched = module_workload(module, example, way="watch")
    assert module_workload(module, example, way="export") == watched


@pytest.mark.parametrize("name", ["shortcut", "attention", "even heads", "lstm"])
def test_layers_do_not_depend_on_gradients_and_follow_the_precision(name: str) -> None:
    module, example = MODULES[name]
    usual = module_workload(module, example, way="watch")
    with torch.inference_mode():
        assert module_workload(module, example, way="watch") == usual
    halves = [
        module_workload(copy.deepcopy(module).bfloat16(), example.bfloat16(), way=way)
        for way in ("export", "watch")
    ]
    assert halves[0] == halves[1]
    assert halves[0].layers == tuple(replace(layer, bits=16) for layer in usual.layers)


def test_data_keep_their_sources_through_memory_written_in_parts() -> None:
    first, last = module_workload(*MODULES["buffer"]).layers
    assert last.inputs == (first.name,)


def test_functions_of_one_value_are_an_activation_and_of_two_a_layer() -> None:
    assert len(module_workload(*MODULES["swish by hand"]).layers) == 1
    assert [layer.kind for layer in module_workload(*MODULES["gated"]).layers] == [
        "conv",
        "elementwise",
    ]


def nests(workload: Workload) -> list[Layer]:
    return [
        Layer("", layer.kind, (), *(getattr(layer, size) for size in "NGKCPQRS"), bias=layer.bias)
        for layer in workload.layers
    ]


# Exporters write some modules in other operators (a window as a scatter, averages that nobody reads
# left out), or cannot write them; these they write as they are.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    sorted(
        MODULES.keys()
        - {"pools", "norms", "buffer", "windows", "attention", "even heads", "projected"}
    ),
)
def test_what_pytorch_exports_to_onnx_has_the_same_layers(name: str, tmp_path: Path) -> None:
    module, example = MODULES[name]
    path = str(tmp_path / "net.onnx")
    torch.onnx.export(module.eval(), (example,), path, dynamo=False, opset_version=17)
    assert nests(onnx_workload(path)) == nests(module_workload(module, example, way="watch"))


def test_a_module_that_cannot_be_exported_is_watched(capfd: pytest.CaptureFixture[str]) -> None:
    def branches(self: Calls, x: Tensor) -> Tensor:
        return self.conv(x) if float(x.sum()) < 1 else x

    module = Calls(branches, conv=nn.Conv2d(3, 3, 1))
    with pytest.raises(Exception, match=r"data-dependent|Could not"):
        module_workload(module, IMAGES, way="export")
    capfd.readouterr()
    assert [layer.name for layer in module_workload(module, IMAGES).layers] == ["sum", "conv"]
    assert capfd.readouterr().err == ""


def test_a_fused_kernel_that_a_module_insists_on_is_counted() -> None:
    def flash(self: Calls, x: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return functional.scaled_dot_product_attention(x, x, x)

    workload = module_workload(Calls(flash), TOKENS[None], way="watch")
    assert workload.macs == 2 * 2 * 16 * 16 * 12


def test_packed_sequences_count_the_steps_that_they_have() -> None:
    def packed(self: Calls, x: Tensor) -> Tensor:
        lengths = torch.tensor([16, 10])
        return self.r(nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True))[0].data

    workload = module_workload(Calls(packed, r=nn.LSTM(12, 8, batch_first=True)), TOKENS)
    assert workload.macs == 26 * 4 * 8 * (12 + 8)


def test_what_is_wrong_with_a_module_is_raised() -> None:
    with pytest.raises(RuntimeError, match="channels"):
        module_workload(nn.Conv2d(1, 4, 3), IMAGES)


class Patches(nn.Module):
    """A 3x8x8 image as 16 tokens of width 12, a body, and a head on the mean token."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, 12, 2, 2), body, nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        attends = isinstance(self.body, nn.MultiheadAttention)
        tokens = self.body(tokens, tokens, tokens) if attends else self.body(tokens)
        return self.head((tokens[0] if isinstance(tokens, tuple) else tokens).mean(1))


def bodies() -> dict[str, tuple[nn.Module, int]]:
    # Products by hand: 16 tokens (L) of width 12 (D); queries, keys, values and output 4 L D D,
    # scores and sums 2 L L D.
    attention = 4 * 16 * 12 * 12 + 2 * 16 * 16 * 12
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(12, 3, 24, batch_first=True), 2, enable_nested_tensor=False
    )
    return {
        "attention": (nn.MultiheadAttention(12, 3, batch_first=True), attention),
        "encoder": (encoder, 2 * (attention + 2 * 16 * 12 * 24)),
        "lstm": (nn.LSTM(12, 12, batch_first=True), 16 * 2 * 4 * 12 * 12),
        "gru": (nn.GRU(12, 12, batch_first=True), 16 * 2 * 3 * 12 * 12),
        "rnn": (nn.RNN(12, 12, batch_first=True), 16 * 2 * 12 * 12),
    }


STEM_AND_HEAD = 16 * 12 * 12 + 12 * 10


@pytest.mark.parametrize("name", bodies())
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("way", ["export", "watch"])
def test_macs_of_what_pytorch_fuses_by_hand(name: str, training: bool, way: str) -> None:
    body, macs = bodies()[name]
    network = Patches(body).train(training)
    workload = module_workload(network, torch.zeros(1, 3, 8, 8), way=way)
    assert workload.macs == STEM_AND_HEAD + macs
    assert network.body.training == training
    inputs = ScoringInput(network, torch.zeros(4, 3, 8, 8), None, 0)
    assert size.macs(inputs).value == STEM_AND_HEAD + macs


def test_the_parameters_of_recurrent_layers_are_all_counted() -> None:
    recurrent = nn.LSTM(12, 8, 2, bidirectional=True, proj_size=5)
    workload: Workload = module_workload(recurrent, TOKENS)
    assert workload.parameters == sum(one.numel() for one in recurrent.parameters())


def test_three_dimensional_convolutions_are_refused() -> None:
    with pytest.raises(EncodingError, match="one or two spatial sizes"):
        module_workload(nn.Conv3d(1, 1, 2), torch.zeros(1, 1, 4, 4, 4))
