"""Pictures are read as in training; one that cannot be read stops nothing."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch
from PIL import Image

from pliant.accuracy.evaluation import pixels
from pliant.data import load
from pliant.deploy.classifier import Classifier, find_pictures, write_labels
from pliant.errors import DamagedFileError, DataError
from pliant.picture import preprocess


def _pictures(folder):
    """One picture of each kind that people have: (name, picture, how it is saved)."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (90, 160, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    deep = Image.fromarray(rng.integers(0, 2**16, (70, 50), np.uint16))
    clear = colour.convert("P")
    clear.info["transparency"] = 0
    kinds = {
        "turned.jpg": (colour, {"exif": exif}),
        "cmyk.jpg": (colour.convert("CMYK"), {}),
        "alpha.png": (colour.convert("RGBA"), {}),
        "clear.png": (clear, {}),
        "deep.png": (deep, {}),
        "gray.bmp": (colour.convert("L"), {}),
    }
    for name, (picture, how) in kinds.items():
        picture.save(folder / name, **how)
    return list(kinds)


def test_training_and_delivery_read_the_same_pixels(tmp_path):
    """Every picture of a folder of classes, through data loading and as the card reads it."""
    for label in ("one", "two"):
        for split in ("train", "validation", "test"):
            (tmp_path / split / label).mkdir(parents=True)
            names = _pictures(tmp_path / split / label)
    data = load(tmp_path, seed=0, image_size=24)
    images, _ = data.train.batch(np.arange(len(data.train)))
    expected = [
        preprocess(
            Image.open(tmp_path / "train" / label / name), 24, "RGB", **data.decoding.options
        )
        for label in ("one", "two")
        for name in sorted(names)
    ]
    found = sorted(image.numpy().transpose(1, 2, 0).tobytes() for image in images)
    assert found == sorted(image.tobytes() for image in expected)


def test_preprocess_by_hand():
    """The middle square, upright, red first."""
    wide = Image.new("RGB", (4, 2), "red")
    wide.paste((0, 0, 255), (2, 0, 4, 2))
    left, right = preprocess(wide, 2, "RGB")[0]
    assert (left.tolist(), right.tolist()) == ([255, 0, 0], [0, 0, 255])
    wide.getexif()[0x0112] = 3  # upside down
    assert preprocess(wide, 2, "RGB")[0, 0].tolist() == [0, 0, 255]
    deep = Image.fromarray(np.array([[0x12FF, 0xFF00]], np.uint16).repeat(2, 0))
    assert preprocess(deep, 2, "L")[..., 0].tolist() == [[0x13, 0xFE]] * 2
    found = preprocess(deep, 2, "L", integers=(0x12FF, 0xFF00))
    assert found[..., 0].tolist() == [[0, 255]] * 2


def test_probabilities_are_those_of_the_network(finished):
    from pliant import Run
    from pliant.runs.session import Session

    with Run.reopen(finished.folder) as run:
        images, _ = run.data.validation.batch(np.arange(20))
        network = Session(run).network(finished.result.found.chosen.architecture)
        with torch.no_grad():
            expected = network(pixels(images)).softmax(1)
    found = Classifier(finished.folder).probabilities(images.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


def test_command_classifies_and_names_what_it_cannot_read(command, tmp_path, finished):
    folder = tmp_path / "new"
    folder.mkdir()
    names = _pictures(folder)
    (folder / "note.txt").write_text("no picture")
    code, said, error = command("predict", finished.folder, folder / names[0])
    assert (code, error) == (0, "")
    assert said.count("%") == 5
    (folder / "broken.jpg").write_bytes((folder / "cmyk.jpg").read_bytes()[:300])
    code, said, error = command("predict", finished.folder / "best", folder)
    assert code == 1
    assert "broken.jpg cannot be read as a picture" in error.replace("\n", "")
    assert said.count("%") == len(names)
    labels = tmp_path / "labels.csv"
    assert command("predict", finished.folder, folder, "--out", labels)[0] == 1
    rows = list(csv.DictReader(labels.open(newline="")))
    assert [row["picture"] for row in rows] == sorted(
        str(folder / name) for name in [*names, "broken.jpg"]
    )
    for row in rows:
        values = [float(row[f"probability of {label}"] or "nan") for label in range(10)]
        if row["picture"].endswith("broken.jpg"):
            assert (row["class"], row["probability"]) == ("", "")
        else:
            assert float(row["probability"]) == max(values) == values[int(row["class"])]
            assert sum(values) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["{run}", "{tmp}/broken.jpg"], "none of the pictures can be read"),
        (["{run}", "{tmp}/nosuch"], "files and folders that exist"),
        (["{run}", "{tmp}/empty"], "found no picture in"),
        (["{tmp}", "{tmp}/broken.jpg"], "has no model.onnx"),
        (["{tmp}/broken.jpg", "{tmp}/broken.jpg"], "is none"),
    ],
)
def test_mistakes_are_answered(command, tmp_path, finished, words, rule):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    (tmp_path / "empty").mkdir()
    given = [word.format(run=finished.folder, tmp=tmp_path) for word in words]
    code, _, error = command("predict", *given)
    assert code == 2
    assert rule in " ".join(error.split())


def test_a_network_that_was_not_delivered_is_refused(tmp_path):
    from pliant.devices.measure import empty_model

    (tmp_path / "model.onnx").write_bytes(empty_model())
    with pytest.raises(DamagedFileError, match="classified by a network that Pliant delivered"):
        Classifier(tmp_path)
    with pytest.raises(DataError, match="exist"):
        find_pictures([tmp_path / "nosuch"])


def test_labels_of_any_name_keep_their_columns():
    file = io.StringIO()
    write_labels(file, ['a"b', "c,d\ne"], [])
    assert next(csv.reader(io.StringIO(file.getvalue())))[3:] == [
        'probability of a"b',
        "probability of c,d\ne",
    ]
