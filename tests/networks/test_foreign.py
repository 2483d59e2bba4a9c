"""Networks of a user's own: same outputs at full size, extracted equals active, costs are true."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from pliant import make_elastic
from pliant.accuracy.calibration import calibrate, require_calibrated
from pliant.deploy.module_source import module_onnx
from pliant.errors import ForeignError, UncalibratedError
from pliant.networks.foreign import ForeignSupernet, workloads
from pliant.networks.foreign.shrink import SlicedAttention, shrunk
from pliant.networks.statistics import absorb_statistics
from pliant.networks.trace import module_workload
from pliant.training.finetune import classifier


class Inverted(nn.Module):
    """A residual branch with a depthwise convolution and squeeze-and-excite."""

    def __init__(self, channels: int, mid: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, mid, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(mid)
        self.depthwise = nn.Conv2d(mid, mid, 5, padding=2, groups=mid, bias=False)
        self.norm2 = nn.BatchNorm2d(mid)
        self.reduce, self.excite = nn.Conv2d(mid, 8, 1), nn.Conv2d(8, mid, 1)
        self.project = nn.Conv2d(mid, channels, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.depthwise(self.norm1(self.expand(x)).relu())).relu()
        y = y * self.excite(self.reduce(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return (x + self.norm3(self.project(y))).relu_()


class Residual(nn.Module):
    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv_stem, self.norm = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16)
        self.stage1 = nn.Sequential(Inverted(16, 32), Inverted(16, 32))
        self.down = nn.Conv2d(16, 32, 3, 2, 1)
        self.stage2 = nn.Sequential(Inverted(32, 64), Inverted(32, 64))
        self.dropout, self.classifier = nn.Dropout(0.2), nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage1(self.norm(self.conv_stem(x)).relu())
        return self.classifier(self.dropout(self.stage2(self.down(x)).mean((2, 3))))


class Mixed(nn.Module):
    """Concatenations, groups, a channel shuffle, halves, a GroupNorm, and a flattened picture."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(3, 24, 3, 2, 1)
        self.grouped = nn.Conv2d(40, 80, 3, padding=1, groups=10)
        self.norm = nn.GroupNorm(8, 64)
        self.wide = nn.Conv2d(80, 64, 1)
        self.gate = nn.Conv2d(64, 64, 1)
        self.last = nn.Conv2d(32, 16, 3, 2, 1)
        self.hidden, self.classifier = nn.Linear(16 * 64, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.one(x), self.two(x).relu()], 1)
        x = self.norm(self.wide(self.grouped(x).relu()))
        n, channels, rows, columns = x.shape
        x = x.view(n, 2, channels // 2, rows, columns).transpose(1, 2).reshape(x.shape)
        left, right = self.gate(x).chunk(2, 1)
        x = self.last(left * right.sigmoid()).relu().flatten(1)
        return self.classifier(self.hidden(x).relu())


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        scores = (query * (width // self.heads) ** -0.5) @ key.transpose(-2, -1)
        x = (scores.softmax(-1) @ value).transpose(1, 2).reshape(n, tokens, -1)
        return self.proj(x)


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.positions = nn.Parameter(torch.randn(1, 17, 32))
        self.blocks = nn.Sequential(TransformerBlock(32, 4), TransformerBlock(32, 4))
        self.encoder = nn.TransformerEncoderLayer(32, 4, 48, batch_first=True)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.encoder(self.blocks(x)))[:, 0])


class LargeKernels(nn.Module):
    """Plain, depthwise, dilated and padded convolutions with strides, one of them used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 7, 2, 3), nn.BatchNorm2d(16)
        self.branch = Inverted(16, 32)
        self.pad = nn.ZeroPad2d((1, 2, 1, 2))
        self.padded = nn.Conv2d(16, 16, 5, 2, groups=16)
        self.dilated = nn.Conv2d(16, 32, 5, padding=4, dilation=2, bias=False)
        self.same = nn.Conv2d(32, 32, 5, padding="same", groups=8)
        self.tight = nn.Conv2d(32, 32, 7, 1, 1)  # its padding allows for a kernel of 5 only
        self.valid, self.even = nn.Conv2d(32, 16, 5), nn.Conv2d(16, 16, 2, 1, 1)
        self.classifier = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.padded(self.pad(self.branch(self.norm(self.stem(x)).relu()))).relu()
        x = self.same(self.same(self.dilated(x)).relu())
        x = self.even(self.valid(torch.nn.functional.pad(self.tight(x), (1, 1, 1, 1))))
        return self.classifier(x.mean((2, 3)))


class Recurrent(nn.Module):
    """A state of zeros, one for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.patches = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 8, 8, 8)
        self.rows, self.classifier = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(self.conv(x).relu()).flatten(2).transpose(1, 2)
        return self.classifier(self.rows(x)[0][:, -1])


