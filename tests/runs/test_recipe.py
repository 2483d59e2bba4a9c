"""Recipes: read, changed, compared and explained."""

from __future__ import annotations

import numpy as np
import pytest

from pliant import Run
from pliant.errors import RecipeError
from pliant.objective import Limit
from pliant.runs.recipe import TrainTable, builtin_recipes, load_recipe, parse_recipe, tomllib

SMALLEST = {"name": "one", "space": "digits", "data": {"source": "digits"}, "train": {"epochs": 1}}


def _with(**tables: object) -> dict:
    return {**SMALLEST, **tables}


def test_defaults_fill_what_a_recipe_leaves_out():
    recipe = parse_recipe(SMALLEST, "test")
    assert (recipe.seed, recipe.limits, recipe.target.threads, recipe.search.estimates) == (
        0,
        (),
        1,
        200,
    )


@pytest.mark.parametrize("name", sorted(builtin_recipes()))
def test_shipped_recipe_survives_its_own_text(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert parse_recipe(tomllib.loads(recipe.to_toml()), "again") == recipe


def test_limits_are_texts_or_objects():
    exact = Limit("latency_ms", 0.1 + 0.2)
    for limits in ([exact, "macs=1M"], (exact, Limit.parse("macs=1M"))):
        recipe = load_recipe("digits", {"limits": limits})
        assert recipe.limits == ("latency_ms=0.30000000000000004", "macs=1M")
        assert [limit.bound for limit in recipe.parsed_limits] == [exact.bound, 1e6]
        assert parse_recipe(tomllib.loads(recipe.to_toml()), "again") == recipe
    assert load_recipe("digits", {"limits": exact}).limits == ("latency_ms=0.30000000000000004",)
    with pytest.raises(RecipeError, match=r"limits.*received 3"):
        load_recipe("digits", {"limits": [3]})
    with pytest.raises(RecipeError, match="limits"):
        load_recipe("digits", {"limits": {"macs": 3}})


def test_name_of_a_recipe_is_that_of_its_file_unless_it_says_so(tmp_path, tiny):
    (tmp_path / "mine.toml").write_text(tiny.read_text().replace('name = "tiny"', ""))
    assert load_recipe(str(tmp_path / "mine.toml")).name == "mine"
    assert load_recipe(str(tiny)).name == "tiny"


def test_changes_replace_single_keys_and_make_tables():
    recipe = load_recipe(
        "digits",
        {
            "train.epochs": 2,
            "target.threads": 2,
            "limits": ["macs=1M"],
            "seed": 7,
            "data.source": None,
        },
    )
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.target.threads, recipe.seed) == (
        2,
        128,
        2,
        7,
    )
    assert recipe.parsed_limits == (Limit("macs", 1e6, "macs=1M"),)
    assert recipe.data.source == "digits"


def test_paths_of_the_command_line_hold_in_every_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "digits").mkdir()
    assert load_recipe("digits", {"data.source": "photos/"}).data.source == str(tmp_path / "photos")
    assert load_recipe("digits", {"data.source": "digits"}).data.source == "digits", (
        "a name that is known stays a name"
    )
    assert (
        load_recipe("digits", {"data.source": "hf:someone/photos"}).data.source
        == "hf:someone/photos"
    )
    for start in ("away.safetensors", "away.py:Start"):
        recipe = load_recipe("digits", {"train.start": start})
        assert recipe.train.start == str(tmp_path / start), "a run's start may be gone since"
    assert load_recipe("digits", {"train.start": "none"}).train.start == "none"
    assert load_recipe("digits", {"target.name": "away.json"}).target.name == "away.json", (
        "what is not there is complained of later"
    )


def test_a_relative_source_in_a_recipe_holds_in_every_directory(
    command, tmp_path, monkeypatch, digits_profile
):
    """Beside the recipe, where a run begins elsewhere and is delivered from a third folder."""
    beside, begins, elsewhere = (tmp_path / name for name in ("beside", "begins", "elsewhere"))
    for folder in (beside, begins, elsewhere):
        folder.mkdir()
    x, y = np.random.default_rng(0).integers(0, 256, (200, 8, 8), np.uint8), np.arange(200) % 10
    np.savez(beside / "pictures.npz", x=x, y=y)
    (beside / "own.toml").write_text(
        'name = "own"\nspace = "digits"\n[data]\nsource = "pictures.npz"\n'
        '[train]\nepochs = 1\nbatch_size = 32\nprecision = "fp32"\n'
        f'[target]\nname = "{digits_profile}"\n'
    )
    monkeypatch.chdir(begins)
    code, _, error = command("train", "../beside/own.toml")
    assert (code, error) == (0, "")
    with Run.reopen("runs/own") as run:
        assert run.recipe.data.source == str(beside / "pictures.npz")
        smallest = run.space.smallest()
    monkeypatch.chdir(elsewhere)
    folder = begins / "runs" / "own"
    code, _, error = command("deploy", folder, "--architecture", smallest, "--output-dir", "out")
    assert (code, error) == (0, "")
    assert (elsewhere / "out" / "model.onnx").is_file()


