"""A run within a time: what is planned, that it is kept, and that few images get enough steps."""

from __future__ import annotations

import re
import time

import pytest
import torch

from pliant import Run
from pliant.data import Augmentation
from pliant.errors import RecipeError
from pliant.runs import budget
from pliant.runs.budget import Plan, keep_plan, known_plan, make_plan, plan_search, replanned
from pliant.runs.recipe import load_recipe
from pliant.runs.train import MIN_BATCH, MIN_STEPS_PER_EPOCH, batch_size, new_supernet
from pliant.training.registry import StrategyOptions, make_strategy
from pliant.training.schedule import Phase, PlanPoint, Timetable, TrainingRecipe
from pliant.training.throughput import phase_seconds
from pliant.units import format_duration, parse_duration


@pytest.fixture
def timed(tiny, tmp_path):
    """A run of the tiny recipe with a time."""
    with Run.create(str(tiny), folder=tmp_path / "run", time="10min", train__epochs=50) as run:
        yield run


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30min", 1800), ("1.5h", 5400), ("2", None), ("0s", None)]
)
def test_durations_are_read_and_written(text, seconds):
    assert parse_duration(text) == seconds
    if seconds is not None:
        assert parse_duration(format_duration(seconds)) == seconds


def test_written_durations_are_rounded_up():
    assert [format_duration(one) for one in (8.01, 99, 101, 7201)] == [
        "8.1s",
        "99s",
        "1.7min",
        "2.1h",
    ]


def test_a_recipe_ends_after_epochs_or_in_time(tiny, tmp_path):
    with pytest.raises(RecipeError, match=r"a time reads 90s, .* received 'soon'"):
        load_recipe(str(tiny), {"time": "soon"})
    path = tmp_path / "open.toml"
    path.write_text(tiny.read_text().replace("epochs = 3\n", ""))
    with pytest.raises(RecipeError, match="has neither"):
        load_recipe(str(path))
    known, other = load_recipe(str(path), {"time": "1h"}), load_recipe(str(path), {"time": "2h"})
    assert known.digest != other.digest, "the time decides the weights"
    assert load_recipe(str(tiny)).digest == load_recipe(str(tiny), {"limits": []}).digest


def test_a_plan_fills_the_time_by_hand(timed, monkeypatch):
    monkeypatch.setattr(budget, "forward_seconds", lambda run, supernet: 0.002)
    monkeypatch.setattr(time, "monotonic", lambda: 1100.0)
    timed.opened = 1000.0
    phases = (Phase("head", 0.25), Phase("rest", 0.75))

    def planned(head, rest):
        return make_plan(timed, new_supernet(timed), phases, {"head": head, "rest": rest})

    plan = planned(8.0, 24.0)
    data = timed.data
    estimate = 0.001 * (len(data.train) + 100)
    delivery = budget.DELIVERY_S + 7 * 0.001 * (
        len(data.train) + len(data.validation) + 2 * len(data.test)
    )
    assert plan.estimates == 20
    training = 600 * budget.SAFETY - 100 - delivery - 2 * 20 * estimate
    assert plan.epochs == int(training / 20)
    shares = timed.record.metadata("planned_seconds")["shares"]
    assert shares == pytest.approx({"head": 0.1, "rest": 0.9})
    assert planned(1.0, 1.0).epochs == 50, "the recipe's are the most"
    with pytest.raises(RecipeError, match=r"takes 10min here; of 10min .* Give it \d+min or more"):
        planned(600.0, 600.0)


@pytest.mark.parametrize("forward_s", [1e-5, 0.002, 0.1])
@pytest.mark.parametrize("epoch_s", [500.0, 3000.0])
@pytest.mark.parametrize("estimates", [5, 200, 10**6])
def test_the_time_that_a_refusal_asks_for_is_enough_and_not_much_more(
    tiny, tmp_path, monkeypatch, forward_s, epoch_s, estimates
):
    """Of a longer time the searches take more, too."""
    monkeypatch.setattr(budget, "forward_seconds", lambda run, supernet: forward_s)
    monkeypatch.setattr(time, "monotonic", lambda: 1100.0)
    with Run.create(str(tiny), folder=tmp_path / "run", time="10min") as run:
        run.opened, recipe = 1000.0, run.recipe

        def planned(time: str) -> Plan:
            search = recipe.search.model_copy(update={"estimates": estimates})
            run.recipe = recipe.model_copy(update={"time": time, "search": search})
            return make_plan(run, None, [Phase("all", 1.0)], {"all": epoch_s})

        with pytest.raises(RecipeError, match="at least one epoch") as refused:
            planned("9min")
        asked = re.search(r"Give it (\S+) or more", str(refused.value))[1]
        assert planned(asked).epochs == 1
        with pytest.raises(RecipeError, match="at least one epoch"):
            planned(f"{0.85 * parse_duration(asked):.0f}s")