class Decoder(nn.Module):
    """PyTorch's decoder: what it does to its queries before it sees the image is constant."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.queries = nn.Conv2d(3, 32, 8, 8), nn.Parameter(torch.randn(1, 5, 32))
        layer = nn.TransformerDecoderLayer(32, 4, 48, batch_first=True)
        self.decoder, self.head = nn.TransformerDecoder(layer, 1), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.decoder(self.queries.expand(len(x), -1, -1), x).mean(1))


class Encoder(nn.Module):
    """PyTorch's own encoder, its attention, and one whose two results are taken apart."""

    def __init__(self, *, batch_first: bool = True, norm_first: bool = True) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        layer = nn.TransformerEncoderLayer(
            32, 4, 48, 0.0, norm_first=norm_first, batch_first=batch_first, activation="gelu"
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(32)
        self.attention = nn.MultiheadAttention(32, 4, bias=False, batch_first=batch_first)
        self.head, self.batch_first = nn.Linear(32, 4), batch_first

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).permute(*((0, 2, 1) if self.batch_first else (2, 0, 1)))
        x = self.encoder(x)
        y = self.norm(x)
        y, _ = self.attention(query=y, key=y, value=y)
        return self.head((x + y).mean(1 if self.batch_first else 0))


NETWORKS = {
    "residual": Residual,
    "mixed": Mixed,
    "transformer": Transformer,
    "kernels": LargeKernels,
    "recurrent": Recurrent,
}


def trained(build: Callable[[], nn.Module]) -> nn.Module:
    """A network in evaluation mode whose BatchNorms have seen images."""
    torch.manual_seed(0)
    module = build()
    with torch.no_grad():
        module.train()(torch.randn(8, 3, 32, 32))
    return module.eval()


@pytest.fixture(scope="module", params=NETWORKS)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, ForeignSupernet]:
    module = trained(NETWORKS[request.param])
    supernet = make_elastic(module, torch.zeros(1, 3, 32, 32))
    with torch.no_grad():  # smaller kernels are more than the centre
        for name, parameter in supernet.named_parameters():
            if ".kernel_matrices." in name:
                parameter += 0.1 * torch.randn_like(parameter)
    return module, supernet


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


@torch.no_grad()
def test_the_whole_network_is_that_of_the_user_also_when_sorted(
    pair: tuple[nn.Module, ForeignSupernet],
) -> None:
    module, supernet = pair
    images = torch.randn(3, 3, 32, 32)
    theirs = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    ours = {name: tuple(tensor.shape) for name, tensor in supernet.state_dict().items()}
    assert {
        name: shape for name, shape in ours.items() if ".kernel_matrices." not in name
    } == theirs
    assert difference(supernet.eval()(images), module(images)) <= 1e-5
    in_memory = images.contiguous(memory_format=torch.channels_last)  # as they are trained on
    assert difference(supernet(in_memory), module(images)) <= 1e-5
    assert difference(supernet.frozen()(in_memory), module(images)) <= 1e-5
    for by in (None, images):
        supernet.sort_channels(images=by)
        assert difference(supernet(images), module(images)) <= 1e-5
    assert any(
        not torch.equal(tensor, module.state_dict()[name])
        for name, tensor in supernet.state_dict().items()
    )


