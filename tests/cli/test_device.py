"""`pliant device`: bundles, imports, folders of profiles, and what is wrong with each."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

from pliant.devices.profile import load_profile
from pliant.devices.profile_folder import profile_file


@pytest.fixture
def board(command, tmp_path) -> Path:
    """Results of a made-up board, twelve networks long."""
    code, said, _ = command(
        "device", "bundle", "--space", "digits", "--networks", 12, "--out", tmp_path / "b.zip"
    )
    assert code == 0
    assert "12 networks of space digits" in said
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        bench = json.loads(archive.read("bench.json"))
    rows = []
    for number in range(3):
        for index, name in enumerate(bench["networks"]):
            times = [1000.0 + 100 * (index % 7)] * 2
            row = {"wall_us": times, "cpu_us": times, "preempted": [False] * 2, "runs": 1}
            rows.append(row | {"network": name, "round": number})
    header = {"results": 1, "bench": bench, "machine": "a board [/b]", "system": "s", "cores": 4}
    more = {"runtime": "litert", "runtime_version": "2", "threads": 1, "pinned": False}
    (tmp_path / "results.json").write_text(json.dumps(header | more | {"rows": rows}))
    return tmp_path / "results.json"


def test_a_board_is_imported_shown_and_used(command, board, tmp_path, copied):
    folder = tmp_path / "my-board"
    code, said, error = command("device", "import", board, "--out", folder)
    assert (code, error) == (0, "")
    assert "a board [/b], litert 2, 1 thread(s)" in said
    assert "0 blocks, 12 networks" in said
    code, said, _ = command("device", "show", folder)
    assert code == 0
    assert "a board [/b], litert 2" in " ".join(said.split())
    assert "no: another machine or runtime" in " ".join(said.split())
    words = ("--target", f"{folder}/", "--limit", "latency_ms=9", "--output-dir", tmp_path / "out")
    code, said, error = command("deploy", copied, *words)
    assert (code, error) == (0, "")
    assert "predicted only: a board" in said
    powered = ("--confidence", 0.9, "--energy", "6W", "--limit", "energy_uj=100000")
    assert command("deploy", copied, *words, *powered)[0] == 0
    code, _, error = command("deploy", copied, *words, "--confidence", 0.99)
    assert code == 2
    assert "networks" in error
    code, _, error = command("deploy", copied, *words, "--confidence", 95)
    assert code == 2
    assert "Write 0.95 for 95 %" in error


def test_known_devices_and_a_data_sheet_help_to_predict(command, board, tmp_path):
    """They are kept in the folder, so that the next command knows them too."""
    old, mine = tmp_path / "old", tmp_path / "my-board"
    assert command("device", "import", board, "--out", old)[0] == 0
    words = ("--out", mine, "--sources", old, "--sheet", "raspberry-pi-4")
    code, _, error = command("device", "import", board, *words)
    assert code == 2
    assert "a source is a profile of another device" in error
    assert not mine.exists()
    results = json.loads(board.read_text())
    for row in results["rows"]:
        for times in ("wall_us", "cpu_us"):
            row[times] = [2 * one for one in row[times]]
    board.write_text(json.dumps(results))
    code, said, error = command("device", "import", board, *words)
    assert (code, error) == (0, "")
    assert "transfer from old-litert-fp32-threads1-batch1-all" in said
    assert "scaled roofline" in said
    code, said, _ = command("device", "show", mine)
    assert "known devices" in said
    assert "Raspberry Pi 4" in said
    code, said, _ = command(
        *("roofline", "smallest", "--space", "digits", "--images", "1x8", "--target", f"{mine}/")
    )
    assert code == 0
    assert "smallest: " in said
    code, _, error = command(
        *("roofline", "smallest", "--space", "digits", "--images", "1x8", "--target", f"{old}/")
    )
    assert code == 2
    assert "keeps no roofs for 1 thread(s)" in " ".join(error.split())


def test_sources_that_are_none_leave_nothing_behind(command, board, tmp_path):
    for words, said in (
        (("--sources", tmp_path / "none"), "cannot be read"),
        (("--sheet", "raspberri-pi-4"), "Did you mean 'raspberry-pi-4'"),
    ):
        code, _, error = command("device", "import", board, "--out", tmp_path / "mine", *words)
        assert code == 2
        assert said in " ".join(error.split())
        assert not (tmp_path / "mine").exists()


def test_rows_left_out_are_told(command, board, tmp_path):
    results = json.loads(board.read_text())
    results["rows"][5]["wall_us"][0] = -3
    board.write_text(json.dumps(results))
    code, _, error = command("device", "import", board, "--out", tmp_path / "my-board")
    assert code == 1
    assert "row 6 (network-05, round 0) is left out: wall_us is negative: -3" in error
    assert len(list((tmp_path / "my-board").glob("profile-*.json"))) == 1


def test_a_profile_of_another_space_is_refused(command, board, tmp_path):
    results = json.loads(board.read_text())
    results["bench"]["space"]["identity"] = "other"
    board.write_text(json.dumps(results))
    code, _, error = command("device", "import", board, "--out", tmp_path / "my-board")
    assert code == 2
    assert "the same name with other choices or blocks" in error
    assert not (tmp_path / "my-board").exists()


def test_code_that_results_or_a_profile_name_is_never_run(command, board, tmp_path):
    """Their space is data: a checksum can be computed by anybody."""
    code = tmp_path / "evil.py"
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    out = tmp_path / "my-board"
    assert command("device", "import", board, "--out", out)[0] == 0
    [path] = out.glob("profile-*.json")
    profile = load_profile(path)
    space = profile.space.model_copy(update={"name": f"{code}:build"})
    profile.model_copy(update={"space": space}).save(path)
    results = json.loads(board.read_text())
    results["bench"]["space"]["name"] = f"{code}:build"
    board.write_text(json.dumps(results))
    for words in (("import", board, "--out", tmp_path / "new"), ("show", path), ("show", out)):
        returned, _, error = command("device", *words)
        assert returned == 2
        assert "is never run" in error
        assert "--space file.py:NAME" in " ".join(error.split())
        assert not (tmp_path / "ran").exists()


def test_one_process_measures_into_a_folder(command, tmp_path):
    with FileLock(tmp_path / ".lock"):
        code, _, error = command("device", "measure", "--space", "digits", "--out", tmp_path)
    assert code == 2
    assert "one process measures into a folder at a time" in error
    assert not list(tmp_path.glob("*.json"))


def test_the_networks_of_a_run_are_bundled_as_the_run_runs_them(command, tmp_path, copied):
    recipe = copied / "recipe.toml"
    head, table, target = recipe.read_text("utf-8").partition("[target]")
    target = target.replace('"fp32"', '"int8"', 1).replace("batch = 1", "batch = 2", 1)
    recipe.write_text(head + table + target)
    for words, held in (((), ("int8", 2)), (("--precision", "fp32", "--batch", 1), ("fp32", 1))):
        out = tmp_path / f"{held[0]}.zip"
        code, _, error = command("device", "bundle", copied, "--networks", 5, "--out", out, *words)
        assert (code, error) == (0, "")
        with zipfile.ZipFile(out) as archive:
            bench = json.loads(archive.read("bench.json"))
        assert (bench["precision"], bench["batch"]) == held


def test_a_folder_gives_the_profile_that_fits_the_run(command, tmp_path, copied, digits_profile):
    folder = tmp_path / "here"
    here = load_profile(digits_profile)
    for runtime in ("onnxruntime", "openvino"):
        one = here.model_copy(update={"runtime": runtime, "machine": f"the {runtime} one"})
        one.save(profile_file(folder, "digits", one.settings, "fp32"))
    words = ("deploy", copied, "--target", f"{folder}/", "--output-dir", tmp_path / "out")
    code, said, _ = command(*words)
    assert code == 0
    assert "the onnxruntime one" in said
    code, _, error = command(*words, "--precision", "int8")
    assert code == 2
    assert "has no profile for runtime onnxruntime, precision int8" in " ".join(error.split())
    assert "runtime openvino, precision fp32" in " ".join(error.split())
    (tmp_path / "empty").mkdir()
    code, _, error = command("deploy", copied, "--target", f"{tmp_path}/empty/")
    assert code == 2
    assert "found none in" in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--space", "digits", "--runtime", "tensorrt", "--out", "x/"), "a runtime is one of"),
        (("--space", "digits", "--runtime", "pytorch", "--precision", "int8", "--out", "x/"),
         "precisions of runtime pytorch are fp32"),
        (("--space", "digits", "--threads", "0", "--out", "x/"), "whole numbers from 1"),
        (("--space", "digits"), "Name it with --out"),
        (("--out", "x/"), "Name it with --space"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_at_once(command, words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = command("device", "measure", *words)
    assert code == 2
    assert said in " ".join(error.split())
    assert not (tmp_path / "x").exists()
