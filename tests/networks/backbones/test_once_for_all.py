"""Once-for-All's checkpoints compute in our supernets what its own code computes."""

from __future__ import annotations

from urllib.error import URLError

import once_for_all_reference as ofa
import pytest
import torch

from pliant.errors import RecipeError
from pliant.networks.backbones import once_for_all
from pliant.networks.backbones.registry import NAMES, published, space_of_file
from pliant.networks.supernet import Supernet
from pliant.spaces.presets import preset
from pliant.training.start import make_start

pytestmark = pytest.mark.skipif(
    not ofa.DATA.exists(), reason=f"needs {ofa.DATA.name} in shared/data beside the repository"
)


def as_older_files(name):
    """Older published files nest fewer modules, and name the convolution of a block otherwise."""
    parts = name.split(".")
    if parts[0] == "blocks":
        parts[2] = "mobile_inverted_conv"
    shorter = [part for before, part in zip(["", *parts], parts, strict=False) if part != before]
    return ".".join(shorter)


@pytest.fixture(scope="module", params=["ofa_mbv3", "ofa_mbv3 of older files", "ofa_resnet50"])
def case(request, tmp_path_factory):
    """A supernet with the reference's weights, and the reference's sub-networks of it."""
    name, _, older = request.param.partition(" ")
    reference = ofa.reference()[name]
    tensors = ofa.weights(reference["parameters"])
    if older:
        tensors = {as_older_files(name): tensor for name, tensor in tensors.items()}
    path = tmp_path_factory.mktemp("ofa") / "supernet"
    torch.save({"state_dict": tensors}, path)
    assert space_of_file(path) == ofa.NETWORKS[name]
    return ofa.supernet(ofa.NETWORKS[name], path), reference["cases"]


def test_the_reference_cases(case):
    network, cases = case
    assert max(ofa.relative_error(network, one) for one in cases) < 1e-4


def test_sorting_keeps_the_largest_network(case):
    network, cases = case
    assert ofa.relative_error(network, cases[0]) < 1e-4
    network.sort_channels()
    assert ofa.relative_error(network, cases[0]) < 1e-4


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("ofa-mobilenetv3", [16, 24, 40, 80, 112, 160, 960, 1280]),
        ("ofa-mobilenetv3-w1.2", [24, 32, 48, 96, 136, 192, 1152, 1536]),
    ],
)
def test_widths_of_the_published_supernets(name, widths, tmp_path):
    """1.2 times the channels, rounded to multiples of 8 and never below 90 %, by hand."""
    space = preset(name, channels=3, image_size=128, classes=10)
    stem, stages = space.frame.stem, [stage.width for stage in space.stages]
    assert [stem, *stages, space.frame.expand, space.frame.hidden] == widths
    with torch.device("meta"):
        weight = torch.empty(stem, 3, 3, 3)
    assert once_for_all.mobile_space({"first_conv.conv.weight": weight}) == name


def test_a_checkpoint_of_another_network_names_the_tensors_that_differ(tmp_path):
    tensors = {"first_conv.conv.weight": torch.zeros(24, 3, 3, 3), "first_conv.more": torch.ones(1)}
    torch.save(tensors, tmp_path / "other.pth")
    space = preset("ofa-mobilenetv3", channels=3, image_size=128, classes=10)
    network = Supernet(space, mean=[0.5] * 3, std=[0.2] * 3)
    start = make_start(str(tmp_path / "other.pth"))
    with pytest.raises(RecipeError, match=r"differs in \d+ tensors: .* 'ofa-mobilenetv3-w1.2'"):
        start.apply(network, lambda: torch.empty(0))
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(
        RecipeError, match=r"EfficientNet-Lite or .* has conv1\.weight and 1 tensor"
    ):
        start.apply(network, lambda: torch.empty(0))


def test_a_supernet_by_name_is_fetched_once_and_only_when_it_is_used(tmp_path, monkeypatch):
    asked = []

    def fetch(url, path, progress):
        asked.append(url)
        torch.save({"conv1.weight": torch.zeros(1)}, path)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    name = "ofa_mbv3_d234_e346_k357_w1.0"
    start = make_start(name)
    assert asked == []
    assert name in NAMES
    assert start.identity == published(name).identity
    assert asked == [f"{once_for_all.FILES}/{name}"]


def test_without_a_network_the_advice_is_to_name_a_file(tmp_path, monkeypatch):
    def fetch(url, path, progress):
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.raises(RecipeError, match=r"no route.*name the file as the start"):
        _ = make_start("ofa_resnet50").identity
