"""A bundle that runs elsewhere, and what comes back of it, however damaged."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pliant.devices import results as results_module
from pliant.devices.bundle import write_bundle
from pliant.devices.ladder import networks_to_measure
from pliant.devices.measured_target import MeasuredTarget
from pliant.devices.profile import load_profile
from pliant.devices.results import import_results
from pliant.errors import DamagedFileError, MeasurementError, RecipeError

LOUD = 100.0
"""A noise limit for machines that are busy with other tests."""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory, toy_space) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write_bundle(folder / "bench.zip", toy_space, 8)
    with zipfile.ZipFile(folder / "bench.zip") as archive:
        archive.extractall(folder)
    return folder


def run_bench(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """The script alone: without Pliant on the path, in its own process."""
    program = [sys.executable, "-I", str(folder / "run_bench.py"), "--sample-ms", "0.1"]
    done = subprocess.run([*program, *map(str, words)], capture_output=True, text=True, check=False)
    assert "pliant" not in done.stderr
    return done


@pytest.fixture(scope="module")
def measured(unpacked) -> dict:
    """Results of two rounds, then of a second start for the third."""
    assert run_bench(unpacked, "--rounds", 2, "--samples", 2).returncode == 0
    first = json.loads((unpacked / "results.json").read_text())
    assert run_bench(unpacked, "--rounds", 3, "--samples", 2).returncode == 0
    both = json.loads((unpacked / "results.json").read_text())
    assert both["rows"][: len(first["rows"])] == first["rows"], "it goes on where it ended"
    return both


def made_up(measured: dict, rounds: int = 4) -> dict:
    """Results whose times are exact: the n-th network takes n times 100 microseconds."""
    rows = []
    names = [name for name in measured["bench"]["networks"] if name != "anchor"]
    for number in range(rounds):
        for index, name in enumerate(["anchor", *names]):
            times = [100.0 * (index + 1)] * 3
            row = {"wall_us": times, "cpu_us": times, "preempted": [False] * 3, "runs": 5}
            rows.append(row | {"network": name, "round": number})
    return measured | {"rows": rows}


def written(tmp_path: Path, results: dict) -> Path:
    (tmp_path / "results.json").write_text(json.dumps(results))
    return tmp_path / "results.json"


def test_equal_bundles_are_equal_files(unpacked, tmp_path, toy_space):
    write_bundle(tmp_path / "again.zip", toy_space, 8)
    assert (tmp_path / "again.zip").read_bytes() == (unpacked / "bench.zip").read_bytes()
    with pytest.raises(RecipeError, match="5 to 1000 networks, received 4"):
        write_bundle(tmp_path / "few.zip", toy_space, 4)


def test_what_ran_elsewhere_becomes_a_profile(measured, tmp_path, toy_space):
    imported = import_results(written(tmp_path, measured), noise_limit=LOUD)
    assert imported.notes == ()
    profile = imported.profile
    assert (len(profile.networks), profile.runtime, profile.blocks) == (8, "onnxruntime", ())
    profile.save(tmp_path / "board.json")
    target = MeasuredTarget(load_profile(tmp_path / "board.json"), toy_space)
    [cost] = target.predict([toy_space.largest()])
    assert cost.latency_ms > 0
    rows = [row for row in measured["rows"] if row["network"] == "network-00"]
    assert [row["round"] for row in rows] == [0, 1, 2]


def test_exact_times_are_imported_exactly(measured, tmp_path):
    profile = import_results(written(tmp_path, made_up(measured))).profile
    np.testing.assert_allclose(
        [row.latency_ms for row in profile.networks], [0.1 * (n + 2) for n in range(8)]
    )
    assert profile.split_half_error == 0
    assert profile.anchor_us == pytest.approx(100)


def test_a_slower_round_is_corrected_by_the_anchor(measured, tmp_path):
    slowed = made_up(measured)
    for row in slowed["rows"]:
        if row["round"] >= 2:
            for key in ("wall_us", "cpu_us"):
                row[key] = [1.5 * time for time in row[key]]
    profile = import_results(written(tmp_path, slowed)).profile
    assert profile.split_half_error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"wall_us": [-1.0, 1.0, 1.0]}, "wall_us is negative: -1"),
        ({"cpu_us": [math.nan, 1.0, 1.0]}, "cpu_us is NaN"),
        ({"wall_us": [1e12, 1.0, 1.0]}, "which no inference takes"),
        ({"wall_us": [0.0, 1.0, 1.0]}, "which no inference takes"),
        ({"wall_us": [math.inf, 1.0, 1.0]}, "which no inference takes"),
        ({"wall_us": [10**400, 1.0, 1.0]}, "is infinite microseconds, which no inference takes"),
        ({"cpu_us": [-(10**400), 1.0, 1.0]}, "cpu_us is negative"),
        ({"wall_us": ["1", 1.0, 1.0]}, "has '1', which is no number"),
        ({"wall_us": [True, 1.0, 1.0]}, "has True, which is no number"),
        ({"wall_us": []}, "wall_us is missing"),
        ({"wall_us": [1.0]}, "differ in length"),
        ({"preempted": [0, 1, 1]}, "preempted is true or false"),
        ({"network": "network-99"}, "no network 'network-99'"),
        ({"round": 1.5}, "round is a whole number"),
        ({"round": 10**9}, "round is a whole number from 0 to 1,000,000"),
        ({"cpu_us": [3000.0] * 3}, "cpu_us is 3000 of 200 wall_us, more than 1 thread"),
        ({"runs": 10**12}, "runs is a whole number from 1 to 1,000,000,000"),
        ({"round": 0}, "already timed in this round"),
        ({"wall_us": [1e5] * 3}, "network-00, round 1 is left out: 100000 microseconds"),
    ],
)
def test_rows_that_are_no_timings_are_named_and_the_rest_is_kept(measured, tmp_path, change, said):
    damaged = made_up(measured)
    row = next(
        row for row in damaged["rows"] if (row["network"], row["round"]) == ("network-00", 1)
    )
    row.update(change)
    imported = import_results(written(tmp_path, damaged))
    [note] = imported.notes
    assert said in note
    assert "is left out" in note
    latencies = [one.latency_ms for one in imported.profile.networks]
    np.testing.assert_allclose(latencies, [0.1 * (n + 2) for n in range(8)])
    assert imported.profile.networks[0].runs == 3 * 3


def test_results_that_end_half_way_are_used_as_far_as_they_go(measured, tmp_path):
    rows = made_up(measured, rounds=1)["rows"]
    half = import_results(written(tmp_path, measured | {"rows": rows[:7]}))
    assert len(half.profile.networks) == 6
    assert half.notes == ("2 networks have no row: network-06, network-07.",)
    with pytest.raises(MeasurementError, match=r"at least 5 measured networks.*has 3 that can"):
        import_results(written(tmp_path, measured | {"rows": rows[:4]}))
    with pytest.raises(MeasurementError, match="these have none"):
        import_results(written(tmp_path, measured | {"rows": rows[1:]}))


def test_rounds_without_the_anchor_are_named(measured, tmp_path):
    rows = [one for one in made_up(measured)["rows"] if one["round"] or one["network"] != "anchor"]
    imported = import_results(written(tmp_path, measured | {"rows": rows}))
    assert len(imported.notes) == len(imported.profile.networks) == 8
    assert "network-00, round 0 is left out: the anchor network" in imported.notes[0]


def test_a_runtime_that_leads_out_of_the_folder_is_refused(measured, tmp_path):
    with pytest.raises(DamagedFileError, match="writes: runtime"):
        import_results(written(tmp_path, made_up(measured) | {"runtime": "../../x"}))


@pytest.mark.parametrize("key", ["threads", "cores", "batch"])
def test_what_no_device_has_is_refused_by_name(measured, tmp_path, key):
    damaged = made_up(measured)
    whole = damaged if key in damaged else damaged["bench"]
    before, whole[key] = whole[key], 10**9
    with pytest.raises(DamagedFileError, match=rf"{key}: Input should be less than or equal to"):
        import_results(written(tmp_path, damaged))
    whole[key] = before  # the fixture is shared


def test_absurd_networks_threads_and_names(measured, tmp_path):
    absurd = made_up(measured) | {"machine": "a\nboard\x1b[31m"}
    for row in absurd["rows"]:
        if row["network"] == "network-03":
            row["wall_us"] = row["cpu_us"] = [1e5] * 3
    imported = import_results(written(tmp_path, absurd))
    assert len(imported.profile.networks) == 7
    assert imported.profile.machine == "a board [31m"
    assert "network-03 is left out: 100000 microseconds" in " ".join(imported.notes)
    for change, said in (
        ({"threads": 8, "cores": 2}, "threads: 8 on a device of 2 cores"),
        ({"machine": "x" * 1000}, "machine: String should have at most 200"),
        ({"results": 2}, "version 2 of results, version 1 is read"),
        ({"cores": 0}, "cores: .*, received '0'"),
    ):
        with pytest.raises(DamagedFileError, match=said):
            import_results(written(tmp_path, absurd | change))


def test_where_no_row_can_be_used_the_rows_are_named(measured, tmp_path):
    damaged = made_up(measured)
    for row in damaged["rows"]:
        row["wall_us"] = []
    with pytest.raises(MeasurementError, match=r"Remove the results(.|\n)*row 1 .*is missing"):
        import_results(written(tmp_path, damaged))


def test_ten_networks_are_those_that_say_most(toy_space, tmp_path):
    write_bundle(tmp_path / "ten.zip", toy_space, 10)
    with zipfile.ZipFile(tmp_path / "ten.zip") as archive:
        bench = json.loads(archive.read("bench.json"))
    chosen = networks_to_measure(toy_space, 10, np.random.default_rng((0, 5)))
    assert list(bench["networks"].values()) == [*map(str, chosen), None]


def test_noisy_results_are_refused(measured, tmp_path):
    noisy = made_up(measured)
    for row in noisy["rows"]:
        if row["round"] % 2 and row["network"] != "anchor":
            row["cpu_us"] = [1.3 * time for time in row["cpu_us"]]
    path = written(tmp_path, noisy)
    with pytest.raises(MeasurementError, match=r"agree to 5%.*run_bench.py --rounds 30"):
        import_results(path)
    assert import_results(path, noise_limit=0.5).profile.split_half_error > 0.2


def test_archives_that_are_not_harmless_are_refused(measured, tmp_path, monkeypatch):
    content = json.dumps(made_up(measured))

    def archive(**entries: str) -> Path:
        with zipfile.ZipFile(tmp_path / "results.zip", "w", zipfile.ZIP_DEFLATED) as made:
            for name, text in entries.items():
                made.writestr(name, text)
        return tmp_path / "results.zip"

    assert len(import_results(archive(**{"b/results.json": content})).profile.networks) == 8
    for name in ("../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:\\evil"):
        with pytest.raises(DamagedFileError, match=r"^the files of an archive stay in its folder"):
            import_results(archive(**{"results.json": content, name: "x"}))
    with pytest.raises(DamagedFileError, match="has 0"):
        import_results(archive(other="x"))
    monkeypatch.setattr(results_module, "MAX_BYTES", 2**16)
    with pytest.raises(DamagedFileError, match="unpacks to more"):
        import_results(archive(**{"results.json": " " * 2**24}))
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(tmp_path / "results.zip", "w", method) as made:
            made.writestr("results.json", content)
        damaged = bytearray((tmp_path / "results.zip").read_bytes())
        damaged[60:120] = bytes(60)
        (tmp_path / "results.zip").write_bytes(damaged)
        with pytest.raises(DamagedFileError, match=r"results\.zip.*read: (?!None)"):
            import_results(tmp_path / "results.zip")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"results": 2}', "[" * 100_000])
def test_what_is_no_results_file_says_so(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(DamagedFileError, match=r"is not what run_bench\.py writes"):
        import_results(tmp_path / "results.json")
    with pytest.raises(DamagedFileError, match="cannot be read"):
        import_results(tmp_path / "missing.json")


def test_the_script_says_what_it_lacks(unpacked):
    done = run_bench(unpacked, "--runtime", "litert")
    assert done.returncode != 0
    assert "Use another runtime" in done.stderr or "A runtime is needed" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "/nonexistent/x.json"), "--out is a file in a folder that exists"),
        (("--out", "/"), "--out is a file in a folder that exists"),
        (("--sample-ms", "nan"), "this is a number from"),
        (("--rounds", -3), "this is a whole number from 1"),
        (("--samples", 0), "this is a whole number from 1"),
        (("--threads", 100_000), "this is a whole number from 1"),
    ],
)
def test_the_script_refuses_in_one_sentence(unpacked, words, said):
    done = run_bench(unpacked, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_incomplete_rows_and_damaged_bundles(unpacked, tmp_path):
    """They are timed again, or named; nothing that was measured is ever written over."""
    shutil.copytree(unpacked, tmp_path / "b", ignore=shutil.ignore_patterns("results*"))
    words = ("--rounds", 1, "--samples")
    assert run_bench(tmp_path / "b", *words, 1).returncode == 0
    done = run_bench(tmp_path / "b", *words, 2)
    assert "incomplete rows are timed again" in done.stdout
    kept = tmp_path / "b/results.json"
    assert all(len(row["wall_us"]) == 2 for row in json.loads(kept.read_text())["rows"])
    for number in (1, 2):
        kept.write_text("{}")
        assert f"moved to {kept}.old{number}" in run_bench(tmp_path / "b", *words, 1).stdout
    (tmp_path / "b/models/network-01.onnx").unlink()
    assert "models are missing: network-01" in run_bench(tmp_path / "b", *words, 1).stderr
    (tmp_path / "b/models/network-02.onnx").write_bytes(b"cut")
    (tmp_path / "c").mkdir()
    shutil.copy(unpacked / "run_bench.py", tmp_path / "c")
    for folder, said in (("b", "cannot open"), ("c", "is missing or damaged")):
        done = run_bench(tmp_path / folder)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert said in done.stderr
