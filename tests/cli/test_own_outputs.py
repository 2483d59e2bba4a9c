"""Networks of the user's own that return more than logits: the refusal says how to wrap them."""

from __future__ import annotations

import re

import pytest

NETWORK = """
import torch
from torch import nn

class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head, self.aux = nn.Linear(8, 10), nn.Linear(8, 10)

    def both(self, x):
        x = self.body(x).mean((2, 3))
        return self.head(x), self.aux(x)

class Named(Base):
    def forward(self, x):
        return dict(zip(("logits", "aux"), self.both(x)))

class Out(Base):
    def forward(self, x):
        return {"out": self.both(x)[0]}

class Auxiliary(Base):
    def forward(self, x):
        return self.both(x)

class Training(Base):
    def forward(self, x):
        return self.both(x) if self.training else self.both(x)[0]

class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = NAME()

    def forward(self, images):
        HERE
"""
COMMANDS = (
    "score FILE --shape 3x16x16 --method parameters --workers 1",
    "elastic FILE --example 1x3x16x16",
    "grow FILE --widen body.0=1.5x --image-size 16 --output-dir grown",
)
RETURNED = {"Named": "['logits']", "Out": "['out']", "Auxiliary": "[0]"}


@pytest.mark.parametrize("name", RETURNED)
def test_a_dict_or_a_tuple_is_refused_and_the_wrapper_of_the_message_works(
    command, tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(NETWORK)
    for words in COMMANDS:
        code, _, error = command(*words.replace("FILE", f"model.py:{name}").split())
        said = " ".join(error.split())
        assert code == 2, said
        [line] = re.findall(r"return self\.network\(images\)\S+\]", said)
        assert line.endswith(RETURNED[name]), said
        assert not (tmp_path / "grown").exists()
    fixed = NETWORK.replace("NAME", name).replace("HERE", line)
    (tmp_path / "fixed.py").write_text(fixed)
    for words in COMMANDS[:2]:
        code, _, error = command(*words.replace("FILE", "fixed.py:Wrapped").split())
        assert (code, error) == (0, ""), words


def test_heads_in_training_alone_are_refused_where_it_is_trained(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(NETWORK)
    for words in (COMMANDS[0], COMMANDS[2]):
        code, _, error = command(*words.replace("FILE", "model.py:Training").split())
        assert code == 2
        assert "return self.network(images)[0]" in " ".join(error.split())


def test_a_network_without_layers_has_none_to_name(command, tmp_path):
    (tmp_path / "model.py").write_text("from torch import nn\ndef Network():\n    return nn.ReLU()")
    words = ["grow", f"{tmp_path / 'model.py'}:Network", "--widen", "x=2x", "--image-size", "8"]
    code, _, error = command(*words, "--output-dir", tmp_path / "grown")
    assert code == 2
    assert "received 'x'. There is none to name." in " ".join(error.split())