@pytest.mark.parametrize(
    # Steps take `slow` times what was planned; 300 s are left, of which 60 are planned for the
    # search; the two phases that remain are planned with 10 * 6 + 20 * 9 = 240 s.
    ("slow", "epochs", "factor"),
    [(1, None, 1.0), (2, None, 0.375), (0.5, None, 2.25), (0.5, 40, 1.0), (9, None, 0.1)],
)
def test_a_phase_is_planned_again_by_hand(tiny, tmp_path, monkeypatch, slow, epochs, factor):
    text = tiny.read_text().replace("epochs = 3\n", f"epochs = {epochs}\n" if epochs else "")
    (tmp_path / "timed.toml").write_text(text)
    monkeypatch.setattr(budget, "SAFETY", 1.0)
    monkeypatch.setattr(time, "monotonic", lambda: 1300.0)
    with Run.create(str(tmp_path / "timed.toml"), folder=tmp_path / "run", time="10min") as run:
        run.opened = 1000.0
        keep_plan(run, Plan(40, 20))
        seconds = {"head": 3.0, "teacher": 6.0, "rest": 9.0}
        planned = {"phases": seconds, "shares": {"head": 0.11}, "after": 60.0}
        run.record.set_metadata("planned_seconds", planned)
        speed = len(run.data.train) / (3.0 * slow)
        run.record.log_step(10, 0.5, {"phase": "head", "images_per_second": speed})
        phases = (Phase("head", 10), Phase("teacher", 10), Phase("rest", 20))
        again = replanned(run, Timetable(phases, 7), PlanPoint(1, 0, 70))
        expected = [10, 10 * factor, 20 * factor]
        assert [phase.epochs for phase in again.phases] == pytest.approx(expected)
        monkeypatch.setattr(time, "monotonic", lambda: 1590.0)
        assert replanned(run, Timetable(phases, 7), PlanPoint(1, 0, 70)) == again, "kept"
        copied = (run.folder / "recipe.toml").read_text()
    (tmp_path / "copied.toml").write_text(copied)
    with Run.create(str(tmp_path / "copied.toml"), folder=tmp_path / "again") as run:
        assert replanned(run, Timetable(phases, 7), PlanPoint(1, 0, 70)) == again, (
            "the recipe repeats the run"
        )
        assert replanned(run, Timetable(phases, 7), PlanPoint(2, 0, 140)).phases == phases, (
            "not timed"
        )
    with Run.create(str(tmp_path / "copied.toml"), folder=tmp_path / "1h", time="1h") as run:
        assert replanned(run, Timetable(phases, 7), PlanPoint(1, 0, 70)).phases == phases


