"""Pictures of every mode and depth at full contrast, upright and square as asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from pliant.data import DataSet, Split, load
from pliant.data.decoding import Decoding, decode_picture, fit_picture
from pliant.data.pixel_range import range_of_integers
from pliant.data.splits import ImagesInMemory
from pliant.errors import DataError

RNG = np.random.default_rng(0)
SIZE = 64
NOISE = RNG.permuted(np.tile(np.arange(256, dtype=np.uint8), (4, 16)), axis=1)
"""Every level equally often, in every channel."""
NOISE = NOISE.T.reshape(SIZE, SIZE, 4).copy()


def save(folder: Path, picture: Image.Image, kind: str) -> DataSet:
    """A data set of 12 copies of a picture, in two classes."""
    for name in "ab":
        (folder / name).mkdir(parents=True)
        for index in range(6):
            picture.save(folder / name / f"{index}.{kind}")
    return load(folder, seed=0, image_size=SIZE)


def of_mode(mode: str) -> Image.Image:
    """Noise of full contrast; opaque, as alpha has tests of its own."""
    deep = RNG.integers(0, 1 << 16, (SIZE, SIZE))
    if mode == "I":
        return Image.fromarray(deep.astype(np.int32))
    if mode.startswith("I;16"):
        return Image.fromarray(deep.astype(">u2" if mode.endswith("B") else "<u2"))
    if mode == "F":
        return Image.fromarray(RNG.random((SIZE, SIZE), dtype=np.float32))
    if mode in ("RGBA", "RGBa", "RGBX", "CMYK"):
        last = np.full_like(NOISE[..., :1], 0 if mode == "CMYK" else 255)
        return Image.frombytes(mode, (SIZE, SIZE), np.dstack([NOISE[..., :3], last]).tobytes())
    if mode == "PA":
        return Image.fromarray(NOISE[..., 0]).convert("P").convert("PA")
    if mode in ("LA", "La"):
        opaque = np.dstack([NOISE[..., 0], np.full((SIZE, SIZE), 255, np.uint8)])
        return Image.frombytes(mode, (SIZE, SIZE), opaque.tobytes())
    if mode in ("RGB", "YCbCr", "LAB", "HSV"):
        return Image.frombytes(mode, (SIZE, SIZE), NOISE[..., :3].tobytes())
    gray = Image.fromarray(NOISE[..., 0])
    return gray.convert(mode)


MODES = [
    "1",
    "L",
    "P",
    "LA",
    "La",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "I;16",
    "I;16L",
    "I;16B",
    "F",
]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_keeps_its_levels(mode: str) -> None:
    picture = of_mode(mode)
    own = np.unique(np.asarray(picture if mode != "P" else picture.convert("L")))
    ranges = {}
    if mode.startswith("I"):
        ranges = {"integers": range_of_integers(own.min(), own.max())}
    for channels in (1, 3):
        pixels = fit_picture(picture, Decoding(channels, SIZE, **ranges))
        assert pixels.shape == (SIZE, SIZE, channels)
        assert pixels.dtype == np.uint8
        if channels == 1 and mode in ("RGB", "YCbCr", "HSV", "LAB", "CMYK", "RGBX", "RGBA", "RGBa"):
            continue  # colours that become gray have levels of their own
        assert len(np.unique(pixels)) >= min(len(own), 256)


@pytest.mark.parametrize(
    ("picture", "kind", "levels"),
    [
        (Image.fromarray((NOISE[..., 0] / 255).astype(np.float32)), "tiff", 256),
        (Image.fromarray((NOISE[..., 0] / 255 - 0.5).astype(np.float32)), "tiff", 256),
        (Image.fromarray((NOISE[..., 0] * 40.0).astype(np.float32)), "tiff", 256),
        (Image.fromarray(NOISE[..., 0].astype(np.int32)), "tiff", 256),
        (Image.fromarray(NOISE[..., 0].astype(np.int32) * 1000 - 70000), "tiff", 256),
        (Image.fromarray(NOISE[..., 0].astype(np.uint16)), "png", 256),
        (Image.fromarray(NOISE[..., 0].astype(np.uint16) * 16), "png", 256),
        (Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257), "png", 256),
        (Image.fromarray(NOISE[..., 0].astype(np.uint16) // 4), "png", 64),
        (Image.fromarray(np.dstack([NOISE[..., :3] * 0, NOISE[..., 3]])), "png", 256),
        (Image.fromarray(np.dstack([NOISE[..., :3] * 0 + 255, NOISE[..., 3]])), "png", 256),
        (Image.fromarray(NOISE[..., 0]).quantize(200), "png", 200),
        (Image.fromarray(NOISE[..., 0] > 127), "png", 2),
    ],
)
def test_files_of_full_contrast_stay_so(
    picture: Image.Image, kind: str, levels: int, tmp_path: Path
) -> None:
    data = save(tmp_path, picture, kind)
    assert len(torch.unique(data.train.batch(np.arange(1))[0])) >= levels
    if picture.mode in ("F", "I", "I;16"):
        assert any("are scaled from" in note for note in data.notes)


def test_the_range_is_that_of_the_whole_training_set(tmp_path: Path) -> None:
    """A dark picture stays dark beside a bright one; the rule is said."""
    for place, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        for index in range(6):
            values = np.array([[0, 10 * index], [5, 4000 * place]], np.uint16)
            Image.fromarray(values).save(tmp_path / name / f"{index}.png")
    data = load(tmp_path, seed=0)
    assert (
        "Pictures with integers beyond 8 bits are scaled from 0 to 4000 to 0 to 255." in data.notes
    )
    dark = data.train.batch(np.flatnonzero(data.train.labels == 0))[0]
    assert dark.max() <= round(50 / 4000 * 255)


def test_transparent_pictures_show_the_background_asked_for(tmp_path: Path) -> None:
    pixels = np.zeros((SIZE, SIZE, 4), np.uint8)
    pixels[: SIZE // 2] = [255, 0, 0, 255]
    pixels[SIZE // 2 :] = [9, 9, 9, 0]
    data = save(tmp_path, Image.fromarray(pixels), "png")
    corner = data.train.batch(np.arange(1))[0][0, :, [0, -1], 0]
    assert corner.T.tolist() == [[255, 0, 0], [255, 255, 255]]
    assert any("transparent and shown on #ffffff" in note for note in data.notes)
    green = load(tmp_path, seed=0, image_size=SIZE, background="#00ff00")
    assert green.train.batch(np.arange(1))[0][0, :, -1, 0].tolist() == [0, 255, 0]
    assert green.fingerprint != data.fingerprint


def test_padding_keeps_the_whole_picture() -> None:
    pixels = np.full((20, 40, 3), 200, np.uint8)
    pixels[:, :4] = 0
    pixels[:, -4:] = 0
    picture = Image.fromarray(pixels)
    cropped = fit_picture(picture, Decoding(3, 20))
    padded = fit_picture(picture, Decoding(3, 20, fit="pad"))
    assert cropped.min() == 200
    assert (padded[:5] == 127).all()
    assert (padded[-5:] == 127).all()
    assert padded[10, 0, 0] < 20
    assert padded[10, 10].tolist() == [200] * 3


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_jpeg_decoding_is_close_and_upright(
    fit: str, orientation: int, tmp_path: Path
) -> None:
    """Decoding at a fraction of the size shows the same picture, whichever side is up."""
    x, y = np.meshgrid(np.linspace(0, 255, 320), np.linspace(0, 255, 240))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.dstack([x, y, 255 - x]).astype(np.uint8))
    picture.save(tmp_path / "a.jpg", quality=95, exif=exif)
    decoding = Decoding(3, 30, fit=fit)  # type: ignore[arg-type]
    reduced = decode_picture(tmp_path / "a.jpg", decoding).transpose(1, 2, 0)
    with Image.open(tmp_path / "a.jpg") as whole:
        whole.load()  # at its full size, which no draft changes any more
        expected = fit_picture(whole, decoding)
    assert not np.array_equal(reduced, expected), "decoded at a fraction"
    assert np.abs(reduced.astype(int) - expected).max() <= 12
    assert np.abs(reduced.astype(int) - expected).mean() < 1.5


def test_lab_is_converted_by_its_profile() -> None:
    colours = Image.fromarray(NOISE[..., :3] // 2 + 64)
    lab = ImageCms.profileToProfile(
        colours, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    back = fit_picture(lab, Decoding(3, SIZE))
    assert np.abs(back.astype(int) - np.asarray(colours)).mean() < 4


def test_fractions_that_are_no_numbers_are_broken(tmp_path: Path) -> None:
    values = np.full((8, 8), np.nan, np.float32)
    with pytest.raises(DataError, match=r"(?s)12 pictures .*no finite numbers"):
        save(tmp_path, Image.fromarray(values), "tiff")


def test_a_blank_channel_is_warned_about(tmp_path: Path) -> None:
    pixels = NOISE[..., :3].copy()
    pixels[..., 2] = 7
    data = save(tmp_path, Image.fromarray(pixels), "png")
    blank = "The blue channel carries nothing: it is 7 of 255"
    assert any(note.startswith(blank) for note in data.notes)
    assert data.std[2] == 1
    assert data.std[0] == pytest.approx(0.29, abs=0.02)


def test_a_set_of_one_colour_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="of one colour, 9, 9, 9 of 255"):
        save(tmp_path, Image.new("RGB", (8, 8), (9, 9, 9)), "png")


def test_floats_in_python_are_not_divided_twice() -> None:
    images = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    bytes_, floats = (
        Split(ImagesInMemory(pixels), np.arange(20) % 2) for pixels in (images, images / 255)
    )
    assert torch.equal(floats.batch(np.arange(20))[0], bytes_.batch(np.arange(20))[0])
    with pytest.raises(DataError, match="float32 beyond"):
        ImagesInMemory(images.float())
    with pytest.raises(DataError, match=r"received \(20, 8, 8, 3\)"):
        ImagesInMemory(images.permute(0, 2, 3, 1))
