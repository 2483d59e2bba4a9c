"""Ctrl-C and SIGTERM end a command within two seconds, in one sentence, and leave no process.

Python raises KeyboardInterrupt between two of its instructions only, which may be long after the
signal while a library computes. A thread therefore learns of the signal at once, and ends the
process where the command has not ended by itself in time. Records are committed row by row and
files replaced whole, so nothing that was recorded is lost.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

GRACE_SECONDS = 0.6
"""Time in which a command may end by itself."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
RESUMING = ("run", "train", "search", "estimate", "codesign", "deploy")
"""Commands that record what is done; `score` does so, too, where it writes a table."""
RESUMES = "the same command resumes from what was recorded"
STARTS_OVER = "the same command starts over, but for files that were complete"


class _Ending:
    """How this process was told to end."""

    def __init__(self) -> None:
        self.signal: signal.Signals = signal.SIGINT
        self.is_received = False
        self.is_said = threading.Lock()

    def say(self) -> int:
        """Print the one sentence, once; the exit code, 128 and the signal as in shells."""
        if self.is_said.acquire(blocking=False):
            by = "" if self.signal == signal.SIGINT else f" by {self.signal.name}"
            text = f"error: stopped{by}; {after_a_stop(sys.argv[1:])}.\n"
            with suppress(OSError):  # nobody may be there to read it
                os.write(2, text.encode())
        return 128 + self.signal


_ending = _Ending()


def after_a_stop(words: Sequence[str]) -> str:
    """What the same command does when it is started again; from its words behind `pliant`."""
    command = words[0] if words else ""
    writes_table = any(word.partition("=")[0] == "--out" for word in words)
    resumes = command in RESUMING or (command == "score" and writes_table)
    return RESUMES if resumes else STARTS_OVER


def say_stopped() -> int:
    """Print that the command was stopped; its exit code, 130 for Ctrl-C."""
    return _ending.say()


def is_stopped() -> bool:
    """Whether the command was told to end; libraries may raise errors of their own for it."""
    return _ending.is_received


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM raise KeyboardInterrupt, and the process ends in time."""
    global _ending
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return
    _ending = _Ending()
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    # What a shell starts in its background ignores Ctrl-C, and goes on doing so.
    heard = [one for one in SIGNALS if signal.getsignal(one) != signal.SIG_IGN]
    handlers = {one: signal.signal(one, _interrupt) for one in heard}
    before = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    threading.Thread(target=_end_in_time, args=(readable, _ending), daemon=True).start()
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if not _ending.is_received:
            raise
        code = say_stopped()
        atexit._run_exitfuncs()  # which remove temporary folders
        os._exit(code)  # Python takes a second to take a large program apart
    finally:
        signal.set_wakeup_fd(before)
        for one, handler in handlers.items():
            signal.signal(one, handler)
        os.close(writable)  # which ends the thread, unless there was a signal


def _interrupt(number: int, frame: FrameType | None) -> None:
    _ending.signal, _ending.is_received = signal.Signals(number), True
    raise KeyboardInterrupt


def _end_in_time(readable: int, ending: _Ending) -> None:
    """End the process where the command has not ended by itself."""
    import psutil  # now, since there is no time later

    received = os.read(readable, 1)
    while received and received[0] not in SIGNALS:
        received = os.read(readable, 1)
    os.close(readable)
    if received:
        time.sleep(GRACE_SECONDS)
        ending.signal = signal.Signals(received[0])
        code = ending.say()
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it may have ended by itself
                child.kill()
        os._exit(code)
