"""The command line: the only package that reads options, prints, and sets exit codes."""

from __future__ import annotations

SPINS = 10_000
"""Tens of microseconds: as fast as longer on a free machine, three times as fast on a busy one."""


def main() -> None:
    """Entry point of `pliant`. A user's mistake ends in a message and exit code 2, no traceback."""
    import os

    from pliant.cli.interrupts import ended_by_signals

    # Threads of PyTorch wait for each other in busy loops, for milliseconds by default; beside
    # another process each then takes the processor that the other one needs. Read by GNU's OpenMP
    # when PyTorch is imported, and by processes that this one starts.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
    with ended_by_signals():
        _run_command()


def _run_command() -> None:
    import logging
    import os
    import sys
    import warnings

    # The user of a command cannot act on the warnings of libraries.
    warnings.simplefilter("ignore")
    logging.getLogger().setLevel(logging.ERROR)

    from pliant.cli.memory import guard_pytorch, is_near_limit

    guard_pytorch()
    from pliant.cli.app import app, print_error
    from pliant.cli.faults import sentence
    from pliant.cli.interrupts import is_stopped
    from pliant.errors import PliantError
    from pliant.plugins import own_error

    try:
        app()
    except BrokenPipeError:
        # Who read the output has ended; what is left of it goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as fault:
        if is_stopped():
            raise KeyboardInterrupt from None
        said = str(fault) if isinstance(fault, PliantError) else own_error(fault)
        said = said or sentence(fault)
        if said is None:
            raise
        print_error(said)
        if is_near_limit():  # libraries that are loaded in part crash when they are taken down
            os._exit(2)
    else:
        return
    sys.exit(2)