@torch.no_grad()
def test_extracted_is_active_costs_as_described_and_exports(
    pair: tuple[nn.Module, ForeignSupernet],
) -> None:
    _, supernet = pair
    images = torch.randn(3, 3, 32, 32)
    space, rng = supernet.space, np.random.default_rng(0)
    drawn = [space.sample_choices(rng) for _ in range(3)]
    for architecture in (space.smallest(), space.largest(), *drawn):
        assert space.parse(str(architecture)) == architecture
        network = supernet.extract(architecture)
        active = supernet.train()(images, architecture)
        assert difference(network.train()(images), active) <= 1e-5
        workload, cost = module_workload(network, images[:1]), space.cost(architecture)
        assert (workload.macs, workload.parameters) == (cost.macs, cost.parameters)
        assert workload.peak_activation_bytes == cost.peak_memory_bytes
    network.eval()
    session = onnxruntime.InferenceSession(
        module_onnx(network, images[:2]), providers=["CPUExecutionProvider"]
    )
    [logits] = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    assert difference(torch.from_numpy(logits), network(images)) <= 1e-4


def test_sub_networks_have_the_gradients_of_the_extracted_ones(
    pair: tuple[nn.Module, ForeignSupernet],
) -> None:
    _, supernet = pair
    images = torch.randn(3, 3, 32, 32)
    ends = {one.name: one.options[-(one.dimension == "depth")] for one in supernet.space.choices}
    smallest = supernet.space.architecture(ends)  # with all of its branches
    network = supernet.extract(smallest).train()
    supernet.zero_grad()
    for logits in (supernet.train()(images, smallest), network(images)):
        logits.square().sum().backward()
    plan = supernet.parts.plan(smallest)
    for name, parameter in network.named_parameters():
        gradient = dict(supernet.named_parameters())[name].grad
        assert gradient is not None
        largest = max(1e-3, float(parameter.grad.abs().max()))
        ours = plan.sliced(name, gradient)
        if ours.shape == parameter.shape:  # else it is that of the larger kernel
            assert (ours - parameter.grad).abs().max() <= 1e-4 * largest
            assert gradient.count_nonzero() == ours.count_nonzero(), "the rest has none"
    matrices = [one for name, one in supernet.named_parameters() if name.endswith("to3")]
    assert all(one.grad is not None and bool(one.grad.any()) for one in matrices)


