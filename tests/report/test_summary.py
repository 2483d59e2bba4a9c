"""A summary reads back as it was written, and a wrong one is refused in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pliant.errors import DamagedFileError
from pliant.report.summary import Summary, read_summary_file, summary_to_json, write_summary_file


def test_reads_back_as_written(tmp_path: Path, summary: Summary, on_paper: Summary) -> None:
    for one in (summary, on_paper, replace(summary, space=replace(summary.space, size=7**90))):
        write_summary_file(one, tmp_path / "summary.json")
        assert read_summary_file(tmp_path / "summary.json") == one


def _set(*path: str | int, to: object) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_set("version", to=1), r"version 2, \S+summary.json has 1\. Run `pliant search"),
        (lambda content: content.pop("version"), "has none"),
        (lambda content: content.pop("front"), "wrong at front: Field required"),
        (_set("chosen", "predicted", "speed", to=1), "wrong at chosen.predicted.speed"),
        (_set("front", 2, "estimate", "top1", to=1.5), "wrong at front.2.estimate: .*0 to 1"),
        (_set("chosen", "measured", to="0.3"), "wrong at chosen.measured"),
        (_set("seed", to="0"), "wrong at seed"),
        (_set("objective", "costs", to=["speed"]), "wrong at objective: .*'speed'"),
        (_set("search", "points", 0, "by", to="luck"), "wrong at search.points.0.by"),
    ],
)
def test_a_wrong_file_is_refused_by_field(
    tmp_path: Path, summary: Summary, change: Callable[[Any], None], said: str
) -> None:
    content = json.loads(summary_to_json(summary))
    change(content)
    (tmp_path / "summary.json").write_text(json.dumps(content))
    with pytest.raises(DamagedFileError, match=said) as refused:
        read_summary_file(tmp_path / "summary.json")
    assert "\n" not in str(refused.value)
    assert f"pliant search {tmp_path}" in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        _set("chosen", "architecture", to="r8"),
        _set("front", to=[]),
        _set("note", to="better than it is"),
        _set("sha256", to="0"),
        lambda content: content.pop("sha256"),
    ],
)
def test_an_edited_file_is_refused(tmp_path: Path, summary: Summary, change) -> None:
    content = json.loads(summary_to_json(summary))
    change(content)
    (tmp_path / "summary.json").write_text(json.dumps(content))
    with pytest.raises(DamagedFileError, match="its checksum differs"):
        read_summary_file(tmp_path / "summary.json")


@pytest.mark.parametrize("text", ["{", "[]", "2", ""])
def test_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(DamagedFileError, match=r"summary\.json"):
        read_summary_file(tmp_path / "summary.json")


def test_pages_need_no_torch() -> None:
    code = "import sys, pliant.report.run_page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=240).returncode == 0
