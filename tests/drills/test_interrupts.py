"""Ctrl-C and SIGTERM at any moment: two seconds, one sentence, no process left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from pliant.cli.interrupts import RESUMES, STARTS_OVER, after_a_stop
from pliant.spaces.presets import preset

PLIANT = Path(sys.executable).with_name("pliant")
SECONDS = 2.0
"""In which a command ends that has a processor; one that shares it has `slowdown` times as long."""
PATIENCE = 300.0
"""Seconds after which a command that does not end is killed, and its test fails."""
BY = {signal.SIGINT: "", signal.SIGTERM: " by SIGTERM"}


def _hear_interrupts() -> None:
    """What a shell starts in its background ignores them, and the tests may run there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def slowdown() -> float:
    """How much longer than alone a computation takes now, beside all else that runs here."""
    wall, cpu = time.perf_counter(), time.process_time()
    while time.process_time() - cpu < 0.1:
        pass
    return max(1.0, (time.perf_counter() - wall) / 0.1)


def _alive(processes: list[psutil.Process], seconds: float = 1.0) -> list[psutil.Process]:
    """Those that still run then; nobody may have asked for the exit code of an orphan."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def stop(words: list[object], delay: float, number: signal.Signals, *, group: bool) -> None:
    """Start a command, send it a signal after a delay, and check how it ends."""
    process = subprocess.Popen(
        [PLIANT, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_hear_interrupts,
    )
    time.sleep(delay)
    if process.poll() is not None:
        assert process.wait() == 0, process.stderr.read()
        return  # done before
    busy, started = slowdown(), psutil.Process(process.pid)
    family = [started, *started.children(recursive=True)]
    if group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    sent = time.monotonic()
    try:
        _, error = process.communicate(timeout=PATIENCE)  # and waits for who inherited its output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    seconds = time.monotonic() - sent
    busy = max(busy, slowdown())
    said = f"error: stopped{BY[number]}; {after_a_stop([str(word) for word in words])}.\n"
    assert (process.returncode, error) == (128 + number, said), words
    assert seconds < SECONDS * busy, words
    assert not _alive(family, busy), words


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    space = preset("digits", channels=1, image_size=8, classes=10)
    rng = np.random.default_rng(0)
    path = tmp_path / "networks.csv"
    path.write_text("\n".join(["arch", *(str(space.sample(rng)) for _ in range(200))]))
    return path


@pytest.mark.parametrize(
    ("number", "group"), [(signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGTERM, True)]
)
def test_processes_that_score_end_with_the_command(networks, number, group):
    words = ["score", "--space", "digits", "--architectures", networks, "--workers", 2]
    stop(words, random.Random(f"{number} {group}").uniform(2.0, 9.0), number, group=group)


def test_a_process_that_starts_hears_no_interrupt(tmp_path):
    """The first one neither, though `multiprocessing` starts a helper before that unblocks them."""
    program = """
import multiprocessing, signal
from pliant.child import started_safely
def work(pipe):
    pipe.send(signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= {signal.SIGINT, signal.SIGTERM})
if __name__ == "__main__":
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=work, args=(theirs,))
    with started_safely():
        process.start()
    print(ours.recv())
    process.join()
"""
    (tmp_path / "main.py").write_text(program)
    done = subprocess.run([sys.executable, tmp_path / "main.py"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_child_ends_with_a_parent_that_is_killed():
    program = """
from pliant.child import run_python
run_python("import sys, time; sys.stderr.close(); time.sleep(60)")
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    process = psutil.Process(parent.pid)
    deadline = time.monotonic() + 60
    while not process.children() and time.monotonic() < deadline:
        time.sleep(0.05)
    [child] = process.children()
    parent.kill()
    parent.wait()
    assert not _alive([child])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_any_moment_of_any_command(seed, networks, tmp_path, tiny, finished, digits_profile):
    rng = random.Random(seed)
    commands = [
        ["run", tiny, "--run-dir", tmp_path / "run"],
        ["score", "--space", "digits", "--architectures", networks, "--workers", 2],
        ["search", "--space", "digits", "--estimator", "zen", "--run-dir", tmp_path / "search"],
        ["deploy", finished.folder, "--output-dir", tmp_path / "out"],
    ]
    number = rng.choice([signal.SIGINT, signal.SIGINT, signal.SIGTERM])
    stop(commands[seed % 4], rng.uniform(1.0, 20.0), number, group=rng.random() < 0.5)


def test_an_error_that_a_signal_causes_is_not_told():
    """C extensions turn an interrupt while they are imported into errors of their own."""
    program = """
import os, signal, pliant.cli.app
def app():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("initialization failed")
pliant.cli.app.app = app
from pliant.cli import main
main()
"""
    words = [sys.executable, "-c", program]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, preexec_fn=_hear_interrupts
    )
    assert (done.returncode, done.stderr) == (130, f"error: stopped; {STARTS_OVER}.\n")


def test_only_commands_that_record_promise_to_resume():
    for words in ("run digits", "train --data p", "score --out a.csv", "score m.py:f --out=a.csv"):
        assert after_a_stop(words.split()) == RESUMES
    for words in ("device measure digits", "roofline a.onnx", "score m.py:f", "predict a b", ""):
        assert after_a_stop(words.split()) == STARTS_OVER