def test_a_network_for_each_choice_tells_the_same_as_the_probes(
    pair: tuple[nn.Module, ForeignSupernet], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, supernet = pair
    monkeypatch.setattr(workloads._Slopes, "_of_dimension", lambda *_: None)
    again = make_elastic(module, torch.zeros(1, 3, 32, 32))
    for architecture in (again.space.smallest(), again.space.sample(np.random.default_rng(0))):
        assert again.space.lower(architecture) == supernet.space.lower(architecture)


def test_choices_are_named_after_modules_and_what_is_kept_says_why() -> None:
    supernet = make_elastic(
        trained(Residual), torch.zeros(1, 3, 32, 32), keep=("conv_stem", "stage2.1")
    )
    names = supernet.space.names
    assert "stage1.0.expand.w" in names
    assert "stage1.1.d" in names
    assert not any(name.startswith(("conv-stem", "stage2.1")) for name in names)
    fixed = supernet.space.description.fixed
    assert fixed["classifier"] == "they are the network's output"
    assert "kept" in fixed["conv_stem"]


def test_kernels_shrink_as_far_as_the_padding_does() -> None:
    supernet = make_elastic(trained(LargeKernels), torch.zeros(1, 3, 32, 32), keep=("dilated",))
    choices = {one.name: one for one in supernet.space.choices if one.dimension == "kernel"}
    assert {name: one.options for name, one in choices.items()} == {
        "stem.k": (3, 5, 7),
        "branch.depthwise.k": (3, 5),
        "padded.k": (3, 5),
        "same.k": (3, 5),
        "tight.k": (5, 7),
        "valid.k": (3, 5),
    }
    assert choices["branch.depthwise.k"].condition == ("branch.d", 1)
    options = dict(supernet.space.largest().options) | {"tight.k": 5, "padded.k": 3}
    smaller = supernet.extract(supernet.space.architecture(options))
    tight = smaller.get_submodule("tight")
    assert (tight.kernel_size, tight.padding) == ((5, 5), (0, 0))
    kept = supernet.state_dict()["tight.weight"][..., 1:-1, 1:-1]
    assert torch.equal(tight.weight, kept)  # the matrices begin as the identity


def encoder(**options: bool) -> functools.partial[nn.Module]:
    return functools.partial(Encoder, **options)


@pytest.mark.parametrize(
    "build",
    [Residual, Mixed, Encoder, encoder(batch_first=False, norm_first=False), Decoder],
)
@torch.no_grad()
def test_the_users_class_computes_its_sub_networks(build: Callable[[], nn.Module]) -> None:
    module, images = trained(build), torch.randn(3, 3, 32, 32)
    supernet = make_elastic(module, images)
    space, rng = supernet.space, np.random.default_rng(0)
    for architecture in (space.smallest(), *(space.sample_choices(rng) for _ in range(3))):
        network = supernet.extract(architecture)
        calibrate(network, images)
        own = shrunk(module, network, images)
        assert isinstance(own, type(module))
        assert difference(own(images), network.eval()(images)) <= 1e-5
        here, there = (sum(p.numel() for p in one.parameters()) for one in (own, network))
        assert here == there, "what is left out has no parameters"
        assert difference(own(images[:2]), network(images[:2])) <= 1e-5
    assert difference(module(images), trained(build)(images)) == 0, "the module is as it was"


@torch.no_grad()
def test_attention_is_pytorchs_own_where_its_heads_are_as_wide_as_its_input() -> None:
    module, images = trained(Encoder), torch.randn(3, 3, 32, 32)
    supernet = make_elastic(module, images)
    largest = dict(supernet.space.largest().options)
    heads, [width] = (
        [name for name in largest if name.endswith(end)] for end in ("attn.w", "patches.w")
    )
    for smaller, kind in ((heads, nn.MultiheadAttention), (heads[:0], SlicedAttention)):
        options = largest | dict.fromkeys([width, *smaller], 16)
        own = shrunk(module, supernet.extract(supernet.space.architecture(options)), images)
        attention = own.encoder.layers[0].self_attn
        assert type(attention) is kind
        assert (attention.embed_dim, attention.num_heads) == (16, 2 if smaller else 4)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 12, "vdim": 20}])
@torch.no_grad()
def test_sliced_attention_is_pytorchs_at_full_size(
    options: dict[str, Any], batch_first: bool
) -> None:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 4, batch_first=batch_first, **options).eval()
    ours = copy.deepcopy(theirs)
    ours.__class__ = SlicedAttention
    sizes = (16, theirs.kdim, theirs.vdim)
    inputs = [torch.randn(3, tokens, size) for tokens, size in zip((5, 7, 7), sizes, strict=True)]
    inputs = inputs if batch_first else [one.transpose(0, 1) for one in inputs]
    padding = torch.arange(7).expand(3, 7) >= torch.tensor([[7], [5], [2]])
    forbidden = torch.rand(12, 5, 7) > 0.7
    forbidden[..., 0] = False
    for asked in (
        {},
        {"need_weights": False, "key_padding_mask": padding},
        {"average_attn_weights": False, "attn_mask": forbidden, "key_padding_mask": padding},
        {"need_weights": False, "attn_mask": torch.randn(5, 7)},
        {"attn_mask": forbidden[0], "is_causal": True},
    ):
        for found, expected in zip(ours(*inputs, **asked), theirs(*inputs, **asked), strict=True):
            torch.testing.assert_close(found, expected)
    with pytest.raises(NotImplementedError, match="is_causal needs attn_mask"):
        ours(*inputs, is_causal=True)


def test_a_class_with_sizes_in_its_python_is_refused() -> None:
    module, images = trained(Transformer), torch.randn(2, 3, 32, 32)
    supernet = make_elastic(module, images)
    space = supernet.space
    narrow = space.architecture(dict(space.largest().options) | {"patches.w": 16})
    with pytest.raises(ForeignError, match="Transformer does not compute a network of these sizes"):
        shrunk(module, supernet.extract(narrow), images)


