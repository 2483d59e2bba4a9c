"""Names, pictures and places that would do harm: names stay names, and nothing there runs."""

from __future__ import annotations

import csv
import json
import os
import pickle
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


class _Marks:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("option", ["space", "strategy", "searcher", "target", "data", "start"])
def test_parts_of_a_user_cannot_end_the_command(command, tmp_path, option):
    path, out = tmp_path / "part.py", tmp_path / "out"
    path.write_text("import sys\ndef Own(*args):\n    sys.exit(3)\nsys.exit(3)")
    code, _, error = command("run", "digits", f"--{option}", f"{path}:Own", "--run-dir", out)
    assert code == 2
    assert "part.py" in error
    assert "sys.exit(3)" in error or "SystemExit(3)" in error
    assert option == "target" or not out.exists()


NAMES = ("<script>alert(1)</script>", "a\nb", "[x](http://y)", "$(touch mark)", "`touch mark`")
NAMES += (
    "; touch mark",
    "--help",
    "..",
    "../x",
    "/x",
    "\u202etxt",
    "{{ 7 * 7 }}",
    "%s%n",
    "~",
    ".",
)
NAMES += (
    "'; DROP TABLE metadata;--",
    "\x1b[31m",
    "=cmd|' /C calc'!A0",
    "[bold]x",
    "con:",
    "x" * 300,
)


@pytest.mark.parametrize("name", NAMES)
def test_names_stay_names(command, tmp_path, monkeypatch, name):
    """As names of recipes and of picture files; what cannot be one is refused."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    (place / "a.toml").write_text(
        f"name = {json.dumps(name)}\nspace = 'digits'\n[data]\nsource = 'none.npz'\n"
        "[train]\nepochs = 1"
    )
    code, _, error = command("train", "a.toml")
    assert code == 2, error
    assert "a.toml" in error or "none.npz" in error
    assert [path.name for path in tmp_path.rglob("*")] == ["place", "a.toml"]


def test_names_of_pictures_come_back(command, copied, tmp_path, monkeypatch):
    place = tmp_path / "place"
    place.mkdir()
    names = {f"{name}.png" for name in NAMES if "/" not in name and len(name) < 200}
    for name in names:
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(place / name, "PNG")
    monkeypatch.chdir(tmp_path)
    code, _, error = command("predict", copied, "place", "--out", "out.csv")
    assert (code, error) == (0, "")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        assert {Path(row[0]).name for row in csv.reader(file)} >= names
    assert not list(tmp_path.rglob("mark"))


def _png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG file that claims a size, with chunks of its own."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (head, *chunks, b"IDAT" + zlib.compress(b""), b"IEND")
    framed = (
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


PICTURES: dict[str, Callable[[Path], bytes]] = {
    "program": lambda _: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshow\n",
    "pickle": lambda mark: pickle.dumps(_Marks(mark)),
    "bomb": lambda _: _png(60_000, 60_000),
    "text": lambda _: _png(8, 8, b"zTXtkey\0\0" + zlib.compress(bytes(2**27))),
    "drawing": lambda _: (
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>'
    ),
    "document": lambda _: b"%PDF-1.4\n1 0 obj <</OpenAction <</S /Launch>>>> endobj",
    "empty": lambda _: b"",
    "page": lambda _: b"<script>alert(1)</script>",
}
LINKS = {"loop": "loop.png", "nowhere": "none", "device": "/dev/zero", "secret": "/etc/passwd"}


def _gs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mark of a program `gs`, by which Pillow would decode PostScript."""
    (folder / "gs").write_text(f"#!/bin/sh\ntouch {folder / 'mark'}\n")
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder / "mark"


@pytest.mark.parametrize("name", [*PICTURES, *LINKS])
def test_hostile_pictures_are_refused(command, tmp_path, monkeypatch, name):
    """Among good ones, by name."""
    for number in range(6):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), number * 40, np.uint8)).save(path)
    hostile, mark = tmp_path / "photos" / "a" / f"{name}.png", _gs(tmp_path, monkeypatch)
    if name in PICTURES:
        hostile.write_bytes(PICTURES[name](mark))
    else:
        hostile.symlink_to(LINKS[name])
    code, _, error = command(
        "train", "digits", "--data", tmp_path / "photos", "--run-dir", tmp_path / "out"
    )
    assert code == 2, error
    assert hostile.name in "".join(error.split()), error
    assert not mark.exists()


def test_hostile_pictures_are_not_classified(command, finished, tmp_path, monkeypatch):
    """Neither by `predict` nor by the script that is delivered."""
    mark, folder = _gs(tmp_path, monkeypatch), tmp_path / "pictures"
    folder.mkdir()
    for name, content in PICTURES.items():
        (folder / f"{name}.png").write_bytes(content(mark))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "good.png")
    code, _, error = command("predict", finished.folder, folder, "--out", tmp_path / "out.csv")
    assert code == 1, error
    rows = (tmp_path / "out.csv").read_text("utf-8")
    assert all(f"{name}.png" in rows + error for name in PICTURES)
    script = [sys.executable, finished.folder / "best" / "predict.py", folder / "program.png"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert "UnidentifiedImageError" in done.stderr
    assert not mark.exists()


@pytest.mark.parametrize("path", ["pipe", "/dev/zero"])
@pytest.mark.parametrize(
    "words",
    [
        "device show PATH",
        "accelerator map PATH --size N=1",
        "fidelity PATH --truth PATH",
        "score --space digits --architectures PATH",
        "score PATH.py:build --shape 3x8x8",
        "device import PATH --out out",
        "train digits --data PATH",
        "train digits --run-dir=PATH",
    ],
)
def test_what_never_ends_is_not_read(command, tmp_path, monkeypatch, words, path):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path(f"{Path(path).name}.py").symlink_to(path)
    code, _, error = command(
        *words.replace("PATH.py", f"{Path(path).name}.py").replace("PATH", path).split()
    )
    assert code == 2
    assert "is a pipe or a device" in " ".join(error.split())
