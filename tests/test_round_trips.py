"""What is written reads back: tables of scores, profiles, timings; estimates by hand."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pliant.devices.profile import DeviceProfile, load_profile
from pliant.devices.timings import (
    Measurement,
    Settings,
    Timings,
    detrend,
    has_converged,
    reference_time,
    require_repeatable,
    summarise,
    timings_of,
)
from pliant.errors import DamagedFileError, DataError, MeasurementError, RecipeError
from pliant.metrics import Failed, Score
from pliant.runs.classification import confusions
from pliant.runs.recipe import Recipe, load_recipe, parse_recipe
from pliant.scoring.process_pool import ScoreRow
from pliant.scoring.score_tables import read_rows, require_table_name, write_rows
from pliant.training.schedule import Phase, Timetable, TrainingRecipe

FILES = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NUMBERS = st.one_of(st.none(), st.floats(allow_nan=False))
WORDS = st.text("abc ,;\"'\n|~+_<>\N{SNOWMAN}", min_size=1, max_size=8)


@FILES
@given(
    st.lists(
        st.builds(
            ScoreRow, WORDS, WORDS, NUMBERS, NUMBERS, NUMBERS, NUMBERS,
            st.one_of(st.just(""), WORDS), st.one_of(st.none(), WORDS),
        ),
        min_size=1, max_size=4,
    ),
    st.sampled_from([".csv", ".parquet"]),
)  # fmt: skip
def test_a_table_of_scores_reads_back(tmp_path: Path, rows: list[ScoreRow], ending: str) -> None:
    path = tmp_path / f"scores{ending}"
    write_rows(rows, path)
    found = read_rows(path)
    assert found == rows
    for row in found:
        assert isinstance(row.quality, Failed if row.score is None else Score)


def test_tables_that_are_none(tmp_path: Path) -> None:
    for name in ("scores.txt", "scores", "scores.CSV"):
        with pytest.raises(RecipeError, match=r"written as \.parquet or \.csv"):
            require_table_name(tmp_path / name)
    (tmp_path / "a.csv").write_text("architecture,method\nx,y\n")
    with pytest.raises(DataError, match=r"has a column 'score'"):
        read_rows(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("architecture,method,score\nx,y,high\n")
    with pytest.raises(DataError, match=r"column score holds numbers or nothing"):
        read_rows(tmp_path / "a.csv")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"cannot be read as parquet"):
        read_rows(tmp_path / "a.parquet")


# Profiles.


def profile(**changes: Any) -> DeviceProfile:
    timed = {
        "cpu_us": (1.0,) * 5,
        "wall_us": (1.0,) * 5,
        "runs": 4,
        "preempted_share": 0.0,
        "split_half_error": 0.0,
    }
    content: dict[str, Any] = {
        "machine": "m", "cores": 2, "runtime": "onnxruntime", "runtime_version": "1", "threads": 1,
        "batch": 1, "optimisation": "all", "pinned": True, "convolution_peak_gflops": 9.5,
        "anchor_us": 100.0, "call_us": 1.5, "split_half_error": 0.0, "preempted_share": 0.25,
        "space": {"name": "s", "channels": 1, "image_size": 8, "classes": 2, "identity": "i"},
        "blocks": (
            {
                "type": "ConvBlock",
                "sizes": {"size": 8, "inputs": 1, "outputs": 4},
                "latency_us": 3.0,
                **timed,
            },
        ),
        "networks": tuple(
            {"architecture": f"r{n}", "latency_ms": 0.1, "spread_ms": 0.0, **timed}
            for n in range(3)
        ),
    }  # fmt: skip
    return DeviceProfile(**content | changes)


POSITIVE = st.floats(1e-9, 1e12)


@FILES
@given(POSITIVE, POSITIVE, st.floats(0, 1), st.text(min_size=1, max_size=9), st.integers(1, 99))
def test_a_profile_reads_back(
    tmp_path: Path, anchor: float, call: float, share: float, machine: str, threads: int
) -> None:
    made = profile(
        anchor_us=anchor, call_us=call, preempted_share=share, machine=machine, threads=threads
    )
    made.save(tmp_path / "device.json")
    again = load_profile(tmp_path / "device.json")
    assert again == made
    assert again.settings == Settings(threads=threads)
    assert again.blocks[0].block.sizes == made.blocks[0].block.sizes


def test_an_edited_profile_is_refused_wherever_it_was_edited(tmp_path: Path) -> None:
    path = tmp_path / "device.json"
    profile().save(path)
    written = json.loads(path.read_text())
    for key, value in written.items():
        if key in ("version", "sha256"):
            continue
        if isinstance(value, bool):
            changed: Any = not value
        elif isinstance(value, (int, float)):
            changed = value + (0.5 if isinstance(value, float) else 1)
        elif key == "optimisation":
            changed = "basic"
        elif key == "precision":
            changed = "int8"
        elif isinstance(value, str):
            changed = value + "x"
        elif isinstance(value, dict):
            changed = value | {"name": "other"}
        else:
            changed = [value[0] | {"latency_us" if key == "blocks" else "latency_ms": 7.0},
                       *value[1:]]  # fmt: skip
        path.write_text(json.dumps(written | {key: changed}))
        with pytest.raises(DamagedFileError, match=r"its checksum differs"):
            load_profile(path)


# Timings.

CPU = st.lists(st.lists(st.floats(1, 1e4), min_size=3, max_size=3), min_size=1, max_size=9)


def timings(cpu: list[list[float]], wall: float = 2.0) -> Timings:
    return timings_of([[(time, wall * time, False) for time in row] for row in cpu])


@given(CPU)
def test_the_estimate_is_the_median_of_the_least_times(cpu: list[list[float]]) -> None:
    one_thread = Settings()
    found = summarise(timings(cpu), one_thread)
    least = sorted(min(row) * (1 if one_thread.by_cpu else 2) / 1e3 for row in cpu)
    middle = len(least) // 2
    expected = least[middle] if len(least) % 2 else (least[middle - 1] + least[middle]) / 2
    assert found.latency_ms == pytest.approx(expected)
    assert 0 <= found.spread_ms <= (least[-1] - least[0]) / 2 + 1e-12
    assert found.runs == 3 * len(cpu)
    assert summarise(timings(cpu), Settings(threads=2)).source == "wall"


@given(CPU, st.floats(0.1, 10))
def test_estimates_scale_with_the_clock(cpu: list[list[float]], factor: float) -> None:
    one = summarise(timings(cpu), Settings())
    other = summarise(timings([[factor * time for time in row] for row in cpu]), Settings())
    assert other.latency_ms == pytest.approx(factor * one.latency_ms)
    assert other.spread_ms == pytest.approx(factor * one.spread_ms, abs=1e-9)
    assert other.split_half_error == pytest.approx(one.split_half_error, abs=1e-9)


@given(st.lists(st.floats(0.5, 2), min_size=2, max_size=9), st.floats(10, 1000))
def test_drift_that_the_anchor_shares_is_removed(drift: list[float], time: float) -> None:
    model = timings([[factor * time] * 3 for factor in drift])
    anchor = timings([[factor * 50.0] * 3 for factor in drift])
    found = summarise(detrend(model, anchor, reference_time([anchor])), Settings())
    assert found.spread_ms == pytest.approx(0, abs=1e-9)
    scale = 1 if Settings().by_cpu else 2
    assert found.latency_ms == pytest.approx(scale * time * float(np.median(drift)) / 1e3)


@given(st.integers(2, 40), st.floats(0.0, 0.2))
def test_convergence_needs_rounds_in_proportion_to_the_square_of_the_noise(
    rounds: int, noise: float
) -> None:
    cpu = [[100 * (1 + noise * (-1) ** number)] * 3 for number in range(2 * rounds)]
    enough = 1.96 * 1.2533 * 1.4826 * noise <= 0.01 * math.sqrt(2 * rounds)
    assert has_converged(timings(cpu), Settings()) == enough


def test_one_noisy_model_in_ten_is_borne_and_two_are_not() -> None:
    calm = summarise(timings([[100.0] * 3] * 4), Settings())
    noisy = replace(calm, split_half_error=0.5)
    for number, borne in ((0, True), (1, True), (2, False), (10, False)):
        found: dict[str, Measurement] = {str(n): noisy if n < number else calm for n in range(10)}
        if borne:
            require_repeatable(found, Settings())
        else:
            with pytest.raises(MeasurementError, match=r"agree to 5%; these differ by 50\.0%"):
                require_repeatable(found, Settings())
    require_repeatable({}, Settings())


# Recipes, schedules, confusions.


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(1, 500), st.floats(1e-4, 1), st.booleans(),
    st.lists(st.sampled_from(["macs=1.5M", "latency_ms=0.1", "accuracy=90%"]), unique=True),
)  # fmt: skip
def test_a_recipe_reads_back(
    seed: int, epochs: int, rate: float, flip: bool, limits: list[str]
) -> None:
    changes = {
        "seed": seed, "train.epochs": epochs, "train.learning_rate": rate, "data.flip": flip,
        "limits": limits,
    }  # fmt: skip
    recipe = load_recipe("digits", changes)
    again = parse_recipe(tomllib_loads(recipe.to_toml()), "again")
    assert again == recipe
    assert again.digest == recipe.digest
    assert again.to_toml() == recipe.to_toml()
    assert (again.seed, again.train.epochs, again.limits) == (seed, epochs, tuple(limits))


def tomllib_loads(text: str) -> dict[str, Any]:
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"time": "soon"}, "reads 90s, 30min or 1.5h, received 'soon'"),
        ({"objective.minimise": "macs"}, "unless the accuracy has a floor"),
        ({"objective.minimise": "speed", "limits": ["accuracy=90%"]}, "received 'speed'"),
    ],
)
def test_recipes_that_contradict_themselves(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("digits", changes)
    assert words in str(caught.value)
    assert isinstance(load_recipe("digits"), Recipe)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.floats(0.2, 9), st.floats(0.1, 2)), min_size=1, max_size=5),
    st.integers(5, 40),
)
def test_phases_follow_each_other_and_every_rate_lies_below_its_peak(
    phases: list[tuple[float, float]], steps: int
) -> None:
    timetable = Timetable(tuple(Phase(str(n), *one) for n, one in enumerate(phases)), steps)
    boundaries = timetable.phase_boundaries
    assert boundaries[0] == 0
    assert boundaries[-1] == round(sum(epochs for epochs, _ in phases) * steps)
    recipe = TrainingRecipe(epochs=1, batch_size=256, learning_rate=0.5)
    for index, (start, end) in enumerate(itertools.pairwise(boundaries)):
        # Both ends are the nearest step.
        assert abs(end - start - phases[index][0] * steps) <= 1 + 1e-9
        if start == end:
            continue
        assert [timetable.phase_index(step) for step in (start, end - 1)] == [index, index]
        rates = [timetable.learning_rate(step, recipe) for step in range(start, end)]
        peak = 0.5 * phases[index][1]
        assert 0 < min(rates) <= max(rates) <= peak * (1 + 1e-12)
        top = rates.index(max(rates))
        assert rates[: top + 1] == sorted(rates[: top + 1])
        assert rates[top:] == sorted(rates[top:], reverse=True)


@given(st.integers(1, 5).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 9), min_size=n, max_size=n), min_size=n, max_size=n)
))  # fmt: skip
def test_confusions_are_all_off_the_diagonal(rows: list[list[int]]) -> None:
    counts = np.array(rows)
    found = confusions(counts)
    again = np.zeros_like(counts)
    for pair in found:
        again[pair.label, pair.answer] = pair.images
    assert np.array_equal(again, counts * (1 - np.eye(len(rows), dtype=int)))
    assert [pair.images for pair in found] == sorted((p.images for p in found), reverse=True)
    assert all(pair.images for pair in found)
