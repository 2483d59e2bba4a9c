"""The commands in subprocesses and in this process: what they print, each step by itself."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time

import pytest

import pliant
from pliant import Record
from pliant.files import with_checksum


def _pliant(*words, **environment):
    command = [sys.executable, "-m", "pliant", *map(str, words)]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_version_and_help(command):
    assert command("--version") == (0, pliant.__version__ + "\n", "")
    code, said, error = command("--help")
    assert (code, error) == (0, "")
    assert all(name in said for name in ("device", "train", "search", "deploy", "report", "run"))


def test_nothing_of_the_libraries_reaches_the_screen(copied):
    """Warnings would stand on standard error; a run that goes well says nothing there."""
    done = _pliant("run", copied, OMP_NUM_THREADS="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert str(copied / "best") in done.stdout.replace("\n", "")
    assert "of 179 test images" in done.stdout
    assert "limits latency_ms=0.1, parameters=20k" in done.stdout


def test_steps_one_by_one(command, tmp_path, tiny, digits_profile, finished):
    """Profile, train, search, deploy and report come to what the whole job came to."""
    (tmp_path / "tiny.toml").write_text(
        tiny.read_text() + f'\n[target]\nname = "{digits_profile}"\n'
    )
    run = tmp_path / "run"
    code, said, _ = command("device", "measure", tmp_path / "tiny.toml", "--run-dir", run)
    assert code == 0
    assert "32 networks" in said
    code, said, _ = command("train", run)
    assert code == 0
    assert "21,672 networks of space digits" in said
    code, said, _ = command("search", run)
    assert code == 0
    assert "pliant deploy" in said
    with Record.read(run / "record.sqlite") as record:
        assert not record.events("test split opened")
    assert command("report", run)[0] == 0
    code, said, _ = command("deploy", run)
    assert code == 0
    assert str(finished.result.found.chosen.architecture) in said.replace("\n", "")
    ours, theirs = run / "best", finished.folder / "best"
    assert (ours / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()
    assert (run / "report.html").is_file()


def test_search_under_other_limits_keeps_what_was_evaluated(command, copied):
    with Record.read(copied / "record.sqlite") as record:
        before = record.evaluations("estimate")
    assert command("search", copied, "--limit", "parameters=12k")[0] == 0
    with Record.read(copied / "record.sqlite") as record:
        assert record.evaluations("estimate")[: len(before)] == before
    assert '"parameters=12k"' in (copied / "recipe.toml").read_text()


def test_code_that_a_summary_names_is_never_run(command, tmp_path, copied):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    summary = json.loads((copied / "summary.json").read_text("utf-8"))
    summary["recipe_toml"] = f"space = '{tmp_path / 'evil.py'}:build'\n"
    (copied / "summary.json").write_text(json.dumps(with_checksum(summary)))
    assert command("report", copied)[0] == 0
    assert not (tmp_path / "ran").exists()


def test_names_that_look_like_markup_are_printed_as_they_are(command, tmp_path, copied):
    odd = copied.rename(tmp_path / "[bold]run[red]")
    code, said, _ = command("report", odd)
    assert code == 0
    assert str(odd) in said.replace("\n", "")
    code, _, error = command("run", odd / "none[red].toml")
    assert code == 2
    assert "none[red].toml" in error


def test_interrupted_command_says_that_it_goes_on(tmp_path):
    words = [
        sys.executable,
        "-m",
        "pliant",
        "train",
        "digits",
        "--epochs",
        "500",
        "--run-dir",
        str(tmp_path / "run"),
    ]
    # A shell starts what runs in its background deaf to interrupts, and the test may run there.
    hearing = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hearing
    )
    deadline = time.monotonic() + 300
    while (
        not list((tmp_path / "run").glob("supernet/tensorboard/*")) and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130
    assert error == "error: stopped; the same command resumes from what was recorded.\n"


@pytest.mark.timeout(900)
def test_torchrun_trains_once_and_writes_once(tmp_path):
    words = [
        "--nproc-per-node",
        "2",
        "--standalone",
        "-m",
        "pliant",
        "train",
        "digits",
        "--epochs",
        "2",
        "--run-dir",
        str(tmp_path / "run"),
    ]
    command = [sys.executable, "-m", "torch.distributed.run", *words]
    done = subprocess.run(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("networks of space digits") == 1
    supernet = tmp_path / "run" / "supernet"
    assert {"checkpoint-000000022.safetensors", "weights.safetensors"} <= {
        path.name for path in supernet.glob("*.safetensors")
    }
    assert len(list((supernet / "tensorboard").iterdir())) == 1
    with Record.read(tmp_path / "run" / "record.sqlite") as record:
        assert [step.step for step in record.steps()] == [10, 20, 22]
        assert record.metadata("precision") in ("fp32", "bf16")
    again = _pliant("train", tmp_path / "run")
    assert (again.returncode, again.stderr) == (0, "")
