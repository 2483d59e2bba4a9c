"""Absurd settings and paths that cannot be used: refused at once, in one sentence, exit code 2."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pliant.errors import EncodingError, RecipeError
from pliant.runs.recipe import Recipe, load_recipe
from pliant.spaces.presets import preset
from pliant.targets import require_known

ABSURD = (math.nan, math.inf, -math.inf, -1, 2**70, 1e300, True, "", [], {"a": 1})
TABLES = ("data", "train", "target", "search")


def _keys() -> list[str]:
    """Dotted keys of all numbers of a recipe."""
    found = ["seed"]
    for table in TABLES:
        fields = Recipe.model_fields[table].annotation.model_fields
        for name, field in fields.items():
            if field.annotation in (int, float, int | None):
                found.append(f"{table}.{name}")
    return found


@pytest.mark.parametrize("key", _keys())
def test_numbers_of_a_recipe(tiny, key):
    for value in ABSURD:
        with pytest.raises(RecipeError, match=key):
            load_recipe(str(tiny), {key: value})


@pytest.mark.parametrize("value", [0, -8, 8.5, math.nan, "8", True])
@pytest.mark.parametrize("name", ["channels", "image_size", "classes"])
def test_numbers_of_a_space(name, value):
    sizes = {"channels": 1, "image_size": 8, "classes": 10} | {name: value}
    with pytest.raises(EncodingError, match=name):
        preset("digits", **sizes)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder").mkdir()
    (tmp_path / "networks.csv").write_text("arch\nr8\n")
    (tmp_path / "bytes\udcff.csv").write_bytes(b"arch\n\xff\n")
    return tmp_path


TOO_LONG = "n" * 300
SCORE = "score --space digits --architectures networks.csv --method parameters --workers 1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("report nope", "nope"),
        ("report file", "file"),
        ("report folder", "folder"),
        ("deploy folder", "folder"),
        ("deploy nope", "nope"),
        ("predict nope picture.png", "nope"),
        ("predict folder picture.png", "folder"),
        ("fidelity nosuch.parquet --truth networks.csv", "nosuch.parquet"),
        ("fidelity file --truth networks.csv", "file"),
        ("train digits --run-dir file", "file"),
        ("train digits --run-dir file/below", "file"),
        ("train digits --run-dir /proc/nope", "/proc/nope"),
        (f"train digits --run-dir {TOO_LONG}", "too long"),
        (f"train {TOO_LONG}", "too long"),
        (f"train digits --data {TOO_LONG}", "too long"),
        ("train digits --data=", "source"),
        ("train digits --data hf:", "hf:"),
        ("train digits --data file", "file"),
        ("train file", "file"),
        ("train folder", "folder"),
        ("train digits --train-on tpu", "cpu, cuda, mps"),
        ("accelerator map file --chip eyeriss --size N=0", "1 or more"),
        ("train digits --seed 99999999999999999999", "--seed"),
        ("deploy digits --architecture=", "architecture"),
        (f"{SCORE} --out folder", "folder"),
        (f"{SCORE} --out file/scores.csv", "file"),
        (f"{SCORE} --out {TOO_LONG}.csv", "too long"),
        (SCORE.replace("networks.csv", "nope.csv"), "nope.csv"),
        (SCORE.replace("networks.csv", "folder"), "folder"),
        (SCORE.replace("networks.csv", "bytes\udcff.csv"), "csv"),
        ("accelerator map nope.onnx --chip eyeriss", "nope.onnx"),
        ("accelerator map file --chip eyeriss", "file"),
        ("accelerator map file --chip folder", "folder"),
        ("accelerator map file --chip eyeriss --time-limit-s nan", "time-limit-s"),
    ],
)
def test_paths_and_options(command, place, words, said):
    code, _, error = command(*words.split())
    assert code == 2, (code, error)
    assert "Traceback" not in error
    assert said in " ".join(error.replace("│", " ").split()), error
    assert sorted(path.name for path in place.iterdir())[1:] == ["file", "folder", "networks.csv"]


def test_a_file_alone_is_no_target():
    with pytest.raises(RecipeError, match=r"file\.py:NAME"):
        require_known("board.py")
