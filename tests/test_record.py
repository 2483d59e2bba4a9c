"""The record keeps what it was told through kills, damage, full disks and other processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pliant.errors import DamagedFileError, PliantError, RunConflictError
from pliant.metrics import Accuracy, Cost, Failed, Score
from pliant.record import Record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "record.sqlite"


def opened(path: Path, digest: str = "abc") -> Record:
    return Record.open(path, recipe_digest=digest)


def test_everything_comes_back(path: Path) -> None:
    cost = Cost(latency_ms=1.25, parameters=7)
    with opened(path) as record:
        record.set_metadata("seed", 3)
        record.set_metadata("seed", {"search": 4})
        stored = record.add_evaluation(
            "measured",
            "r8",
            context="cpu",
            split="search",
            quality=Accuracy(0.5, 200),
            cost=cost,
            measures={"seconds": 0.5},
        )
        record.add_evaluation("measured", "r4", quality=Failed("out of memory"), cost=Cost(macs=5))
        record.add_evaluation("test", "r8", cost=Failed("no device"), quality=Failed("no device"))
        record.log_step(20, 0.2, {"loss": float("nan")})
        record.log_step(10, 0.1, {"loss": 1.5, "lr": 0.1})
        record.log_step(10, 0.1, {"loss": 1.25, "top1": 0.5})
        record.log_step(10, 0.1, {"loss": 9.0}, phase="r8")
        record.event("test split opened", purpose="final score")
    with Record.read(path) as record:
        assert [record.metadata(key) for key in ("recipe_digest", "seed")] == ["abc", {"search": 4}]
        assert record.metadata("nothing") is None
        assert record.evaluation("measured", "r8", "cpu") == stored
        assert (stored.quality, stored.cost, stored.failure, stored.split) == (
            Accuracy(0.5, 200),
            cost,
            None,
            "search",
        )
        assert record.evaluation("measured", "r8") is None
        assert [row.architecture for row in record.evaluations("measured")] == ["r8", "r4"]
        half, failed = record.evaluations()[1:]
        assert (half.quality, half.cost, half.failure) == (
            Failed("out of memory"),
            Cost(macs=5),
            Failed("out of memory"),
        )
        assert failed.failure == Failed("no device")
        assert [(step.step, step.values) for step in record.steps()] == [
            (10, {"loss": 1.25, "lr": 0.1, "top1": 0.5}),
            (20, {"loss": None}),
        ]
        assert [step.values for step in record.steps("r8")] == [{"loss": 9.0}]
        assert [event.details for event in record.events("test split opened")] == [
            {"purpose": "final score"}
        ]
        assert record.events("other") == []


def test_a_result_stands_and_a_failure_may_be_mended(path: Path) -> None:
    with opened(path) as record:
        first = record.add_evaluation("measured", "r8", quality=Failed("killed"))
        mended = record.add_evaluation("measured", "r8", quality=Accuracy(0.5, 10))
        again = record.add_evaluation("measured", "r8", quality=Accuracy(0.9, 10))
        assert mended.id == first.id
        assert (mended.quality, mended.failure) == (Accuracy(0.5, 10), None)
        assert again == mended
        assert len(record.evaluations()) == 1


def test_one_writer_many_readers(path: Path) -> None:
    with opened(path) as record:
        with pytest.raises(RunConflictError, match=f"held by process {os.getpid()} on .* since"):
            opened(path)
        record.set_metadata("a", 1)
        with Record.read(path) as reader:
            assert reader.metadata("a") == 1
            record.set_metadata("a", 2)
            assert reader.metadata("a") == 2
            with pytest.raises(PliantError, match="read only"):
                reader.set_metadata("a", 3)
    opened(path).close()


def test_another_recipe_is_refused_and_the_lock_given_back(path: Path) -> None:
    with opened(path) as record:
        record.event("test split opened")
    with pytest.raises(RunConflictError, match="has digest abc, received xyz"):
        opened(path, "xyz")
    opened(path).close()


def test_a_record_without_a_result_begins_again_under_another_recipe(path: Path) -> None:
    with opened(path) as record:
        record.set_metadata("data_fingerprint", "of other images")
    with opened(path, "xyz") as record:
        assert record.metadata("recipe_digest") == "xyz"
        assert record.metadata("data_fingerprint") is None


WRITER = """
import sys
from pliant.metrics import Accuracy
from pliant.record import Record
with Record.open(sys.argv[1], recipe_digest="abc") as record:
    for number in range(int(sys.argv[2]), 100_000):
        record.add_evaluation("measured", f"r{number}", quality=Accuracy(number / 1e5, 10))
        print(number, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_was_committed(path: Path) -> None:
    for life in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(1000 * life)],
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None
            told = [int(writer.stdout.readline()) for _ in range(20 + life)]
            writer.send_signal(signal.SIGKILL)
            told += [int(line) for line in writer.stdout if line.endswith("\n")]
        with Record.read(path) as reader:
            numbers = [row.architecture for row in reader.evaluations()]
        assert set(numbers) >= {f"r{number}" for number in told}
        with opened(path) as record:
            assert len(record.evaluations()) == len(numbers)


