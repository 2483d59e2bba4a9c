"""Importing Pliant costs nothing, and describing or analysing networks needs no PyTorch."""

from __future__ import annotations

import ast
import os
import pydoc
import subprocess
import sys
from importlib import import_module
from inspect import ismodule
from pathlib import Path
from pkgutil import iter_modules

import pytest

import pliant

SOURCE = Path(pliant.__file__).parent


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


PACKAGES = [
    "pliant",
    *sorted(f"pliant.{path.parent.name}" for path in SOURCE.glob("*/__init__.py")),
]
PACKAGES.remove("pliant.cli")


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_read_the_names_that_load(package):
    """The imports that type checkers read are the names of `__all__`, each from where it loads."""
    found = import_module(package)
    tree = ast.parse(Path(found.__file__).read_text("utf-8"))
    [block] = [one for one in tree.body if isinstance(one, ast.If)]
    imports = [one for one in block.body if isinstance(one, ast.ImportFrom)]
    assert sorted(alias.asname for one in imports for alias in one.names) == found.__all__
    for one in imports:
        home = import_module(one.module)
        for alias in one.names:
            value = import_module(f"pliant.{alias.name}") if home is found else None
            assert getattr(found, alias.name) is (value or getattr(home, alias.name)), alias.name
    assert {*found.__all__, "__doc__"} <= set(dir(found))
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Runn'"):
        _ = found.Runn


@pytest.mark.parametrize("package", PACKAGES)
def test_no_name_is_that_of_a_module_beside_it(package):
    """Importing such a module would put it in the place of the function or class."""
    found = import_module(package)
    modules = {one.name for one in iter_modules(found.__path__)}
    assert [
        name for name in found.__all__ if name in modules and not ismodule(getattr(found, name))
    ] == []


def test_help_shows_the_public_names():
    page = pydoc.plain(pydoc.render_doc(import_module("pliant")))
    assert "class Run(" in page
    assert "run_all(run" in page


def test_type_checkers_know_the_types(pytestconfig, tmp_path):
    program = """
import pliant, pliant.scoring
from pliant.runs import run_all
reveal_type(pliant.Run)
reveal_type(run_all)
reveal_type(pliant.scoring.search_by_score)
pliant.Runn
"""
    (tmp_path / "program.py").write_text(program, "utf-8")
    cache = pytestconfig.cache.mkdir("mypy")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(cache), "program.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(SOURCE.parent)},
        check=False,
    )
    revealed = [line for line in checked.stdout.splitlines() if "Revealed type" in line]
    assert len(revealed) == 3, checked.stdout + checked.stderr
    assert "-> pliant.runs.run.Run" in revealed[0]
    assert "-> pliant.runs.workflow.Result" in revealed[1]
    assert all(line.count('"def (') == 1 for line in revealed), "functions, with their types"
    assert 'no attribute "Runn"' in checked.stdout


def test_no_module_needs_posix() -> None:
    """Where a system lacks one of these, nothing that imports it opens."""
    needs = {"fcntl", "resource", "pwd", "grp", "termios", "posix"}
    for path in Path(pliant.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert not needs & set(names), path
