"""Training that diverges begins again with half the rate, as often as the recipe allows."""

from __future__ import annotations

import pytest

from pliant import Run
from pliant.errors import DivergedError
from pliant.progress import silent
from pliant.runs import train as runs_train
from pliant.runs.train import train_supernet


@pytest.mark.parametrize("allowed", [0, 2])
def test_rate_is_halved(tmp_path, tiny, monkeypatch, allowed):
    rates, really_train = [], runs_train.train

    def train(model, splits, augmentation, recipe, strategy, **options):
        rates.append(recipe.learning_rate)
        if len(rates) < 3:
            raise DivergedError("training diverged: after step 7 the losses are nan.")
        really_train(model, splits, augmentation, recipe, strategy, **options)

    monkeypatch.setattr(runs_train, "train", train)
    changes = {"train__lower_rate": allowed, "train__epochs": 1, "train__learning_rate": 0.4}
    with Run.create(str(tiny), folder=tmp_path / "run", **changes) as run:
        if not allowed:
            with pytest.raises(DivergedError, match="after step 7"):
                train_supernet(run, device="cpu", progress=silent)
            return
        train_supernet(run, device="cpu", progress=silent)
        assert rates == [0.4, 0.2, 0.1]
        events = run.record.events("training diverged")
        assert [event.details["halvings"] for event in events] == [1, 2]
