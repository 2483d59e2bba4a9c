"""How does a page get its HTML? From Jinja2 templates, one stylesheet and one script for all.

`templates/base.html` is the frame of every page, `templates/parts.html` has the macros for
sections, facts, tables, cards, charts and commands. Every text is escaped (autoescape), so that the
name of a class or a network cannot become part of the page; the page's own security policy forbids
every request, so that it stays self-contained.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pliant.files import write_atomically
from pliant.report import packed, quantities

_FILTERS = (
    quantities.count,
    quantities.duration,
    quantities.format_timestamp,
    quantities.percent,
    quantities.points,
    quantities.significant,
)


def write_page(path: Path, template: str, **values: object) -> None:
    """Fill in a template and write the page, replacing an old one at once."""
    write_atomically(path, render(template, **values))


def render(template: str, **values: object) -> str:
    """A page as HTML.

    Args:
        template: its name in `templates/`.
        values: what the template shows, by name; one that it lacks is an error.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    loader = PackageLoader("pliant.report")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {one.__name__: one for one in _FILTERS}
    for name in ("page.css", "page.js"):
        # Not templates: braces in them are their own.
        source, _, _ = loader.get_source(environment, name)
        environment.globals[name.replace(".", "_")] = Markup(source)
    environment.globals["plotly"] = packed.packed_plotly()
    environment.globals["alphabet"] = packed.ALPHABET
    environment.globals |= {
        "not_measured": quantities.NOT_MEASURED,
        "quantity": quantities.quantity,
        "square": quantities.square,
        "words": quantities.words,
    }
    return environment
