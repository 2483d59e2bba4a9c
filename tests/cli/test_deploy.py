"""Another network from a trained supernet, by name, limit or target, without training."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pliant import Record, Run
from pliant.devices.measured_target import MeasuredTarget
from pliant.devices.profile import load_profile
from pliant.files import with_checksum
from pliant.objective import Limit
from pliant.runs import train
from pliant.units import format_cost


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a supernet is trained once")

    monkeypatch.setattr(train, "train", refuse)


def _files(folder):
    return {path.name for path in folder.iterdir()}


def test_named_network(command, copied):
    with Run.reopen(copied) as run:
        architecture = str(run.space.sample(np.random.default_rng(3)))
    code, said, error = command("deploy", copied, "--architecture", architecture)
    assert (code, error) == (0, "")
    folder = copied / "front" / architecture
    assert _files(folder) == {
        "model.onnx",
        "model.int8.onnx",
        "model.safetensors",
        "model.py",
        "predict.py",
        "card.md",
        "SHA256SUMS",
    }
    card = (folder / "card.md").read_text()
    assert f"`{architecture}`" in card
    assert "opened 2 times in this run" in card
    assert "| limits | none | |" in card
    assert "measured" in said
    with Record.read(copied / "record.sqlite") as record:
        assert architecture in record.events("test split opened")[-1].details["purpose"]


def test_another_limit(command, copied, finished):
    fastest = min(one.known_cost.latency_ms for one in finished.result.found.history)
    limit = Limit.parse(f"latency_ms={fastest * 1.5:.6f}")
    code, said, error = command("deploy", copied, "--limit", limit, "--output-dir", copied / "fast")
    assert (code, error) == (0, "")
    card = (copied / "fast" / "card.md").read_text()
    assert f"| limits | {limit} | |" in card
    assert (copied / "best" / "card.md").read_bytes() == (
        finished.folder / "best" / "card.md"
    ).read_bytes()
    assert "measured" in said


def test_another_target(command, tmp_path, copied, digits_profile):
    profile = json.loads(digits_profile.read_text())
    profile["machine"] = "a phone"
    for block in profile["blocks"]:
        block["latency_us"] *= 2
    for network in profile["networks"]:
        network["latency_ms"] *= 2
    (tmp_path / "phone.json").write_text(json.dumps(with_checksum(profile)))
    code, said, error = command(
        "deploy", copied, "--target", tmp_path / "phone.json", "--output-dir", tmp_path / "phone"
    )
    assert (code, error) == (0, "")
    card = (tmp_path / "phone" / "card.md").read_text()
    with Run.reopen(copied) as run:
        network = run.space.parse(card.split("`")[1])
        [cost] = MeasuredTarget(load_profile(tmp_path / "phone.json"), run.space).predict([network])
        [here] = MeasuredTarget(load_profile(digits_profile), run.space).predict([network])
    assert cost.latency_ms > 1.3 * here.latency_ms
    assert (
        f"latency_ms {format_cost('latency_ms', cost.latency_ms)} predicted only: a phone" in said
    )
    assert f"| latency, predicted | {cost.latency_ms:.4g} ms |" in card
    assert "a phone" in card
    assert "this target is not measured" in card
    assert (copied / "device.json").read_bytes() == digits_profile.read_bytes()


def test_runtime_of_another_version_is_another_device(command, tmp_path, copied, digits_profile):
    (tmp_path / "old.json").write_text(
        json.dumps(
            with_checksum(json.loads(digits_profile.read_text()) | {"runtime_version": "1.2.3"})
        )
    )
    code, said, _ = command(
        "deploy", copied, "--target", tmp_path / "old.json", "--output-dir", tmp_path / "old"
    )
    assert code == 0
    assert "predicted only" in said
    assert "1.2.3" in said


def test_whole_job_for_a_target_that_is_elsewhere(tmp_path, copied, digits_profile):
    from pliant import run_all

    (tmp_path / "phone.json").write_text(
        json.dumps(with_checksum(json.loads(digits_profile.read_text()) | {"machine": "a phone"}))
    )
    with Run.reopen(copied, target__name=str(tmp_path / "phone.json")) as run:
        result = run_all(run)
    assert all(one.measured is None for one in result.found.shortlist)
    claims = {one.claim: one for one in result.summary.evidence}
    limit = claims["Limit latency_ms=0.1"]
    assert limit.how.startswith("predicted by a phone")
    assert limit.how.endswith("this target is not measured")
    assert limit.holds
    assert result.summary.chosen.measured is None
    assert "this target is not measured" in (copied / "report.html").read_text()
