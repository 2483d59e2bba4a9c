"""A space of the user's own, with a block of its own, takes the way of every run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from pliant import Run
from pliant.errors import EncodingError, RecipeError, RunConflictError
from pliant.runs.session import Session
from pliant.scoring.images import Shape, noise_batch
from pliant.scoring.score import score_context, score_networks
from pliant.spaces.presets import preset

DOCS = Path(__file__).parents[2] / "docs"
SPACE = """

from pliant.spaces.convolutional_blocks import ConvBlock
from pliant.spaces.input_output_blocks import Head, Preprocess
from pliant.spaces.space import Choice, Space


class NextSpace(Space):
    choices = (
        Choice("1m", (4, 20 / 3, 8, 10), "width"),
        Choice("2w", (8, 12, 16, 20, 24), "width"),
    )

    def layout(self, architecture):
        size, width, mid = self.image_size, architecture["2w"], int(3 * architecture["1m"])
        return (
            Preprocess(slot="preprocess", size=size, channels=self.channels, resolution=size),
            ConvBlock(slot="stem", size=size, inputs=self.channels, outputs=8, pool=2),
            NextBlock(slot="stage1_block1", size=size // 2, channels=8, mid=mid),
            ConvBlock(slot="last", size=size // 2, inputs=8, outputs=width),
            Head(slot="head", size=size // 2, inputs=width, classes=self.classes),
        )


def build(channels, image_size, classes):
    return NextSpace("next", channels=channels, image_size=image_size, classes=classes)
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with the documented block, under a name of its own, and a space in one file."""
    block = re.search(r"```python\n(.*?)```", (DOCS / "blocks.md").read_text("utf-8"), re.S)
    folder = tmp_path_factory.mktemp("own")
    source = (block[1] + SPACE).replace("NextBlock", "OwnBlock")
    (folder / "my_space.py").write_text(source, "utf-8")
    return folder


def pliant(*words, cwd):
    command = [sys.executable, "-m", "pliant", *map(str, words)]
    done = subprocess.run(
        command, cwd=cwd, env=os.environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def test_every_command_works_from_a_new_process_and_another_folder(own, tiny, tmp_path):
    text = tiny.read_text().replace('"latency_ms=0.1", "parameters=20k"', '"macs=60k"')
    (own / "mine.toml").write_text(
        text.replace('space = "digits"', 'space = "my_space.py:build"')
        + '\n[target]\nname = "nvdla-256"\n'
    )
    run, away = tmp_path / "run", tmp_path / "away"
    away.mkdir()
    pliant("train", own / "mine.toml", "--run-dir", run, cwd=away)
    assert f'space = "{own}/my_space.py:build"' in (run / "recipe.toml").read_text()
    pliant("search", run, cwd=away)
    pliant("deploy", run, cwd=away)
    page = (run / "report.html").read_text()
    pliant("report", run, cwd=away)
    assert (run / "report.html").read_text() == page, "drawn as in the process that delivered"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["space"]["name"] == "next"
    code = (
        "import sys, torch, model; logits = model.load()(torch.rand(2, 1, 8, 8));"
        "assert logits.shape == (2, 10);"
        "assert not any(name.startswith('pliant') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=run / "best", check=True)


def test_scores_and_searches_take_it(own, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    name = f"{own}/my_space.py:build"
    make = partial(preset, name, channels=1, image_size=8, classes=10)
    one, other = make().smallest(), make().largest()
    rows = score_networks(make, "zen", architectures=[one, other], workers=2)
    assert all(row.failure is None for row in rows)
    code, out, err = command(
        *("search", "--space", name, "--estimator", "zen", "--evaluations", 4),
        *("--shape", "1x8x8", "--classes", 10, "--workers", 1, "--limit", "macs=60k"),
    )
    assert (code, err) == (0, "")
    assert f"--space {name}" in out.replace("\n", " ")
    assert (tmp_path / "runs" / "next-zen" / "search.json").is_file()


def test_the_same_name_with_other_widths_reuses_nothing(tmp_path, tiny):
    path = tmp_path / "tiny_space.py"
    path.write_text(_python_of_the_docs("tiny_space.py"))
    name = f"{path}:build"
    sizes = {"channels": 1, "image_size": 8, "classes": 10}
    before = preset(name, **sizes)
    changes = {"space": name, "limits": ["macs=100k"], "target__name": "nvdla-256"}
    with Run.create(str(tiny), folder=tmp_path / "run", **changes) as run:
        _ = Session(run).supernet
        assert run.record.metadata("space_identity") == before.identity
    moved = tmp_path / "moved_space.py"
    moved.write_text(path.read_text())
    with Run.reopen(tmp_path / "run", space=f"{moved}:build") as run:
        assert run.space.identity == before.identity, "a file may be moved"
    with Run.reopen(tmp_path / "run", space=name):
        pass
    moved.write_text(path.read_text().replace("(8, 16, 24)", "(8, 16, 32)"))
    with pytest.raises(RunConflictError, match=r"the choices or blocks of .*moved_space"):
        Run.reopen(tmp_path / "run", space=f"{moved}:build")
    path.write_text(moved.read_text())
    after = preset(name, **sizes)
    assert after.name == before.name
    assert after.identity != before.identity
    conflict = pytest.raises(RunConflictError, match=r"the choices or blocks of .* changed since")
    with Run.reopen(tmp_path / "run") as run, conflict:
        _ = Session(run).supernet
    batch = noise_batch(Shape(1, 8, 10))
    assert score_context(before, batch, 0) != score_context(after, batch, 0)


FAULTS = {
    "has no 'biuld'. Did you mean 'build'?": ("my_space.py:biuld", "build = 3"),
    "must return a pliant.spaces.space.Space, received NoneType": (
        "my_space.py:build",
        "def build(**sizes): pass",
    ),
    "ended in an error at its call": ("my_space.py:build", "def build(channels): pass"),
    "cannot be read": ("nowhere.py:build", ""),
    "no space is called 'my_space.py'": ("my_space.py", ""),
}


@pytest.mark.parametrize("message", FAULTS)
def test_what_is_no_space_is_refused_before_there_is_a_directory(message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, source = FAULTS[message]
    (tmp_path / "my_space.py").write_text(source)
    with pytest.raises(RecipeError, match=re.escape(message)):
        Run.create("digits", space=name, folder="run")
    assert not (tmp_path / "run").exists()


def test_a_block_that_cannot_be_delivered_is_refused_before_training(own, tmp_path):
    path = tmp_path / "unit_space.py"
    text = "from pliant import units\n" + (own / "my_space.py").read_text()
    text = text.replace("self.expand = nn", "self.unit = units.UNITS\n        self.expand = nn")
    path.write_text(text.replace("OwnBlock", "UnitBlock").replace("Next", "Unit"))
    with pytest.raises(EncodingError, match="PlainUnit needs 'units'"):
        Run.create("digits", space=f"{path}:build", folder=tmp_path / "run")


def _python_of_the_docs(name):
    text = (DOCS / "spaces.md").read_text("utf-8")
    return re.search(rf"```python\n(# {name}\n.*?)```", text, re.S)[1]
