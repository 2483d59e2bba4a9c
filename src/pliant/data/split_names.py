"""Which folders, files or tables are the training, validation and test splits, by their names.

People write `train`, `Training`, `training_set`, `train_images`, `seg_train`, `val`, `Validation`,
`dev`, `test`, `Testing`, `test-00000-of-00002.parquet`. A name is read as words; numbers and words
that say nothing are left out, and one word that names a split must remain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, cast

from pliant.errors import DataError

SplitName = Literal["train", "validation", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = ("train", "validation", "test")

_WORDS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "validate": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}

_FILLERS = re.compile(
    r"\d+|of|the|my|seg|new|all|full|default|data|datasets?|splits?|folder|sets?|parquet"
    r"|images?|imgs?|pictures?|pics?|photos?"
)

AUTOMATIC, NONE = "auto", "none"
"""Values of the option `splits`: by names, or every folder is a class."""


def split_of(name: str) -> SplitName | None:
    """The split that a name means, or None."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z0-9])", " ", name).lower()
    words = re.findall(r"[^\W_]+", spaced)
    words = [re.sub(r"(?<=.)sets?$", "", word) for word in words]  # trainset
    words = [word for word in words if not _FILLERS.fullmatch(word)]
    return _WORDS.get(words[0]) if len(words) == 1 else None


def find_splits(names: Iterable[str], where: str) -> dict[SplitName, list[str]]:
    """The names of each split, in the order of the splits; names of none are left out.

    Args:
        names: of folders, files or tables.
        where: they are, for the error.

    Raises:
        DataError: names that mean the same split in different ways, as `train` and `training_set`.
    """
    found: dict[SplitName, list[str]] = {}
    for split in SPLIT_NAMES:
        matching = [name for name in names if split_of(name) == split]
        if matching:
            found[split] = matching
    for split, matching in found.items():
        # Parts of one table differ in their numbers only.
        if len({re.sub(r"\d+", "", name) for name in matching}) > 1:
            raise DataError(
                f"every split is there once; in {where}, {' and '.join(matching)} all mean "
                f"{split}. Say which one: splits = {split}=NAME,..."
            )
    return found


def parse_splits(text: str, known: Iterable[str], where: str) -> dict[SplitName, str]:
    """Names of splits as a user states them, `train=NAME,validation=NAME,test=NAME`.

    Args:
        text: with train, and with the others where there are any.
        known: names that there are.
        where: they are, for the error.

    Raises:
        DataError: another form, or a name that does not exist.
    """
    pairs = [part.partition("=") for part in text.split(",")]
    chosen = {split.strip(): name.strip() for split, _, name in pairs}
    named = len(chosen) == len(pairs) and all(chosen.values()) and set(chosen) <= set(SPLIT_NAMES)
    if not named or "train" not in chosen:
        raise DataError(
            f"splits are {AUTOMATIC}, {NONE} or train=NAME,validation=NAME,test=NAME, of which "
            f"train is needed; received {text!r}."
        )
    missing = sorted(set(chosen.values()) - set(known))
    if missing:
        raise DataError(
            f"splits name what is in {where}; it has no {missing[0]!r}. It has "
            f"{', '.join(known) or 'nothing'}."
        )
    return cast("dict[SplitName, str]", chosen)
