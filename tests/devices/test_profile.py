"""The profile of a device: made, kept, read back, and refused where it does not hold."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest

from pliant.devices.data_sheet import load_sheet
from pliant.devices.measured_target import MeasuredTarget
from pliant.devices.profile import (
    DeviceProfile,
    load_profile,
    measure_networks,
    profile_device,
    random_network_model,
)
from pliant.devices.profile_folder import profile_file
from pliant.devices.table import distinct_blocks
from pliant.devices.timings import Settings
from pliant.errors import DamagedFileError, MeasurementError, ProfileMismatchError
from pliant.files import with_checksum
from pliant.host import machine_name
from pliant.spaces.presets import preset
from pliant.targets import TargetOptions, open_target

QUICK = Settings(min_rounds=2, rounds=2, samples=2, sample_us=100, noise_limit=100.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("device")


@pytest.fixture(scope="module")
def profile(toy_space, folder) -> DeviceProfile:
    made = profile_device(toy_space, QUICK, seed=0, measurements=folder / "measurements.parquet")
    made.save(folder / "device.json")
    return made


def test_a_profile_is_read_back_as_it_was_and_predicts_the_same(profile, toy_space, folder):
    again = load_profile(folder / "device.json")
    assert again == profile
    rng = np.random.default_rng(0)
    architectures = [toy_space.sample_choices(rng) for _ in range(50)]
    one, other = (MeasuredTarget(of, toy_space).predict(architectures) for of in (again, profile))
    assert one == other, "fitted from the same rows, so the same"
    assert not list(folder.glob(".*")), "nothing half-written is left"


def test_a_profile_says_what_was_measured(profile, toy_space):
    assert {row.block for row in profile.blocks} == set(
        distinct_blocks(toy_space, np.random.default_rng(5))
    )
    assert (profile.machine, profile.runtime_version) == (machine_name(), onnxruntime.__version__)
    assert 0 < profile.call_us < profile.anchor_us
    assert profile.convolution_peak_gflops > 0
    assert len(profile.networks) == 32


def test_other_rows_give_another_predictor(profile, toy_space):
    """It is fitted when the profile is opened: no coefficient is stored."""
    slower = [row.model_copy(update={"latency_ms": 3 * row.latency_ms}) for row in profile.networks]
    again = profile.model_copy(update={"networks": tuple(slower)})
    one = toy_space.largest()
    [before], [after] = (MeasuredTarget(of, toy_space).predict([one]) for of in (profile, again))
    assert after.latency_ms == pytest.approx(3 * before.latency_ms)


def test_roofs_and_known_devices_belong_to_the_identity(profile, toy_space):
    """All that decides predictions; a known device of another space is refused."""
    plain = MeasuredTarget(profile, toy_space)
    roofs = MeasuredTarget(profile, toy_space, roofs=load_sheet("raspberry-pi-4"))
    slower = [row.model_copy(update={"latency_ms": 3 * row.latency_ms}) for row in profile.networks]
    twin = profile.model_copy(update={"networks": tuple(slower)})
    known = MeasuredTarget(profile, toy_space, sources={"twin": twin})
    with pytest.raises(ProfileMismatchError, match=r"itself holds the same .* 32 of 32 networks"):
        MeasuredTarget(profile, toy_space, sources={"itself": profile})
    assert len({plain.identity, roofs.identity, known.identity}) == 3
    assert MeasuredTarget(profile, toy_space, sources={}).identity == plain.identity
    assert "scaled roofline" in {rung.name for rung in roofs.predictor.rungs}
    assert "transfer from twin" in {rung.name for rung in known.predictor.rungs}
    space = profile.space.model_copy(update={"identity": "other"})
    other = profile.model_copy(update={"space": space})
    with pytest.raises(ProfileMismatchError):
        MeasuredTarget(profile, toy_space, sources={"other": other})


def test_the_timings_behind_it_are_kept(profile, folder):
    table = pq.read_table(folder / "measurements.parquet")
    whats = table["what"].to_pylist()
    assert len(set(whats)) == len(profile.blocks) + 32 + 2
    assert table.num_rows == len(set(whats)) * QUICK.rounds * QUICK.samples
    anchor = [
        time
        for what, time in zip(whats, table["cpu_us"].to_pylist(), strict=True)
        if what == "anchor"
    ]
    by_round = np.array(anchor).reshape(QUICK.rounds, QUICK.samples).min(axis=1)
    assert np.median(by_round) == pytest.approx(profile.anchor_us)


@pytest.mark.parametrize(
    ("field", "value"),
    [("threads", 4), ("batch", 8), ("optimisation", "basic"), ("runtime", "openvino")],
)
def test_another_way_of_running_is_refused(profile, field, value):
    profile.require_settings(QUICK)
    with pytest.raises(
        ProfileMismatchError, match=rf"{field}.*{getattr(QUICK, field)} there, {value} in this run"
    ):
        profile.require_settings(dataclasses.replace(QUICK, **{field: value}))


def test_a_device_that_is_only_named_runs_as_it_was_measured(profile, toy_space, tmp_path):
    """Settings that nobody states are those of the one profile that there is."""

    def kept(**changes) -> str:
        one = profile.model_copy(update=changes)
        path = profile_file(tmp_path, toy_space.name, one.settings, one.precision)
        one.save(path)
        return str(path)

    def opened(name: str, **options) -> DeviceProfile:
        return open_target(name, toy_space, TargetOptions(**options)).profile

    two = kept(threads=2, optimisation="basic")
    assert opened(f"{tmp_path}/") == opened(two) == load_profile(Path(two))
    for name in (f"{tmp_path}/", two):
        with pytest.raises(ProfileMismatchError, match="threads"):
            opened(name, threads=1)
        with pytest.raises(ProfileMismatchError, match=r"Choose.* --precision fp32"):
            opened(name, precision="int8")
    kept(threads=4)
    with pytest.raises(ProfileMismatchError, match=r"Name the file of one .* such as .*\.json"):
        opened(f"{tmp_path}/")
    usual = kept(threads=1)
    assert opened(f"{tmp_path}/") == load_profile(Path(usual))


@pytest.mark.parametrize(("field", "value"), [("machine", "abacus"), ("runtime_version", "0.1")])
def test_another_machine_is_refused_for_measuring(profile, field, value):
    profile.require_here()
    with pytest.raises(ProfileMismatchError, match=rf"{field} is '{value}' there"):
        profile.model_copy(update={field: value}).require_here()


def test_another_space_is_refused(profile):
    with pytest.raises(
        ProfileMismatchError,
        match="for space 'toy' with 3x8x8 images and 5 classes, the run needs space 'digits'",
    ):
        profile.require_space(preset("digits", channels=3, image_size=8, classes=5))


def broken(name, profile):
    """The text of a damaged profile, and what must be said about it."""
    content = json.loads(profile.model_dump_json())
    first = content["blocks"][0]
    if name == "cut short":
        return profile.model_dump_json()[:-100], "Invalid JSON"
    if name == "misspelt":
        content["treads"] = content.pop("threads")
        return json.dumps(content), "threads: Field required"
    if name == "more than is known":
        content["optimization"] = "all"
        return json.dumps(content), "Did you mean 'optimisation'?"
    if name == "no such block":
        first["type"] = "cache"
        return json.dumps(content), "received 'cache'"
    if name == "no such size":
        first["sizes"]["sise"] = 3
        return json.dumps(content), "Did you mean 'size'?"
    if name == "words for sizes":
        first["sizes"]["size"] = "large"
        return json.dumps(content), "blocks.0"
    if name == "no time at all":
        first["latency_us"] = 0
        return json.dumps(content), "greater than 0"
    if name == "of yesterday":
        content["version"] = 1
        return json.dumps(content), "version 1, this Pliant reads version 6"
    content["networks"] = []
    return json.dumps(content), "at least 1 item"


@pytest.mark.parametrize(
    "name",
    [
        "cut short",
        "misspelt",
        "more than is known",
        "no such block",
        "no such size",
        "words for sizes",
        "no time at all",
        "of yesterday",
        "nothing to fit on",
    ],
)
def test_a_damaged_profile_says_where(profile, tmp_path, name):
    text, message = broken(name, profile)
    path = tmp_path / "device.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DamagedFileError) as caught:
        load_profile(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_profile_says_so(tmp_path):
    with pytest.raises(DamagedFileError, match="cannot be read: No such file"):
        load_profile(tmp_path / "device.json")


def test_a_noisy_machine_is_refused_but_its_timings_are_kept(toy_space, tmp_path):
    with pytest.raises(MeasurementError, match="Stop other programs"):
        profile_device(
            toy_space,
            dataclasses.replace(QUICK, noise_limit=-1.0),
            seed=0,
            measurements=tmp_path / "measurements.parquet",
        )
    assert pq.read_table(tmp_path / "measurements.parquet").num_rows > 0


def test_whole_networks_are_measured_as_the_profile_was(toy_space):
    blocks = toy_space.blocks(toy_space.largest())
    model = random_network_model(blocks, np.random.default_rng(0))
    [found] = measure_networks({"a": model}, QUICK, seed=0).values()
    assert found.latency_ms > 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, True, "1"])
@pytest.mark.parametrize(
    "place",
    [
        ("anchor_us",),
        ("call_us",),
        ("convolution_peak_gflops",),
        ("threads",),
        ("cores",),
        ("split_half_error",),
        ("space", "image_size"),
        ("blocks", 0, "latency_us"),
        ("networks", 0, "latency_ms"),
        ("networks", 0, "spread_ms"),
        ("networks", 0, "wall_us", 4),
        ("blocks", 0, "split_half_error"),
    ],
)
def test_numbers_have_ranges(profile, tmp_path, place, value):
    content = json.loads(profile.model_dump_json())
    inner = content
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = value
    path = tmp_path / "device.json"
    path.write_text(json.dumps(with_checksum(content)))
    with pytest.raises(
        DamagedFileError, match="is not a device profile: " + ".".join(map(str, place))
    ):
        load_profile(path)


def test_an_edited_profile_is_refused(profile, tmp_path):
    profile.save(tmp_path / "device.json")
    content = json.loads((tmp_path / "device.json").read_text())
    content["networks"][0]["latency_ms"] *= 1.001
    (tmp_path / "device.json").write_text(json.dumps(content))
    with pytest.raises(DamagedFileError, match="its checksum differs"):
        load_profile(tmp_path / "device.json")
