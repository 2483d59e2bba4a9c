"""`pliant roofline` on files, modules, networks of a space, chips and data sheets."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from pliant.cli.app import app
from pliant.devices.data_sheet import Cache, DataSheet, PeakGops, save_sheet
from pliant.devices.profile import random_network_model
from pliant.devices.roofs import roofs_name
from pliant.errors import PliantError
from pliant.spaces.presets import preset

MODULE = """
from torch import nn


def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1568, 10))


def number():
    return 3
"""


def _run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["roofline", *map(str, arguments)], env={"COLUMNS": "120"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return re.sub(r"\s+", " ", result.output)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    space = preset("digits", channels=1, image_size=8, classes=10)
    path = tmp_path / "small.onnx"
    blocks = space.blocks(space.smallest())
    path.write_bytes(random_network_model(blocks, np.random.default_rng(0)))
    return path


def test_a_file_on_this_machine_has_roofs_times_and_a_page(model: Path, tmp_path: Path) -> None:
    roofs, page = tmp_path / "roofs.toml", tmp_path / "page.html"
    caches = (Cache("L1", 48, 300.0), Cache("L2", 1024, 150.0))
    sheet = DataSheet(roofs_name(1), "measured", 20.0, PeakGops(fp32=200.0), caches)
    save_sheet(sheet, roofs)
    output = _run(model, "--roofs", roofs, "--report", page)
    assert "stem.conv1" in output
    assert "in kernels, at least" in output
    assert "Of no layer" in output
    html = page.read_text(encoding="utf-8")
    assert "Layers of small" in html
    assert "measured" in html
    save_sheet(DataSheet("another", "measured", 20.0, PeakGops(fp32=200.0)), roofs)
    with pytest.raises(PliantError, match="has the roofs of another"):
        _run(model, "--roofs", roofs)


def test_networks_of_a_space_are_compared(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    output = _run(
        "largest", "smallest", "--space", "digits", "--images", "1x8", "--classes", "10",
        "--target", "stm32f746", "--precision", "int8", "--report", page,
    )  # fmt: skip
    assert "smallest is" in output
    assert "as fast as largest by the roofs" in output
    assert "Why one is faster" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("target", ["raspberry-pi-4", "eyeriss"])
def test_a_module_of_ones_own(tmp_path: Path, target: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MODULE, encoding="utf-8")
    output = _run(f"{path}:net", "--images", "3x16", "--target", target)
    assert "mine.py:net: " in output
    assert "3 layers" not in output


def test_wrong_input_is_refused(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MODULE, encoding="utf-8")
    (tmp_path / "broken.onnx").write_bytes(b"none")
    empty = onnx.load(model)
    empty.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 0
    onnx.save(empty, tmp_path / "empty.onnx")
    wrong = [
        ([model, "--target", "rasberry-pi-4"], "raspberry-pi-4"),
        ([model, "--target", "raspberry-pi-4", "--precision", "int8"], "of networks of a --space"),
        ([model, "--target", "raspberry-pi-4", "--size", "N"], "name=number"),
        ([model, "--target", "raspberry-pi-4", "--size", "N=0"], "the number is 1 or more"),
        ([model, "--target", "raspberry-pi-4", "--skip", "Erf"], "Erf"),
        (["net.py:net", "--skip", "Erf"], "--skip is of operators of ONNX files"),
        ([model, "--target", "none.toml"], "a chip or a data sheet is a TOML file"),
        ([tmp_path / "none.onnx", "--target", "raspberry-pi-4"], "cannot be read"),
        ([tmp_path / "broken.onnx", "--target", "raspberry-pi-4"], "no ONNX model"),
        ([tmp_path / "empty.onnx", "--target", "eyeriss"], "dimension 0 of input 'pictures' is 0"),
        ([f"{path}:number", "--target", "raspberry-pi-4"], "must return an nn.Module"),
        (["smallest", "--space", "digits", "--images", "8", "--target", "eyeriss"], "3x224"),
        ([model, "--roofs", "roofs.json"], ".toml file"),
    ]
    for arguments, match in wrong:
        with pytest.raises(PliantError, match=re.escape(match)):
            _run(*arguments)
