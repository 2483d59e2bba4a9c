"""Killed, out of disk or out of memory: the same command resumes and ends as if nothing had been.

In everything but measured time, and without litter.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pretend_clock
import psutil
import pytest
import torch

from pliant import Record, Run, run_all
from pliant.errors import RunConflictError
from pliant.runs.session import Session
from pliant.targets import THIS_CPU

# The command line, ended by SIGKILL at a given point of a step; with a checkpoint after every
# training step, so that there is one.
_KILLED = """
import os, signal, sys
import pretend_clock
pretend_clock.install()
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

_WHOLE = """
import pretend_clock
pretend_clock.install()
from pliant.cli import main
main()
"""

SLOW = pytest.mark.slow
PATIENCE = 900.0
"""Seconds in which any command ends, also beside others."""
PHASES = {"import": 3.0, "baselines": 1.0, "train": 3.0, "search": 3.0, "front": 0.3, "deliver": 6}
"""By the word that begins its first line: about how long a phase takes, in seconds."""
MEASURED = {"measured", "measured_apart", "seconds", "created", "command", "sha256"}
MEASURED |= {"images_per_second", "overhead", "roofline"}
"""Keys of summaries and logged steps whose values are times, or say where the run is."""


def _environment(**more: object) -> dict[str, str]:
    """Of a command; sums are ordered by threads."""
    paths = [str(Path(pretend_clock.__file__).parent), os.environ.get("PYTHONPATH", "")]
    own = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": ":".join(paths)}
    return os.environ | own | {name: str(value) for name, value in more.items()}


def _start(
    words: list[object], killed_at: str | None = None, **options: Any
) -> subprocess.Popen[str]:
    program = ["-c", _KILLED, killed_at] if killed_at else ["-c", _WHOLE]
    return subprocess.Popen(
        [sys.executable, *program, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **{"env": _environment()} | options,
    )


def _end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a command printed until it ended; one that hangs is killed, and its test fails."""
    try:
        return process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def _resumed(words: list[object], **options: Any) -> None:
    """The command to its end, without an error."""
    with _start(words, **options) as process:
        _, error = _end(process)
    assert (process.returncode, error) == (0, ""), words


def _lasting(value: Any) -> Any:
    """The same without measured times."""
    if isinstance(value, dict):
        if str(value.get("how")).startswith("measured"):
            return {key: value[key] for key in ("claim", "bound", "holds")}
        return {key: _lasting(held) for key, held in value.items() if key not in MEASURED}
    return [_lasting(held) for held in value] if isinstance(value, list) else value


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run leaves but measured times, and how often its test split had to be opened."""
    summary = _lasting(json.loads((folder / "summary.json").read_text()))
    assert len(summary.pop("test_openings")) >= 1
    with Record.read(folder / "record.sqlite") as record:
        rows = [
            (row.id, row.stage, row.architecture, row.context, row.split, row.quality)
            for row in record.evaluations()
        ]
        steps = [(one.step, one.epoch, _lasting(dict(one.values))) for one in record.steps()]
        asked = record.asked()
    files = {
        path.relative_to(folder): path.read_bytes()
        for path in (*folder.glob("best/*"), folder / "supernet" / "weights.safetensors")
    }
    del files[Path("best/SHA256SUMS")]  # that of the card, which has times
    card = files.pop(Path("best/card.md")).decode()
    lines = [line for line in card.splitlines() if not re.search(r"[\d.]+ [mu]s|opened", line)]
    return {"summary": summary, "rows": rows, "steps": steps, "asked": asked, "card": lines} | files


def litter(folder: Path) -> list[Path]:
    """Half-written files, and what was meant to be temporary."""
    return [*folder.rglob(".*partial*"), *folder.rglob("pliant-*"), *folder.rglob("tmp*")]


def _killed(words: list[object], phase: str, delay: float) -> bool:
    """Kill a command in a phase; whether it reached the phase and was killed before its end."""
    with _start(words) as process:
        if phase == "import" or any(line.startswith(phase) for line in process.stdout):
            time.sleep(delay)
            family = psutil.Process(process.pid).children(recursive=True)
            process.kill()
        _, error = _end(process)
    if process.returncode == -signal.SIGKILL:
        _, alive = psutil.wait_procs(family, timeout=1.0)
        assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE], phase
        return True
    assert (process.returncode, error) == (0, "")
    return False


def kill_until_it_ends(words: list[object], rng: random.Random) -> list[str]:
    """Start a command again and again, each start killed at a random moment; the phases hit."""
    hit = []
    while True:
        phase = rng.choice(list(PHASES))
        if not _killed(words, phase, rng.uniform(0.0, PHASES[phase])):
            return hit
        hit.append(phase)


