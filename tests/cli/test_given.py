"""Options that would have no effect are refused, whatever the command."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from pliant.cli.app import app
from pliant.errors import PliantError

ROOFLINE = "roofline smallest --space digits --images 1x8 --classes 10"
MAP = "accelerator map --space digits --images 1x8 --classes 10"
ESTIMATE = "estimate --space digits --data digits --out table.csv --estimator"


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (f"{ROOFLINE} --target raspberry-pi-4", "--threads 2"),
        (f"{ROOFLINE} --target raspberry-pi-4", "--roofs r.toml"),
        (f"{ROOFLINE} --target my-board/", "--roofs r.toml"),
        (f"{ROOFLINE} --target eyeriss", "--size N=2"),
        ("roofline net.py:build --target eyeriss", "--classes 10"),
        ("roofline net.py:build --target eyeriss", "--size N=2"),
        (MAP, "--size N=2"),
        (MAP, "--skip Erf"),
        ("device measure digits", "--shape 3x32x32"),
        ("device measure digits", "--classes 10"),
        ("search --space digits --estimator zen", "--precision int8"),
        ("codesign --workload squeezenet", "--networks 3"),
        ("codesign --workload squeezenet", "--mappings 3"),
        ("codesign --workload squeezenet --mapper evolution", "--gap 1%"),
        (f"{ESTIMATE} zero-shot", "--seeds 3"),
        (f"{ESTIMATE} scratch", "--scores zen"),
        (f"{ESTIMATE} scratch,supernet", "--predictor-source supernet"),
        (f"{ESTIMATE} scratch,hypernetwork", "--strategy sandwich"),
        (f"{ESTIMATE} scratch,inherit", "--shared-epochs 3"),
        ("grow net.py:build --image-size 8", "--epochs 3"),
        ("grow net.py:build --image-size 8", "--learning-rate 0.5"),
        ("grow net.py:build --data digits", "--channels 1"),
    ],
)
def test_an_option_without_an_effect_is_refused(command: str, option: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), *option.split()])
    assert isinstance(result.exception, PliantError), result.output
    said = str(result.exception)
    name, _, value = option.partition(" ")
    assert name in said or value in said
    assert "Leave" in said
