"""What the system or a library refuses, in one sentence for the user of a command."""

from __future__ import annotations

import errno
import os
import re

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EROFS, errno.EPERM)
_NO_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc", "bad allocation")


def sentence(fault: BaseException) -> str | None:
    """What happened and what to do; None for what is a fault of Pliant."""
    words = str(fault)
    if isinstance(fault, MemoryError) or any(one in words for one in _NO_MEMORY):
        reason = f" ({words.splitlines()[0]})" if words else ""
        return (
            f"this needs more memory than there is{reason}. Use smaller or fewer images, or a "
            "smaller batch; what was recorded before is kept."
        )
    if isinstance(fault, UnicodeError):
        what = f" {ascii(fault.object)[:200]}:" if isinstance(fault, UnicodeEncodeError) else ""
        return f"names and texts are in UTF-8:{what} {fault}. Rename the file, or convert its text."
    error = _system_error(fault)
    return _system_sentence(error) if error is not None else None


def _system_sentence(error: OSError) -> str:
    place = error.filename or "the disk"
    if error.errno in FULL:
        fix = "Free some space, then start the same command again."
        return f"a run must be able to write; {place}: {error.strerror}. {fix}"
    if error.errno in FORBIDDEN:
        fix = "Allow writing there, then start the same command again."
        return f"a run must be able to write; {place}: {error.strerror}. {fix}"
    if error.filename is None:
        return f"a file cannot be used: {error.strerror or error}. Check the paths of the command."
    return f"{error.filename} cannot be used: {error.strerror}. Check the path, and name another."


def _system_error(fault: BaseException) -> OSError | None:
    """The system's error, or the one behind an error that gives its number in words only."""
    if isinstance(fault, OSError):
        return fault
    number = re.search(r"\(os error (\d+)\)", str(fault))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None
