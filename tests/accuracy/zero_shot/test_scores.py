"""The other scores by hand on tiny networks; their theory; the network stays as it was."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pliant.accuracy.zero_shot import SCORES, ZeroShotScore, default_reset, score
from pliant.errors import DataError, RecipeError
from pliant.metrics import Failed

Make = Callable[[], nn.Module]


def value(network: nn.Module, name: str, images: Tensor, labels: Tensor | None = None) -> float:
    found = score(network, [name], images, labels)[name]
    assert isinstance(found, ZeroShotScore), found
    return found.value


def linear(*rows: list[float]) -> nn.Sequential:
    """A single layer without bias on images of one row."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(len(rows[0]), len(rows), bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor(rows))
    return network


def pixels(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)[:, None, None, :]


def test_every_score_of_an_ordinary_network(
    make_network: Make, images: Tensor, labels: Tensor
) -> None:
    found = score(make_network(), list(SCORES), images, labels, seed=3)
    assert list(found) == list(SCORES)
    for name, one in found.items():
        assert isinstance(one, ZeroShotScore), (name, one)
        assert math.isfinite(one.value)
        assert one.seconds >= 0


def test_the_network_and_the_random_state_stay_as_they_were(
    make_network: Make, images: Tensor, labels: Tensor
) -> None:
    network = make_network()
    network.block.eval()
    network.head.weight.requires_grad_(False)
    state, modes = (
        copy.deepcopy(network.state_dict()),
        [module.training for module in network.modules()],
    )
    before = torch.random.get_rng_state()
    score(network, list(SCORES), images, labels)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one, state[name]) for name, one in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network.head.weight.requires_grad
    assert not any(
        module._forward_hooks or "forward" in vars(module) for module in network.modules()
    )


@pytest.mark.parametrize("name", SCORES)
def test_the_same_seed_gives_the_same_score(
    name: str, make_network: Make, images: Tensor, labels: Tensor
) -> None:
    network = make_network()
    first, second = (score(network, [name], images, labels, seed=5)[name] for _ in range(2))
    assert isinstance(first, ZeroShotScore)
    assert isinstance(second, ZeroShotScore)
    assert first.value == second.value


def test_synflow_by_hand(images: Tensor) -> None:
    """R = |w2| |w1| 1, so sum |w dR/dw| of a layer is R, here (1 + 2) * 3 + (4 + 5) * 6 twice."""
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False)
    )
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[1.0, -2.0], [4.0, 5.0]]))
        network[3].weight.copy_(torch.tensor([[-3.0, 6.0]]))
    assert value(network, "synflow", pixels([7.0, 8.0])) == pytest.approx(math.log(2 * (9 + 54)))


def test_synflow_of_a_deep_network_does_not_overflow(images: Tensor) -> None:
    deep = nn.Sequential(
        *(nn.Conv2d(3, 3, 3, padding=1) for _ in range(60)), nn.Flatten(), nn.Linear(432, 2)
    )
    with torch.no_grad():
        for parameter in deep.parameters():
            parameter.fill_(2.0)
    assert value(deep, "synflow", images) > 60 * math.log(18)


def test_gradients_by_hand() -> None:
    """Equal logits: the gradient is (1/2 - label) times the input, the mean over images."""
    network, images, labels = (
        linear([1.0, 1.0], [1.0, 1.0]),
        pixels([2.0, 4.0], [0.0, 2.0]),
        torch.tensor([0, 1]),
    )
    # Rows: (-1, -2) and (1, 2) from the first image, (0, 1) and (0, -1) from the second; their
    # mean is (-.5, -.5), (.5, .5).
    assert value(network, "grad-norm", images, labels) == pytest.approx(1.0)
    assert value(network, "snip", images, labels) == pytest.approx(2.0)


def test_snip_does_not_see_the_scale_before_a_batch_norm(images: Tensor, labels: Tensor) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4, eps=1e-12),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 4),
    )
    before = value(network, "snip", images, labels)
    with torch.no_grad():
        network[0].weight.mul_(10)
    assert value(network, "snip", images, labels) == pytest.approx(before, rel=1e-3)


def test_zico_by_hand() -> None:
    network = linear([0.0], [0.0])
    images, labels = pixels([2.0], [2.0], [6.0], [6.0]), torch.tensor([0, 0, 0, 0])
    # Gradients of the two batches: -1 and -3 for the first weight, 1 and 3 for the second: mean 2,
    # deviation 1.
    assert value(network, "zico", images, labels) == pytest.approx(math.log(2 + 2))


