"""The Python of the pages under docs/ that teach by example runs, block after block."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
WORKED = ["strategies.md"]


@pytest.mark.parametrize("name", WORKED)
def test_python_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / name).read_text("utf-8")
    names = {"__name__": "docs"}
    for block in re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        exec(compile(block, name, "exec"), names)


def test_recipe_page_is_up_to_date():
    """Otherwise run `python docs/generate_recipe_page.py`."""
    spec = importlib.util.spec_from_file_location("generator", DOCS / "generate_recipe_page.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert generator.PAGE.read_text("utf-8") == generator.recipe_page()
