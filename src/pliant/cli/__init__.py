"""The command line: the only place that reads options, keeps freed memory, prints and ends with an exit code."""

from __future__ import annotations


def main() -> None:
    """Entry point of `pliant`: a user's mistake ends with a message and exit code 2, never with a traceback."""
    import errno
    import logging
    import sys
    import warnings

    warnings.simplefilter("ignore")  # warnings of libraries say nothing that the user of a command can act on
    logging.getLogger().setLevel(logging.ERROR)

    from pliant.cli.app import app, complain
    from pliant.errors import PliantError

    try:
        app()
    except PliantError as error:
        complain(str(error))
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise
        mend = "Allow writing there" if error.errno in (errno.EACCES, errno.EROFS) else "Free some space"
        complain(
            f"a run must be able to write; {error.filename or 'the disk'}: {error.strerror}. {mend}, then start the same command again."
        )
        sys.exit(2)
