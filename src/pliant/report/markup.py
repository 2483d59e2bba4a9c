"""Elements of the drawing's SVG; every text and attribute in them is escaped."""

from __future__ import annotations

from markupsafe import Markup, escape


def joined(*contents: object) -> Markup:
    """Contents in a row: markup as it is, everything else escaped, None as nothing."""
    found = Markup("")
    for content in contents:
        found += escape("" if content is None else content)
    return found


def tag(element: str, *contents: object, **attributes: object) -> Markup:
    """An element with its contents.

    Args:
        element: the element's name.
        contents: text, which is escaped, or markup.
        attributes: `class_` stands for `class`, `aria_label` for `aria-label`; None writes nothing.
    """
    written = Markup("")
    for key, value in attributes.items():
        if value is not None:
            written += Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value)
    return Markup("<{0}{1}>{2}</{0}>").format(escape(element), written, joined(*contents))
