"""Decoded images on disk, so that pictures are decoded once and not at every start.

An entry is a folder. Its name is a digest of the pictures' content, the request and the decoder:

    <digest>/entry.json      how the pictures were decoded, broken ones, checksums
    <digest>/<split>.npy     uint8 (N, channels, size, size), mapped into memory when used

Moved or renamed pictures find their entry again; a changed one makes another. Entries are written
under a lock into a folder beside, which is renamed when it is complete: a killed process leaves
nothing that is believed, and of several processes one decodes while the others wait. Checksums are
verified when an entry is opened, and a damaged one is decoded again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from filelock import FileLock

from pliant.data.decoding import Decoding
from pliant.data.pictures import Digests, Pictures
from pliant.data.pixel_range import PixelRange, Pixels
from pliant.data.preparing import (
    Prepared,
    Request,
    decide,
    decode_all,
    prepare_in_memory,
)
from pliant.data.split_names import SplitName
from pliant.files import write_atomically
from pliant.progress import Progress, silent

CACHE_VARIABLE = "PLIANT_CACHE"
"""Environment variable with the folder of the cache."""

_VERSION = 2
"""Of the entries; raised whenever pictures are decoded otherwise."""

_UNUSED_DAYS = 60
"""Entries that nothing opened for as long are removed when another is written."""


def cache_folder() -> Path:
    """`$PLIANT_CACHE`, else `pliant` in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser() / "images"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pliant" / "images"


def prepare_cached(
    pictures: Mapping[SplitName, Pictures],
    digests: Mapping[SplitName, Digests],
    request: Request,
    progress: Progress = silent,
) -> Prepared:
    """The images of all splits from the cache, decoded into it where it lacks them.

    Where the cache cannot be written, images are decoded into memory, and a note says so.

    Args:
        pictures: with train.
        digests: of the pictures of each split.
        request: of the user.
        progress: told how many are done.

    Raises:
        DataError: neither the cache nor the memory has room.
    """
    folder, key = cache_folder(), entry_key(digests, request)
    prepared = _open(folder / key)
    if prepared is not None:
        return prepared
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            prepared = _open(folder / key)
            if prepared is None:  # no other process wrote it meanwhile
                _remove_unused(folder)
                _write(folder / key, pictures, request, progress)
                prepared = _open(folder / key)
    except OSError as fault:
        prepared, why = None, fault.strerror or str(fault)
    else:
        why = "what was written reads differently"
    if prepared is not None:
        return prepared
    prepared = prepare_in_memory(pictures, request, progress)
    note = (
        f"The cache {folder} cannot be used ({why}), so images were decoded into memory and will "
        f"be at every start. Name another folder by {CACHE_VARIABLE}."
    )
    return replace(prepared, notes=(*prepared.notes, note))


def entry_key(digests: Mapping[SplitName, Digests], request: Request) -> str:
    """What names an entry: equal content and equal request, wherever the pictures lie."""
    decided = [_VERSION, PIL.__version__, asdict(request), list(digests)]
    digest = hashlib.sha256(json.dumps(decided).encode())
    for found in digests.values():
        digest.update(len(found).to_bytes(8, "big") + found.tobytes())
    return digest.hexdigest()[:40]


class _FileSink:
    """Writes the images of each split into a file; a full disk is an error, not a signal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checksums: dict[SplitName, int] = {}
        self._split: SplitName = "train"
        self._file: BufferedWriter | None = None

    def begin(self, split: SplitName, shape: tuple[int, int, int, int]) -> None:
        """Begin the file of a split."""
        self.close()
        self._split, self._file = split, (self.folder / f"{split}.npy").open("wb")
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self.checksums[split] = 0

    def append(self, pixels: Pixels) -> None:
        """Write the next images."""
        assert self._file is not None, "a split begins before its images"
        content = np.ascontiguousarray(pixels).data
        self._file.write(content)
        self.checksums[self._split] = zlib.crc32(content, self.checksums[self._split])

    def close(self) -> None:
        """Bring the last file to the disk."""
        if self._file is not None and not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


def _write(
    entry: Path, pictures: Mapping[SplitName, Pictures], request: Request, progress: Progress
) -> None:
    """Decode into a folder beside the entry, then rename it.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    partial = entry.with_name(f"{entry.name}.partial")
    for left in (partial, entry):  # of a killed process, or damaged
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir()
    sink = _FileSink(partial)
    try:
        decision = decide(pictures["train"].survey(progress), request)
        broken = decode_all(pictures, decision.decoding, sink, progress)
        sink.close()
        described = {
            "decoding": asdict(decision.decoding),
            "picture_size": decision.picture_size,
            "notes": decision.notes,
            "broken": broken,
            "checksums": sink.checksums,
        }
        write_atomically(partial / "entry.json", json.dumps(described))
        partial.rename(entry)
    finally:
        if sink._file is not None:
            sink._file.close()
        shutil.rmtree(partial, ignore_errors=True)


def _open(entry: Path) -> Prepared | None:
    """An entry whose checksums hold, or None."""
    try:
        described = json.loads((entry / "entry.json").read_text("utf-8"))
        pixels = {}
        for split, checksum in described["checksums"].items():
            # Copy on write: PyTorch takes no read-only arrays, and nobody writes.
            array = np.load(entry / f"{split}.npy", mmap_mode="c")
            if zlib.crc32(array.data) != checksum:
                return None
            pixels[split] = torch.from_numpy(array)
        prepared = Prepared(
            decoding=_decoding(described["decoding"]),
            picture_size=int(described["picture_size"]),
            notes=tuple(described["notes"]),
            broken={
                split: {int(row): why for row, why in rows.items()}
                for split, rows in described["broken"].items()
            },
            pixels=pixels,
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        return None
    with contextlib.suppress(OSError):  # of a cache that others write
        os.utime(entry)
    return prepared


def _decoding(fields: Mapping[str, Any]) -> Decoding:
    ranges = {name: PixelRange(**fields[name]) for name in ("integers", "floats")}
    return Decoding(**{**fields, **ranges, "background": tuple(fields["background"])})


def _remove_unused(folder: Path) -> None:
    """Remove entries and locks that nothing used for long."""
    oldest = time.time() - _UNUSED_DAYS * 86400
    for found in folder.iterdir():
        try:
            if found.stat().st_mtime >= oldest:
                continue
            if found.is_dir():
                shutil.rmtree(found, ignore_errors=True)
            elif found.suffix == ".lock":
                found.unlink()
        except OSError:
            continue  # another process removed it
