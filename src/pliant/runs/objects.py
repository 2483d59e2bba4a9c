"""Parts of a run that are given as Python objects, where a recipe has their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pliant.plugins import object_text

PARTS = ("space", "data.source", "target.name", "search.searcher")
"""Keys of a recipe for which an object may be given."""


def split_objects(changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Changes of a recipe as texts, and the objects among them by their keys.

    Args:
        changes: keys of a recipe to values; a double underscore is the dot, as in `target__name`.

    Returns:
        The changes by dotted keys, with `object:NAME` for an object; and the objects.
    """
    texts, objects = {}, {}
    for name, value in changes.items():
        key = name.replace("__", ".")
        if key in PARTS and not (value is None or isinstance(value, (str, Path))):
            objects[key] = value
            value = object_text(value)
        texts[key] = value
    return texts, objects
