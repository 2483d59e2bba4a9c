"""Fine-tuning: who learns in which phase and how fast, what is drawn, and when a phase ends."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from pliant.data import Augmentation
from pliant.training import early_stopping, finetune
from pliant.training.checkpoint import Checkpoints
from pliant.training.early_stopping import CHECKS, PATIENCE, EarlyStopping
from pliant.training.finetune import CLASSIFIER_RATE, DEPTH_DECAY, FineTune
from pliant.training.loop import train
from pliant.training.schedule import Phase, Timetable, TrainingRecipe
from pliant.training.shrinking import full_width, smaller

RECIPE = TrainingRecipe(epochs=20, batch_size=40, learning_rate=0.02, seed=2, weight_decay=0.01)


class StoppedError(Exception):
    pass


def trained(model, strategy, digits, cpu, *, folder=None, stop=None, recipe=RECIPE, **options):
    logs, seen = [], {}

    def on_step(log):
        logs.append(log)
        seen[log.phase] = {name: one.clone() for name, one in model.state_dict().items()}
        if log.step == stop:
            raise StoppedError

    train(
        model,
        digits.train.subset(np.arange(120)),
        Augmentation(),
        recipe,
        strategy,
        accelerator=cpu,
        checkpoints=Checkpoints(folder, seconds=0) if folder else None,
        on_step=on_step,
        report_every=1,
        **options,
    )
    return logs, seen


def test_the_classifier_learns_first_then_all_and_the_teacher_is_the_average(
    tiny_space, digits, fresh, cpu
):
    model, strategy = fresh(tiny_space), FineTune(tiny_space)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    _, seen = trained(model, strategy, digits, cpu)
    moved = {name for name in before if not torch.equal(before[name], seen["head"][name])}
    assert moved == {"blocks.head.classifier.weight", "blocks.head.classifier.bias"}
    images = torch.rand((8, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    assert strategy._teacher is not None
    teacher = strategy._teacher(images, tiny_space.largest())
    model.load_state_dict(seen["teacher"])
    torch.testing.assert_close(teacher, model(images, tiny_space.largest()), msg="only sorted")


def test_rates_fall_with_the_distance_from_the_classifier(tiny_space, fresh):
    model = fresh(tiny_space)
    groups = FineTune(tiny_space).parameter_groups(model, RECIPE)
    found = {id(one): group for group in groups for one in group["params"]}
    blocks = list(model.blocks)
    for name, parameter in model.named_parameters():
        group = found.pop(id(parameter))
        distance = len(blocks) - 1 - blocks.index(name.split(".")[1])
        expected = CLASSIFIER_RATE if "classifier" in name else DEPTH_DECAY**distance
        assert group["rate"] == pytest.approx(expected), name
        decays = name.endswith("weight") and parameter.ndim > 1
        assert group["weight_decay"] == (0.01 if decays else 0), name
    assert not found


def test_short_phases_have_lower_rates():
    def peak(epochs):
        phases = (Phase("one", 3), Phase("two", epochs, 0.5, full_rate_steps=80))
        timetable = Timetable(phases, 10)
        last = timetable.phase_boundaries[-1]
        return max(timetable.learning_rate(step, RECIPE) for step in range(30, last))

    full = 0.02 * 40 / 256 * 0.5
    for epochs, share in ((16, 1.0), (8, 1.0), (4, 0.5), (1, 0.125)):
        assert peak(epochs) == pytest.approx(share * full, rel=0.05), "the warm-up has few steps"


def test_networks_are_drawn_from_the_full_one_down(digits_space):
    rng = np.random.default_rng(0)
    largest = dict(digits_space.largest().options)
    for _ in range(50):
        full = dict(full_width(digits_space, rng, least_resolution=0.9).options)
        assert full == largest
        full = dict(smaller(digits_space, rng, least_level=1.0).options)
        assert full | {"r": largest["r"]} == largest
    drawn = [smaller(digits_space, rng, least_level=0.0) for _ in range(600)]
    macs = np.array([digits_space.cost(one).macs for one in drawn], float)
    even = [digits_space.sample_choices(rng) for _ in range(600)]
    assert macs.std() > np.std([digits_space.cost(one).macs for one in even]), "more spread out"
    resolutions = Counter(dict(one.options)["r"] for one in drawn)
    assert min(resolutions.values()) > 250
    smallest = dict(digits_space.smallest().options)
    ends = [dict(one.options) | {"r": smallest["r"]} == smallest for one in drawn]
    assert 0.05 < np.mean(ends) < 0.2


def test_patience_by_hand(digits, tiny_space, fresh):
    stopping, model = EarlyStopping(digits.validation), fresh(tiny_space)
    due = [step for step in range(40) if stopping.is_due(step, 40)]
    assert due == [3, 7, 11, 15, 19, 23, 27, 31, 35], "the last step ends the phase anyway"
    assert not any(EarlyStopping(None).is_due(step, 40) for step in range(40))
    assert sum(stopping.is_due(step, 3) for step in range(3)) == 2
    for _ in range(1 + PATIENCE):
        assert not stopping.stopped
        stopping.check(model, [tiny_space.largest()])
    assert stopping.stopped, "the same weights do not improve"
    other = EarlyStopping(digits.validation)
    other.load_state(stopping.state())
    assert other.stopped
    other.begin()
    assert not other.stopped


@pytest.mark.parametrize("rate", [0.02, 50.0])
def test_a_teacher_that_is_worse_than_the_start_is_not_taken(
    tiny_space, digits, fresh, cpu, rate, tmp_path, monkeypatch
):
    monkeypatch.setattr(finetune, "FULL_RATE_STEPS", 0)
    good, strategy = fresh(tiny_space), FineTune(tiny_space)
    trained(good, strategy, digits, cpu)
    recipe = replace(RECIPE, learning_rate=rate, clip_norm=0.0)

    def teacher(folder=None, stop=None):
        model, strategy = copy.deepcopy(good), FineTune(tiny_space, validation=digits.validation)
        options = {"folder": folder, "stop": stop, "recipe": recipe}
        trained(model, strategy, digits, cpu, **options)
        assert strategy._start is None
        stopping = EarlyStopping(digits.validation)
        return [stopping.evaluate(one, [tiny_space.largest()]) for one in (strategy._teacher, good)]

    found, start = teacher()
    assert found[0] <= start[0] + 1e-6, "by the loss"
    assert (found == pytest.approx(start, abs=1e-5)) == (rate == 50.0), "sorting rounds"
    with pytest.raises(StoppedError):
        teacher(tmp_path, 10)
    assert teacher(tmp_path)[0] == found, "also of a run that was interrupted"


def test_a_phase_that_is_stopped_early_resumes_with_the_same_bits(
    tiny_space, digits, fresh, cpu, tmp_path, monkeypatch
):
    monkeypatch.setattr(early_stopping, "PATIENCE", 1)
    monkeypatch.setattr(finetune, "FULL_RATE_STEPS", 0)
    recipe = TrainingRecipe(epochs=40, batch_size=40, learning_rate=0.5, seed=2)

    def run(folder=None, stop=None):
        model, strategy = fresh(tiny_space), FineTune(tiny_space, validation=digits.validation)
        logs, _ = trained(model, strategy, digits, cpu, folder=folder, stop=stop, recipe=recipe)
        return model, logs

    expected, logs = run()
    assert len(logs) < logs[-1].steps == 120, "steps were left out"
    stops = [before.step for before, log in itertools.pairwise(logs) if log.step > before.step + 1]
    for stop in [*stops, logs[-2].step]:
        with pytest.raises(StoppedError):
            run(tmp_path, stop)
    found, _ = run(tmp_path)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor.nan_to_num(7), found.state_dict()[name].nan_to_num(7)), name


def test_parts_of_phases_may_be_planned_again_when_they_begin(
    tiny_space, digits, fresh, cpu, tmp_path
):
    recipe, asked = TrainingRecipe(epochs=20, batch_size=40, learning_rate=0.02, seed=2), []

    def replan(timetable, point):
        asked.append(point[:2])
        # 3 + 9 + 15 steps; the second phase is shortened from 15 to 9 when it is half done.
        lengths = {(1, 0): (1, 5, 20), (1, 2): (1, 3, 20), (2, 0): (1, 3, 5)}
        if point[:2] not in lengths:
            return timetable
        phases = zip(timetable.phases, lengths[point[:2]], strict=True)
        return replace(timetable, phases=tuple(replace(one, epochs=n) for one, n in phases))

    def run(folder=None, stop=None):
        model = fresh(tiny_space)
        options = {"folder": folder, "stop": stop, "recipe": recipe, "replan": replan}
        logs, _ = trained(model, FineTune(tiny_space), digits, cpu, **options)
        return model, logs

    expected, logs = run()
    parts = [(phase, part) for phase in range(3) for part in range(4)]
    assert sorted(asked) == parts[1:]
    assert [(log.step, log.steps) for log in logs if log.step in (3, 4, 11, 12, 13)] == [
        (3, 60),
        (4, 78),
        (11, 78),
        (12, 72),
        (13, 27),
    ]
    assert len(logs) == 27
    for stop in (3, 10, 11, 12, 14):
        with pytest.raises(StoppedError):
            run(tmp_path, stop)
    found, _ = run(tmp_path)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor.nan_to_num(7), found.state_dict()[name].nan_to_num(7)), name


def test_there_are_as_many_checks_as_stated():
    stopping = EarlyStopping(None)
    stopping.validation = object()  # type: ignore[assignment]
    assert sum(stopping.is_due(step, 1000) for step in range(1000)) == CHECKS - 1
