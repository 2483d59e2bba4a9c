"""Bad input to a command: exit code 2, no traceback, and a message.

It states the rule, what was received, and what to do.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pliant import Record
from pliant.child import run_python
from pliant.devices.profile import PROFILE_VERSION, load_profile
from pliant.files import with_checksum


def _refused(answer, *words):
    """Check an answer of `command`, and give back its message."""
    code, _, error = answer
    text = " ".join(error.replace("│", " ").split())
    assert code == 2, answer
    assert "Traceback" not in error
    for word in words:
        assert word in text, error
    return text


def _pictures(folder: Path, **classes: int) -> Path:
    """A folder of class folders with so many 8x8 pictures each."""
    rng = np.random.default_rng(0)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(
                folder / name / f"{number}.png"
            )
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["run", "digitz"],
            ["a recipe is one of cifar10, digits", "received 'digitz'", "Did you mean 'digits'?"],
        ),
        (["deploy", "runs/none"], ["the directory of a run that was started", "'runs/none'"]),
        (
            ["run", "digits", "--strategy", "nonsense"],
            ["one of sandwich, single-path", "or file.py:NAME", "'nonsense'"],
        ),
        (
            ["run", "digits", "--searcher", "evolutoin"],
            ["a searcher is one of linas", "'evolutoin'", "Did you mean 'evolution'?"],
        ),
        (
            ["run", "digits", "--space", "digit"],
            ["no space is called 'digit'", "Did you mean 'digits'?"],
        ),
        (
            ["run", "digits", "--limit", "latency=2"],
            ["latency is given in one of us", "no unit in 'latency=2'", "latency=2ms"],
        ),
        (["run", "digits", "--limit", "latency=2parsec"], ["unit 'parsec'", "Write for example"]),
        (
            ["run", "digits", "--limit", "speed=2"],
            ["a limit names accuracy or a cost metric", "received 'speed'", "Known:"],
        ),
        (
            ["run", "digits", "--limit", "latency_ms=-1"],
            ["a finite number above 0", "latency_ms=-1"],
        ),
        (["run", "digits", "--limit", "latency_ms"], ["metric=value", "'latency_ms'"]),
        (
            ["run", "digits", "--epochs", "-1"],
            ["Invalid value for '--epochs'", "greater than or equal to 0"],
        ),
        (["run", "digits", "--seed", "one"], ["Invalid value for '--seed'", "valid integer"]),
        (["run", "digits", "--bogus"], ["No such option: --bogus"]),
        (["run"], ["a recipe or images, received neither"]),
        (["rum", "digits"], ["No such command 'rum'", "run"]),
        (
            ["deploy", "digits", "--architecture", "r8", "--limit", "macs=1M"],
            ["give --architecture or --limit, not both"],
        ),
    ],
)
def test_mistaken_options(command, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    _refused(command(*words), *said)
    assert not list(tmp_path.iterdir()), "a mistake leaves nothing behind"


def test_unknown_key_of_a_recipe_names_the_nearest(command, tmp_path, tiny):
    (tmp_path / "mine.toml").write_text(tiny.read_text().replace("epochs", "epoks"))
    _refused(
        command("run", tmp_path / "mine.toml"),
        "unknown key 'train.epoks'",
        "Did you mean 'epochs'?",
    )


def test_torchrun_is_for_training_only(command, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    _refused(command("run", "digits"), "only pliant train runs under torchrun", "Train with it")


def test_training_device_that_is_not_here(command, tmp_path):
    _refused(
        command("train", "digits", "--train-on", "tpu", "--run-dir", tmp_path / "run"),
        "received 'tpu'",
        "cpu",
    )


def test_mistakes_in_options_are_answered_without_pytorch():
    """What keeps them fast."""
    program = """
import sys
from pliant.cli import main
sys.argv = ["pliant", "run", "digits", "--strategy", "nonsense"]
try:
    main()
