"""Files that can be trusted: replaced atomically, and with a checksum of what was written.

A killed process leaves the old file or the new one, complete.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FEW_BYTES = 2**20
"""On a disk with less than this free, something that is written does not fit."""
CHECKSUM = "sha256"
"""The key of a JSON file for the checksum of its other keys."""
LONGEST_NAME = 200
"""Characters of a folder's name; file systems hold 255 bytes."""


def folder_name(text: str) -> str:
    """A text as the name of a folder: what is too long is cut, and its digest stands for the rest.

    Architectures of large networks have names of hundreds of letters.
    """
    if len(text) <= LONGEST_NAME:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{text[: LONGEST_NAME - len(digest) - 1]}_{digest}"


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a JSON file with its checksum, whatever order and spaces it is written in."""
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    text = json.dumps(rest, sort_keys=True)
    return rest | {CHECKSUM: hashlib.sha256(text.encode()).hexdigest()}


def has_checksum(content: Mapping[str, Any]) -> bool:
    """Whether the content of a JSON file is what was written."""
    return content.get(CHECKSUM) == with_checksum(content)[CHECKSUM]


def replace_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path`, then move it there.

    Args:
        write: makes the file at the path that it is given, of the same folder and file type.

    Raises:
        OSError: the disk is full or may not be written, or the path is a device; it names the file.
    """
    if is_device(path):
        raise OSError(errno.EINVAL, "It is a device, not a file", str(path))  # never replaced
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{os.getpid()}{path.suffix}")
    try:
        partial.touch()
        mode = partial.stat().st_mode
        write(partial)
        partial.chmod(mode)  # some libraries write files that nobody else may read
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except Exception as fault:
        error = system_error(fault)
        if error is None or not error.errno or error.filename not in (None, str(partial)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from fault
    finally:
        partial.unlink(missing_ok=True)


def is_device(path: str | Path) -> bool:
    """Whether a path is a pipe, a socket or a device: reading it may take for ever."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def require_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made, before the work whose result is written there.

    Raises:
        OSError: a file is in its way, its name is too long, or its disk may not be written.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in missing:
        one.rmdir()


def with_full_place(fault: Exception, folder: Path) -> Exception:
    """The error of a full disk that names no file, with the folder where its disk is that one."""
    error = system_error(fault)
    if error is None or error.errno != errno.ENOSPC or error.filename is not None:
        return fault
    place = folder if shutil.disk_usage(folder).free < FEW_BYTES else Path(tempfile.gettempdir())
    return OSError(error.errno, error.strerror, str(place))


def system_error(fault: BaseException) -> OSError | None:
    """The system's error, or the one behind an error that gives its number in words only."""
    if isinstance(fault, OSError):
        return fault
    number = re.search(r"\(os error (\d+)\)", str(fault))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replace a file by these bytes, or by this text in UTF-8."""
    encoded = content.encode() if isinstance(content, str) else content
    replace_atomically(path, lambda partial: partial.write_bytes(encoded))
