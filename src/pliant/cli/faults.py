"""What the system or a library refuses, in one sentence for the user of a command."""

from __future__ import annotations

import errno

from pliant.cli.memory import is_near_limit
from pliant.files import system_error

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EROFS, errno.EPERM)
_NO_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "failed to map segment",
    "unable to mmap",
)


def sentence(fault: BaseException) -> str | None:
    """What happened and what to do; None for what is a fault of Pliant."""
    if _is_memory(fault) or (system_error(fault) is None and is_near_limit()):
        lines = str(fault).strip().splitlines()
        reason = f" ({lines[-1].rstrip('.')})" if lines else ""
        return (
            f"this needs more memory than there is{reason}. Use smaller or fewer images, or a "
            "smaller batch; what was recorded before is kept."
        )
    if isinstance(fault, RecursionError):
        return "a file is nested deeper than any of Pliant's is. Check the files of the command."
    if isinstance(fault, UnicodeError):
        what = f" {ascii(fault.object)[:200]}:" if isinstance(fault, UnicodeEncodeError) else ""
        return f"names and texts are in UTF-8:{what} {fault}. Rename the file, or convert its text."
    error = system_error(fault)
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


def _is_memory(fault: BaseException) -> bool:
    """Whether an error, or one that it followed from, is about memory."""
    words = str(fault).lower()
    if isinstance(fault, MemoryError) or any(one in words for one in _NO_MEMORY):
        return True
    before = fault.__cause__ or fault.__context__
    return before is not None and _is_memory(before)
