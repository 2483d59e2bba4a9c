"""Importing Pliant costs nothing, and describing or analysing networks needs no PyTorch."""

from __future__ import annotations

import subprocess
import sys

import pytest


def _loaded(module: str, *, heavy: set[str]) -> set[str]:
    program = f"import sys, {module}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return heavy & set(done.stdout.split())


def test_import_of_the_package_loads_nothing_heavy():
    heavy = {
        "torch",
        "numpy",
        "onnx",
        "onnxruntime",
        "scipy",
        "sklearn",
        "datasets",
        "pydantic",
        "typer",
        "plotly",
        "pyarrow",
    }
    assert _loaded("pliant", heavy=heavy) == set()


@pytest.mark.parametrize(
    "module",
    [
        "spaces.presets",
        "spaces.space",
        "workload",
        "metrics",
        "objective",
        "record",
        "report.run_page",
        "runs.recipe",
        "cli.app",
    ],
)
def test_what_needs_no_network_loads_no_pytorch(module):
    assert (
        _loaded(f"pliant.{module}", heavy={"torch", "accelerate", "onnxruntime", "datasets"})
        == set()
    )


def test_public_names_load_on_first_use():
    import pliant

    assert all(getattr(pliant, name) is not None for name in pliant.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Runn'"):
        _ = pliant.Runn