except SystemExit as end:
    slow = {"torch", "onnxruntime", "sklearn", "scipy", "datasets"}
    print(end.code, sorted(slow & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "2 []\n"
    assert "nonsense" in done.stderr


# Images.


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ({"only": 6}, ["at least two classes", "only"]),
        ({"cat": 6, "dog": 0}, ["every class folder holds images", "photos/dog holds none"]),
        ({}, ["folder"]),
    ],
)
def test_folders_that_cannot_be_learned_from(command, tmp_path, classes, said):
    (tmp_path / "photos").mkdir()
    data = _pictures(tmp_path / "photos", **classes)
    _refused(command("run", "digits", "--data", data, "--run-dir", tmp_path / "run"), *said)
    assert not (tmp_path / "run").exists(), (
        "a corrected command must not meet a directory of the mistake"
    )


def test_corrupt_image_is_named(command, tmp_path):
    data = _pictures(tmp_path / "photos", cat=6, dog=6)
    (data / "dog" / "3.png").write_bytes((data / "dog" / "3.png").read_bytes()[:40])
    _refused(
        command("run", "digits", "--data", data, "--run-dir", tmp_path / "run"),
        str(data / "dog" / "3.png"),
    )


def test_data_that_is_not_there(command, tmp_path):
    _refused(
        command("run", "digits", "--data", tmp_path / "photoz", "--run-dir", tmp_path / "run"),
        "photoz",
    )


def test_images_smaller_than_the_space_can_handle(command, tmp_path):
    answer = command("run", "digits", "--space", "mobile-32", "--run-dir", tmp_path / "run")
    _refused(answer, "needs images of at least 24 pixels", "received 8", "--space digits")
    assert command("train", "digits", "--epochs", "1", "--run-dir", tmp_path / "run")[0] == 0


# Limits and devices.


@pytest.mark.parametrize("words", [["run"], ["search"]])
def test_limit_that_nothing_meets_is_said_before_training(
    command, tmp_path, tiny, digits_profile, words
):
    (tmp_path / "mine.toml").write_text(
        tiny.read_text() + f'\n[target]\nname = "{digits_profile}"\n'
    )
    run_dir = ["--run-dir", tmp_path / "run"] if words == ["run"] else []
    if not run_dir:
        assert (
            command("device", "measure", tmp_path / "mine.toml", "--run-dir", tmp_path / "run")[0]
            == 0
        )
    target = tmp_path / "run" if not run_dir else tmp_path / "mine.toml"
    kept = None if run_dir else (tmp_path / "run" / "recipe.toml").read_text()
    answer = command(*words, target, *run_dir, "--limit", "latency_ms=0.0001")
    _refused(
        answer,
        "no network of space 'digits' was found within latency_ms=0.0001",
        "latency_ms reaches",
        "Raise latency_ms to at least",
    )
    assert not (tmp_path / "run" / "supernet").exists()
    assert kept in (None, (tmp_path / "run" / "recipe.toml").read_text()), (
        "a run that was begun stays as it was"
    )


def test_limit_on_what_the_device_cannot_tell(command, tmp_path, digits_profile):
    answer = command(
        "run",
        "digits",
        "--target",
        digits_profile,
        "--run-dir",
        tmp_path / "run",
        "--limit",
        "energy=1mJ",
    )
    _refused(answer, "reports no energy_uj", "latency_ms")


SPACE_KEY = {"name": "digits", "channels": 1, "image_size": 8, "classes": 10, "identity": "other"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threads": 4}, ["threads", "4 there, 1 in this run", "target.threads = 4"]),
        ({"optimisation": "basic"}, ["optimisation", "basic there, all in this run"]),
        (
            {"space": SPACE_KEY | {"channels": 3, "image_size": 32}},
            ["3x32x32", "1x8x8"],
        ),
        (
            {"space": SPACE_KEY},
            ["for space 'digits' with 1x8x8", "the same name with other choices or blocks"],
        ),
        ({"speed": 1}, ["not a device profile", "speed"]),
        ({"version": 1}, ["device profile of version 1", f"reads version {PROFILE_VERSION}"]),
    ],
)
def test_profile_of_another_device(command, tmp_path, digits_profile, change, said):
    (tmp_path / "other.json").write_text(
        json.dumps(with_checksum(json.loads(digits_profile.read_text()) | change))
    )
    _refused(
        command(
            "run", "digits", "--target", tmp_path / "other.json", "--run-dir", tmp_path / "run"
        ),
        *said,
    )


