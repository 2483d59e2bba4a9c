"""The card reports what is known, and what is not."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy
import onnxruntime
import PIL.Image
import pytest

from pliant.deploy.card import Card, write_card
from pliant.deploy.classifier import Classifier
from pliant.deploy.verify import Agreement
from pliant.metrics import Accuracy, Cost, DeliveredFile, Measured
from pliant.objective import Limit

TARGET = "a board, onnxruntime 1.20, 1 thread(s), batch 1"
CARD = Card(
    name="birds",
    architecture="r8_1d1",
    space="digits",
    image=(3, 8, 8),
    classes=("hawk", "{dove}"),
    data="photos/",
    limits=(Limit.parse("latency_ms=2"), Limit.parse("parameters=300k")),
    validated=Accuracy(0.9123, 500),
    test=Accuracy(0.9, 1000),
    test_openings=1,
    predicted=Cost(latency_ms=1.23456, parameters=12345, macs=678901, peak_memory_bytes=2048),
    files=(
        DeliveredFile(
            name="model.onnx",
            precision="fp32",
            size_bytes=123_456,
            validated=Accuracy(0.9123, 500),
            test=Accuracy(0.9, 1000),
            measured=Measured(Cost(latency_ms=1.5), Cost()),
            how="exported",
        ),
        DeliveredFile(
            name="model.int8.onnx",
            precision="int8",
            size_bytes=34_567,
            validated=Accuracy(0.9, 500),
            test=Accuracy(0.899, 1000),
            measured=None,
            how="ranges by percentile",
        ),
    ),
    used_file="model.onnx",
    measured=Measured(Cost(latency_ms=1.5), Cost()),
    target=TARGET,
    agreement=Agreement(supernet=0.0, model_py=1.5e-7, onnx=2e-6),
)


def _text(tmp_path, **changes):
    write_card(tmp_path / "card.md", dataclasses.replace(CARD, **changes))
    return (tmp_path / "card.md").read_text("utf-8")


@pytest.mark.parametrize(
    "line",
    [
        "# birds",
        "| test accuracy | 90.00% | 1000 images that training and search never saw; opened once "
        "in this run |",
        "| validation accuracy | 91.23% | 500 images of the split that the search chose by |",
        f"| latency, measured | 1.5 ms | in a subprocess, on {TARGET} |",
        "| latency, predicted | 1.235 ms | by the target's model, before any measurement |",
        "| limits | latency_ms=2, parameters=300k | |",
        "| model.onnx | fp32 | 90.00% | 91.23% | 1.5 ms | 123 kB | exported |",
        "| model.int8.onnx | int8 | 89.90% | 90.00% | - | 35 kB | ranges by percentile |",
        "| parameters | 12,345 | computed from the layers |",
        "| macs | 678,901 | computed from the layers |",
        "| peak memory | 2,048 B | computed from the layers |",
        "| outputs of model.onnx against PyTorch | 2.0e-06 | ONNX Runtime |",
        "Classes, in the order of the probabilities: hawk, {dove}.",
        'pictures = preprocess(Image.open("photo.jpg"), 8, "RGB")[None]',
    ],
)
def test_lines_of_a_card(tmp_path, line):
    assert line in _text(tmp_path).splitlines()


def test_options_of_training_pictures_are_those_of_new_ones(tmp_path):
    text = _text(tmp_path, preprocessing={"fit": "pad", "integers": (0, 4095.0)})
    assert (
        'preprocess(Image.open("photo.jpg"), 8, "RGB", fit=\'pad\', integers=(0, 4095.0))' in text
    )


def test_what_is_not_known_is_told(tmp_path):
    predicted = Cost(latency_ms=1.23456, energy_uj=41.5, area_mm2=3.0)
    changes = {"measured": None, "limits": (), "test_openings": 3, "target": "a chip"}
    text = _text(tmp_path, predicted=predicted, **changes)
    said = "predicted by a chip; this target is not measured"
    assert f"| latency, predicted | 1.235 ms | {said} |" in text
    assert f"| energy, predicted | 41.5 uJ | {said} |" in text
    assert f"| area, predicted | 3 mm2 | {said} |" in text
    assert "measured |" not in text.replace(f"{said} |", "")
    assert "| limits | none | |" in text
    assert "opened 3 times in this run" in text


def test_names_are_never_markup(tmp_path):
    """What a user's folders, device or data are called stays text, on its line."""
    classes = ("<script>alert(1)</script>", "a\nb", "[x](http://e.x)", "a|b", "`c`", "*é*")
    text = _text(tmp_path, classes=classes, target="board\n# <b>", data="**")
    assert (
        "probabilities: &lt;script>alert(1)&lt;/script>, a\\\\nb, \\[x\\](http:\\//e.x), a\\|b,"
        " \\`c\\`, \\*é\\*." in text
    )
    assert "in a subprocess, on board\\\\n\\# &lt;b> |" in text
    assert "\ntrained on \\*\\* as part" in text


def _card_code(folder):
    [_, after] = (folder / "card.md").read_text("utf-8").split("```python\n")
    return after.partition("```")[0]


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory):
    """Runs code where there is nothing but Python, onnxruntime, NumPy and Pillow."""
    site = tmp_path_factory.mktemp("site")
    for module in (numpy, PIL, onnxruntime):
        home = Path(module.__file__).parent
        for part in (home, *home.parent.glob(f"{home.name.lower().replace('pil', 'pillow')}.libs")):
            (site / part.name).symlink_to(part)

    def call(folder, code, *words):
        start = f"import sys; sys.path.insert(0, {str(site)!r}); sys.argv[1:] = {list(words)!r}\n"
        command = [sys.executable, "-I", "-S", "-c", start + code]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    return call


def test_the_card_alone_classifies_a_photograph(finished, tmp_path, bare_python):
    best = finished.folder / "best"
    (tmp_path / "model.onnx").write_bytes((best / "model.onnx").read_bytes())
    PIL.Image.effect_noise((400, 300), 90).convert("CMYK").save(tmp_path / "photo.jpg")
    [expected] = Classifier(best).predict([tmp_path / "photo.jpg"])
    done = bare_python(tmp_path, _card_code(best))
    index = int(expected.probabilities.argmax())
    assert done.stdout == f"{index}: {expected.probabilities[index]:.1%}\n", done.stderr
    missing = bare_python(tmp_path, "import pliant")
    assert "No module named 'pliant'" in missing.stderr


def test_predict_py_classifies_without_pliant(finished, tmp_path, bare_python):
    PIL.Image.effect_noise((40, 30), 90).save(tmp_path / "a.png")
    [expected] = Classifier(finished.folder).predict([tmp_path / "a.png"])
    code = "import runpy; runpy.run_path('predict.py', run_name='__main__')"
    done = bare_python(finished.folder / "best", code, str(tmp_path / "a.png"))
    index = int(expected.probabilities.argmax())
    said = f"{tmp_path / 'a.png'}: {index}, {expected.probabilities[index]:.1%}\n"
    assert done.stdout == said, done.stderr
