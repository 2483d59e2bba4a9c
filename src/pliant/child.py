"""Child processes that run Python: no import from the current folder, and none outlives its parent.

Python looks for modules in the current folder first, and a file `torch.py` may lie in the one where
a command is called. A child starts in an empty folder, with the paths of its parent made absolute.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_END_WITH_PARENT = """
import os, sys, threading
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)  # SIGKILL when the parent ends, also during a long import
def end_with_parent():
    os.read(0, 1)  # returns when the parent's end of the pipe is closed
    os._exit(1)
threading.Thread(target=end_with_parent, daemon=True).start()
"""


def run_python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh Python process and wait for it; killed where this process ends.

    Args:
        program: its text.
        arguments: `sys.argv[1:]` of the program; paths are absolute.

    Returns:
        Exit code, standard output and standard error, as text.
    """
    readable, writable = os.pipe()
    try:
        with tempfile.TemporaryDirectory(prefix="pliant-") as empty:
            return subprocess.run(
                [sys.executable, "-c", _END_WITH_PARENT + program, *arguments],
                stdin=readable,
                cwd=empty,
                env=safe_environment(),
                capture_output=True,
                text=True,
                check=False,
            )
    finally:
        os.close(readable)
        os.close(writable)


def safe_environment() -> dict[str, str]:
    """The environment for Python processes that import nothing from their current folder."""
    found = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [str(Path(path).absolute()) for path in found if path]  # an empty one is the folder
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


@contextmanager
def started_safely() -> Iterator[None]:
    """Processes of `multiprocessing` that start inside import nothing from the current folder.

    Nor does Ctrl-C reach them, or this process until all have started: it ends them itself. Python
    3.10 has no switch for the folder; there it still comes first, until `multiprocessing` is read.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    blocks = hasattr(signal, "pthread_sigmask")  # not on Windows
    with _signals_wait():
        if blocks:
            from multiprocessing import resource_tracker

            # It unblocks these signals when it starts, which the first child would then hear.
            resource_tracker.ensure_running()
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            yield
        finally:
            if before is None:
                del os.environ["PYTHONSAFEPATH"]
            else:
                os.environ["PYTHONSAFEPATH"] = before
            if blocks:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Ctrl-C and SIGTERM take effect behind this.

    A mask alone does not do it: another thread of this process receives the signal then, and Python
    interrupts the main one all the same, such as between a child's start and its first message.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted: list[int] = []
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not None:  # of another language
            before[number] = signal.signal(number, lambda received, _: noted.append(received))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if noted:
            signal.raise_signal(noted[0])
