"""A summary to report on, and the page that is written from it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

_SUMMARY = json.loads(Path(__file__).with_name("summary.json").read_text(encoding="utf-8"))


@pytest.fixture
def summary() -> dict[str, Any]:
    """The synthetic summary, for the test to change."""
    return copy.deepcopy(_SUMMARY)
