"""Jobs on workers that die, run out of memory, or are on a Ray cluster."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from pliant.errors import MeasurementError, PliantError, RecipeError
from pliant.metrics import Failed
from pliant.workers import InProcess, Processes, open_workers, parse_workers
from pliant.workers.ray_cluster import RayWorkers

WORK = """
import os, pathlib

def marks(folder, job):
    return len(list(pathlib.Path(folder).glob(f"{job}-*")))

class Make:
    def __init__(self, folder):
        self.folder = folder
    def __call__(self):
        return self.work
    def work(self, job):
        what, number = job
        pathlib.Path(self.folder, f"{what}{number}-{os.getpid()}").touch()
        if what == "die" or (what == "die once" and marks(self.folder, f"{what}{number}") == 1):
            os._exit(9)
        if what == "memory":
            raise MemoryError("none left")
        if what == "torch memory":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1e15 bytes")
        if what == "bug":
            raise KeyError("a mistake in the code")
        return number * number
"""


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "tiny_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    monkeypatch.delitem(sys.modules, "tiny_work", raising=False)
    return importlib.import_module("tiny_work").Make(str(tmp_path))


def tries(tmp_path: Path, job: str) -> int:
    return len(list(tmp_path.glob(f"{job}-*")))


def check_survival(pool, tmp_path: Path) -> None:
    """One job dies always, one on its first worker, one has no memory: the others are done."""
    jobs = [
        ("square", 1),
        ("die", 2),
        ("die once", 3),
        ("memory", 4),
        *(("square", n) for n in (5, 6)),
    ]
    with pool:
        found = dict(pool.run(jobs))
    assert {number: found[what, number] for what, number in jobs if what == "square"} == {
        1: 1,
        5: 25,
        6: 36,
    }
    assert found["die once", 3] == 9
    assert isinstance(found["die", 2], Failed)
    assert found["memory", 4] == Failed("lost on 2 workers, at last: out of memory: none left")
    assert tries(tmp_path, "die2") == tries(tmp_path, "memory4") == 2
    assert pool.losses == 5


def test_processes_survive(make, tmp_path):
    check_survival(Processes(make, 2), tmp_path)


def test_this_process_survives_missing_memory(make):
    with InProcess(make) as pool:
        found = dict(pool.run([("torch memory", 1), ("square", 2)]))
    assert isinstance(found["torch memory", 1], Failed)
    assert found["square", 2] == 4


@pytest.mark.parametrize("pool", [InProcess, lambda make: Processes(make, 1)])
def test_a_mistake_in_the_code_is_raised(make, pool):
    with pool(make) as opened, pytest.raises(KeyError, match="a mistake"):
        list(opened.run([("bug", 1)]))


def test_workers_that_all_die_end_the_command(make):
    with Processes(make, 2) as pool, pytest.raises(MeasurementError, match="before the first one"):
        list(pool.run([("die", number) for number in range(9)]))


def test_work_that_cannot_be_sent_is_refused():
    with pytest.raises(RecipeError, match="cannot be"):
        open_workers(lambda: lambda job: job, 2)


@pytest.mark.parametrize("text", ["", "-1", "2.5", "ray:", "ray://", "ray://head", "host:port"])
def test_workers_are_a_number_or_a_cluster(text):
    with pytest.raises(RecipeError, match="a number of processes, or a Ray cluster"):
        parse_workers(text)
    assert parse_workers("ray://head:10001") == "ray://head:10001"
    assert parse_workers("4") == 4


@pytest.mark.filterwarnings("ignore")
def test_two_workers_of_a_local_ray_survive(make, tmp_path):
    pytest.importorskip("ray")
    check_survival(RayWorkers(make, size=2), tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_cannot_be_reached_is_one_sentence(make):
    pytest.importorskip("ray")
    with pytest.raises(PliantError, match=r"ray://127.0.0.1:1 could not be") as error:
        RayWorkers(make, "ray://127.0.0.1:1")
    assert "\n" not in str(error.value)
