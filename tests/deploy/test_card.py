"""The card reports what is known, and what is not."""

from __future__ import annotations

import dataclasses

import pytest

from pliant.deploy.card import Card, write_card
from pliant.deploy.verify import Agreement
from pliant.metrics import Accuracy, Cost, Measured
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
        f"| latency, measured | 1.5 ms | in a process of its own, on {TARGET} |",
        "| latency, predicted | 1.235 ms | by the target's model, before any measurement |",
        "| limits | latency_ms=2, parameters=300k | |",
        "| parameters | 12,345 | computed from the layers |",
        "| macs | 678,901 | computed from the layers |",
        "| peak memory | 2,048 B | computed from the layers |",
        "| outputs of model.onnx against PyTorch | 2.0e-06 | ONNX Runtime |",
        "Classes, in the order of the logits: hawk, {dove}.",
        'logits = session.run(None, {"image": np.zeros((1, 3, 8, 8), dtype=np.float32)})[0]',
    ],
)
def test_lines_of_a_card(tmp_path, line):
    assert line in _text(tmp_path).splitlines()


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


def test_code_of_a_card_runs(finished, monkeypatch):
    """As it stands there, beside the model."""
    monkeypatch.chdir(finished.folder / "best")
    [code] = [
        part.partition("```")[0]
        for part in (finished.folder / "best" / "card.md").read_text().split("```python\n")[1:]
    ]
    scope: dict = {}
    exec(code, scope)
    assert scope["logits"].shape == (1, 10)
