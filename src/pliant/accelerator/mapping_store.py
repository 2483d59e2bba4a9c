"""Results of the mapper that are remembered: in memory by this process, in one SQLite file by all.

A result is found again wherever the chip differs only in what does not change it: names, sources,
clock, area, loops of an axis that the layer does not have. It is costed again for the chip that
asks. A result that is within 1 % of the best answers whoever allows 1 % or more.

The file is a cache. Nothing waits for the disk (no fsync), every row has a checksum, and a row or a
file that is damaged is made again.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np

from pliant.accelerator.chip import DIMS, Chip
from pliant.accelerator.mapper.optimal import (
    BestMapping,
    Certificate,
    objective_name,
    objective_powers,
)
from pliant.accelerator.mapping import ENCODED_LENGTH, Mapping, layer_sizes
from pliant.accelerator.model.cost import evaluate
from pliant.accelerator.model.counts import Ints, layer_key
from pliant.accelerator.model.energy_latency import chip_record
from pliant.errors import PliantError
from pliant.files import has_checksum, with_checksum
from pliant.workload import Layer

MODEL_VERSION: Final = 3
"""Part of every key: raised when costs or the mapping space change."""
FILE: Final = "mappings.sqlite"
"""Name of the file in the folder of a cache."""
_MAX_REMEMBERED: Final = 100_000
"""Results in memory, of about 1 kB each; after that the oldest go."""
_PATIENCE_S: Final = 60.0
"""How long a process waits for another that writes."""

ResultKey = tuple[Any, ...]
"""What a result depends on, and nothing else."""
_remembered: dict[ResultKey, dict[str, Any]] = {}
_MAX_KNOWN: Final = 64
_known: dict[tuple[Any, ...], dict[bytes, Ints]] = {}
"""The last different mappings of each layer on any chip, as `Mapping.encode`, by their bytes."""
_lock = Lock()


def result_key(
    layer: Layer, chip: Chip, objective: str | tuple[float, float], bypass: bool = True
) -> ResultKey:
    """The loops, the numbers of the chip that decide costs of them, the powers, and the bypass.

    Args:
        layer: the loops.
        chip: the hardware.
        objective: as `optimal_mapping`.
        bypass: whether tensors may bypass the buffer.

    Raises:
        RecipeError: an unknown objective.
    """
    present = {dim for dim, size in zip(DIMS, layer_sizes(layer), strict=True) if size > 1}
    axes = []
    for axis in chip.axes:
        loops = "".join(sorted(present & set(axis.loops)))
        axes.append((axis.size, loops, min(axis.max_loops, len(loops))))
    numbers = chip_record(chip).tobytes().hex()
    return layer_key(layer), numbers, tuple(axes), objective_powers(objective), bypass


def recall(
    layer: Layer,
    chip: Chip,
    objective: str | tuple[float, float],
    gap: float,
    folder: Path | None,
    bypass: bool = True,
) -> BestMapping | None:
    """A remembered result, costed again; None where there is none, or none so close to the best.

    Args:
        layer: the loops.
        chip: the hardware.
        objective: as `optimal_mapping`.
        gap: how far from the best a result may be, as a share.
        folder: of the file that processes share; None for memory only.
        bypass: whether tensors may bypass the buffer.
    """
    key = result_key(layer, chip, objective, bypass)
    stored = _remembered.get(key)
    if (stored is None or stored["certificate"]["gap"] > gap) and folder is not None:
        stored = _read(folder, key)
        if stored is not None:
            _keep(key, stored)
    if stored is None or stored["certificate"]["gap"] > gap:
        return None
    try:
        mapping = Mapping.decode(stored["mapping"], axes=len(chip.axes))
        cost = evaluate(layer, chip, mapping)
        certificate = Certificate(**stored["certificate"])
        name = objective_name(objective)
        return BestMapping(layer, mapping, cost, name, stored["value"], certificate)
    except (ValueError, KeyError, TypeError, PliantError):
        return None


def known_mappings(layer: Layer, objective: str | tuple[float, float], bypass: bool = True) -> Ints:
    """The best mappings of a layer on other chips, for a search to begin with.

    Args:
        layer: the loops.
        objective: as `optimal_mapping`.
        bypass: whether tensors may bypass the buffer.

    Returns:
        Rows of `Mapping.encode`, shape (mappings, ENCODED_LENGTH).
    """
    key = layer_key(layer), objective_powers(objective), bypass
    with _lock:
        rows = list(_known.get(key, {}).values())
    return np.stack(rows) if rows else np.empty((0, ENCODED_LENGTH), dtype=np.int64)


def remember(
    best: BestMapping,
    chip: Chip,
    objective: str | tuple[float, float],
    folder: Path | None,
    bypass: bool = True,
) -> None:
    """Keeps a result whose search ran to its end; others, and worse ones, are not kept.

    Args:
        best: the result.
        chip: the hardware.
        objective: as `optimal_mapping`.
        folder: of the file that processes share, made if it is not there; None for memory only.
        bypass: whether tensors could bypass the buffer.
    """
    if not best.certificate.complete:
        return
    stored = {
        "mapping": best.mapping.encode().tolist(),
        "value": best.value,
        "certificate": asdict(best.certificate),
    }
    key = result_key(best.layer, chip, objective, bypass)
    _keep(key, stored)
    if folder is not None:
        _write(folder, key, {"layer": asdict(best.layer), **stored})


def forget() -> None:
    """Empties the memory of this process; files stay."""
    with _lock:
        _remembered.clear()
        _known.clear()


def _keep(key: ResultKey, stored: dict[str, Any]) -> None:
    loops, _, _, powers, bypass = key
    code = np.array(stored["mapping"], dtype=np.int64)
    with _lock:
        known = _known.setdefault((loops, powers, bypass), {})
        known.pop(code.tobytes(), None)
        known[code.tobytes()] = code
        if len(known) > _MAX_KNOWN:
            del known[next(iter(known))]
        _remembered.pop(key, None)
        _remembered[key] = stored
        if len(_remembered) > _MAX_REMEMBERED:
            del _remembered[next(iter(_remembered))]


def _digest(key: ResultKey) -> str:
    text = json.dumps([MODEL_VERSION, *key])
    return hashlib.sha256(text.encode()).hexdigest()


def _read(folder: Path, key: ResultKey) -> dict[str, Any] | None:
    """A row of the file; None where it is missing or damaged."""
    if not (folder / FILE).exists():
        return None
    try:
        with closing(_connect(folder)) as file:
            row = file.execute("SELECT content FROM mappings WHERE key = ?", (_digest(key),))
            found = row.fetchone()
        stored = json.loads(found[0]) if found else None
        return stored if stored is not None and has_checksum(stored) else None
    except sqlite3.OperationalError:  # locked for long, or unreadable: mapped again
        return None
    except (sqlite3.DatabaseError, ValueError, TypeError, AttributeError):
        return None


def _write(folder: Path, key: ResultKey, stored: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    row = _digest(key), json.dumps(with_checksum(stored))
    try:
        _insert(folder, row)
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):  # by another process, which keeps results of its own
            raise OSError(f"mappings cannot be kept in {folder / FILE}: {error}.") from error
    except sqlite3.DatabaseError:  # no database any more
        (folder / FILE).unlink(missing_ok=True)
        _insert(folder, row)


def _insert(folder: Path, row: tuple[str, str]) -> None:
    with closing(_connect(folder)) as file, file:
        file.execute("INSERT OR REPLACE INTO mappings VALUES (?, ?)", row)


def _connect(folder: Path) -> sqlite3.Connection:
    file = sqlite3.connect(folder / FILE, timeout=_PATIENCE_S)
    try:
        file.execute("PRAGMA synchronous = OFF")
        file.execute("CREATE TABLE IF NOT EXISTS mappings (key TEXT PRIMARY KEY, content TEXT)")
    except sqlite3.Error:
        file.close()
        raise
    return file
