"""Scores, comparisons and searches on a local Ray of two workers, one of which is killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from pliant.estimation.estimators import EstimatorSettings
from pliant.estimation.search import search_by_estimator
from pliant.scoring import score_networks
from pliant.spaces.presets import preset

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_scores_are_those_of_one_process():
    space = preset("digits", channels=1, image_size=8, classes=10)
    ends = [space.smallest(), space.largest()]
    ours, theirs = (
        score_networks("digits", "zen,synflow", architectures=ends, workers=workers)
        for workers in (1, "ray")
    )
    assert [(one.architecture, one.method, one.score) for one in ours] == [
        (one.architecture, one.method, one.score) for one in theirs
    ]


def test_a_search_with_a_killed_worker_finds_the_same(tmp_path):
    settings = EstimatorSettings("digits", "digits", train_share=0.1, images=50, epochs=1)
    killed = []

    def kill_once(step: str, done: int, total: int, note: str) -> None:
        if done == 1 and not killed and _actors():
            killed.append(_actors()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    def searched(folder: Path, workers: int | str):
        search_by_estimator(
            settings,
            "inherit",
            folder,
            budget="40epochs",
            evaluations=6,
            finalists=1,
            workers=workers,
            progress=kill_once,
        )
        return json.loads((folder / "search.json").read_text())["finalists"]

    assert searched(tmp_path / "one", 0) == searched(tmp_path / "ray", "ray")
    assert killed


def _actors() -> list[psutil.Process]:
    """Processes of our own Ray that run an actor."""
    ours = psutil.Process().children(recursive=True)
    return [one for one in ours if (one.cmdline() or [""])[0].startswith("ray::_Actor")]