def _drill_kills(
    kills: int, seed: int, place: Path, recipe: Path, profile: Path, whole: Path
) -> dict[str, int]:
    """So many kills over as many runs as that takes; how many hit each phase."""
    rng, expected = random.Random(seed), outcome(whole)
    hit: list[str] = []
    while len(hit) < kills:
        folder = place / f"run{len(hit)}"
        words: list[object] = ["run", recipe, "--target", profile, "--run-dir", folder]
        hit += kill_until_it_ends(words, rng)
        assert outcome(folder) == expected, hit
        assert not litter(folder)
    return {phase: hit.count(phase) for phase in PHASES}


def _killed_at(words: list[object], moment: str) -> None:
    with _start(words, moment) as process:
        _end(process)
    assert process.returncode == -signal.SIGKILL


def test_run_killed_three_times_ends_where_the_uninterrupted_one_does(
    tmp_path, tiny, digits_profile, finished
):
    folder = tmp_path / "run"
    words: list[object] = ["run", tiny, "--target", digits_profile, "--run-dir", folder]
    _killed_at(words, "train:20")
    kept = sorted(path.name for path in folder.glob("supernet/*.safetensors"))
    assert kept
    assert "weights.safetensors" not in kept
    assert not (folder / "summary.json").exists()

    _killed_at(words, "search:13")
    with Record.read(folder / "record.sqlite") as record:
        estimates = record.evaluations("estimate")
        assert [step.step for step in record.steps()] == [10, 20, 30, 33]
    assert len(estimates) == 13

    _killed_at(words, "deliver:3")
    _resumed(words)
    assert outcome(folder) == outcome(finished.folder)
    with Record.read(folder / "record.sqlite") as record:
        assert record.evaluations("estimate")[:13] == estimates
        # Killed after the test, which the record keeps.
        assert len(record.events("test split opened")) == 1
    assert "opened once" in (folder / "best" / "card.md").read_text()
    assert not litter(folder)


def test_run_killed_before_its_recipe_was_written_can_be_started_again(tmp_path, tiny):
    from pliant import Run
    from pliant.runs.recipe import load_recipe

    Record.open(tmp_path / "record.sqlite", recipe_digest=load_recipe(str(tiny)).digest).close()
    (tmp_path / ".recipe.partial77.toml").write_text("half")
    with Run.create(str(tiny), folder=tmp_path):
        assert (tmp_path / "recipe.toml").is_file()
        assert not list(tmp_path.glob(".*.partial*"))


@pytest.mark.parametrize(
    "step", ["train", pytest.param("search", marks=SLOW), pytest.param("deliver", marks=SLOW)]
)
def test_a_directory_that_is_removed_under_its_run_is_named(step, tmp_path, tiny, digits_profile):
    folder, changes = tmp_path / "gone", {"target.name": str(digits_profile)}

    def remove(name, done, total, note):
        if name == step:
            shutil.rmtree(folder, ignore_errors=True)

    with (
        pytest.raises(RunConflictError, match="gone was removed, moved or replaced"),
        Run.create(str(tiny), folder=folder, **changes) as run,
    ):
        run_all(run, progress=remove)


@pytest.mark.slow
def test_hundred_kills_at_random_moments(tmp_path, tiny, digits_profile, finished):
    hit = _drill_kills(100, 0, tmp_path, tiny, digits_profile, finished.folder)
    logging.getLogger(__name__).info("%s", hit)
    assert all(hit.values()), hit


FOREIGN_NETWORK = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 7),
    )
"""
FOREIGN_RECIPE = """
name = "foreign"
space = "start"
limits = ["parameters=4k"]
data.source = "digits"
train = {{ start = "{start}", strategy = "fine-tune", epochs = 2, precision = "fp32" }}
search = {{ estimates = 20, rounds = 1, candidates = 100, front = 2, images = 100 }}
"""


@dataclass(frozen=True)
class ForeignJob:
    """A job that begins with a network of a user's own, of other classes, and its result."""

    recipe: Path
    profile: Path
    folder: Path
    """Of the run that nobody killed."""


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> ForeignJob:
    place = tmp_path_factory.mktemp("foreign")
    (place / "net.py").write_text(FOREIGN_NETWORK)
    recipe = place / "recipe.toml"
    recipe.write_text(FOREIGN_RECIPE.format(start=place / "net.py:build"))
    with Run.create(str(recipe), folder=place / "profile") as run:
        _ = Session(run, target=THIS_CPU).target
        profile = run.profile_path
    with Run.create(str(recipe), folder=place / "run", target__name=str(profile)) as run:
        run_all(run)
    return ForeignJob(recipe, profile, place / "run")


