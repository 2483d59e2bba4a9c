"""The card says what is known, and what is not."""

from __future__ import annotations

import dataclasses

import pytest

from pliant.deploy.card import Card, write_card
from pliant.deploy.verify import Agreement

CARD = Card(
    name="birds",
    architecture="r8_1d1",
    space="digits",
    image=(3, 8, 8),
    classes=("hawk", "{dove}"),
    data="photos/",
    parameters=12345,
    macs=678901,
    peak_memory_bytes=2048,
    limits=("latency_ms=2", "parameters=300k"),
    validation_top1=0.9123,
    test_top1=0.9,
    test_images=1000,
    test_openings=1,
    predicted_ms=1.23456,
    measured_ms=1.5,
    device="a board, onnxruntime 1.20, 1 thread(s), batch 1",
    agreement=Agreement(supernet=0.0, model_py=1.5e-7, onnx=2e-6),
)


def _text(tmp_path, **changes):
    write_card(tmp_path / "card.md", dataclasses.replace(CARD, **changes))
    return (tmp_path / "card.md").read_text("utf-8")


@pytest.mark.parametrize(
    "line",
    [
        "# birds",
        "| test accuracy | 90.00% | 1000 images that training and search never saw; opened once in this run |",
        "| validation accuracy | 91.23% | the split that the search chose by |",
        "| latency, measured | 1.5 ms | ONNX Runtime in a fresh process; a board, onnxruntime 1.20, 1 thread(s), batch 1 |",
        "| latency, predicted | 1.235 ms | from the device's table, before any measurement |",
        "| limits | latency_ms=2, parameters=300k | |",
        "| parameters | 12,345 | BatchNorm folded |",
        "| multiply-accumulates | 678,901 | one image |",
        "| outputs of model.onnx against PyTorch | 2.0e-06 | ONNX Runtime |",
        "Classes, in the order of the logits: hawk, {dove}.",
        'logits = session.run(None, {"image": np.zeros((1, 3, 8, 8), dtype=np.float32)})[0]',
    ],
)
def test_lines_of_a_card(tmp_path, line):
    assert line in _text(tmp_path).splitlines()


def test_what_is_not_known_is_said(tmp_path):
    text = _text(tmp_path, measured_ms=None, limits=(), test_openings=3)
    assert "| latency, measured | not measured: the device is elsewhere |" in text
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
