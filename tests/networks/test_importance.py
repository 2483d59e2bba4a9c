"""How much a channel matters: by hand, and against the deviations that are really summed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pliant.networks.channels import ChannelGroup
from pliant.networks.importance import Contribution, input_deviations, l1_norm


def test_the_l1_norm_adds_up_all_readers_by_hand() -> None:
    linear, conv = nn.Linear(2, 3), nn.Conv2d(2, 1, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, -2.0], [0.0, 4.0], [-3.0, 0.5]]))
        conv.weight.copy_(torch.tensor([[[[1.0, 1], [1, 1]], [[0, 0], [0, -5]]]]))
    one = ChannelGroup(consumers=[(linear.weight, 1)])
    assert l1_norm(one).tolist() == [4.0, 6.5]
    both = ChannelGroup(consumers=[(linear.weight, 1), (conv.weight, 1)])
    assert l1_norm(both).tolist() == [8.0, 11.5]
    depthwise = ChannelGroup(consumers=[(conv.weight, 0)])
    assert l1_norm(depthwise).tolist() == [9.0], "along the dimension of the group"
    heads = ChannelGroup(consumers=[(torch.arange(8.0).view(1, 8), 1)], units=2)
    assert l1_norm(heads).tolist() == [0 + 1 + 2 + 3, 4 + 5 + 6 + 7]


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_contribution_is_the_deviation_of_what_a_channel_adds(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "linear":
        layer, x = nn.Linear(4, 6, bias=False), torch.randn(5000, 4)
    else:
        layer, x = nn.Conv2d(4, 6, 1, bias=False), torch.randn(50, 4, 10, 10)
    layer.requires_grad_(False)
    scale = torch.tensor([0.1, 1.0, 3.0, 0.0])
    x = x * scale.view(4, *[1] * (x.ndim - 2))
    x[:, 3] = 100.0  # large, and always the same
    deviations = input_deviations(layer, lambda: layer(x))
    found = Contribution(deviations)(ChannelGroup(consumers=[(layer.weight, 1)]))
    assert float(found[3]) == pytest.approx(0.0, abs=1e-3)
    for channel in range(4):
        alone = torch.zeros_like(x)
        alone[:, channel] = x[:, channel]
        added = layer(alone).transpose(0, 1).flatten(1).double()
        assert float(found[channel]) == pytest.approx(
            float(added.var(1).sum().sqrt()), rel=1e-3, abs=1e-3
        )


def test_contributions_of_several_readers_and_of_whole_heads_add_up() -> None:
    first, second = nn.Linear(4, 2, bias=False), nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        first.weight.fill_(1.0)
        second.weight.fill_(2.0)
    deviations = {
        id(first.weight): torch.tensor([1.0, 2.0, 0.0, 1.0]),
        id(second.weight): torch.tensor([1.0, 0.0, 3.0, 1.0]),
    }
    consumers = [(first.weight, 1), (second.weight, 1)]
    # Variances: twice the first deviation's square, four times the second's.
    each = Contribution(deviations)(ChannelGroup(consumers=consumers)).square().detach()
    assert each.tolist() == pytest.approx([6.0, 8.0, 36.0, 6.0])
    heads = Contribution(deviations)(ChannelGroup(consumers=consumers, units=2)).square()
    assert heads.tolist() == pytest.approx([14.0, 42.0])


def test_a_network_is_left_without_hooks_even_where_it_fails() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))

    def run() -> None:
        network(torch.randn(2, 3))
        raise RuntimeError("no more images")

    with pytest.raises(RuntimeError, match="no more images"):
        input_deviations(network, run)
    assert not any(module._forward_pre_hooks for module in network.modules())
    found = input_deviations(network, lambda: network[0](torch.randn(9, 3)))
    assert set(found) == {id(network[0].weight)}, "layers that ran"
