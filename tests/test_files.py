"""A file is the old one or the new one, whatever happens while it is written."""

from __future__ import annotations

import os
import shutil

import pytest

from pliant.files import (
    LONGEST_NAME,
    folder_name,
    replace_atomically,
    with_full_place,
    write_atomically,
)


def test_text_and_bytes_are_written_with_their_folder(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    write_atomically(path, "gray \N{LATIN SMALL LETTER U WITH DIAERESIS}")
    assert path.read_bytes() == b"gray \xc3\xbc"
    write_atomically(path, b"\x00\r\n")
    assert path.read_bytes() == b"\x00\r\n"
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.bin"
    write_atomically(path, b"old")

    def broken(partial):
        partial.write_bytes(b"half")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        replace_atomically(path, broken)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_first_write_leaves_nothing(tmp_path):
    def broken(partial):
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        replace_atomically(tmp_path / "file.bin", broken)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_move_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.bin"
    write_atomically(path, b"old")
    monkeypatch.setattr(
        os, "fsync", lambda number: (_ for _ in ()).throw(OSError("input/output error"))
    )
    with pytest.raises(OSError, match="input/output"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_it_is_on_disk_before_it_takes_the_place(tmp_path, monkeypatch):
    path, events = tmp_path / "file.bin", []
    write_atomically(path, b"old")
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda number: (events.append(path.read_bytes()), fsync(number))
    )
    write_atomically(path, b"new")
    assert events == [b"old"]
    assert path.read_bytes() == b"new"


def test_the_partial_file_has_the_type_of_the_whole(tmp_path):
    """Writers such as NumPy's and ONNX's look at the suffix."""
    seen = []
    replace_atomically(
        tmp_path / "table.npz", lambda partial: (seen.append(partial), partial.write_bytes(b"x"))
    )
    assert seen[0].parent == tmp_path
    assert seen[0].suffix == ".npz"
    assert seen[0].name.startswith(".")


def test_all_files_have_the_usual_mode(tmp_path):
    """Whatever mode their writers choose, safetensors' for one."""
    (tmp_path / "usual").touch()
    replace_atomically(
        tmp_path / "file.bin", lambda partial: (partial.touch(), partial.chmod(0o600))
    )
    assert (tmp_path / "file.bin").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_full_disk_is_named_where_a_library_does_not(tmp_path, monkeypatch):
    free = lambda path: type("Usage", (), {"free": 0})  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", free)
    named = with_full_place(RuntimeError("I/O error: full (os error 28)"), tmp_path)
    assert isinstance(named, OSError)
    assert named.filename == str(tmp_path)
    other = ValueError("another")
    assert with_full_place(other, tmp_path) is other


def test_a_long_name_is_cut_and_kept_apart(tmp_path):
    assert folder_name("r8_1d2") == "r8_1d2"
    one, other = ("layer1.0.conv1.w64_" * 20 + end for end in "ab")
    names = {folder_name(one), folder_name(other)}
    assert len(names) == 2
    for name in names:
        assert len(name) == LONGEST_NAME
        (tmp_path / name).mkdir()
