"""Every part of a run is made once, however many steps ask for it."""

from __future__ import annotations

from collections import Counter

import pytest

from pliant import Run
from pliant.accuracy import supernet as estimating
from pliant.errors import InfeasibleError, RecipeError
from pliant.runs import session as sessions
from pliant.runs.session import Session
from pliant.runs.workflow import run_steps


def test_one_run_asks_for_everything_once(tmp_path, tiny, digits_profile, monkeypatch):
    calls: Counter[str] = Counter()

    def counted(module, name, key=lambda *_: ""):
        original = getattr(module, name)

        def call(*arguments, **options):
            calls[f"{name} {key(*arguments)}".strip()] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, call)

    counted(sessions, "check_feasible")
    counted(sessions, "open_target")
    counted(sessions, "train_supernet")
    counted(sessions.hashlib, "sha256", lambda content=b"": "weights" * (len(content) > 100_000))
    counted(sessions, "SupernetEstimator")
    calibrated: Counter[str] = Counter()
    original = estimating.SupernetEstimator._calibrated

    def calibrate(self, architecture, images):
        calibrated[str(architecture)] += 1
        return original(self, architecture, images)

    monkeypatch.setattr(estimating.SupernetEstimator, "_calibrated", calibrate)
    with Run.create(str(tiny), folder=tmp_path / "run", target__name=str(digits_profile)) as run:
        session = Session(run)
        _ = session.supernet
        run.record.set_metadata("precision", "fp32")
        found = run_steps(session).found
    assert calls["check_feasible"] == calls["open_target"] == calls["train_supernet"] == 1
    assert calls["sha256 weights"] == calls["SupernetEstimator"] == 1
    shortlisted = {str(one.architecture) for one in (*found.shortlist, *found.random_shortlist)}
    estimated = {str(one.architecture) for one in (*found.history, *found.random_history)}
    assert shortlisted <= estimated
    # Once for its estimate, and where it is shortlisted once more, in fp32.
    assert calibrated == {name: 1 + (name in shortlisted) for name in estimated}, (
        "each network of the shortlist is calibrated once for all steps"
    )


def test_limits_that_need_no_measurement_are_refused_before_anything_is_measured(
    tmp_path, tiny, monkeypatch
):
    from pliant.devices import profile

    monkeypatch.setattr(profile, "profile_device", lambda *_, **__: pytest.fail("measured"))
    for number, (limit, error, says) in enumerate(
        [
            ("parameters=10", InfeasibleError, "parameters reaches"),
            ("energy_uj=10", RecipeError, r"reports no energy_uj \(limit energy_uj=10\)"),
        ]
    ):
        folder = tmp_path / str(number)
        with (
            Run.create(str(tiny), folder=folder, limits=[limit]) as run,
            pytest.raises(error, match=says),
        ):
            _ = Session(run).feasible


def test_names_of_targets_are_checked_at_once(copied):
    with Run.reopen(copied) as run, pytest.raises(RecipeError, match="Did you mean 'eyeriss'"):
        Session(run, target="eyeris")