@pytest.mark.parametrize(
    # Half of the first phase is left, and all of the second: 5 * 6 + 10 * 9 = 120 s as planned.
    # Of 300 s that are left, 60 are planned for the search.
    # At least one more step is taken: of the last one's single step per epoch, the seventh.
    ("slow", "steps", "epochs"),
    [
        (1, 7, (10, 10)),
        (0.5, 7, (10, 10)),
        (4, 7, (5.625, 1.25)),
        (20, 7, (5.5, 1.0)),
        (20, 1, (6.5, 3.0)),
    ],
)
def test_the_rest_of_a_phase_is_shortened_where_the_time_is_not_enough(
    tiny, tmp_path, monkeypatch, slow, steps, epochs
):
    monkeypatch.setattr(budget, "SAFETY", 1.0)
    monkeypatch.setattr(time, "monotonic", lambda: 1300.0)
    timetable = Timetable((Phase("teacher", 10), Phase("rest", 10)), steps)
    half = PlanPoint(0, 2, 5 * steps)
    with Run.create(str(tiny), folder=tmp_path / "run", time="10min", train__epochs=50) as run:
        run.opened = 1000.0
        keep_plan(run, Plan(20, 20))
        seconds = {"teacher": 6.0, "rest": 9.0}
        shares = {"short": 0.05, "teacher": 0.4, "rest": 0.55}
        planned = {"phases": seconds, "shares": shares, "after": 60.0}
        run.record.set_metadata("planned_seconds", planned)
        for step in range(budget.RECENT_REPORTS):  # as planned at first, and slow of late
            speed = len(run.data.train) / (6.0 * (slow if step > 5 else 1.0))
            values = {"phase": "teacher", "images_per_second": speed}
            run.record.log_step(step, 0.5, values)
        values = {"phase": "short", "images_per_second": 1.0}  # tells nothing
        for step in range(budget.RECENT_REPORTS, 3 * budget.RECENT_REPORTS):
            run.record.log_step(step, 0.5, values)
        again = replanned(run, timetable, half)
        assert [phase.epochs for phase in again.phases] == pytest.approx(epochs)
        assert again.phase_boundaries[1] > half.step
        monkeypatch.setattr(time, "monotonic", lambda: 1500.0)
        assert replanned(run, timetable, half) == again, "kept"
        left_early = PlanPoint(0, 3, 10 * steps)
        assert replanned(run, timetable, left_early) == timetable, "that phase is over"
        assert "teacher-3-of-4" not in run.record.metadata("phase_epochs")
        copied = (run.folder / "recipe.toml").read_text()
    assert ("teacher-2-of-4" in copied) == (epochs != (10, 10))
    (tmp_path / "copied.toml").write_text(copied)
    with Run.create(str(tmp_path / "copied.toml"), folder=tmp_path / "again") as run:
        assert replanned(run, timetable, half) == again, "the recipe repeats the run"


@pytest.mark.parametrize(("slow", "estimates"), [(1, 30), (2, 20), (0.5, 80), (0.1, 200)])
def test_estimates_are_planned_again_when_the_search_begins(
    tiny, tmp_path, monkeypatch, slow, estimates
):
    monkeypatch.setattr(budget, "SAFETY", 1.0)
    monkeypatch.setattr(time, "monotonic", lambda: 1500.0)
    parts = {"time": "10min", "search__estimates": 200}
    with Run.create(str(tiny), folder=tmp_path / "run", **parts) as run:
        run.opened = 1000.0
        keep_plan(run, Plan(3, 50))
        assert plan_search(run) == Plan(3, 50), "not timed here"
        seconds = {"phases": {"train": 3.0}, "shares": {"train": 1.0}, "estimate": 1.0}
        seconds |= {"delivery": 40.0, "after": 140.0}
        run.record.set_metadata("planned_seconds", seconds)
        speed = len(run.data.train) / (3.0 * slow)
        run.record.log_step(10, 0.5, {"phase": "train", "images_per_second": speed})
        # 100 s are left, 40 of them for the delivery; random search gets as many of 1 s each.
        assert plan_search(run).estimates == estimates
        monkeypatch.setattr(time, "monotonic", lambda: 1599.0)
        assert plan_search(run) == known_plan(run) == Plan(3, estimates)


def test_a_plan_is_kept_by_the_run_and_by_its_recipe(timed, tmp_path):
    assert known_plan(timed) is None
    keep_plan(timed, Plan(7, 20))
    assert known_plan(timed) == Plan(7, 20)
    copy = tmp_path / "again.toml"
    copy.write_text((timed.folder / "recipe.toml").read_text())
    with Run.create(str(copy), folder=tmp_path / "again") as again:
        assert known_plan(again) == Plan(7, 20)
    with Run.create(str(copy), folder=tmp_path / "longer", time="1h") as longer:
        assert known_plan(longer) is None, "it was planned for another time"


def test_timing_leaves_the_supernet_as_it_was(tiny_space, digits, fresh, cpu):
    model, recipe = fresh(tiny_space), TrainingRecipe(epochs=5, batch_size=32)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    seconds = phase_seconds(
        model,
        {"train": digits.train},
        Augmentation(),
        recipe,
        make_strategy("fine-tune", tiny_space, StrategyOptions(0.1, digits.validation)),
        accelerator=cpu,
    )
    assert list(seconds) == ["head", "teacher", "sub-networks"]
    assert min(seconds.values()) > 0
    assert all(
        torch.equal(one.nan_to_num(7), before[name].nan_to_num(7))
        for name, one in model.state_dict().items()
    )


def test_few_images_get_enough_steps():
    assert batch_size(512, 50_000) == 512
    assert batch_size(512, 300) == 300 // MIN_STEPS_PER_EPOCH
    assert batch_size(512, 40) == MIN_BATCH
    assert batch_size(512, 9) == 9
    assert batch_size(4, 20) == 4
