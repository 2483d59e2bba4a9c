"""Progress where there is no terminal: lines at the borders of steps and between them."""

from __future__ import annotations

import io
import re
import time

from rich.console import Console

from pliant import Run, run_all
from pliant.progress import lines, shown, silent
from pliant.runs import Session, search_front
from pliant.scoring import score_networks


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_line_where_a_step_begins_and_ends_and_the_time_left_between():
    clock, written = _Clock(), []
    with lines(written.append, seconds_between=3600, clock=clock) as progress:
        progress("train", 100, 400, "resumed")
        clock.now = 50.0
        progress("train", 150, 400, "loss 2.3")  # 50 steps in 50 s: 250 s for the rest
        clock.now = 60.0
        progress.write_again()
        clock.now = 310.0
        progress("train", 400, 400, "loss 1.1")
        progress("train", 400, 400, "loss 1.1")
        progress.write_again()
        progress("search", 0, 20, "estimates")
    assert written == [
        "train 100/400; resumed",
        "train 150/400 about 4 min 0 s left; loss 2.3",
        "train 400/400 done in 5 min 10 s; loss 1.1",
        "search 0/20; estimates",
    ]


def test_a_step_that_says_nothing_is_seen_to_run():
    clock, written = _Clock(), []
    with lines(written.append, seconds_between=0.01, clock=clock) as progress:
        progress("profile", 0, 9, "blocks")
        clock.now = 90.0
        deadline = time.monotonic() + 60
        while len(written) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert written[1] == "profile 0/9 after 1 min 30 s; blocks"


def test_a_file_gets_lines_and_a_terminal_a_bar():
    for terminal in (False, True):
        file = io.StringIO()
        with shown(Console(file=file, force_terminal=terminal, width=100)) as progress:
            progress("score", 0, 4, "networks")
            progress("score", 4, 4, "networks")
        assert ("\x1b[" in file.getvalue()) is terminal
        assert ("score 4/4 done in 0 s; networks\n" in file.getvalue()) is not terminal
    with shown(Console(file=(file := io.StringIO()), quiet=True)) as progress:
        progress("score", 0, 4, "networks")
    assert file.getvalue() == ""


def test_functions_show_progress_unless_given_another(capsys, monkeypatch, digits_space):
    def written(**options):
        score_networks(
            digits_space, "parameters", architectures=[digits_space.largest()], **options
        )
        return capsys.readouterr().out

    assert written().startswith("score 0/1; networks\nscore 1/1 done in ")
    assert written(progress=silent) == ""
    steps = []
    assert written(progress=lambda *step: steps.append(step)) == ""
    assert steps == [("score", 0, 1, "networks"), ("score", 1, 1, "networks")]
    monkeypatch.setenv("RANK", "1")
    assert written() == "", "of several processes, one shows it"


def test_a_run_shows_its_steps(copied, capsys):
    with Run.reopen(copied) as run:
        run_all(run)
        shown = capsys.readouterr().out
        assert "search" in shown
        assert "deliver 5/5" in shown
        _ = search_front(Session(run))
        assert re.fullmatch(r"(search|front) .*\n(\w+ .* done in .*\n)+", capsys.readouterr().out)
        run_all(run, progress=silent)
        _ = search_front(Session(run, progress=silent))
    assert capsys.readouterr().out == ""
