"""Killed at any moment, the same command resumes and ends like the uninterrupted run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pliant import Record
from pliant.report.summary import read_summary_file

# The command line, ended by SIGKILL at a given point of a step; with a checkpoint after every
# training step, so that there is one.
_KILLED = """
import os, signal, sys
step, done = sys.argv.pop(1).split(":")
from pliant.training.checkpoint import Checkpoints
Checkpoints.__init__.__kwdefaults__["seconds"] = 0.0
from pliant.runs import workflow
original = workflow.run_steps
def run_steps(session):
    progress = session.progress
    def watch(name, number, total, note):
        progress(name, number, total, note)
        if name == step and number >= int(done):
            os.kill(os.getpid(), signal.SIGKILL)
    session.progress = watch
    return original(session)
workflow.run_steps = run_steps
from pliant.cli import main
main()
"""


def _environment() -> dict[str, str]:
    return os.environ | {
        "OMP_NUM_THREADS": str(torch.get_num_threads())
    }  # sums are ordered by threads


def _start(*words: object, killed_at: str | None = None) -> subprocess.CompletedProcess[str]:
    program = ["-c", _KILLED, killed_at] if killed_at else ["-m", "pliant"]
    command = [sys.executable, *program, *map(str, words)]
    return subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)


def _result(folder: Path) -> tuple[str, dict[str, float]]:
    summary = read_summary_file(folder / "summary.json")
    front = {one.architecture: one.validated.top1 for one in summary.front}
    return summary.chosen.architecture, front


def test_killed_run_ends_where_the_uninterrupted_one_does(tmp_path, tiny, digits_profile, finished):
    folder = tmp_path / "run"
    words = ("run", tiny, "--target", digits_profile, "--run-dir", folder)

    assert _start(*words, killed_at="train:20").returncode == -signal.SIGKILL
    assert [path.name for path in folder.glob("supernet/*.safetensors")][
        -1
    ] != "weights.safetensors"
    assert not (folder / "summary.json").exists()

    assert _start(*words, killed_at="search:13").returncode == -signal.SIGKILL
    ours, theirs = (
        folder / "supernet" / "weights.safetensors",
        finished.folder / "supernet" / "weights.safetensors",
    )
    assert ours.read_bytes() == theirs.read_bytes()
    with Record.read(folder / "record.sqlite") as record:
        kept = record.evaluations("estimate")
        assert [step.step for step in record.steps()] == [10, 20, 30, 33]
    assert len(kept) == 13

    assert _start(*words, killed_at="deliver:3").returncode == -signal.SIGKILL
    done = _start(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert _result(folder) == _result(finished.folder)
    with Record.read(folder / "record.sqlite") as record:
        assert record.evaluations("estimate")[:13] == kept
        assert (
            len(record.events("test split opened")) == 1
        )  # killed after the test, which the record keeps
    assert "opened once" in (folder / "best" / "card.md").read_text()
    assert not list(folder.rglob(".*partial*"))


def test_run_killed_before_its_recipe_was_written_can_be_started_again(tmp_path, tiny):
    from pliant import Run
    from pliant.runs.recipe import load_recipe

    Record.open(tmp_path / "record.sqlite", recipe_digest=load_recipe(str(tiny)).digest).close()
    (tmp_path / ".recipe.partial77.toml").write_text("half")
    with Run.create(str(tiny), folder=tmp_path):
        assert (tmp_path / "recipe.toml").is_file()
        assert not list(tmp_path.glob(".*.partial*"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_moments(tmp_path, tiny, seed):
    """From outside, at moments that nobody chose, the measurement of the device included."""
    from pliant import Run, run_all

    rng, folder = random.Random(seed), tmp_path / "run"
    command = [sys.executable, "-m", "pliant", "run", str(tiny), "--run-dir", str(folder)]
    kills = 0
    for _ in range(8):
        process = subprocess.Popen(
            command, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(rng.uniform(2.0, 16.0))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert kills
    done = _start("run", tiny, "--run-dir", folder)
    assert (done.returncode, done.stderr) == (0, "")
    with Run.create(
        str(tiny), folder=tmp_path / "whole", target__name=str(folder / "target.json")
    ) as run:
        run_all(run)
    assert _result(folder) == _result(tmp_path / "whole")
