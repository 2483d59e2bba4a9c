"""A measured machine with an energy: stated, measured once and kept, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pliant.devices import energy_target, measure
from pliant.devices.energy import MeasuredEnergy
from pliant.devices.profile import random_network_model
from pliant.errors import DamagedFileError, MeasurementError, RecipeError
from pliant.files import with_checksum
from pliant.metrics import Cost
from pliant.objective import Limit, Objective
from pliant.spaces.space import Space
from pliant.targets import TargetOptions, open_target, reported_metrics


@pytest.fixture
def architectures(digits_space: Space):  # type: ignore[no-untyped-def]
    return [digits_space.smallest(), digits_space.largest()]


def _open(space: Space, profile: Path, **options):  # type: ignore[no-untyped-def]
    return open_target(str(profile), space, TargetOptions(**options))


def test_a_stated_power_makes_a_model_that_says_so(
    digits_space: Space, digits_profile: Path, architectures
) -> None:  # type: ignore[no-untyped-def]
    plain = _open(digits_space, digits_profile)
    powered = _open(digits_space, digits_profile, energy="6W")
    for one, other in zip(
        plain.predict(architectures), powered.predict(architectures), strict=True
    ):
        assert one.energy_uj is None
        assert other.energy_uj == pytest.approx(6e3 * one.latency_ms)
        assert other.latency_ms == one.latency_ms
    blocks = powered.block_costs(architectures[0])
    assert all(block.energy_uj == pytest.approx(6e3 * block.latency_ms) for block in blocks)
    assert plain.identity != powered.identity
    assert "a stated power, not a measurement" in powered.evidence()[-1].claim
    Objective(("energy_uj",), (Limit("energy_uj", 1.0),)).require_reported(powered)
    with pytest.raises(RecipeError, match=r"reports no energy_uj.*target\.energy"):
        Objective(("energy_uj",), (Limit("energy_uj", 1.0),)).require_reported(plain)
    assert "energy_uj" in reported_metrics("this-cpu", "6W").metrics
    assert "energy_uj" not in reported_metrics("this-cpu").metrics


def test_a_measured_power_is_kept_and_delivered_networks_are_metered(
    digits_space: Space, digits_profile: Path, architectures, tmp_path: Path, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "log.csv").write_text("0,5\n1,5\n")
    measured = []

    def measure_energy(run, meter) -> MeasuredEnergy:  # type: ignore[no-untyped-def]
        run()
        measured.append(meter.name)
        return MeasuredEnergy(energy_uj=42.0, spread_uj=1.0, watts=5.0, idle_watts=2.0)

    monkeypatch.setattr(energy_target, "measure_energy", measure_energy)
    options = {"energy": str(tmp_path / "log.csv"), "folder": tmp_path}
    first = _open(digits_space, digits_profile, **options)
    again = _open(digits_space, digits_profile, **options)
    assert measured == ["power log log.csv"], "the second time it is kept"
    assert first.identity == again.identity
    [cost] = again.predict(architectures[:1])
    assert cost.energy_uj == pytest.approx(5e3 * cost.latency_ms)
    assert "measured power" in again.evidence()[-1].claim
    model = random_network_model(digits_space.blocks(architectures[0]), np.random.default_rng(0))
    found = again.measure({"one": model})["one"]
    assert found.cost.energy_uj == 42.0
    assert found.spread.energy_uj == 1.0
    stored = json.loads((tmp_path / "power.json").read_text())
    wrong = [
        (json.dumps(stored | {"watts": 50.0}), "was changed"),
        (json.dumps(stored | {"watts": -1.0}), "was changed"),
        ("[]", "was changed"),
        ("{", "not a measured power"),
        (json.dumps(with_checksum({"watts": -1.0, "source": "log"})), "above 0 W"),
        (json.dumps(with_checksum({"watts": 5.0})), "source"),
    ]
    for text, match in wrong:
        (tmp_path / "power.json").write_text(text)
        with pytest.raises(DamagedFileError, match=rf"{match}.*Remove it"):
            _open(digits_space, digits_profile, **options)


def test_wrong_energies_are_refused_before_anything_is_measured(
    digits_space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "collect", lambda *_, **__: pytest.fail("measured"))
    wrong = [
        ("this-cpu", "rapl:9", RecipeError, "energy comes from"),
        ("this-cpu", str(tmp_path / "none.csv"), MeasurementError, "power log"),
        ("eyeriss", "6W", RecipeError, "received '6W' for eyeriss"),
    ]
    for name, energy, error, match in wrong:
        with pytest.raises(error, match=match):
            open_target(name, digits_space, TargetOptions(energy=energy, folder=tmp_path))


def test_a_data_sheet_takes_a_stated_power(digits_space: Space) -> None:
    target = open_target("raspberry-pi-4", digits_space, TargetOptions(energy="4W"))
    [cost] = target.predict([digits_space.smallest()])
    assert isinstance(cost, Cost)
    assert cost.energy_uj == pytest.approx(4e3 * cost.latency_ms)
