"""The Python of the pages under docs/ that teach by example runs, block after block."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from pliant.runs.recipe import tomllib
from pliant.spaces import presets

DOCS = Path(__file__).parent.parent / "docs"
WORKED = ["elastic.md", "growing.md", "searchers.md", "spaces.md", "strategies.md", "targets.md"]
"""Other pages have tests of their own."""


def _python(page: Path) -> list[str]:
    text = page.read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def with_files(tmp_path, monkeypatch):
    """A folder with the files of all pages: blocks that begin with `# NAME.py`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(presets, "PRESETS", dict(presets.PRESETS))  # a page adds one
    for page in DOCS.glob("*.md"):
        for block in _python(page):
            if name := re.match(r"# (\w+\.py)\n", block):
                Path(name[1]).write_text(block, "utf-8")


@pytest.mark.parametrize("name", WORKED)
@pytest.mark.usefixtures("with_files")
def test_python_runs(name):
    names = {"__name__": "docs"}
    for block in _python(DOCS / name):
        exec(compile(block, name, "exec"), names)


def test_recipe_page_is_up_to_date():
    """Otherwise run `python docs/generate_recipe_page.py`."""
    spec = importlib.util.spec_from_file_location("generator", DOCS / "generate_recipe_page.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert generator.PAGE.read_text("utf-8") == generator.recipe_page()


def test_architecture_shows_the_order_of_imports():
    root = DOCS.parent
    contract = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    layers = "\n".join(contract["contracts"][0]["layers"])
    assert f"```\n{layers}\n```" in (root / "ARCHITECTURE.md").read_text("utf-8")


@pytest.mark.parametrize(
    "page", [*DOCS.glob("*.md"), *DOCS.parent.glob("*.md")], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
        assert "://" in link or (page.parent / link).exists(), link


def test_papers_page_names_every_paper_of_the_code():
    page = (DOCS / "papers.md").read_text("utf-8").lower()
    source = DOCS.parent / "src" / "pliant"
    for file in [*source.rglob("*.py"), *source.rglob("*.toml")]:
        text = file.read_text("utf-8")
        numbers = re.findall(r"(?i)arxiv[: ]+(\d{4}\.\d{4,5})", text)
        numbers += re.findall(r"(?i)doi[: ]+(10\.\d{4,}/[\w./-]*\w)", text)
        assert not [number for number in numbers if number.lower() not in page], file
