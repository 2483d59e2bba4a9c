"""Timeloop's published counts: all equal, but for the one that shares words along one axis only."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT.parent / "shared" / "data" / "accelerator_reference.json"


@pytest.mark.skipif(
    not REFERENCE.exists(), reason="needs the reference data, in shared/data next to the repository"
)
def test_fills_reads_and_updates_equal_timeloop() -> None:
    spec = importlib.util.spec_from_file_location(
        "accelerator_timeloop", ROOT / "benchmarks" / "accelerator_timeloop.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    cases = json.loads(REFERENCE.read_text(encoding="utf-8"))["timeloop_fixtures"]["cases"]
    entries = [entry for case in cases for entry in module.compare(case)]
    assert len(cases) == 14
    assert len(entries) == 177
    unequal = [
        (entry.case, entry.level, entry.tensor, entry.what)
        for entry in entries
        if entry.published != entry.ours
    ]
    # Timeloop shares a word along one axis only, so the diagonal of Eyeriss counts thrice: 42 reads
    # a step for 16 words.
    assert unequal == [("06-mapper-convlayer-eyeriss", "shared_glb", "Inputs", "reads")]
