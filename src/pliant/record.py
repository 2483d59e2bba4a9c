"""The log of one run: what was evaluated, what was trained, and what happened, in one SQLite file.

It makes a run resumable (an evaluation that stands here is never done again) and a report possible. Every write is
committed before the call returns, so a killed process loses nothing that it was told. One process writes, which a
lock file beside the record sees to; any number read meanwhile. Structured values are JSON; nothing is pickled.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import socket
import sqlite3
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pliant.errors import DamagedFileError, PliantError, RunConflictError
from pliant.metrics import Accuracy, Cost, Failed

SCHEMA_VERSION = 1
APPLICATION_ID = 0x506C6E74
"""`Plnt`: how a record is told from any other SQLite file."""

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE evaluations (
    id INTEGER PRIMARY KEY, stage TEXT NOT NULL, architecture TEXT NOT NULL, context TEXT NOT NULL,
    split TEXT, top1 REAL, images INTEGER, cost TEXT, failure TEXT, seconds REAL, created TEXT NOT NULL,
    UNIQUE (stage, architecture, context)
);
CREATE TABLE train_log (phase TEXT NOT NULL, step INTEGER NOT NULL, epoch REAL NOT NULL, measures TEXT NOT NULL, PRIMARY KEY (phase, step));
CREATE TABLE events (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, details TEXT NOT NULL, created TEXT NOT NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""

_COLUMNS = "id, stage, architecture, context, split, top1, images, cost, failure, seconds, created"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One row: what an architecture was found to be worth, or why it could not be told."""

    id: int
    stage: str
    """What kind of evaluation: `supernet`, `measured`, `front`, `test`, `random`."""
    architecture: str
    """Its text form."""
    context: str
    """What else the result depends on, such as the digest of the weights or of the device profile."""
    split: str | None
    accuracy: Accuracy | None
    cost: Cost | None
    failure: Failed | None
    seconds: float | None
    created: str
    """UTC, ISO 8601."""