def test_jacob_cov_of_a_linear_network_is_lowest(images: Tensor) -> None:
    """All images' gradients are the same: one eigenvalue is their number, the others are 0."""
    network = linear([1.0, 2.0, 3.0])
    floor = 1e-5
    expected = -(math.log(2 + floor) + 1 / (2 + floor) + math.log(floor) + 1 / floor)
    assert value(network, "jacob-cov", pixels([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])) == pytest.approx(
        expected, rel=1e-4
    )


def test_naswot_by_hand() -> None:
    """Codes 10, 01, 11: K is 2 on the diagonal, 0 between the first two, else 1; det K is 4."""
    network = nn.Sequential(*linear([1.0, 0.0], [0.0, 1.0]), nn.ReLU())
    assert value(network, "naswot", pixels([1.0, -1.0], [-1.0, 1.0], [1.0, 1.0])) == pytest.approx(
        math.log(4)
    )
    same = score(network, ["naswot"], pixels([1.0, -1.0], [2.0, -2.0]))["naswot"]
    assert isinstance(same, Failed)


def test_sizes(images: Tensor) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(600, 2)
    )
    assert value(network, "parameters", images) == 6 * 9 + 6 + 12 + 1200 + 2
    assert value(network, "macs", images) == 6 * 9 * 100 + 1200


def test_a_network_that_breaks_fails_with_what_it_raised(images: Tensor, labels: Tensor) -> None:
    broken = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(400, 2))
    for name, found in score(
        broken, [name for name in SCORES if name != "parameters"], images, labels
    ).items():
        assert isinstance(found, Failed), name
        assert "RuntimeError" in found.reason


def test_numbers_that_overflow_are_no_score(images: Tensor, labels: Tensor) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(432, 4))
    with torch.no_grad():
        network[1].weight.fill_(math.inf)
    found = score(network, ["grad-norm"], images, labels)["grad-norm"]
    assert isinstance(found, Failed)


@pytest.mark.parametrize(
    ("weight", "reason"), [(0.0, "is disconnected"), (math.inf, "grows on the way")]
)
def test_synflow_says_what_became_of_the_signal(images: Tensor, weight: float, reason: str) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(432, 4, bias=False))
    with torch.no_grad():
        network[1].weight.fill_(weight)
    found = score(network, ["synflow"], images)["synflow"]
    assert isinstance(found, Failed)
    assert reason in found.reason


def test_an_unknown_score_is_told_the_nearest(images: Tensor) -> None:
    with pytest.raises(RecipeError, match="Did you mean 'gradsign'"):
        score(nn.Linear(1, 1), ["grad-sign"], images)


def test_default_weights_are_pytorchs(make_network: Make) -> None:
    network = make_network()
    with torch.no_grad():
        network.block.norm2.weight.zero_()
    default_reset(network)
    bound = 1 / math.sqrt(72)
    assert float(network.block.conv1.weight.detach().abs().max()) == pytest.approx(bound, rel=0.02)
    assert bool((network.block.norm2.weight == 1).all())


def test_a_wrong_argument_is_not_blamed_on_the_network(
    make_network: Make, images: Tensor, labels: Tensor
) -> None:
    network = make_network()
    for wrong, said in (
        ({"images": images[:0]}, "scores need images"),
        ({"images": images.numpy()}, "received ndarray"),
        ({"images": (images * 255).to(torch.uint8)}, "real numbers.*uint8"),
        ({"images": images / 0}, "finite numbers"),
        ({"labels": labels[:3]}, "one class index per image"),
        ({"labels": labels.float()}, "one class index per image"),
        ({"labels": labels - 1}, "from 0 up"),
    ):
        arguments = {"images": images, "labels": labels} | wrong
        with pytest.raises(DataError, match=said):
            score(network, ["snip"], **arguments)
    with pytest.raises(RecipeError, match="no score is asked for"):
        score(network, [], images)
    with pytest.raises(RecipeError, match="received dict"):
        score({"a": network}, ["zen"], images)
    for name in ("snip", "zico", "grad-norm", "gradsign"):
        found = score(network, [name], images, labels + 3)[name]
        assert isinstance(found, Failed)
        assert "below the number of logits, 4; received 6" in found.reason


def test_a_text_is_no_score(images: Tensor) -> None:
    def text(inputs: object) -> str:
        return "9"

    found = score(nn.Flatten(), text, images)["text"]  # type: ignore[arg-type]
    assert found == Failed("text returned the text '9'; a score is one number.")
