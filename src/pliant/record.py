"""The log of one run: evaluations, training and events, in one SQLite file.

It makes a run resumable (an evaluation that it holds is never repeated) and a report possible.
Every write is committed before the call returns, so a killed process loses nothing that it
recorded. One process writes, which a lock file ensures; any number read meanwhile. Structured
values are JSON; nothing is pickled. Every row has a checksum, which is verified when the record is
opened.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pliant.errors import DamagedFileError, PliantError, RunConflictError
from pliant.metrics import Accuracy, Cost, Failed, Quality, Score, Stopped

SCHEMA_VERSION = 3
APPLICATION_ID = 0x506C6E74
"""`Plnt`: how a record is told from any other SQLite file."""
LOG_INDEX_BYTES = 32768
"""Least size of the file `-shm` beside a write-ahead log."""
_MAGIC = b"SQLite format 3\0"

_TABLES = """
CREATE TABLE metadata (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER);
CREATE TABLE evaluations (
    id INTEGER PRIMARY KEY, stage TEXT NOT NULL, architecture TEXT NOT NULL, context TEXT NOT NULL,
    split TEXT, quality TEXT, cost TEXT, measures TEXT NOT NULL, failed INTEGER NOT NULL,
    created TEXT NOT NULL, checksum INTEGER, UNIQUE (stage, architecture, context)
);
CREATE TABLE asked (
    id INTEGER PRIMARY KEY, searcher TEXT NOT NULL, evaluation INTEGER NOT NULL, checksum INTEGER,
    UNIQUE (searcher, evaluation)
);
CREATE TABLE train_log (
    phase TEXT NOT NULL, step INTEGER NOT NULL, epoch REAL NOT NULL, measures TEXT NOT NULL,
    checksum INTEGER, PRIMARY KEY (phase, step)
);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, details TEXT NOT NULL, created TEXT NOT NULL,
    checksum INTEGER
);
"""

_COLUMNS = "id, stage, architecture, context, split, quality, cost, measures, created"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One row: how good an architecture was found to be, what it costs, or why that failed."""

    id: int
    stage: str
    """What kind of evaluation: `estimate`, `front`, `apart`, `test`, `score`."""
    architecture: str
    """Its text form."""
    context: str
    """What else the result depends on, such as the digests of the weights and of the target."""
    split: str | None
    quality: Quality | None
    cost: Cost | Failed | None
    measures: Mapping[str, Any]
    """Further measurements: seconds, images, the spread of each measured cost."""
    created: str
    """UTC, ISO 8601."""

    @property
    def failure(self) -> Failed | None:
        """Why the quality or the cost is missing; None where neither failed."""
        for part in (self.quality, self.cost):
            if isinstance(part, Failed):
                return part
        return None