@pytest.mark.slow  # 30 seconds
def test_foreign_start_killed_in_training_front_and_delivery(
    tmp_path: Path, foreign: ForeignJob
) -> None:
    folder = tmp_path / "run"
    words: list[object] = ["run", foreign.recipe, "--target", foreign.profile]
    for moment, (made, missing) in {
        "train:10": ("supernet/linear_classifier.safetensors", "supernet/weights.safetensors"),
        "front:1": ("supernet/weights.safetensors", "best"),
        "deliver:1": ("best/own_model.py", "summary.json"),
    }.items():
        _killed_at([*words, "--run-dir", folder], moment)
        assert (folder / made).exists()
        assert not (folder / missing).exists()
    with Run.create(str(foreign.recipe), folder=folder, target__name=str(foreign.profile)) as run:
        run_all(run)
    assert outcome(folder) == outcome(foreign.folder)
    assert not litter(folder)


@pytest.mark.slow
def test_twenty_kills_of_a_foreign_start_at_random_moments(
    tmp_path: Path, foreign: ForeignJob
) -> None:
    """Its phases are too short for each of them to be hit; the test above hits three."""
    hit = _drill_kills(20, 1, tmp_path, foreign.recipe, foreign.profile, foreign.folder)
    logging.getLogger(__name__).info("%s", hit)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A run to its end that measured this machine itself, by the clock of the tests."""
    folder = tmp_path_factory.mktemp("measured") / "run"
    _resumed(["run", tiny, "--run-dir", folder])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("delay", [None, 0.0, 0.2, 0.5, 0.9])
def test_kills_while_the_machine_is_measured(delay, tmp_path, tiny, measured):
    """Inside the measurement, or so many seconds after its first round."""
    words: list[object] = ["run", tiny, "--run-dir", tmp_path / "run"]
    if delay is None:
        _killed_at(words, "profile:1")
        assert not (tmp_path / "run" / "device.json").exists()
    else:
        assert _killed(words, "profile", delay)
    _resumed(words)
    assert outcome(tmp_path / "run") == outcome(measured)
    assert not litter(tmp_path / "run")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of 16 kB at first."""
    place = tmp_path / "disk"
    place.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(place)]
    if shutil.which("mount") is None or subprocess.run(options, capture_output=True).returncode:
        pytest.skip("full disks are made of tmpfs, which this user may not mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def _refused(words: list[object], said: str, **options: Any) -> str:
    """What a command that cannot have what it needs says, in one sentence."""
    with _start(words, **options) as process:
        _, error = _end(process)
    assert process.returncode in (0, 2), error
    assert process.returncode == 0 or (said in error and error.count("\n") == 1), error
    return error


def _fill(disk: Path, sizes_kb: list[int], recipe: Path, profile: Path) -> int:
    """Run on a disk that grows from size to size; how often it was full."""
    (disk / "scratch").mkdir(exist_ok=True)
    words: list[object] = ["run", recipe, "--target", profile, "--run-dir", disk / "run"]
    environment, full = _environment(TMPDIR=disk / "scratch", PLIANT_CACHE=disk / "cache"), 0
    for size_kb in sizes_kb:
        subprocess.run(["mount", "-o", f"remount,size={size_kb}k", disk], check=True)
        error = _refused(words, str(disk), env=environment)
        assert not error or re.search("No space left on device|is full", error), error
        assert not litter(disk)
        full += bool(error)
    return full


def test_full_disk(disk, tiny, digits_profile):
    assert _fill(disk, [20, 60], tiny, digits_profile) == 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_full_disk_of_ten_sizes(disk, tiny, digits_profile, finished, seed):
    rng = random.Random(seed)
    sizes_kb = sorted(round(16 * 200 ** rng.random()) for _ in range(10))
    full = _fill(disk, sizes_kb, tiny, digits_profile)
    logging.getLogger(__name__).info("full at %d of %s kB", full, sizes_kb)
    assert full > 5
    assert _fill(disk, [64_000], tiny, digits_profile) == 0
    assert outcome(disk / "run") == outcome(finished.folder)


def _limit_memory(words: list[object], sizes_mb: list[int]) -> int:
    """Run within so many megabytes of address space; how often that was too little."""
    resource = pytest.importorskip("resource")
    few = 0
    for size_mb in sizes_mb:
        limit = size_mb * 2**20
        few += "needs more memory" in _refused(
            words,
            "needs more memory than there is",
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        )
    return few


def test_little_memory(tmp_path, tiny, digits_profile):
    words: list[object] = ["run", tiny, "--target", digits_profile, "--run-dir", tmp_path / "run"]
    assert _limit_memory(words, [250, 700]) == 2
    assert not litter(tmp_path)


@pytest.mark.slow
def test_memory_of_ten_sizes(tmp_path, tiny, digits_profile, finished):
    folder, rng = tmp_path / "run", random.Random(0)
    words: list[object] = ["run", tiny, "--target", digits_profile, "--run-dir", folder]
    sizes_mb = sorted(rng.randint(300, 2000) for _ in range(10))
    few = _limit_memory(words, sizes_mb)
    logging.getLogger(__name__).info("too little at %d of %s MB", few, sizes_mb)
    assert few > 5
    assert not litter(folder)
    _resumed(words)
    assert outcome(folder) == outcome(finished.folder)