def test_profile_that_is_not_there_or_half(command, tmp_path, digits_profile):
    run_dir = ["--run-dir", tmp_path / "run"]
    _refused(
        command("run", "digits", "--target", tmp_path / "none.json", *run_dir),
        "found none at",
    )
    (tmp_path / "half.json").write_bytes(digits_profile.read_bytes()[:500])
    _refused(
        command("run", "digits", "--target", tmp_path / "half.json", *run_dir),
        "half.json is not a device profile",
    )


# The run directory.


def _without_outside_profile(folder: Path) -> Path:
    """Let a copied run use its own device.json."""
    recipe = folder / "recipe.toml"
    named = re.sub(r'name = ".*device\.json"', 'name = "this-cpu"', recipe.read_text())
    recipe.write_text(named)
    return folder


def _states(folder: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "record" not in path.name
    }


@pytest.mark.parametrize("change", [("--energy", "6X"), ("--limit", "energy_uj=20")])
def test_a_refused_option_leaves_the_recipe_of_a_run(command, copied, change):
    kept = (copied / "recipe.toml").read_text()
    assert command("run", copied, *change)[0] == 2
    assert (copied / "recipe.toml").read_text() == kept


def test_a_target_that_cannot_be_opened_leaves_the_recipe_of_a_run(
    command, copied, digits_profile, tmp_path
):
    kept = (copied / "recipe.toml").read_text()
    (tmp_path / "broken.json").write_text("{}")
    (tmp_path / "broken.toml").write_text("[")
    other = load_profile(digits_profile)
    space = other.space.model_copy(update={"identity": "other"})
    other.model_copy(update={"space": space}).save(tmp_path / "other.json")
    for name in ("missing.json", "broken.json", "broken.toml", "other.json", "mistyped"):
        assert command("run", copied, "--target", tmp_path / name)[0] == 2, name
        assert (copied / "recipe.toml").read_text() == kept, name