def test_an_attention_is_called_by_its_module() -> None:
    names = make_elastic(trained(Transformer), torch.zeros(1, 3, 32, 32)).space.names
    assert "encoder.self-attn.w" in names
    assert not any("weight" in name for name in names)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = -x
        return self.conv(x).mean((2, 3))


class Single(Branching):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3))


@pytest.mark.parametrize(
    ("module", "example", "keep", "message"),
    [
        (Branching(), torch.zeros(1, 3, 32, 32), (), r"line \d+ of test_foreign.py in forward"),
        (Residual(), torch.zeros(1, 1, 32, 32), (), "at line .* of test_foreign.py in forward"),
        (Residual(), torch.zeros(1, 3, 32, 48), (), "square images"),
        (Residual(), torch.zeros(1, 3, 32, 32), ("stem",), "Did you mean 'conv_stem'"),
        (Single(), torch.zeros(1, 3, 32, 32), (), "nothing of the network can shrink"),
    ],
)
def test_what_cannot_be_made_elastic_is_refused(
    module: nn.Module, example: Tensor, keep: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ForeignError, match=message):
        make_elastic(module, example, keep=keep)


class Narrow(nn.Module):
    """Logits by a function of the features of a small network."""

    def __init__(self, end: str) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 32, 3, 4, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.norm2 = nn.Conv2d(32, 16, 1), nn.BatchNorm2d(16)
        self.last = nn.BatchNorm1d(16)
        self.end, self.classifier = end, nn.Linear(16, 5)
        self.convolution, self.auxiliary = nn.Conv2d(16, 5, 1, bias=False), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv1(x)).relu()
        y = self.norm2(self.conv2(x)).relu()
        if self.end == "positions":
            return self.classifier(y.flatten(2).transpose(1, 2)).mean(1)
        y = y.mean((2, 3), keepdim=True)
        if self.end == "convolution":
            return self.convolution(y).flatten(1)
        logits = self.classifier(self.last(y.flatten(1)))
        return logits + self.auxiliary(x.mean((2, 3))) if self.end == "two" else logits


@pytest.mark.parametrize(
    ("end", "linear"),
    [("linear", True), ("convolution", True), ("positions", False), ("two", False)],
)
@torch.no_grad()
def test_the_frozen_network_is_the_users_with_a_classifier_that_may_be_replaced(
    end: str, linear: bool
) -> None:
    module, images = trained(functools.partial(Narrow, end)), torch.randn(8, 3, 32, 32)
    supernet = make_elastic(module, images)
    frozen = supernet.frozen()
    assert difference(frozen(images), module(images)) <= 1e-5
    assert supernet.parts.graph.has_linear_head is linear
    if end == "convolution":
        classifier(frozen).weight.zero_()
        assert not frozen(images).any()
    absorb_statistics(supernet, frozen, images)
    largest = supernet.space.largest()
    for ours in (supernet.eval()(images), supernet.train()(images, largest)):
        assert difference(ours, module(images)) <= 1e-4
    unseen = make_elastic(Narrow(end), images).frozen()
    assert bool(unseen(images).isnan().all()), "no image was seen, so there are no statistics"


@torch.no_grad()
def test_every_batch_norm_is_calibrated() -> None:
    module = trained(functools.partial(Narrow, "linear"))
    module.norm1, module.last = nn.BatchNorm2d(32, affine=False), nn.BatchNorm1d(16, affine=False)
    images = torch.randn(8, 3, 32, 32)
    supernet = make_elastic(module, images)
    options = dict(supernet.space.largest().options) | {"conv1.w": 8, "conv2.w": 8}
    smaller = supernet.space.architecture(options)
    network = supernet.extract(smaller)
    with pytest.raises(UncalibratedError, match="norm1"):
        require_calibrated(network)
    assert calibrate(network, images)(images).isfinite().all()
    found, active = network(images), supernet(images, smaller)
    assert difference(found, active) <= 0.2, "variances of a batch and of its images"
    batch = supernet.extract(smaller).train()(images)
    torch.testing.assert_close(batch, active, rtol=1e-4, atol=1e-5)
