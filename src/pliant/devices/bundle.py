"""A bundle of networks and a script, to be timed where Pliant is not: on a phone or a board.

    bench.zip
      run_bench.py     readable, of the standard library, with ONNX Runtime or LiteRT
      bench.json       which networks of which space the models are
      models/          network-00.onnx, ..., anchor.onnx; and .tflite if there is a converter

The script writes results.json, which `results` reads.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pliant.devices.ladder import networks_to_measure
from pliant.devices.measure import anchor_model
from pliant.devices.profile import random_network_model, space_key
from pliant.devices.runtimes.litert import has_converter, to_tflite
from pliant.devices.table import sample_evenly_by_macs
from pliant.errors import RecipeError
from pliant.files import replace_atomically
from pliant.metrics import InferencePrecision
from pliant.spaces.check import check_space
from pliant.spaces.space import Space

ANCHOR = "anchor"
SCRIPT = Path(__file__).with_name("run_bench.py")
MIN_NETWORKS, MAX_NETWORKS = 5, 1000
DESIGNED = 10
"""Up to this many networks are all chosen by what they say about additive costs."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of every file in the archive, so that equal bundles are equal files."""


def write_bundle(
    path: Path,
    space: Space,
    networks: int,
    *,
    precision: InferencePrecision = "fp32",
    batch: int = 1,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> bool:
    """Write the archive.

    Up to ten networks are those that say most about additive costs (`networks_to_measure`), the
    first ones the most. Of more, half are; the others are spread evenly over MACs.

    Args:
        path: of the .zip.
        space: whose networks are timed.
        networks: how many.
        precision: of the networks.
        batch: images per run.
        seed: of the networks and their weights.
        progress: called with the number of networks written and their total.

    Returns:
        Whether the models are there for LiteRT too.

    Raises:
        RecipeError: too few or too many networks.
        EncodingError: the networks of the space do not fit together.
    """
    if not MIN_NETWORKS <= networks <= MAX_NETWORKS:
        raise RecipeError(
            f"a bundle has {MIN_NETWORKS} to {MAX_NETWORKS} networks, received {networks}. Ten give"
            " a first predictor, forty a good one."
        )
    check_space(space)
    rng = np.random.default_rng((seed, 5))
    designed = max(min(networks, DESIGNED), (networks + 1) // 2)
    chosen = networks_to_measure(space, designed, rng)
    spread = [one for one in sample_evenly_by_macs(space, networks, rng) if one not in chosen]
    chosen += spread[: networks - len(chosen)]
    names = {f"network-{index:02}": one for index, one in enumerate(chosen)}
    has_tflite = precision == "fp32" and has_converter()  # which writes float operators only
    bench = {
        "bundle": 1,
        "space": space_key(space).model_dump(),
        "precision": precision,
        "batch": batch,
        "networks": {name: str(one) for name, one in names.items()} | {ANCHOR: None},
    }

    def write(partial: Path) -> None:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            _add(archive, "run_bench.py", SCRIPT.read_bytes())
            _add(archive, "bench.json", json.dumps(bench, indent=1).encode())
            for done, (name, one) in enumerate([(ANCHOR, None), *names.items()]):
                model = (
                    anchor_model()
                    if one is None
                    else random_network_model(space.blocks(one), rng, precision)
                )
                _add(archive, f"models/{name}.onnx", model)
                if has_tflite:
                    _add(archive, f"models/{name}.tflite", to_tflite(model, batch))
                progress(done, len(names))

    replace_atomically(path, write)
    return has_tflite


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, EPOCH), content)