@dataclass(frozen=True, slots=True)
class Step:
    """What was logged at one training step."""

    phase: str
    step: int
    epoch: float
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened once, such as the opening of the test split."""

    kind: str
    details: Mapping[str, Any]
    created: str
    """UTC, ISO 8601."""


class Record:
    """One run's log; open it to write with `Record.open`, to look at it with `Record.read`. A context manager."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: _Lock | None) -> None:
        self.path = path
        self._connection = connection
        self._lock = lock

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, recipe_digest: str) -> Record:
        """Create the record of a run or go on with it; held by this process until closed.

        Args:
            recipe_digest: of the resolved recipe; a run goes on under the recipe with which it began only.

        Raises:
            RunConflictError: another process writes it, or it belongs to another recipe.
            DamagedFileError: the file is there and cannot be read; it is left as it is.
            PliantError: a newer Pliant wrote it, or the disk is full.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _Lock(path.with_name(path.name + ".lock"))
        try:
            record = cls(
                path, _connect(path, f"{path.absolute().as_uri()}?mode=rwc", create=True), lock
            )
        except BaseException:
            lock.release()
            raise
        try:
            known = record.fact("recipe_digest")
            if known is None:
                record.set_fact("recipe_digest", recipe_digest)
            elif known != recipe_digest:
                raise RunConflictError(
                    f"a run goes on under the recipe with which it began: {path.parent} has digest {known}, received {recipe_digest}. "
                    "Restore the recipe, or choose another run directory."
                )
        except BaseException:
            record.close()
            raise
        return record

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Record:
        """Open a record to read only, also while another process writes it.

        Raises:
            DamagedFileError: there is no such file, or it cannot be read; it is left as it is.
            PliantError: a newer Pliant wrote it.
        """
        path = Path(path)
        if not path.is_file():
            raise DamagedFileError(
                f"a run directory holds its record, found no file {path}. Name the directory of a run that was started."
            )
        uri = f"{path.absolute().as_uri()}?mode=ro"
        # Reading a write-ahead log needs a file beside it; a read-only medium allows none, and where no log is left needs none.
        if not os.access(path.parent, os.W_OK) and not path.with_name(path.name + "-wal").exists():
            uri += "&immutable=1"
        return cls(path, _connect(path, uri, create=False), None)

    def close(self) -> None:
        """Let go of the file and of the right to write it."""
        self._connection.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    # Run facts.

    def fact(self, key: str) -> Any:
        """The value of a fact, None where it was never set."""
        rows = self._rows("SELECT value FROM facts WHERE key = ?", (key,))
        return json.loads(rows[0][0]) if rows else None

    def facts(self) -> dict[str, Any]:
        """All facts."""
        return {
            key: json.loads(value)
            for key, value in self._rows("SELECT key, value FROM facts ORDER BY key")
        }

    def set_fact(self, key: str, value: Any) -> None:
        """Set a fact to anything that JSON can hold; the last value stands."""
        self._write(
            "INSERT INTO facts VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, _json(value)),
        )

    # Evaluations.

    def add_evaluation(
        self,
        stage: str,
        architecture: str,
        *,
        context: str = "",
        split: str | None = None,
        accuracy: Accuracy | Failed | None = None,
        cost: Cost | Failed | None = None,
        seconds: float | None = None,
    ) -> Evaluation:
        """Add a row, or replace the failure that stands under the same stage, architecture and context.

        A result that already stands is kept: what was reported once does not change.

        Returns:
            The row as it now stands.
        """
        reasons = [part.reason for part in (accuracy, cost) if isinstance(part, Failed)]
        right = accuracy if isinstance(accuracy, Accuracy) else None
        told = (
            {name: value for name, value in asdict(cost).items() if value is not None}
            if isinstance(cost, Cost)
            else None
        )
        self._write(
            "INSERT INTO evaluations (stage, architecture, context, split, top1, images, cost, failure, seconds, created) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (stage, architecture, context) DO UPDATE SET "
            "split = excluded.split, top1 = excluded.top1, images = excluded.images, cost = excluded.cost, "
            "failure = excluded.failure, seconds = excluded.seconds, created = excluded.created WHERE failure IS NOT NULL",
            (
                stage,
                architecture,
                context,
                split,
                right.top1 if right else None,
                right.images if right else None,
                None if told is None else _json(told),
                "; ".join(dict.fromkeys(reasons)) or None,
                seconds,
                _now(),
            ),
        )
        stands = self.evaluation(stage, architecture, context)
        assert stands is not None
        return stands

    def evaluation(self, stage: str, architecture: str, context: str = "") -> Evaluation | None:
        """The row of an equal evaluation, None where there is none yet."""
        key = (stage, architecture, context)
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM evaluations WHERE stage = ? AND architecture = ? AND context = ?",
            key,
        )
        return _evaluation(rows[0]) if rows else None

    def evaluations(self, stage: str | None = None) -> list[Evaluation]:
        """All rows of a stage, or of all stages, in the order in which they were added."""
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM evaluations WHERE ?1 IS NULL OR stage = ?1 ORDER BY id",
            (stage,),
        )
        return [_evaluation(row) for row in rows]

    # Training log and events.

    def log_step(
        self, step: int, epoch: float, values: Mapping[str, Any], *, phase: str = "supernet"
    ) -> None:
        """Log measures of a training step; those already logged at this step stay unless named again.

        A number that is not finite is logged as null.
        """
        rows = self._rows(
            "SELECT measures FROM train_log WHERE phase = ? AND step = ?", (phase, step)
        )
        merged = {**(json.loads(rows[0][0]) if rows else {}), **values}
        self._write(
            "INSERT OR REPLACE INTO train_log VALUES (?, ?, ?, ?)",
            (phase, step, epoch, _json(merged)),
        )

    def steps(self, phase: str = "supernet") -> list[Step]:
        """What was logged in a phase of training, by step."""
        rows = self._rows(
            "SELECT phase, step, epoch, measures FROM train_log WHERE phase = ? ORDER BY step",
            (phase,),
        )
        return [
            Step(phase, step, epoch, json.loads(measures)) for phase, step, epoch, measures in rows
        ]

    def event(self, kind: str, **details: Any) -> None:
        """Note that something happened now, such as `event("test split opened", purpose="final score")`."""
        self._write(
            "INSERT INTO events (kind, details, created) VALUES (?, ?, ?)",
            (kind, _json(details), _now()),
        )

    def events(self, kind: str | None = None) -> list[Event]:
        """All events, or those of one kind, in order."""
        rows = self._rows(
            "SELECT kind, details, created FROM events WHERE ?1 IS NULL OR kind = ?1 ORDER BY id",
            (kind,),
        )
        return [Event(kind, json.loads(details), created) for kind, details, created in rows]

    # How rows come and go.

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with _translated(self.path):
            return self._connection.execute(query, values).fetchall()

    def _write(self, statement: str, values: Sequence[Any]) -> None:
        if self._lock is None:
            raise PliantError(
                f"{self.path} was opened to read only. Open it with Record.open to write."
            )
        with _translated(self.path):
            self._connection.execute(statement, values)


class _Lock:
    """The right to write a run, held by one process and given up by the system when that process ends in any way.

    Raises:
        RunConflictError: another process holds it, named by number, machine and time.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "an unnamed process"
            self._file.close()
            raise RunConflictError(
                f"one process writes a run at a time; {path.parent} is held by {holder}. "
                "Wait until it ends or stop it, or choose another run directory. Reading it is possible meanwhile."
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()} since {_now()}\n")
        self._file.flush()
        _held.add(self)

    def release(self) -> None:
        """Give the right up; the lock file stays, since removing it would race with the next process."""
        self._file.close()


