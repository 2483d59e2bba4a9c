"""What the README shows works: its Python is run, its commands are understood.

To their end they run in test_readme_commands.py.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import typer.main
from PIL import Image

from pliant.cli.app import app, open_run
from pliant.metrics import ARITHMETIC_METRICS
from pliant.progress import silent
from pliant.runs.recipe import parse_recipe, tomllib
from pliant.runs.session import Session
from pliant.targets import Arithmetic

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def _commands(first: str) -> list[str]:
    """The lines that start a program, in shell blocks and in the text."""
    lines = [
        line.strip()
        for block in _blocks("bash")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    lines += [
        re.sub(r"^torchrun .*? -m ", "", quoted)
        for quoted in re.findall(r"`((?:torchrun|pliant|make) [^`\n]+)`", README)
    ]
    return [line for line in lines if line.split()[:1] == [first]]


@pytest.mark.parametrize("command", _commands("pliant"))
def test_command_is_understood(command):
    program, *words = shlex.split(command, comments=True)
    group = typer.main.get_command(app)
    name, chosen, rest = group.resolve_command(
        group.make_context(program, words, resilient_parsing=True), words
    )
    assert chosen is not None, name
    chosen.make_context(f"{program} {name}", rest)


@pytest.mark.parametrize("command", _commands("make"))
def test_make_target_exists(command):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in shlex.split(command, comments=True)[1:]:
        variable, given, _ = target.partition("=")
        if given:
            assert re.search(rf"^{variable} \?=", makefile, flags=re.MULTILINE), target
            continue
        assert re.search(rf"^{re.escape(target)}:", makefile, flags=re.MULTILINE), target


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("given", "installs"),
    [
        ((), "-m pip install .* constraints.txt +torch$"),
        (
            ("TORCH_INDEX_URL=https://cpu",),
            "-m pip .* --index-url https://cpu torch$",
        ),
        (("UV=1",), "^uv pip install .* --torch-backend auto torch$"),
    ],
    ids=["default", "index of CPU builds", "uv"],
)
def test_the_build_of_pytorch_can_be_chosen(given, installs, tmp_path):
    """What `make` would do on a fresh machine; a build for the CPU saves 3 GB where no GPU is."""
    words = ["make", "--dry-run", "test", f"VENV={tmp_path}/new", *given]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    [line] = [line for line in done.stdout.splitlines() if line.endswith(" torch")]
    assert re.search(installs, line.strip()), line
    assert all(one.partition("=")[0] in README for one in given)


def test_readme_shows_commands():
    assert _commands("pliant")
    assert _commands("make")


@pytest.mark.parametrize("block", _blocks("python"))
def test_python_runs(block, tmp_path, monkeypatch, tiny, digits_profile):
    """As it stands there, with a recipe that takes seconds in place of those that take minutes."""
    from pliant.runs import recipe, run

    def quick(name, changes=None):
        given = {key: value for key, value in (changes or {}).items() if value is not None}
        return recipe.load_recipe(str(tiny), {"target.name": str(digits_profile), **given})

    monkeypatch.setattr(run, "load_recipe", quick)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def _limited() -> list[str]:
    """Commands that begin a run with limits, but those that map or measure for minutes."""
    elsewhere = ("phone.json", "board.py", "model.py", "photos/ --limit latency_ms", "energy_uj")
    return [
        command
        for command in _commands("pliant")
        if command.startswith("pliant run") and "--limit" in command
        if not any(word in command for word in elsewhere)
    ]


@pytest.mark.parametrize("command", _limited())
def test_limits_can_be_met(command, tmp_path, monkeypatch, digits_profile):
    """As they stand there, on pictures where the command names some."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "photos" / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (240, 240, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    _, name, *words = shlex.split(command, comments=True)
    given = typer.main.get_command(app).commands[name].make_context(name, words).params
    changes = {
        "data.source": given["data"],
        "limits": given["limit"],
        "target.name": given["target"] or str(digits_profile),
        "target.precision": given["precision"],
        "space": given["space"],
    }
    with open_run(given["recipe"], tmp_path / "run", changes) as run:
        computed = {one.metric for one in run.recipe.parsed_limits} <= set(ARITHMETIC_METRICS)
        target = Arithmetic(run.space) if computed else None
        assert Session(run, target=target, progress=silent).feasible.share > 0


@pytest.mark.parametrize("block", _blocks("toml"))
def test_recipe_is_one(block):
    assert parse_recipe({"name": "readme", **tomllib.loads(block)}, "README.md").parsed_limits
