"""`pliant grow`: a larger network that computes the same, trained further."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pliant.cli.app import Data, ImageSize, Seed, SkipBroken, app, say, screen
from pliant.cli.bounds import MOST
from pliant.cli.given import refuse_unused
from pliant.errors import DataError, RecipeError
from pliant.files import require_writable
from pliant.plugins import is_plugin
from pliant.progress import shown

Layers = list[str] | None


@app.command()
def grow(
    context: typer.Context,
    network: Annotated[
        str,
        typer.Argument(
            help="A delivered network, best/ or its model.safetensors, or file.py:NAME: a function"
            " or class that gives a torch.nn.Module with its weights."
        ),
    ],
    widen: Annotated[
        Layers, typer.Option(help="More channels: stage2=1.5x or conv1=64. Repeatable.")
    ] = None,
    deepen: Annotated[
        Layers, typer.Option(help="More layers at the end of a stage or behind a layer: stage3=+1.")
    ] = None,
    kernel: Annotated[Layers, typer.Option(help="A larger kernel: stage1=5.")] = None,
    squeeze_excite: Annotated[
        Layers, typer.Option(help="Squeeze-and-excitation in a stage or behind a layer.")
    ] = None,
    skip: Annotated[
        Layers, typer.Option(help="A skip around a layer of a network of your own.")
    ] = None,
    data: Data = None,
    skip_broken: SkipBroken = None,
    epochs: Annotated[
        int, typer.Option(min=0, max=MOST, help="Passes over the images of --data; 0 to only grow.")
    ] = 3,
    learning_rate: Annotated[
        float, typer.Option(min=0.0, max=1e3, help="Peak, over that of training from scratch.")
    ] = 0.1,
    image_size: ImageSize = None,
    channels: Annotated[
        int,
        typer.Option(
            min=1, max=MOST, help="Of the images of a network of your own, without --data."
        ),
    ] = 3,
    seed: Seed = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="Folder for the files; grown/ beside the network's folder.")
    ] = None,
) -> None:
    """Grow a trained network: wider, deeper, with larger kernels, gates or skips.

    It computes the same at first, which is checked in evaluation and in training mode. With --data
    it is trained further. Written are model.safetensors, model.py and model.onnx.
    """
    from pliant.deploy.delivered import delivered_folder

    folder = None if is_plugin(network) else delivered_folder(Path(network))
    if folder is None and not is_plugin(network):
        raise RecipeError(
            "a network to grow is a folder with model.safetensors and model.py, as runs write it to"
            f" best/, or file.py:NAME; {network} is neither."
        )
    if data is None:
        rule = "a network is trained further on the images of --data; there are none"
        refuse_unused(context, ["epochs", "learning_rate", "skip_broken"], rule)
    else:
        refuse_unused(context, ["channels"], "the images of --data have their own channels")
    if folder is not None:
        rule = "a delivered network has its own images"
        refuse_unused(context, ["channels", "image_size"], rule)
    target = output_dir or ((folder.parent if folder else Path()) / "grown")
    require_writable(target)
    import numpy as np
    import torch

    from pliant.accuracy.evaluation import pixels
    from pliant.data import load
    from pliant.deploy.delivered import read_delivered
    from pliant.runs.grow import (
        CHECKED_IMAGES,
        Plan,
        grow_delivered,
        grow_module,
        require_fitting,
        train_further,
        write_grown,
    )
    from pliant.scoring.networks import FileNetworks

    plan = Plan(*(tuple(part or ()) for part in (widen, deepen, kernel, squeeze_excite, skip)))
    rng = np.random.default_rng(seed or 0)
    delivered = read_delivered(folder) if folder else None
    if delivered is not None:
        channels, image_size = delivered.blocks[0].in_channels, delivered.blocks[0].size
    parent = delivered.network if delivered else FileNetworks(network).network(network).eval()
    known = delivered.preprocessing if delivered else {}
    found = None
    if data is not None:
        more = {"fit": known["fit"]} if "fit" in known else {}
        found = load(
            data, seed=seed or 0, image_size=image_size, skip_broken=bool(skip_broken), **more
        )
        if delivered is not None:
            require_fitting(found, delivered.classes, channels, image_size or 0)
        images = pixels(found.train.batch(rng.permutation(len(found.train))[:CHECKED_IMAGES])[0])
    elif image_size is None:
        raise DataError(
            "a network of your own is checked on a batch of its images: give them with --data, or"
            " their size with --image-size for random ones."
        )
    else:
        shape = (CHECKED_IMAGES, channels, image_size, image_size)
        images = torch.from_numpy(rng.random(shape, dtype=np.float32))
    grown = (
        grow_delivered(delivered, plan, images, rng)
        if delivered
        else grow_module(parent, plan, images, rng)
    )
    for step in grown.steps:
        say(step)
    before, after = grown.parameters
    say(
        f"{before:,} to {after:,} parameters; outputs changed by {grown.change.evaluation:.1e} in"
        f" evaluation and {grown.change.training:.1e} in training mode"
    )
    if found is not None and epochs:
        with shown(screen) as progress:
            grown = train_further(
                grown,
                parent,
                found,
                epochs=epochs,
                learning_rate=learning_rate,
                seed=seed or 0,
                progress=progress,
            )
        was, now = grown.validation["parent"], grown.validation["trained"]
        kept = "" if now >= was else "; the untrained weights are kept, which are more accurate"
        say(f"validation accuracy {was:.2%} before, {now:.2%} after {epochs} epochs{kept}")
    notes = write_grown(
        target,
        grown,
        images,
        classes=delivered.classes if delivered else (found.classes if found else ()),
        preprocessing=known or (found.decoding.options if found else {}),
        source=str(network),
    )
    for note in notes:
        say(note)
    say("model.safetensors, model.py and model.onnx agree", about=target)
