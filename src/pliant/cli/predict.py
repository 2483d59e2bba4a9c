"""`pliant predict`: the classes of pictures, by a delivered network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pliant.cli.app import app, print_error, say, screen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pliant.deploy.classifier import Prediction

SHOWN_CLASSES = 5
"""Rows of the table that a single picture gets."""


@app.command()
def predict(
    network: Annotated[
        Path, typer.Argument(help="A run directory, its best/, or a delivered ONNX file.")
    ],
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, and folders of pictures.")],
    out: Annotated[
        Path | None, typer.Option(help="A .csv file for the probabilities of all classes.")
    ] = None,
) -> None:
    """Classify pictures.

    Exit code 0 if every picture was read, 1 if some could not be (they are named, the rest is
    done), 2 if nothing could be classified.
    """
    from pliant.deploy.classifier import Classifier, find_pictures, write_labels
    from pliant.errors import DataError
    from pliant.files import replace_atomically

    classifier = Classifier(network)
    predictions = list(classifier.predict(find_pictures(pictures)))
    unread = [one for one in predictions if one.probabilities is None]
    for one in unread:
        print_error(f"{one.picture} cannot be read as a picture: {one.reason}")
    if len(unread) == len(predictions):
        raise DataError("none of the pictures can be read. Name others.")
    if out is not None:

        def write(partial: Path) -> None:
            with partial.open("w", newline="", encoding="utf-8") as file:
                write_labels(file, classifier.classes, predictions)

        replace_atomically(out, write)
        say(f"{len(predictions) - len(unread)} pictures classified", about=out)
    elif len(predictions) == 1:
        _show_table(classifier.classes, predictions[0])
    else:
        for one in predictions:
            _show_line(classifier.classes, one)
    if unread:
        raise typer.Exit(1)


def _show_line(classes: Sequence[str], one: Prediction) -> None:
    """The best class of one of several pictures."""
    if one.probabilities is not None:
        best = int(one.probabilities.argmax())
        say(f"{classes[best]}, {one.probabilities[best]:.1%}", about=one.picture)


def _show_table(classes: Sequence[str], one: Prediction) -> None:
    """The best classes of the only picture."""
    from rich.table import Table
    from rich.text import Text

    assert one.probabilities is not None
    table = Table("class", "probability")
    for index in (-one.probabilities).argsort()[:SHOWN_CLASSES]:
        table.add_row(Text(classes[index]), f"{one.probabilities[index]:.1%}")
    screen.print(table)
