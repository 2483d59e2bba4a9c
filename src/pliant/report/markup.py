"""How is HTML written so that no name of a class or a network can become part of it?

`tag` escapes every text and every attribute; only what `tag` itself wrote passes as it is.
"""

from __future__ import annotations

import html

_VOID = frozenset({"br", "hr", "wbr"})


class Markup(str):
    """Text that is HTML or SVG already."""

    __slots__ = ()


def text(content: object) -> Markup:
    """Content as HTML: markup as it is, everything else escaped, `None` as nothing."""
    if isinstance(content, Markup):
        return content
    return Markup("" if content is None else html.escape(str(content)))


def joined(*contents: object) -> Markup:
    """Contents one behind the other."""
    return Markup("".join(text(content) for content in contents))


def tag(element: str, *contents: object, **attributes: object) -> Markup:
    """An element with its contents.

    Args:
        element: the element's name.
        contents: text, which is escaped, or markup.
        attributes: `class_` stands for `class`, `data_id` for `data-id`; True writes the bare name, None and False nothing.
    """
    written = "".join(
        f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'
        for name, value in (
            (key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items()
        )
        if value is not None and value is not False
    )
    if element in _VOID:
        return Markup(f"<{element}{written}>")
    return Markup(f"<{element}{written}>{joined(*contents)}</{element}>")
