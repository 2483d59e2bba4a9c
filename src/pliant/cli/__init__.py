"""The command line: the only place that reads options, keeps freed memory, prints and ends with an exit code."""

from __future__ import annotations


def main() -> None:
    """Entry point of `pliant`: a user's mistake ends with a message and exit code 2, never with a traceback."""
    import errno
    import logging
    import sys
    import warnings

    warnings.simplefilter(
        "ignore"
    )  # warnings of libraries say nothing that the user of a command can act on
    logging.getLogger().setLevel(logging.ERROR)

    from safetensors import SafetensorError

    from pliant.cli.app import app, complain
    from pliant.errors import PliantError

    try:
        app()
    except PliantError as error:
        complain(str(error))
        sys.exit(2)
    except (OSError, SafetensorError) as fault:
        cause = _system_error(fault)
        if cause.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise
        mend = (
            "Allow writing there"
            if cause.errno in (errno.EACCES, errno.EROFS)
            else "Free some space"
        )
        place = cause.filename or "the disk"
        complain(
            f"a run must be able to write; {place}: {cause.strerror}. {mend}, then start the same command again."
        )
        sys.exit(2)


def _system_error(fault: Exception) -> OSError:
    """The system's error behind one of safetensors, which gives its number in words only."""
    import os
    import re

    if isinstance(fault, OSError):
        return fault
    number = re.search(r"\(os error (\d+)\)", str(fault))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(fault))
