"""Spaces by name: those that ship, and `file.py:NAME` for one of your own.

`PRESETS` says what each is for; the function of its name has its table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pliant.errors import EncodingError, RecipeError, nearest
from pliant.plugins import call_plugin, is_plugin, object_text
from pliant.spaces.cell import CellSpace
from pliant.spaces.check import check_space
from pliant.spaces.mobile import MobileFrame, MobileSpace, MobileStage
from pliant.spaces.photos import photos, photos_lite1, photos_lite2
from pliant.spaces.proxyless import proxyless, proxyless_32
from pliant.spaces.resnet import BottleneckSpace, PlainSpace, ResidualStage
from pliant.spaces.rounding import make_divisible
from pliant.spaces.space import Space
from pliant.spaces.transformer import vit_32
from pliant.workload import Activation


@dataclass(frozen=True, slots=True)
class Preset:
    """One shipped space: for which images it is made, and its constructor."""

    smallest_image: int
    """Least height and width of an image, in pixels."""
    largest_image: int
    """Largest height and width; networks for larger images need more stages."""
    purpose: str
    build: Callable[[int, int, int], Space]
    """From channels, image size and classes."""


def _resolutions(
    image_size: int, factors: tuple[float, ...], multiple: int, least: int
) -> tuple[int, ...]:
    """The image size times each factor, rounded to a multiple, no smaller than the least.

    Ascending, without repeats.
    """
    return tuple(
        sorted({max(least, round(image_size * factor / multiple) * multiple) for factor in factors})
    )


def digits(channels: int, image_size: int, classes: int) -> Space:
    """For images of about 8 pixels: two small stages, inverted residuals."""
    stages = (
        MobileStage(16, (1, 2), (3, 5), (2, 3, 4), stride=1),
        MobileStage(
            32, (1, 2, 3), (3, 5), (2, 3, 4), stride=2, activation="hswish", squeeze_excite=True
        ),
    )
    frame = MobileFrame(stem=16, stem_stride=1, expand=64, hidden=0)
    resolutions = _resolutions(image_size, (0.75, 1.0), 2, 6)
    return MobileSpace(
        "digits",
        stages,
        resolutions,
        frame,
        channels=channels,
        image_size=image_size,
        classes=classes,
    )


def mobile_32(channels: int, image_size: int, classes: int) -> Space:
    """For images of 28 to 32 pixels on small processors.

    Inverted residuals, the least MACs for an accuracy.
    """
    stages = (
        MobileStage(24, (1, 2), (3, 5, 7), (2, 3, 4), stride=2),
        MobileStage(
            48, (1, 2, 3), (3, 5, 7), (2, 3, 4), stride=2, activation="hswish", squeeze_excite=True
        ),
        MobileStage(
            96, (1, 2, 3), (3, 5, 7), (2, 3, 4), stride=2, activation="hswish", squeeze_excite=True
        ),
    )
    frame = MobileFrame(stem=16, stem_stride=1, expand=288, hidden=0)
    resolutions = _resolutions(image_size, (0.75, 0.875, 1.0), 4, 16)
    return MobileSpace(
        "mobile-32",
        stages,
        resolutions,
        frame,
        channels=channels,
        image_size=image_size,
        classes=classes,
    )


def micro(channels: int, image_size: int, classes: int) -> Space:
    """For microcontrollers: images of 32 to 128 pixels, gray or colour, in int8.

    In int8 all of its networks are inside 300 kB of flash, and at 96 pixels between 46 kB (gray)
    and 258 kB of RAM. Channels are few
    where images are large, since the first blocks decide the peak (J. Lin et al., "MCUNet: Tiny
    Deep Learning on IoT Devices", NeurIPS 2020, arXiv:2007.10319).
    """
    stages = (
        MobileStage(16, (1, 2), (3, 5), (2, 3), stride=1),
        MobileStage(24, (1, 2, 3), (3, 5, 7), (2, 3, 4), stride=2),
        MobileStage(40, (1, 2, 3), (3, 5, 7), (2, 3, 4), stride=2),
        MobileStage(80, (1, 2, 3), (3, 5, 7), (2, 3, 4), stride=2),
    )
    frame = MobileFrame(stem=8, stem_stride=2, expand=240, hidden=0)
    resolutions = _resolutions(image_size, (0.5, 0.75, 1.0), 4, 16)
    return MobileSpace(
        "micro",
        stages,
        resolutions,
        frame,
        channels=channels,
        image_size=image_size,
        classes=classes,
    )


def plain_32(channels: int, image_size: int, classes: int) -> Space:
    """For images of 28 to 32 pixels on CPUs.

    Plain convolutions that pool early, much accuracy for half an hour of training.
    """
    return _plain("plain-32", (64, 192, 384), (), channels, image_size, classes)


def wide_32(channels: int, image_size: int, classes: int) -> Space:
    """For images of 28 to 32 pixels that are hard to tell apart.

    Plain-32 with more channels where images are large, and two views.
    """
    return _plain("wide-32", (96, 256, 384), (1, 2), channels, image_size, classes)


def _plain(
    name: str,
    stage_widths: tuple[int, ...],
    views: tuple[int, ...],
    channels: int,
    image_size: int,
    classes: int,
) -> Space:
    """By stage a pooling convolution and at most one residual block."""
    widths, ratios = (0.5, 0.625, 0.75, 0.875, 1.0), (0.5, 0.75, 1.0)
    stages = [ResidualStage(width, (0, 1), widths, ratios) for width in stage_widths]
    resolutions = _resolutions(image_size, (0.75, 1.0), 4, 16)
    return PlainSpace(
        name,
        stages,
        resolutions,
        stem=32,
        views=views,
        channels=channels,
        image_size=image_size,
        classes=classes,
    )


def ofa_mobilenetv3(channels: int, image_size: int, classes: int) -> Space:
    """The MobileNetV3 space of Once-for-All: 7371^5 = 2.2e19 networks at each of 25 resolutions."""
    return _ofa_mobilenetv3("ofa-mobilenetv3", 1.0, channels, image_size, classes)


def ofa_mobilenetv3_wide(channels: int, image_size: int, classes: int) -> Space:
    """The MobileNetV3 space of Once-for-All with 1.2 times the channels."""
    return _ofa_mobilenetv3("ofa-mobilenetv3-w1.2", 1.2, channels, image_size, classes)


def _ofa_mobilenetv3(
    name: str, width: float, channels: int, image_size: int, classes: int
) -> Space:
    """Five elastic stages behind a stem and a fixed block; `width` is a factor of all channels."""
    rows: tuple[tuple[int, int, Activation, bool], ...] = (
        (24, 2, "relu", False),
        (40, 2, "relu", True),
        (80, 2, "hswish", False),
        (112, 1, "hswish", True),
        (160, 2, "hswish", True),
    )
    stages = [
        MobileStage(
            make_divisible(width * outputs),
            (2, 3, 4),
            stride=stride,
            activation=activation,
            squeeze_excite=squeeze_excite,
        )
        for outputs, stride, activation, squeeze_excite in rows
    ]
    stem, expand, hidden = (make_divisible(width * outputs) for outputs in (16, 960, 1280))
    frame = MobileFrame(stem=stem, first_block=stem, expand=expand, hidden=hidden, dropout=0.1)
    resolutions = tuple(range(128, 225, 4))
    images = {"channels": channels, "image_size": image_size, "classes": classes}
    return MobileSpace(name, stages, resolutions, frame, **images)


def ofa_resnet50(channels: int, image_size: int, classes: int) -> Space:
    """The ResNet-50 space of Once-for-All.

    Depth, width (0.65, 0.8, 1) and bottleneck ratio (0.2, 0.25, 0.35).
    """
    rows = ((256, (2, 3, 4), 1), (512, (2, 3, 4), 2), (1024, (4, 5, 6), 2), (2048, (2, 3, 4), 2))
    stages = [
        ResidualStage(width, depths, (0.65, 0.8, 1.0), (0.2, 0.25, 0.35), stride)
        for width, depths, stride in rows
    ]
    resolutions = tuple(range(128, 225, 4))
    return BottleneckSpace(
        "ofa-resnet50",
        stages,
        resolutions,
        stem_widths=(0.65, 0.8, 1.0),
        channels=channels,
        image_size=image_size,
        classes=classes,
    )


def nas_bench_201(channels: int, image_size: int, classes: int) -> Space:
    """The cell space of NAS-Bench-201: 5^6 = 15,625 cells, repeated 15 times."""
    return CellSpace("nas-bench-201", channels=channels, image_size=image_size, classes=classes)


PRESETS = {
    "digits": Preset(6, 32, "images of about 8 pixels", digits),
    "mobile-32": Preset(24, 64, "images of 28 to 32 pixels, least MACs", mobile_32),
    "plain-32": Preset(24, 64, "images of 28 to 32 pixels, fastest training on CPUs", plain_32),
    "wide-32": Preset(
        24, 64, "images of 28 to 32 pixels, most accuracy for an hour of training", wide_32
    ),
    "vit-32": Preset(24, 64, "images of 28 to 32 pixels, vision transformers", vit_32),
    "photos": Preset(64, 320, "photographs of 64 to 224 pixels, EfficientNet-Lite0", photos),
    "photos-lite1": Preset(64, 320, "photographs, deeper: EfficientNet-Lite1", photos_lite1),
    "photos-lite2": Preset(
        64, 320, "photographs, deeper and wider: EfficientNet-Lite2", photos_lite2
    ),
    "ofa-mobilenetv3": Preset(
        128, 320, "images of 224 pixels, Once-for-All's MobileNetV3", ofa_mobilenetv3
    ),
    "ofa-mobilenetv3-w1.2": Preset(
        128, 320, "images of 224 pixels, the same with 1.2 times the channels", ofa_mobilenetv3_wide
    ),
    "ofa-resnet50": Preset(
        128, 320, "images of 224 pixels, Once-for-All's ResNet-50", ofa_resnet50
    ),
    "micro": Preset(32, 128, "microcontrollers, images of 32 to 128 pixels in int8", micro),
    "proxyless-32": Preset(
        24, 64, "images of 28 to 32 pixels, a choice of operations by block", proxyless_32
    ),
    "proxyless": Preset(128, 320, "images of 224 pixels, ProxylessNAS's operations", proxyless),
    "nas-bench-201": Preset(
        8, 64, "comparing scores and searches: the cells of NAS-Bench-201", nas_bench_201
    ),
}

FAMILIES = {
    "mobile": "mobile-32",
    "plain": "plain-32",
    "resnet": "ofa-resnet50",
    "cell": "nas-bench-201",
    "vit": "vit-32",
}
"""Short names."""


FOREIGN = "start"
"""The space of the network that a run starts from, `file.py:NAME` or `timm:NAME`."""


def space_name(name: str) -> str:
    """The preset that a name or a short name means; `file.py:NAME` and `start` stay as they are.

    Raises:
        RecipeError: it means no space.
    """
    if name in PRESETS or name == FOREIGN or is_plugin(name):
        return name
    if name in FAMILIES:
        return FAMILIES[name]
    short = ", ".join(f"{family} for {preset}" for family, preset in FAMILIES.items())
    raise RecipeError(
        f"no space is called {name!r}. {nearest(name, PRESETS)} Short: {short}. A space of your own"
        " is file.py:NAME."
    )


def preset(
    name: str | Space | Callable[..., Space], *, channels: int, image_size: int, classes: int
) -> Space:
    """A space for images of one shape, by its name.

    Args:
        name: name or short name of a shipped space; `file.py:NAME`, or a function or class, that
            takes the other three arguments by their names and returns a `Space`; or a space.
        channels: of an image: 1 for gray, 3 for RGB.
        image_size: height and width in pixels.
        classes: number of labels.

    Raises:
        RecipeError: no space of this name, or the function of your own does not return one.
        EncodingError: the images are smaller or larger than the space can handle, or the networks
            of a space of your own do not fit together.
    """
    for what, value in {"channels": channels, "image_size": image_size, "classes": classes}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise EncodingError(
                f"channels, image size and classes are whole numbers from 1, received "
                f"{what}={value!r}."
            )
    if isinstance(name, Space):
        return fitting_space(name, f"space {name.name!r}", channels, image_size, classes)
    if isinstance(name, str):
        name = space_name(name)
    if not isinstance(name, str) or is_plugin(name):
        space = call_plugin(
            name, what="a space", channels=channels, image_size=image_size, classes=classes
        )
        origin = name if isinstance(name, str) else object_text(name)
        return fitting_space(space, origin, channels, image_size, classes)
    if name == FOREIGN:
        raise RecipeError(
            f"space {FOREIGN!r} is that of the network that a run starts from, and here is no run."
            " Use pliant.make_elastic."
        )
    row = PRESETS[name]
    if not row.smallest_image <= image_size <= row.largest_image:
        need = f"at least {row.smallest_image}", "larger"
        if image_size > row.largest_image:
            need = f"at most {row.largest_image}", "smaller"
        fitting = spaces_for(image_size)
        space = f"--space {fitting[0]}, or " if fitting else ""
        raise EncodingError(
            f"space {name!r} needs images of {need[0]} pixels, received {image_size}. "
            f"Use {space}{need[1]} images."
        )
    return row.build(channels, image_size, classes)


def spaces_for(image_size: int) -> list[str]:
    """Names of the shipped spaces that take images of this height and width, in pixels."""
    return [
        name
        for name, row in PRESETS.items()
        if row.smallest_image <= image_size <= row.largest_image
    ]


def largest_image(name: object) -> int | None:
    """Largest images of a shipped space, in pixels; None for a space of one's own."""
    row = PRESETS.get(FAMILIES.get(name, name)) if isinstance(name, str) else None
    return None if row is None else row.largest_image


def fitting_space(
    space: object, origin: str, channels: int, image_size: int, classes: int
) -> Space:
    """A space of the user's own, once it is known to be one for these images.

    Args:
        space: what was given as one.
        origin: where it comes from, for messages.
        channels: of the images.
        image_size: height and width of the images, in pixels.
        classes: number of labels.

    Raises:
        RecipeError: it is no `Space`.
        EncodingError: it is for other images, or its networks do not fit together.
    """
    if not isinstance(space, Space):
        raise RecipeError(
            f"{origin} must return a pliant.spaces.space.Space, received {type(space).__name__}."
        )
    sizes = (space.channels, space.image_size, space.classes)
    if sizes != (channels, image_size, classes):
        raise EncodingError(
            f"a space is for the images of its run: {origin} has (channels, image size, classes)"
            f" {sizes}, the images have {(channels, image_size, classes)}. Pass on what the"
            " function receives."
        )
    check_space(space)
    return space