@dataclass(frozen=True, slots=True)
class LoggedStep:
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
    """One run's log; `Record.open` opens it to write, `Record.read` to read. A context manager."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: _Lock | None) -> None:
        self.path = path
        self._connection = connection
        self._lock = lock
        self._file = _identity(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, recipe_digest: str) -> Record:
        """Create the record of a run or reopen it; held by this process until closed.

        Args:
            path: of the SQLite file; its folder is created.
            recipe_digest: of the resolved recipe; a run resumes under the recipe with which it
                began only. A record without a result begins again under another one.

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
            known = record.metadata("recipe_digest")
            if known not in (None, recipe_digest) and not record.has_results():
                record._write("DELETE FROM metadata", ())
                known = None
            if known is None:
                record.set_metadata("recipe_digest", recipe_digest)
            elif known != recipe_digest:
                raise RunConflictError(
                    f"a run resumes under the recipe with which it began: {path.parent} has digest "
                    f"{known}, received {recipe_digest}. Restore the recipe, or choose another run "
                    "directory."
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
                f"a run directory holds its record, found no file {path}. Name the directory of a "
                "run that was started."
            )
        uri = f"{path.absolute().as_uri()}?mode=ro"
        # Reading a write-ahead log needs a file next to it; a read-only medium allows none, and
        # needs none if no log is left.
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

    def has_results(self) -> bool:
        """Whether anything was evaluated or trained, or noted as an event."""
        tables = ("evaluations", "train_log", "events")
        return any(self._rows(f"SELECT 1 FROM {table} LIMIT 1") for table in tables)

    # Metadata of the run.

    def metadata(self, key: str) -> Any:
        """The value of a key, None where it was never set."""
        rows = self._rows("SELECT value FROM metadata WHERE key = ?", (key,))
        return json.loads(rows[0][0]) if rows else None

    def set_metadata(self, key: str, value: Any) -> None:
        """Set a key to anything that JSON can hold, replacing an older value."""
        self._write(
            "INSERT INTO metadata (key, value) VALUES (?, ?) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
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
        quality: Quality | None = None,
        cost: Cost | Failed | None = None,
        measures: Mapping[str, Any] | None = None,
    ) -> Evaluation:
        """Add a row, or replace one that failed under the same stage, architecture and context.

        A result that is already there is kept: what was reported once does not change.

        Args:
            stage: kind of the evaluation.
            architecture: text form.
            context: what else the result depends on.
            split: whose images the quality is of.
            quality: accuracy, score or failure.
            cost: predicted or measured, or its failure.
            measures: further measurements, with units in the names.

        Returns:
            The row as it is now.
        """
        failed = isinstance(quality, Failed) or isinstance(cost, Failed)
        self._write(
            "INSERT INTO evaluations (stage, architecture, context, split, quality, cost, "
            "measures, failed, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (stage, architecture, context) DO UPDATE SET split = excluded.split, "
            "quality = excluded.quality, cost = excluded.cost, measures = excluded.measures, "
            "failed = excluded.failed, created = excluded.created WHERE failed",
            (
                stage,
                architecture,
                context,
                split,
                _quality_text(quality),
                _cost_text(cost),
                _json(measures or {}),
                failed,
                _now(),
            ),
        )
        row = self.evaluation(stage, architecture, context)
        assert row is not None
        return row

    def evaluation(self, stage: str, architecture: str, context: str = "") -> Evaluation | None:
        """The row of an equal evaluation, None where there is none yet."""
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM evaluations "
            "WHERE stage = ? AND architecture = ? AND context = ?",
            (stage, architecture, context),
        )
        return _evaluation(rows[0]) if rows else None

    def evaluations(self, stage: str | None = None) -> list[Evaluation]:
        """All rows of a stage, or of all stages, in the order in which they were added."""
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM evaluations WHERE ?1 IS NULL OR stage = ?1 ORDER BY id",
            (stage,),
        )
        return [_evaluation(row) for row in rows]

    def note_asked(self, searcher: str, evaluations: Sequence[Evaluation]) -> None:
        """Note that a searcher asked for these evaluations, in this order; repeats change nothing.

        Two searchers may ask for the same architecture, which is evaluated once.
        """
        for row in evaluations:
            self._write(
                "INSERT OR IGNORE INTO asked (searcher, evaluation) VALUES (?, ?)",
                (searcher, row.id),
            )

    def asked(self) -> dict[str, list[int]]:
        """By searcher the ids of the evaluations that it asked for, in the order of asking."""
        found: dict[str, list[int]] = {}
        for searcher, evaluation in self._rows(
            "SELECT searcher, evaluation FROM asked ORDER BY id"
        ):
            found.setdefault(searcher, []).append(evaluation)
        return found

    # Training log and events.

    def log_step(
        self, step: int, epoch: float, values: Mapping[str, Any], *, phase: str = "supernet"
    ) -> None:
        """Log measures of a training step; those already logged at this step stay unless replaced.

        A number that is not finite is logged as null.

        Args:
            step: number of the step, from the beginning of the phase.
            epoch: the same in epochs.
            values: by name.
            phase: of the training.
        """
        rows = self._rows(
            "SELECT measures FROM train_log WHERE phase = ? AND step = ?", (phase, step)
        )
        merged = {**(json.loads(rows[0][0]) if rows else {}), **values}
        self._write(
            "INSERT OR REPLACE INTO train_log (phase, step, epoch, measures) VALUES (?, ?, ?, ?)",
            (phase, step, epoch, _json(merged)),
        )

    def steps(self, phase: str = "supernet") -> list[LoggedStep]:
        """What was logged in a phase of training, by step."""
        rows = self._rows(
            "SELECT phase, step, epoch, measures FROM train_log WHERE phase = ? ORDER BY step",
            (phase,),
        )
        return [
            LoggedStep(phase, step, epoch, json.loads(measures))
            for phase, step, epoch, measures in rows
        ]

    def event(self, kind: str, **details: Any) -> None:
        """Note that something happened now, as `event("test split opened", purpose="score")`."""
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
        self.require_in_place()
        with _translated(self.path):
            self._connection.execute(statement, values)

    def require_in_place(self) -> None:
        """Refuse a record whose file was removed or replaced: an open one is written unseen.

        Raises:
            RunConflictError: another file, or none, is where this one was opened.
        """
        if _identity(self.path) != self._file:
            raise RunConflictError(
                f"a run directory stays as it is while a run writes it; {self.path.parent} was "
                "removed, moved or replaced. Remove what is left there, then start the same "
                "command again: the run begins anew."
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file is at a path, whatever it is called; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _Lock:
    """The right to write a run; the system releases it when the process ends in any way.

    Raises:
        RunConflictError: another process holds it, named by number, machine and time.
    """

    def __init__(self, path: Path) -> None:
        # Not thread-local: a run may be closed by another thread than the one that opened it.
        self._lock = FileLock(path, blocking=False, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise RunConflictError(
                f"one process writes a run at a time; {path.parent} is held by {_holder(path)}. "
                "Wait until it ends or stop it, or choose another run directory. "
                "Reading it is possible meanwhile."
            ) from None
        with suppress(OSError):  # Windows does not let a locked file be written
            path.write_text(
                f"process {os.getpid()} on {socket.gethostname()} since {_now()}\n", "utf-8"
            )

    def release(self) -> None:
        """Release it; the lock file stays, since removing it would race with the next process."""
        self._lock.release()


def _holder(path: Path) -> str:
    """Who holds a lock, as the holder wrote it."""
    try:
        return path.read_text("utf-8").strip() or "another process"
    except OSError:
        return "another process"


def _connect(path: Path, uri: str, *, create: bool) -> sqlite3.Connection:
    """A checked connection; every statement commits on its own (`isolation_level=None`)."""
    _require_database(path)
    with _translated(path):
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10.0)
        try:
            connection.create_function("row_checksum", -1, _row_checksum, deterministic=True)
            connection.execute("PRAGMA trusted_schema = ON")  # its triggers call that function
            _check(path, connection, create)
            if create:
                connection.execute("PRAGMA journal_mode = WAL")
                # A killed process loses nothing committed; a power cut may lose the last rows,
                # which the resumed run makes again.
                connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection


def _require_database(path: Path) -> None:
    """SQLite takes a short file of any content for an empty database, and writes over it."""
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise DamagedFileError(f"a record is an SQLite database; {path} is none. {_LEFT}")


def _check(path: Path, connection: sqlite3.Connection, create: bool) -> None:
    def pragma(name: str) -> Any:
        with closing(connection.execute(f"PRAGMA {name}")) as cursor:
            return cursor.fetchone()[0]

    if create and not pragma("page_count"):
        connection.executescript(_schema())
    if pragma("application_id") != APPLICATION_ID:
        raise DamagedFileError(
            f"a record is a file that Pliant wrote; {path} is another database. Name the record "
            "of a run."
        )
    if (version := pragma("user_version")) != SCHEMA_VERSION:
        remedy = (
            "Upgrade Pliant to resume this run."
            if version > SCHEMA_VERSION
            else "Choose another run directory to start again, or resume it with the older Pliant."
        )
        raise PliantError(
            f"{path} has record version {version}, this Pliant reads version {SCHEMA_VERSION}. "
            f"{remedy}"
        )
    if (found := pragma("integrity_check(1)")) != "ok":
        raise DamagedFileError(
            f"a record must pass SQLite's check; {path} does not: {found}. {_LEFT}"
        )
    try:
        altered = _altered_tables(connection)
    except sqlite3.Error as error:
        raise DamagedFileError(f"the tables of {path} cannot be read: {error}. {_LEFT}") from error
    if altered:
        raise DamagedFileError(
            f"the rows of a record have the checksums with which they were written; those of table "
            f"{', '.join(altered)} in {path} have not. {_LEFT}"
        )


# Checksums of rows: triggers keep them, so that no statement that writes has to know them.


def _row_checksum(*values: Any) -> int:
    return zlib.crc32(repr(values).encode())


def _checksum_call(connection: sqlite3.Connection, table: str) -> str:
    """SQL for the checksum of a row; text as its bytes, since damaged text may not decode."""
    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
    values = []
    for _, name, kind, *_ in columns:
        if name != "checksum":
            values.append(f"CAST({name} AS BLOB)" if kind == "TEXT" else name)
    return f"row_checksum({', '.join(values)})"


def _table_names(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return [name for (name,) in rows]


@cache
def _schema() -> str:
    """The statements that make an empty record, in one transaction."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_TABLES)
        triggers = ""
        for table in _table_names(connection):
            for event in ("INSERT", "UPDATE"):
                triggers += (
                    f"CREATE TRIGGER {table}_{event} AFTER {event} ON {table} BEGIN "
                    f"UPDATE {table} SET checksum = {_checksum_call(connection, table)} "
                    "WHERE rowid = new.rowid; END;\n"
                )
    return (
        f"BEGIN IMMEDIATE;\n{_TABLES}{triggers}PRAGMA application_id = {APPLICATION_ID};\n"
        f"PRAGMA user_version = {SCHEMA_VERSION};\nCOMMIT;\n"
    )


def _altered_tables(connection: sqlite3.Connection) -> list[str]:
    """Tables with a row whose checksum differs, or that are not those of a record."""
    master = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        fresh.executescript(_schema())
        if connection.execute(master).fetchall() != fresh.execute(master).fetchall():
            return ["sqlite_master"]
    altered = []
    for table in _table_names(connection):
        call = _checksum_call(connection, table)
        different = f"SELECT 1 FROM {table} WHERE checksum IS NOT {call} LIMIT 1"
        if connection.execute(different).fetchone():
            altered.append(table)
    return altered


_LEFT = (
    "The file was left as it is; restore it from a copy, or move it away and start the run again."
)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """SQLite's errors in the words of the user's situation."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" in str(error) or _is_disk_full(path):
            raise PliantError(
                f"the disk that holds {path} is full. What was recorded before is kept: free some "
                "space, then start the same command again."
            ) from error
        raise PliantError(
            f"{path} cannot be used: {error}. Check that its directory can be written and that no "
            "other program holds the file."
        ) from error
    except sqlite3.DatabaseError as error:
        raise DamagedFileError(
            f"a record is an SQLite database; {path} cannot be read as one: {error}. {_LEFT}"
        ) from error


def _is_disk_full(path: Path) -> bool:
    """Whether an index of SQLite's log has no room, which fails as an error of the disk."""
    try:
        return shutil.disk_usage(path.parent).free < LOG_INDEX_BYTES
    except OSError:
        return False


def _evaluation(row: tuple[Any, ...]) -> Evaluation:
    number, stage, architecture, context, split, quality, cost, measures, created = row
    return Evaluation(
        id=number,
        stage=stage,
        architecture=architecture,
        context=context,
        split=split,
        quality=_quality(quality),
        cost=_cost(cost),
        measures=json.loads(measures),
        created=created,
    )


def _quality_text(quality: Quality | None) -> str | None:
    if isinstance(quality, Score):
        # As text: a score may be infinite, which JSON has no number for.
        return _json({"score": repr(float(quality.value))})
    if isinstance(quality, Stopped):
        reached = _fields(quality.reached)
        return _json({**_fields(quality), "reached": reached, "stopped_at_epoch": quality.epochs})
    return None if quality is None else _json(_fields(quality))


def _quality(text: str | None) -> Quality | None:
    if text is None:
        return None
    fields = json.loads(text)
    if "stopped_at_epoch" in fields:
        reached = Accuracy(**fields["reached"])
        return Stopped(fields["failed"], reached, fields["stopped_at_epoch"])
    if "failed" in fields:
        return Failed(fields["failed"])
    return Score(float(fields["score"])) if "score" in fields else Accuracy(**fields)


def _cost_text(cost: Cost | Failed | None) -> str | None:
    return None if cost is None else _json(_fields(cost))


def _cost(text: str | None) -> Cost | Failed | None:
    if text is None:
        return None
    fields = json.loads(text)
    return Failed(fields["failed"]) if "failed" in fields else Cost(**fields)


def _fields(value: Accuracy | Cost | Failed) -> dict[str, Any]:
    """The fields that are known; a failure under a name that neither of the others has."""
    if isinstance(value, Failed):
        return {"failed": value.reason}
    return {name: held for name, held in asdict(value).items() if held is not None}


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
