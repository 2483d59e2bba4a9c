"""The part of the page that says how to have the same result again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pliant.report.markup import Markup, tag
from pliant.report.pieces import command, copy_button, facts, section
from pliant.report.quantities import moment, networks, significant, square

_NAMES = {
    "cpu": "Processor",
    "cores": "Cores",
    "os": "System",
    "python": "Python",
    "torch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
}


def repeat(summary: Mapping[str, Any]) -> Markup:
    """The section: command, seed, data, versions, machine and the recipe."""
    machine = summary.get("machine") or {}
    data, space = summary.get("data") or {}, summary.get("space") or {}
    rows = [
        ("Pliant", summary.get("pliant")),
        ("Seed", summary.get("seed")),
        ("Made", moment(summary["created"]) if summary.get("created") else None),
        ("Data", data.get("name")),
        ("Images", _images(data)),
        ("Space", space.get("name")),
        ("Input", _input(space)),
        (
            "Networks in the space",
            networks(space["size"]) if space.get("size") is not None else None,
        ),
        *(
            (_NAMES.get(key, str(key).replace("_", " ").capitalize()), value)
            for key, value in machine.items()
        ),
    ]
    recipe = summary.get("recipe_toml")
    return section(
        "repeat",
        "How to repeat it",
        command(str(summary["command"]), "the command of this run")
        if summary.get("command")
        else None,
        facts(rows),
        _classes(space.get("classes") or []),
        tag(
            "details",
            tag("summary", "The whole recipe (TOML)"),
            copy_button("the recipe", str(recipe)),
            tag("pre", tag("code", recipe)),
        )
        if recipe
        else None,
    )


def _images(data: Mapping[str, Any]) -> str | None:
    known = [
        f"{significant(data[part])} {part}"
        for part in ("train", "validation", "test")
        if data.get(part) is not None
    ]
    return ", ".join(known) or None


def _classes(names: Sequence[str]) -> Markup | None:
    if not names:
        return None
    rows = tag("ol", *(tag("li", name) for name in names), start=0, class_="classes")
    return tag("details", tag("summary", f"The {len(names)} classes"), rows)


def _input(space: Mapping[str, Any]) -> str | None:
    size, channels = space.get("image_size"), space.get("channels")
    return (
        f"{square(size)} pixels, {channels} channel{'' if channels == 1 else 's'}"
        if size and channels
        else None
    )
