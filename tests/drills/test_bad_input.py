"""Absurd settings and paths that cannot be used: refused at once, in one sentence, exit code 2."""

from __future__ import annotations

import hashlib
import math
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from pliant.cli.app import app
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
        ("train digits --data=", "--data"),
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


# Every option and argument of every command, with values that mean nothing there.

LONG = "n" * 300
INTEGERS = ("nan", "inf", "-1", "1.5", "x", "9" * 30, "1e3")
COUNTS = (*INTEGERS, "0")
NUMBERS = ("nan", "inf", "-inf", "-1", "x", "1e999", "1,5")
NAMES = ("nosuch", "../x", LONG, "nope.py:NAME", "file.py:", "file", "folder", "<b>[red]")
INPUTS = ("nope", "folder", LONG, "file", "/proc/nope", "empty", "file/below", "~nobody/x")
OUTPUTS = ("file/below", "/proc/nope", LONG)
FOLDERS = (*OUTPUTS, "file")
PAIRS = ("x", "=", "a=", "=1", "a=b", "latency_ms=nan", "N=0", "N=-1", "N=1e99")
SHAPES = ("x", "3", "3x", "3x0x8", "-1x8x8", "3x8x8x8", "3x99999999999x8", "nanx8")
TIMES = ("x", "-1min", "nanmin", "0s", "1e99h", "5")
POWERS = ("6", "W", "-1W", "nanW", "infW", "nope.csv", "folder", "rapl:9", "nvml:x", LONG)
SHARES = ("nan", "inf", "-1%", "100%", "x")
EVERYWHERE = ("", " ", "\udcff")
"""No value of any option: empty, blank, and not UTF-8."""

KINDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("seed", "epochs"): INTEGERS,
    ("designs", "mappings", "loops_per_axis", "threads", "images", "classes"): COUNTS,
    ("shared_epochs", "networks"): COUNTS,
    ("seeds", "predictor_evaluations", "halving", "top", "channels", "evaluations"): COUNTS,
    ("max_depth", "batch", "image_size"): COUNTS,
    ("confidence", "train_share", "min_accuracy", "noise_limit", "time_limit_s"): NUMBERS,
    ("learning_rate",): NUMBERS,
    ("workload", "within", "dataflow", "target", "maximise", "minimise", "precision"): NAMES,
    ("space",): NAMES,
    ("start", "strategy", "searcher", "train_on", "architecture", "method", "estimator"): NAMES,
    ("predictor_source", "scores", "workers", "runtime", "optimisation", "chip"): NAMES,
    ("objective", "layer", "mapper", "encoding", "supernet"): NAMES,
    ("recipe", "data", "model", "architectures", "truth", "network", "pictures"): INPUTS,
    ("folder", "results"): INPUTS,
    ("run_dir", "output_dir", "cache"): FOLDERS,
    ("out", "report"): (*OUTPUTS, "folder"),
    ("limit", "widen", "deepen", "kernel", "squeeze_excite", "size"): PAIRS,
    ("skip",): NAMES,
    ("shape",): SHAPES,
    ("time", "budget"): TIMES,
    ("energy",): POWERS,
    ("gap",): SHARES,
    ("skip_broken", "tflite", "column", "roofs"): (),
}

KINDS_OF = {name: values for names, values in KINDS.items() for name in names}
OF_COMMANDS: dict[str, dict[str, tuple[str, ...]]] = {
    "accelerator map": {"images": SHAPES},
    "accelerator explain": {"images": SHAPES},
    "roofline": {"images": SHAPES, "networks": INPUTS},
    "estimate": {"architectures": ("nope", "folder", "0", LONG)},
    "deploy": {"recipe": INPUTS},
    "device import": {  # its file comes first, and its results go to a folder
        "space": (),
        "noise_limit": ("nan", "-1", "x"),
        "out": FOLDERS,
    },
    "device measure": {"out": FOLDERS},
    "codesign": {"out": FOLDERS},
    "elastic": {"example": SHAPES, "weights": INPUTS, "keep": ("nosuch", "<b>[red]")},
}
"""Where an option means something else than in the other commands."""
WORDS = {
    "run": "digits --run-dir out",
    "train": "digits --run-dir out",
    "search": "--space digits --estimator zen --run-dir out",
    "deploy": "RUN --output-dir out",
    "predict": "RUN/best picture.png",
    "report": "RUN",
    "grow": "RUN/best --output-dir out --widen stage2=1.5x",
    "score": SCORE.removeprefix("score "),
    "estimate": "--space digits --data digits --out out.csv",
    "fidelity": "scores.csv --truth truth.csv",
    "roofline": "model.onnx --target raspberry-pi-4",
    "device measure": "--space digits --out out",
    "device bundle": "--space digits --out out.zip",
    "device import": "results.json --out out",
    "device show": "RUN/device.json",
    "accelerator map": "model.onnx --size N=1",
    "accelerator explain": "model.onnx --layer 1 --size N=1",
    "codesign": "--workload squeezenet --designs 2 --out out",
    "elastic": "network.py:Network --example 1x3x16x16",
}
"""What makes each command complete, so that one wrong value is all that is wrong."""
NETWORK = """
from torch import nn
def Network():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
"""
FEW, MANY = 60, 450