FORKING = """
import os, sys, time
from pliant.record import Record
record = Record.open(sys.argv[1], recipe_digest="abc")
if os.fork() == 0:
    print("the worker runs", flush=True)
time.sleep(30)
"""


def test_a_forked_worker_that_outlives_a_killed_writer_holds_nothing(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FORKING, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(RunConflictError, match=f"process {writer.pid}"):
            opened(path)
        writer.kill()
        writer.wait()
        try:
            opened(path).close()
        finally:
            os.killpg(writer.pid, signal.SIGKILL)


@pytest.mark.parametrize("damage", ["scrambled", "cut", "text", "byte", "foreign", "page"])
def test_a_damaged_file_is_named_and_left_in_place(path: Path, damage: str) -> None:
    with opened(path) as record:
        for number in range(100):
            record.add_evaluation("measured", f"r{number}", context="x" * 300)
    whole = path.read_bytes()
    if damage == "foreign":
        path.unlink()
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE facts (a)")
        other.close()
    else:
        middle = len(whole) // 2
        kinds = {
            "scrambled": os.urandom(4096),
            "cut": whole[:middle],
            "text": b"hello",
            "byte": b"\n",
            "page": whole[:8192] + bytes(8192) + whole[16384:],
        }
        path.write_bytes(kinds[damage])
    before = path.read_bytes()
    for attempt in (lambda: opened(path), lambda: Record.read(path)):
        with pytest.raises(DamagedFileError, match=r"record\.sqlite"):
            attempt()
    assert path.read_bytes() == before


def test_no_file_to_read(path: Path) -> None:
    with pytest.raises(DamagedFileError, match="found no file"):
        Record.read(path)


def test_an_empty_file_is_a_record_not_yet_begun(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    with opened(path) as record:
        assert record.metadata("recipe_digest") == "abc"


@pytest.mark.parametrize(
    ("version", "remedy"),
    [(1, "Choose another run directory to start again"), (4, "Upgrade Pliant to resume this run")],
)
def test_another_version_is_refused_and_not_touched(path: Path, version: int, remedy: str) -> None:
    opened(path).close()
    with sqlite3.connect(path) as other:
        other.execute(f"PRAGMA user_version = {version}")
    other.close()
    before = path.read_bytes()
    for attempt in (lambda: opened(path), lambda: Record.read(path)):
        with pytest.raises(PliantError, match=f"record version {version}, .* version 3. {remedy}"):
            attempt()
    assert path.read_bytes() == before


@pytest.mark.parametrize("value", [1.5, float("inf"), float("-inf"), 0.1 + 0.2])
def test_scores_come_back_also_infinite_ones(path: Path, value: float) -> None:
    measures = {"seconds": 0.5, "spread": {"latency_ms": 0.1}, "images": 64}
    with opened(path) as record:
        record.add_evaluation("score", "r8", quality=Score(value), measures=measures)
        [row] = record.evaluations("score")
    assert (row.quality, row.measures, row.failure) == (Score(value), measures, None)


def test_a_full_disk_keeps_what_was_recorded(path: Path) -> None:
    with opened(path) as record:
        record.set_metadata("small", 1)
        pages = record._connection.execute("PRAGMA page_count").fetchone()[0]
        record._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(PliantError, match=r"disk that holds .* is full"):
            record.set_metadata("large", "x" * 100_000)
        assert (record.metadata("small"), record.metadata("large")) == (1, None)


def test_reading_from_a_medium_that_cannot_be_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(path).close()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Record.read(path) as record:
        assert record.metadata("recipe_digest") == "abc"
    assert sorted(found.name for found in path.parent.iterdir()) == [
        "record.sqlite",
        "record.sqlite.lock",
    ]


@pytest.mark.parametrize(
    "change",
    [
        'UPDATE evaluations SET quality = \'{"images": 9, "top1": 0.9}\'',
        "UPDATE metadata SET value = '{' WHERE key = 'recipe_digest'",
        "UPDATE train_log SET measures = '{}'",
        "UPDATE asked SET evaluation = 2",
        "UPDATE events SET created = CAST(x'ff' AS TEXT)",
        "CREATE TABLE more (a)",
    ],
)
def test_what_pliant_did_not_write_is_refused(path: Path, change: str) -> None:
    with opened(path) as record:
        row = record.add_evaluation("estimate", "r8", quality=Accuracy(0.5, 10))
        record.note_asked("linas", [row])
        record.log_step(10, 0.1, {"loss": 1.5})
        record.event("test split opened")
    with sqlite3.connect(path) as other:
        triggers = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        kept = other.execute(triggers).fetchall()
        other.executescript("".join(f"DROP TRIGGER {name};" for name, _ in kept))
        other.executescript(f"{change}; {''.join(f'{sql};' for _, sql in kept)}")
    other.close()
    for attempt in (lambda: opened(path), lambda: Record.read(path)):
        with pytest.raises(DamagedFileError, match="have the checksums with which they were"):
            attempt()
