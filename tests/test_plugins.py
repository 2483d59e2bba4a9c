"""Parts of a user's own: which names mean one, and what is said where they end in an error."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pliant.errors import InfeasibleError, RecipeError
from pliant.plugins import (
    call_plugin,
    is_object,
    is_plugin,
    load_plugin,
    object_text,
    own_error,
    plugin_name,
    plugin_path,
    require_part,
)

SOURCE = """
import neighbour
from pliant.errors import InfeasibleError
NUMBER = 7

def build(size, *, more=0):
    return size + more + neighbour.ONE

def fails(size):
    return helper(size)

def helper(size):
    return {}[size]

def full():
    raise MemoryError

def library(size):
    import json
    return json.loads("{")

def refuses(size):
    raise InfeasibleError("nothing fits.")

def leaves(size):
    raise SystemExit(3)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [one for one in sys.modules if one == "neighbour"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "neighbour.py").write_text("ONE = 1\n")
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path / "mine.py"


@pytest.mark.parametrize(
    ("text", "plugin", "given"),
    [
        ("my_space.py:build", True, False),
        ("/a/b.c/my_space.py:Build", True, False),
        ("C:\\parts\\space.py:build", True, False),
        ("object:Space", True, True),
        ("digits", False, False),
        ("my_space.py", False, False),
        ("my_space.toml:build", False, False),
        ("hf:name", False, False),
    ],
)
def test_which_names_mean_a_part_of_ones_own(text: str, plugin: bool, given: bool) -> None:
    assert (is_plugin(text), is_object(text)) == (plugin, given)
    if plugin:
        assert require_part(text, ("a", "b"), what="a part") == text
    else:
        with pytest.raises(RecipeError, match=r"a part is one of a, b or file\.py:NAME, received"):
            require_part(text, ("a", "b"), what="a part")


def test_the_file_is_run_once_and_again_where_it_changed(mine: Path) -> None:
    text = f"{mine}:build"
    assert (plugin_path(text), plugin_name(text)) == (mine, "mine.py:build")
    assert load_plugin(text, what="a part") is load_plugin(text, what="a part")
    assert call_plugin(text, 2, what="a part", more=4) == 7, "it imports its neighbours"
    mine.write_text(SOURCE.replace("size + more", "10 * size + more"))
    assert call_plugin(text, 2, what="a part") == 21


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fails", r"mine\.py:fails ended in an error at line \d+ of mine\.py in helper: KeyError"),
        ("library", r"error at line \d+ of mine\.py in library: JSONDecodeError"),
        ("leaves", r"line \d+ of mine\.py in leaves: SystemExit\(3\)"),
        ("build2", r"has no 'build2'.*'build'"),
        ("NUMBER", r"a part is a function or a class, .*NUMBER is of type int"),
        ("a b", r"named as file\.py:NAME, received"),
    ],
)
def test_errors_name_the_innermost_line_of_ones_own(mine: Path, name: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        call_plugin(f"{mine}:{name}", 2, what="a part")


def test_errors_of_this_package_stay_what_they_are(mine: Path) -> None:
    with pytest.raises(InfeasibleError, match=r"^nothing fits\.$"):
        call_plugin(f"{mine}:refuses", 2, what="a part")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def build(:\n", "error at line 1: SyntaxError"),
        ("x = 1\ny = 1 / 0\n", r"error at line 2 of mine\.py in <module>: ZeroDivisionError"),
    ],
)
def test_a_file_that_ends_in_an_error_is_run_again_once_it_is_right(
    mine: Path, source: str, says: str
) -> None:
    mine.write_text(source)
    for _ in range(2):
        with pytest.raises(RecipeError, match=says):
            load_plugin(f"{mine}:build", what="a part")
    mine.write_text("def build():\n    return 5\n")
    assert call_plugin(f"{mine}:build", what="a part") == 5


def test_files_that_are_not_there_and_objects_of_other_processes_are_refused(mine: Path) -> None:
    with pytest.raises(RecipeError, match=r"a part comes from .*none\.py, which cannot be read"):
        load_plugin(f"{mine.with_name('none.py')}:build", what="a part")
    with pytest.raises(RecipeError, match=r"given as a Python object, Mine.*Give it again"):
        load_plugin("object:Mine", what="a part")


def test_objects_are_named_as_their_class_or_function() -> None:
    def local() -> int:
        return 1

    assert object_text(local) == "object:local"
    assert object_text(Path) == "object:Path"
    assert object_text(Path("x")).removeprefix("object:") in ("PosixPath", "WindowsPath")
    assert call_plugin(local, what="a part") == 1


def test_errors_of_a_part_that_was_loaded_are_its_own(mine: Path) -> None:
    fails = load_plugin(f"{mine}:fails", what="a part")
    with pytest.raises(KeyError) as own:
        fails(1)
    found = own_error(own.value)
    assert found is not None
    assert found.startswith(f"{mine.name} ended in an error at line")
    with pytest.raises(ValueError, match="invalid literal") as other:
        int("x")
    assert own_error(other.value) is None
    full = load_plugin(f"{mine}:full", what="a part")
    with pytest.raises(MemoryError) as memory:
        full()
    assert own_error(memory.value) is None