def _commands(group, *names: str) -> Iterator[tuple[str, Any]]:
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from _commands(one, *names, name)
        elif one.params:
            yield " ".join((*names, name)), one


def _with(words: list[str], parameter, value: str) -> list[str]:
    """The same command line with one value in place of the right one."""
    option = parameter.opts[0]
    if parameter.param_type_name == "argument":
        place = 1 if parameter.name == "pictures" else 0
        has = len(words) > place and not words[place].startswith("--")
        return [*words[:place], value, *words[place + has :]]
    if option in words and not parameter.multiple:
        place = words.index(option)
        words = words[:place] + words[place + 2 :]
    return [*words, f"{option}={value}"]


def _cases() -> list[tuple[str, Any, str]]:
    """Command, parameter and wrong value: all of them; for new options what is wrong in any."""
    found = []
    for name, one in _commands(typer.main.get_command(app)):
        for parameter in one.params:
            known = KINDS_OF.get(parameter.name, ())
            values = OF_COMMANDS.get(name, {}).get(parameter.name, known)
            if not getattr(parameter, "is_flag", False):
                values = (*values, *EVERYWHERE)
            found += [(name, parameter, value) for value in values]
    return found


def test_every_count_has_a_limit():
    for name, one in _commands(typer.main.get_command(app)):
        for parameter in one.params:
            if isinstance(parameter.min, int):
                assert parameter.max is not None, f"{name} {parameter.name}: max=MOST of cli.bounds"


@pytest.fixture
def filled(place: Path, copied: Path) -> Path:
    """The folder in which commands are right but for one value, and a run beside it."""
    (place / "empty").touch()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(place / "picture.png")
    shutil.copy(copied / "best" / "model.onnx", place)
    space = preset("digits", channels=1, image_size=8, classes=10)
    (place / "networks.csv").write_text(f"arch\n{space.smallest()}\n{space.largest()}\n")
    (place / "network.py").write_text(NETWORK)
    rows = [f"{name},zen,{number}" for number, name in enumerate("abcde")]
    (place / "scores.csv").write_text("\n".join(["architecture,method,score", *rows]))
    (place / "truth.csv").write_text(
        "\n".join(["architecture,test_acc", *rows]).replace(",zen", "")
    )
    return place


def _contents(folder: Path) -> dict[str, str]:
    """Every file and folder below, with a digest; what SQLite keeps beside a database is none."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
        if not path.name.startswith("record.sqlite")
    }


def _is_named(parameter: Any, value: str, error: str) -> bool:
    said = " ".join(error.replace("│", " ").split())
    begins = " ".join(value.split())[:20]
    names = (*parameter.opts, parameter.name, parameter.name.upper(), ascii(begins)[1:-1])
    names += (re.split("[/:]", begins)[0],)  # the file in the way of a folder, or of a plugin
    names += (re.sub("([0-9])W", r"\1 W", begins),)  # 6W is said as 6 W
    return any(name and name in said for name in names) or (not begins and "empty" in said)


def _drill(command, place: Path, run: Path, cases: list[tuple[str, Any, str]]) -> list[object]:
    """Commands with one wrong value each; those that were not refused as they should be."""
    faults: list[object] = []
    before = _contents(place) | _contents(run)
    for name, parameter, value in cases:
        words = _with(WORDS.get(name, "").replace("RUN", str(run)).split(), parameter, value)
        try:
            code, _, error = command(*name.split(), *words)
        except Exception as fault:  # a traceback, as users would see it
            code, error = repr(fault), ""
        changed = set((_contents(place) | _contents(run)).items()) ^ set(before.items())
        if code != 2 or not _is_named(parameter, value, error) or changed:
            faults.append((name, words, code, error[-300:], sorted(changed)[:3]))
            before = _contents(place) | _contents(run)
    return faults


def test_wrong_values_of_any_option(command, filled, copied):
    faults = _drill(command, filled, copied, random.Random(0).sample(_cases(), FEW))
    assert not faults, "\n".join(map(str, faults))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_wrong_values_of_any_option(command, filled, copied, seed):
    faults = _drill(command, filled, copied, random.Random(seed).sample(_cases(), MANY))
    assert not faults, "\n".join(map(str, faults))
