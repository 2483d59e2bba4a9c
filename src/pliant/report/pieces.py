"""The pieces that the page is made of: sections, lists of facts, tables, commands to copy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pliant.report.markup import Markup, joined, tag
from pliant.report.quantities import NOT_MEASURED

_LONG_WORD = 24
"""Characters; shorter words of a command stay on one line, though they may hold hyphens."""


def section(name: str, title: str, *contents: object) -> Markup:
    """A part of the page under a heading; `name` is its anchor."""
    return tag("section", tag("h2", title), *contents, id=name)


def note(*contents: object) -> Markup:
    """A paragraph in small type."""
    return tag("p", *contents, class_="note")


def facts(rows: Iterable[tuple[object, object]]) -> Markup:
    """Names and values; a row whose value is None is left out."""
    return tag(
        "dl",
        *(
            tag("div", tag("dt", name), tag("dd", value))
            for name, value in rows
            if value is not None
        ),
        class_="facts",
    )


def table(
    caption: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers: Iterable[int] = (),
    class_: str = "",
) -> Markup:
    """A table that becomes one card a row on a phone; the first cell of a row names it.

    Args:
        numbers: columns that are aligned as numbers.
    """
    aligned = frozenset(numbers)
    kinds = ["number" if column in aligned else None for column in range(len(heads))]
    head = tag(
        "thead",
        tag(
            "tr",
            *(
                tag("th", name, scope="col", class_=kind)
                for name, kind in zip(heads, kinds, strict=True)
            ),
        ),
    )
    body = []
    for row in rows:
        first = tag("th", row[0], scope="row")
        cells = list(zip(heads, kinds, row, strict=True))[1:]
        body.append(
            tag(
                "tr",
                first,
                *(
                    tag("td", _cell(cell), data_label=name, class_=kind)
                    for name, kind, cell in cells
                ),
            )
        )
    return tag("table", tag("caption", caption), head, tag("tbody", *body), class_=class_ or None)


def copy_button(what: str, copied: str) -> Markup:
    """A button that puts a text on the clipboard; `what` says to a screen reader what is copied."""
    return tag(
        "button", "Copy", type="button", class_="copy", data_copy=copied, aria_label=f"Copy {what}"
    )


def command(text: str, what: str) -> Markup:
    """A command line, and its button."""
    words = [
        breakable(word) if len(word) > _LONG_WORD else tag("span", word) for word in text.split(" ")
    ]
    spaced = joined(words[0], *(joined(" ", word) for word in words[1:]))
    return tag("div", tag("code", spaced), copy_button(what, text), class_="command")


def card(title: str, *contents: object) -> Markup:
    """A small part of a section."""
    return tag("div", tag("h3", title), *contents, class_="card")


def cards(contents: Iterable[object]) -> Markup:
    """Cards side by side where there is room."""
    return tag("div", joined(*contents), class_="cards")


def breakable(architecture: str) -> Markup:
    """A long word, as an architecture's text form, that may be broken behind its underscores."""
    words = architecture.split("_")
    return tag(
        "code",
        joined(*(joined(word, "_", tag("wbr")) for word in words[:-1]), words[-1]),
        class_="architecture",
    )


def _cell(content: object) -> Markup:
    return tag("span", content, class_="open" if content == NOT_MEASURED else None)
