"""The command line: the only package that reads options, prints, and sets exit codes."""

from __future__ import annotations


def main() -> None:
    """Entry point of `pliant`. A user's mistake ends in a message and exit code 2, no traceback."""
    import errno
    import logging
    import sys
    import warnings

    # The user of a command cannot act on the warnings of libraries.
    warnings.simplefilter("ignore")
    logging.getLogger().setLevel(logging.ERROR)

    from safetensors import SafetensorError

    from pliant.cli.app import app, print_error
    from pliant.errors import PliantError

    try:
        app()
    except PliantError as error:
        print_error(str(error))
        sys.exit(2)
    except (OSError, SafetensorError) as fault:
        cause = _system_error(fault)
        if cause.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise
        fix = (
            "Allow writing there"
            if cause.errno in (errno.EACCES, errno.EROFS)
            else "Free some space"
        )
        place = cause.filename or "the disk"
        print_error(
            f"a run must be able to write; {place}: {cause.strerror}. {fix}, then start the same "
            "command again."
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
