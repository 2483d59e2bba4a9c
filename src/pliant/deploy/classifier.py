"""Runs a delivered network on pictures, with ONNX Runtime, NumPy and Pillow only.

What the network takes and gives is in its file: shape and type of `pictures`, and the names of the
classes, as JSON, in the metadata.
"""

from __future__ import annotations

import csv
import json
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import onnxruntime
from PIL import Image

from pliant.data.decoding import open_picture
from pliant.deploy.sums import require_intact
from pliant.errors import DamagedFileError, DataError
from pliant.picture import preprocess

MODEL = "model.onnx"
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow raises on files that are no pictures, or damaged."""
BATCH = 32
"""Pictures that are decoded together, and then run one after the other."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a network says of one picture."""

    picture: Path
    probabilities: np.ndarray | None
    """Of each class; None where the picture cannot be read."""
    reason: str = ""
    """Why it cannot be read."""


class Classifier:
    """A delivered network, ready for pictures.

    Args:
        place: a run directory, the folder of a network such as `best/`, or an ONNX file. Of a
            folder the file in the run's precision.

    Raises:
        DamagedFileError: there is no such file, it is no network that Pliant delivered, or it is
            not what was written.
    """

    def __init__(self, place: Path) -> None:
        self.path = find_model(place)
        try:
            self._session = _open(self.path)
            metadata = self._session.get_modelmeta().custom_metadata_map
            if place.is_dir() and metadata["use"] != self.path.name:
                self.path = self.path.with_name(metadata["use"])
                self._session = _open(self.path)
            self.classes = tuple(json.loads(metadata["classes"]))
            self.options = dict(json.loads(metadata["preprocessing"]))
            [pictures] = self._session.get_inputs()
            _, self.size, _, channels = pictures.shape
            self.mode = {1: "L", 3: "RGB"}[channels]
        except DamagedFileError:
            raise
        except Exception as error:  # ONNX Runtime's errors have no common class but this one
            raise DamagedFileError(
                f"pictures are classified by a network that Pliant delivered, {self.path} is none:"
                f" {str(error).strip().rstrip('.') or type(error).__name__}. Deliver it again with"
                " `pliant deploy`."
            ) from error

    def predict(self, pictures: Iterable[Path]) -> Iterator[Prediction]:
        """One prediction per picture, in order; one that cannot be read does not stop the rest."""
        paths = list(pictures)
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(paths), BATCH):
                for path, pixels in pool.map(self._read, paths[start : start + BATCH]):
                    if isinstance(pixels, str):
                        yield Prediction(path, None, pixels)
                    else:
                        yield Prediction(path, self.probabilities(pixels[None])[0])

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Of each class, (N, classes), for uint8 (N, size, size, channels)."""
        found: np.ndarray = self._session.run(["probabilities"], {"pictures": pixels})[0]
        return found

    def _read(self, path: Path) -> tuple[Path, np.ndarray | str]:
        """The pixels of a picture, or why there are none."""
        try:
            with open_picture(path) as picture:
                return path, preprocess(picture, self.size, self.mode, **self.options)
        except UNREADABLE as error:
            return path, " ".join(str(error).split()) or type(error).__name__


def _open(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    content = path.read_bytes()
    require_intact(path, content)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def find_model(place: Path) -> Path:
    """The ONNX file of a run directory, of a delivered folder, or itself.

    Raises:
        DamagedFileError: there is none.
    """
    for path in (place, place / MODEL, place / "best" / MODEL):
        if path.is_file():
            return path
    raise DamagedFileError(
        f"a delivered network is a run directory, its best/ or an ONNX file; {place} has no"
        f" {MODEL}. Deliver one with `pliant run` or `pliant deploy`."
    )


def find_pictures(places: Iterable[Path]) -> list[Path]:
    """The pictures of files and folders; of a folder those whose name ends as a picture's does.

    Raises:
        DataError: a place does not exist, or there is no picture at all.
    """
    endings = [end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN]
    found: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            inside = (path for path in sorted(place.rglob("*")) if path.suffix.lower() in endings)
            found.update(dict.fromkeys(path for path in inside if path.is_file()))
        elif place.exists():
            found[place] = None
        else:
            raise DataError(
                f"pictures are files and folders that exist, {place} does not. Check the spelling"
                " and the folder you are in."
            )
    if not found:
        named = ", ".join(map(str, places))
        raise DataError(f"found no picture in {named}. Name a folder with pictures, or a file.")
    return list(found)


def write_labels(file: TextIO, classes: Iterable[str], predictions: Iterable[Prediction]) -> None:
    """One row per picture: its best class, and the probability of every class; empty if unread."""
    classes = list(classes)
    writer = csv.writer(file)
    columns = [f"probability of {name}" for name in classes]
    writer.writerow(["picture", "class", "probability", *columns])
    for one in predictions:
        if one.probabilities is None:
            writer.writerow([one.picture, *[""] * (2 + len(classes))])
            continue
        best = int(one.probabilities.argmax())
        values = [f"{value:.6f}" for value in one.probabilities]
        writer.writerow([one.picture, classes[best], values[best], *values])