def test_damaged_files_are_named_and_left_alone(command, copied):
    _without_outside_profile(copied)
    for name, said in (
        ("device.json", "remove it to measure this machine again"),
        ("supernet/weights.safetensors", "remove this one, and the run resumes"),
        ("record.sqlite", "restore it from a copy"),
        ("recipe.toml", "TOML"),
    ):
        path = copied / name
        whole = path.read_bytes()
        path.write_bytes(
            whole[: len(whole) // 2] if name != "record.sqlite" else b"garbage" + whole[7:]
        )
        before = _states(copied)
        _refused(command("deploy", copied), str(path), said)
        assert _states(copied) == before
        path.write_bytes(whole)


def test_damaged_summary(command, copied):
    (copied / "summary.json").write_text("{")
    _refused(command("report", copied), "summary.json", "pliant search")


def test_weights_of_another_network(command, copied):
    path = copied / "supernet" / "weights.safetensors"
    shutil.copy(copied / "best" / "model.safetensors", path)
    _refused(command("deploy", copied), str(path), "does not hold the weights", "last checkpoint")
    path.unlink()
    assert command("train", copied)[0] == 0
    assert path.is_file()


def test_damaged_checkpoint_is_named_and_the_run_goes_on_without_it(command, copied):
    (copied / "supernet" / "weights.safetensors").unlink()
    *_, checkpoint = sorted(copied.glob("supernet/checkpoint-*"))
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    _refused(command("train", copied), str(checkpoint), "remove this one, and the run resumes")
    checkpoint.unlink()
    assert command("train", copied)[0] == 0


def test_directory_of_another_recipe_says_what_differs(command, copied, tiny):
    answer = command("run", tiny, "--epochs", "5", "--seed", "1", "--run-dir", copied)
    _refused(
        answer,
        "belongs to another recipe",
        "seed (0 there, 1 here)",
        "train.epochs (3 there, 5 here)",
        "--run-dir NEW_DIRECTORY",
    )


def test_directory_with_foreign_files(command, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    _refused(
        command("run", "digits", "--run-dir", tmp_path),
        "an empty directory",
        "thesis.tex",
        "--run-dir",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_images_that_changed_since_the_run_began(command, tmp_path):
    data = _pictures(tmp_path / "photos", cat=30, dog=30)
    words = ["train", "digits", "--data", data, "--epochs", "1", "--run-dir", tmp_path / "run"]
    assert command(*words)[0] == 0
    _pictures(data / "more", bird=1)
    shutil.move(str(data / "more" / "bird" / "0.png"), str(data / "cat" / "new.png"))
    shutil.rmtree(data / "more")
    _refused(command(*words), "changed since", "--run-dir NEW_DIRECTORY")


def test_second_process_on_a_run(command, copied):
    holder = f"""
import sys
from pliant import Record
from pliant.files import with_checksum
with Record.open({str(copied / "record.sqlite")!r}, recipe_digest=sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
    with Record.read(copied / "record.sqlite") as record:
        digest = record.metadata("recipe_digest")
    process = subprocess.Popen(
        [sys.executable, "-c", holder, digest],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        _refused(
            command("deploy", copied),
            "one process writes a run at a time",
            f"process {process.pid}",
        )
    finally:
        process.communicate()
    assert command("report", copied)[0] == 0


def test_run_directory_and_run_dir(command, copied, tmp_path):
    _refused(
        command("run", copied, "--run-dir", tmp_path / "new"),
        "is resumed in place",
        "recipe.toml --run-dir",
    )


def test_search_before_deploying_another_network(command, copied):
    with Record.open(copied / "record.sqlite", recipe_digest=_digest(copied)) as record:
        record._connection.execute("DELETE FROM evaluations")
    _refused(
        command("deploy", copied, "--limit", "latency_ms=0.05"),
        "holds 0 evaluations",
        "Run pliant search",
    )


def test_architecture_of_another_space(command, copied):
    _refused(command("deploy", copied, "--architecture", "r8_9d9"), "has no choice '9d'", "Known:")


def _digest(folder: Path) -> str:
    with Record.read(folder / "record.sqlite") as record:
        return record.metadata("recipe_digest")


# The disk.


def test_a_folder_for_temporary_files_that_is_not_there(command, copied, tmp_path, monkeypatch):
    """What TMPDIR names and is no folder is passed over; where none can be used, it is named."""
    gone = tmp_path / "gone"
    monkeypatch.setenv("TMPDIR", str(gone))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert run_python("print('ran')").stdout == "ran\n"
    monkeypatch.setattr(tempfile, "tempdir", str(gone))
    _refused(command("deploy", copied, "--output-dir", tmp_path / "out"), str(gone))


def test_full_disk_keeps_what_was_there(command, copied, monkeypatch):
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = _states(copied)
    monkeypatch.setattr(os, "fsync", full)
    _refused(
        command("report", copied),
        "No space left on device",
        "Free some space, then start the same command again",
    )
    assert _states(copied) == before
    monkeypatch.undo()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_directory_that_may_not_be_written(command, tmp_path):
    tmp_path.chmod(0o500)
    _refused(
        command("train", "digits", "--run-dir", tmp_path / "run"),
        "Permission denied",
        "Allow writing there",
    )


def test_full_small_disk(tmp_path):
    """A file system of 600 kB: training ends with a message, and goes on when there is space."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=600k", "none", disk],
            capture_output=True,
            check=False,
        ).returncode
    ):
        pytest.skip("needs the right to mount a file system")
    try:
        words = [
            sys.executable,
            "-m",
            "pliant",
            "train",
            "digits",
            "--epochs",
            "1",
            "--run-dir",
            disk / "run",
        ]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert "No space left" in done.stderr or "is full" in done.stderr
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    finally:
        subprocess.run(["umount", disk], check=True)
