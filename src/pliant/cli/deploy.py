"""`pliant deploy`: deliver a network of a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pliant.cli.app import (
    Confidence,
    EnergyName,
    Limits,
    MovedData,
    PrecisionName,
    RecipeArgument,
    TargetName,
    app,
    open_run,
    say,
    screen,
)
from pliant.cli.run import say_delivered
from pliant.files import folder_name
from pliant.progress import shown


@app.command()
def deploy(
    recipe: RecipeArgument,
    data: MovedData = None,
    limit: Limits = None,
    confidence: Confidence = None,
    target: TargetName = None,
    energy: EnergyName = None,
    precision: PrecisionName = None,
    architecture: Annotated[
        str | None, typer.Option(help="A network by its text form, as the report shows it.")
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(help="Folder for the network; best/ or front/NAME of the run if not given."),
    ] = None,
    tflite: Annotated[
        bool, typer.Option("--tflite", help="Also write model.tflite; needs pliant[tflite].")
    ] = False,
) -> None:
    """Write a network as ONNX, safetensors and plain PyTorch, and prove it.

    With --limit, --confidence, --target, --energy or --precision, another network is chosen,
    without training.
    """
    from pliant.metrics import as_precision
    from pliant.objective import as_limits

    if architecture is not None and (limit or confidence):
        other = "--limit" if limit else "--confidence"
        raise typer.BadParameter(
            f"an architecture is delivered as it is; give --architecture or {other}, not both."
        )
    if confidence is not None:
        from pliant.devices.interval import require_confidence

        require_confidence(confidence)
    if tflite:
        from pliant.deploy.tflite import require_converter

        require_converter()
    if architecture == "":
        raise typer.BadParameter("an architecture is a text as the report shows it, received none.")
    limits = as_limits(limit or ())
    with open_run(recipe, changes={"data.source": data}) as run:
        named = run.parse(architecture) if architecture is not None else None

        from pliant.runs.deliver import deliver
        from pliant.runs.session import Session
        from pliant.runs.specialize import named_network, specialize
        from pliant.runs.workflow import run_steps

        with shown(screen) as progress:
            session = Session(
                run,
                target=target,
                precision=as_precision(precision),
                limits=() if named is not None else limits or None,
                confidence=confidence,
                energy=energy,
                progress=progress,
            )
            others = limit, confidence, target, energy, precision, output_dir
            if named is None and not any(others):
                delivered = run_steps(session).delivered
                assert delivered is not None
            else:
                network = named_network(session, named) if named else specialize(session)
                folder = output_dir or run.folder / "front" / folder_name(str(network.architecture))
                delivered = deliver(session, network, folder=folder)
        say_delivered(session, delivered)
        if tflite:
            from pliant.deploy.sums import write_sums
            from pliant.deploy.tflite import TFLITE_MODEL, write_tflite

            worst = write_tflite(delivered.folder, session.network(delivered.architecture))
            write_sums(delivered.folder)
            say(
                f"probabilities within {worst:.1e} of model.onnx",
                about=delivered.folder / TFLITE_MODEL,
            )
