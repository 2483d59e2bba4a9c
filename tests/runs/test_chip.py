"""A chip as the target takes the way of every run: energy under a limit, killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

KILLED = """
import os, signal
from pliant.runs import workflow
original = workflow.run_steps
def run_steps(session):
    progress = session.progress
    def watch(name, number, total, note):
        progress(name, number, total, note)
        if (name, number) == ("search", 13):
            os.kill(os.getpid(), signal.SIGKILL)
    session.progress = watch
    return original(session)
workflow.run_steps = run_steps
from pliant.cli import main
main()
"""


def test_energy_under_a_limit_killed_and_resumed(tmp_path, tiny):
    recipe = tmp_path / "chip.toml"
    text = tiny.read_text().replace('"latency_ms=0.1", "parameters=20k"', '"energy_uj=30"')
    recipe.write_text(text + '\n[target]\nname = "eyeriss"\n')

    def start(folder, *program):
        command = [sys.executable, *program, "run", str(recipe), "--run-dir", str(folder)]
        return subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)

    assert start(tmp_path / "one", "-c", KILLED).returncode == -signal.SIGKILL
    assert not (tmp_path / "one" / "summary.json").exists()
    summaries = []
    for name in ("one", "two"):
        done = start(tmp_path / name, "-m", "pliant")
        assert (done.returncode, done.stderr) == (0, "")
        assert "predicted only: eyeriss is not measured" in done.stdout.replace("\n", " ")
        summaries.append(json.loads((tmp_path / name / "summary.json").read_text()))
    resumed, whole = summaries
    for part in ("chosen", "front", "random_front"):
        assert _without_commands(resumed[part]) == _without_commands(whole[part])
    assert resumed["chosen"]["predicted"]["energy_uj"] <= 30
    assert resumed["chosen"]["measured"] is None
    assert (tmp_path / "one" / "report.html").is_file()
    assert not (tmp_path / "one" / "device.json").exists()


def _without_commands(part):
    """The same without the folder's name."""
    return json.loads(json.dumps(part).replace("/two", "/one"))