@pytest.mark.parametrize(
    "changes",
    [{"limits": ["parameters=1k"]}, {"search.estimates": 50}, {"target.threads": 2}, {"name": "x"}],
)
def test_digest_ignores_what_does_not_decide_the_weights(changes):
    assert load_recipe("digits", changes).digest == load_recipe("digits").digest


def test_digest_does_not_see_keys_at_their_defaults():
    """A key that a later version adds leaves the digest of older runs as it is."""
    default = TrainTable.model_fields["label_smoothing"].default
    assert (
        parse_recipe(SMALLEST, "test").digest
        == parse_recipe(_with(train={"epochs": 1, "label_smoothing": default}), "test").digest
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"space": "plain-32"},
        {"data.flip": True},
        {"train.epochs": 2},
        {"train.strategy": "progressive-shrinking"},
    ],
)
def test_digest_tells_apart_what_decides_the_weights(changes):
    assert load_recipe("digits", changes).digest != load_recipe("digits").digest


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (
            _with(train={"epochs": 1, "epoks": 2}),
            ["unknown key 'train.epoks'", "Did you mean 'epochs'?"],
        ),
        (_with(serch={}), ["unknown key 'serch'", "Did you mean 'search'?"]),
        (
            _with(train={"epochs": -1}),
            ["'train.epochs'", "greater than or equal to 0", "received -1"],
        ),
        (_with(train={"epochs": "two"}), ["'train.epochs'", "valid integer", "received 'two'"]),
        (_with(train=3), ["'train'", "received 3"]),
        ({"name": "one", "space": "digits", "data": {"source": "digits"}}, ["'train'", "missing"]),
        (_with(space="digit"), ["no space is called 'digit'", "Did you mean 'digits'?"]),
        (_with(limits=["latency=2"]), ["latency is given in one of", "no unit"]),
        (_with(limits=["latency=2parsec"]), ["unit 'parsec'"]),
        (_with(limits=["latencey_ms=2"]), ["'latencey_ms'", "Did you mean 'latency_ms'?"]),
        (
            _with(limits=["macs=1M", "macs=2M"]),
            ["every metric takes one limit", "macs=1M, macs=2M"],
        ),
        (_with(name="a/b"), ["'name'", "received 'a/b'"]),
        (
            _with(train={"epochs": 1, "nan": 2, "learning_rate": -1.0}),
            ["'train.learning_rate'", "'train.nan'"],
        ),
    ],
)
def test_fault_says_key_rule_and_what_was_received(tree, words):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(tree, "test")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_change_of_a_key_whose_table_is_a_value_is_explained(tmp_path):
    (tmp_path / "odd.toml").write_text('space = "digits"\ntrain = 3\n[data]\nsource = "digits"\n')
    with pytest.raises(RecipeError, match=r"key 'train': .*received 3"):
        load_recipe(str(tmp_path / "odd.toml"), {"train.epochs": 2})


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"train = [", "is a TOML file"), (b"\xff\xfe", "cannot be read"), (None, "cannot be read")],
)
def test_file_that_is_no_recipe(tmp_path, content, words):
    path = tmp_path / "bad.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=words):
        load_recipe(str(path))


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match=r"received 'digit'\. Did you mean 'digits'\?"):
        load_recipe("digit")


def test_a_short_name_of_a_space_is_the_same_recipe():
    short, whole = (parse_recipe(_with(space=space), "here") for space in ("mobile", "mobile-32"))
    assert short.space == "mobile-32"
    assert short.digest == whole.digest


def test_the_objective_takes_the_words_of_limits(tiny):
    changes = {"limits": ["accuracy=90%"], "objective.minimise": "latency"}
    table = load_recipe(
        str(tiny), changes | {"objective.costs": ["latency", "model_size"]}
    ).objective
    assert table.minimise == "latency_ms"
    assert table.costs == ("latency_ms", "model_size_bytes")
