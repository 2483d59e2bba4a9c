"""Atomic replacement of files: a killed process leaves the old file or the new one, complete."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def replace_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path`, then move it there.

    Args:
        write: makes the file at the path that it is given, of the same folder and file type.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{os.getpid()}{path.suffix}")
    try:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replace a file by these bytes, or by this text in UTF-8."""
    encoded = content.encode() if isinstance(content, str) else content
    replace_atomically(path, lambda partial: partial.write_bytes(encoded))
