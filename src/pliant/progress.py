"""How a long step tells its caller how far it is, and how that is shown."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[str, int, int, str], None]
"""Called with a step's name, how much is done, of how much, and a note."""

SECONDS_BETWEEN_LINES = 30.0


def silent(step: str, done: int, total: int, note: str) -> None:
    """Progress that nobody watches."""


@contextmanager
def shown(console: Console | None = None) -> Iterator[Progress]:
    """Progress on a console: a bar per step in a terminal, else lines that suit a file.

    Args:
        console: standard output where None; a quiet one shows nothing.
    """
    from rich.console import Console  # many programs show no progress

    console = console or Console()
    if console.is_terminal:
        with _bars(console) as progress:
            yield progress
    elif console.quiet:
        yield silent
    else:
        with lines(lambda text: print(text, file=console.file, flush=True)) as progress:
            yield progress


@contextmanager
def given_or_shown(progress: Progress | None) -> Iterator[Progress]:
    """The progress that a caller passed; where it is None, one that is shown during the block.

    Of the processes that torchrun starts, one shows it.
    """
    if progress is not None:
        yield progress
    elif os.environ.get("RANK", "0") != "0":
        yield silent
    else:
        with shown() as told:
            yield told


@contextmanager
def lines(
    write: Callable[[str], None],
    seconds_between: float = SECONDS_BETWEEN_LINES,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Progress]:
    """A line where a step begins, where it ends, and every half minute between.

    A thread writes the lines between, so a step that reports nothing for minutes is seen to run.

    Args:
        write: takes one line of text.
        seconds_between: two lines of one step.
        clock: seconds.
    """
    log, ended = _Lines(write, clock), threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds_between):
            log.write_again()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield log
    finally:
        ended.set()
        thread.join()


def printed() -> Progress:
    """Lines on standard output where steps begin and end; unlike `lines`, without a block."""
    return _Lines(partial(print, flush=True), time.monotonic)


class _Lines:
    """What `lines` knows about the step that runs."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float]) -> None:
        self.write, self.clock = write, clock
        self.lock = threading.Lock()
        self.state: tuple[str, int, int, str] | None = None
        self.begun_at = self.seen_at = 0.0
        self.begun_with = 0

    def __call__(self, step: str, done: int, total: int, note: str) -> None:
        with self.lock:
            known, now = self.state, self.clock()
            begins = known is None or known[0] != step
            ends = done >= total and not (known and known[0] == step and known[1] >= known[2])
            if begins:
                self.begun_at, self.begun_with = now, done
            self.state, self.seen_at = (step, done, total, note), now
            if begins or ends:
                self.write(self._line())

    def write_again(self) -> None:
        """The line of a step that still runs."""
        with self.lock:
            if self.state is not None and self.state[1] < self.state[2]:
                self.write(self._line())

    def _line(self) -> str:
        assert self.state is not None
        step, done, total, note = self.state
        spent = self.clock() - self.begun_at
        text = f"{step} {done}/{total}"
        if done >= total:
            return f"{text} done in {_format_seconds(spent)}; {note}"
        if done == self.begun_with:
            return (
                f"{text}; {note}" if spent < 1 else f"{text} after {_format_seconds(spent)}; {note}"
            )
        # Steps before the first report, as of a resumed run, are not of this run's pace.
        pace = (self.seen_at - self.begun_at) / (done - self.begun_with)
        left = max(0.0, pace * (total - done) - (self.clock() - self.seen_at))
        return f"{text} about {_format_seconds(left)} left; {note}"


def _format_seconds(seconds: float) -> str:
    """Such as 8 s, 1 min 30 s or 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    """A progress bar for each step."""
    from rich import progress as rich_progress

    columns = (
        rich_progress.TextColumn("{task.description:<8}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[note]}"),
    )
    with rich_progress.Progress(*columns, console=console) as bars:
        tasks: dict[str, rich_progress.TaskID] = {}

        def show(step: str, done: int, total: int, note: str) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total, note=note)
            bars.update(tasks[step], completed=done, total=total, note=note)

        yield show
