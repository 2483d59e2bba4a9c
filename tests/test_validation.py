"""Faults of values in one wording: the key with its place, the rule, what was received."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import BaseModel, ConfigDict, Field

from pliant.errors import RecipeError
from pliant.validation import validated


@dataclass(frozen=True)
class Part:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    size: Annotated[int, Field(ge=1, strict=True)]

    def __post_init__(self) -> None:
        if self.size == 13:
            raise RecipeError("no part has a size of 13. Take 12.")


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")

    parts: tuple[Part, ...]
    name: str = "whole"
    inner: Whole | None = None


def test_good_values_become_their_classes() -> None:
    assert validated(Whole, {"parts": [{"size": 2}]}, "a.toml", "whole").parts == (Part(2),)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({}, "a.toml: key 'parts' is missing; every whole states it."),
        ({"parts": [], "nam": 1}, "a.toml: unknown key 'nam'. Did you mean 'name'?"),
        (
            {"parts": [{"size": 1}, {"size": 0}]},
            "a.toml: key 'parts.1.size': input should be greater than or equal to 1, received 0.",
        ),
        (
            {"parts": [{"siz": 1}]},
            "a.toml: key 'parts.0.size' is missing; every whole states it.\n"
            "a.toml: unknown key 'parts.0.siz'. Did you mean 'size'?",
        ),
        (
            {"parts": [], "inner": {"parts": [], "inner": {"parts": [], "name_": "x"}}},
            "a.toml: unknown key 'inner.inner.name_'. Did you mean 'name'?",
        ),
        ({"parts": [{"size": 13}]}, "a.toml: no part has a size of 13. Take 12."),
    ],
)
def test_every_fault_names_key_rule_and_value(tree: Any, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        validated(Whole, tree, "a.toml", "whole")
    assert str(caught.value) == said