_held: weakref.WeakSet[_Lock] = weakref.WeakSet()


def _let_go_in_child() -> None:
    # A forked data-loading worker inherits the open lock file. If it kept it, a killed run would stay locked until its last worker noticed.
    for lock in _held:
        lock.release()


os.register_at_fork(after_in_child=_let_go_in_child)


def _connect(path: Path, uri: str, *, create: bool) -> sqlite3.Connection:
    """A checked connection; every statement commits on its own (`isolation_level=None`)."""
    with _translated(path):
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10.0)
        try:
            _check(path, connection, create)
            if create:
                connection.execute("PRAGMA journal_mode = WAL")
                # A killed process loses nothing committed; a power cut may lose the last rows, which the resumed run makes again.
                connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection


def _check(path: Path, connection: sqlite3.Connection, create: bool) -> None:
    def pragma(name: str) -> Any:
        with closing(connection.execute(f"PRAGMA {name}")) as cursor:
            return cursor.fetchone()[0]

    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if create and not tables:
        connection.executescript(_SCHEMA)
    elif pragma("application_id") != APPLICATION_ID:
        raise DamagedFileError(
            f"a record is a file that Pliant wrote; {path} is another database. Name the record of a run."
        )
    if (version := pragma("user_version")) > SCHEMA_VERSION:
        raise PliantError(
            f"{path} has record version {version}, this Pliant reads up to {SCHEMA_VERSION}. Upgrade Pliant to go on with this run."
        )
    if (found := pragma("quick_check(1)")) != "ok":
        raise DamagedFileError(
            f"a record must pass SQLite's check; {path} does not: {found}. {_LEFT}"
        )


_LEFT = (
    "The file was left as it is; restore it from a copy, or move it away and start the run again."
)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """SQLite's errors in the words of the user's situation."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise PliantError(
                f"the disk that holds {path} is full. What was recorded before is kept: free some space, then start the same command again."
            ) from error
        raise PliantError(
            f"{path} cannot be used: {error}. Check that its directory can be written and that no other program holds the file."
        ) from error
    except sqlite3.DatabaseError as error:
        raise DamagedFileError(
            f"a record is an SQLite database; {path} cannot be read as one: {error}. {_LEFT}"
        ) from error


def _evaluation(row: tuple[Any, ...]) -> Evaluation:
    number, stage, architecture, context, split, top1, images, cost, failure, seconds, created = row
    return Evaluation(
        id=number,
        stage=stage,
        architecture=architecture,
        context=context,
        split=split,
        accuracy=None if top1 is None else Accuracy(top1, images),
        cost=None if cost is None else Cost(**json.loads(cost)),
        failure=None if failure is None else Failed(failure),
        seconds=seconds,
        created=created,
    )


def _json(value: Any) -> str:
    return json.dumps(_finite(value), allow_nan=False, sort_keys=True)


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON cannot hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(held) for key, held in value.items()}
    return [_finite(held) for held in value] if isinstance(value, (list, tuple)) else value


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
