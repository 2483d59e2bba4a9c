"""What is a block's place in the network called? `stage2_block1` reads "stage 2, block 1"."""

from __future__ import annotations

import re

_STAGE = re.compile(r"stage(\d+)_(.+)")


def stage_of(slot: str) -> str:
    """The part of the network that a slot belongs to: its stage, or itself."""
    match = _STAGE.fullmatch(slot)
    return f"Stage {match[1]}" if match else _spaced(slot).capitalize()


def within_stage(slot: str) -> str:
    """The slot's name inside its stage; the whole name where it has none."""
    match = _STAGE.fullmatch(slot)
    return _spaced(match[2] if match else slot)


def slot_name(slot: str) -> str:
    """The slot on its own: stage and block."""
    return (
        f"{stage_of(slot).lower()}, {within_stage(slot)}"
        if _STAGE.fullmatch(slot)
        else _spaced(slot)
    )


def _spaced(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=\d)", " ", name.replace("_", " "))
