"""The page of a co-design: its numbers are those of the typed result, also where designs failed."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from pliant.accelerator.chip import load_chip
from pliant.errors import RecipeError
from pliant.report.codesign_page import (
    CodesignResult,
    DesignFront,
    SearchedNetwork,
    Stage,
    _tiles,
    array_drawing,
    array_words,
    codesign_page,
    convergence_chart,
    front_chart,
    gains_chart,
)
from pliant.search.codesign_front import FrontObjectives, metric
from pliant.search.mapped_designs import Design, NetworkCost, geometric_mean

CHIP = load_chip("eyeriss")


def _design(*edps: float, **changes) -> Design:
    """Energy-delay products of the networks `a` and `b`, of 10 cycles each."""
    costs = {
        name: NetworkCost(10.0, edp / 10, proven=True)
        for name, edp in zip("ab", edps, strict=False)
    }
    return replace(Design(CHIP, (), costs), **changes)


FAILED = Design(CHIP, (), {}, failure="conv1 does not fit.")
REJECTED = Design(CHIP, (), {}, bound=50.0)


def _result(fixed: Design, mapped: Design, *searched: Design) -> CodesignResult:
    unproven = _design(50.0, 200.0)
    unproven = replace(
        unproven, costs={n: replace(c, proven=False) for n, c in unproven.costs.items()}
    )
    stages = (
        Stage("row stationary", (fixed,)),
        Stage("best mappings", (mapped,)),
        Stage("best sizes", (unproven, REJECTED, FAILED)),
        Stage("best hardware", searched),
        Stage("random hardware", (FAILED, unproven)),
    )
    return CodesignResult(CHIP, ("a", "b"), "rs", 3, 0, 0.0, "certified", 4, 20.0, stages)


@pytest.fixture
def result() -> CodesignResult:
    return _result(_design(400.0, 400.0), _design(200.0, 200.0), FAILED, _design(25.0, 64.0))


def test_gains_are_ratios_of_geometric_means(result: CodesignResult) -> None:
    assert geometric_mean([25.0, 64.0]) == pytest.approx(40.0)
    assert [result.gain(stage) for stage in result.stages] == pytest.approx([1, 2, 4, 10, 4])
    assert result.network_gains(result.stages[3]) == pytest.approx([16, 6.25])
    assert result.best is result.stages[3].designs[1]
    assert result.most_gain == pytest.approx(20.0)
    assert result.stages[3].best_so_far == pytest.approx([math.inf, 40.0])


def test_the_page_tells_them(result: CodesignResult) -> None:
    texts = {tile.name: tile.value for tile in _tiles(result)}
    assert texts["Gain in energy-delay product"] == "10.00x"
    assert texts["of it beyond mappings"] == "5.00x"
    assert texts["No design gains more than"] == "20.00x"
    page = codesign_page(result)
    cells = [
        [re.sub(r"<[^>]*>", "", cell).strip() for cell in re.split(r"<t[dh]\b[^>]*>", row)[1:]]
        for row in page.split("<tr")
    ]
    assert ["best hardware", "1", "10.00x", "16.00x", "6.25x", "2", "0", "1 of 1"] in cells
    assert ["best sizes", "2.50", "4.00x", "8.00x", "2.00x", "3", "1", "0 of 1"] in cells


def test_charts_show_gains_over_the_first_and_over_the_best_mappings(
    result: CodesignResult,
) -> None:
    [bars] = gains_chart(result).data
    assert list(bars.x) == pytest.approx([1, 2, 4, 10, 4])
    sizes, hardware, random = convergence_chart(result).data
    assert list(sizes.y) == pytest.approx([2, 2, 2])
    assert hardware.y[0] is None
    assert hardware.y[1] == pytest.approx(5)
    assert hardware.hovertext[0].endswith("no gain is known")
    assert random.hovertext[1].endswith("2 times less")


def test_where_the_given_chip_runs_nothing_gains_are_unknown() -> None:
    result = _result(FAILED, FAILED, _design(25.0, 64.0))
    texts = [tile.value for tile in _tiles(result)]
    assert texts[:3] == ["unknown"] * 3
    assert result.network_gains(result.stages[3]) == [None, None]
    page = codesign_page(result)
    assert "conv1 does not fit." in page
    assert "infx" not in page
    assert "nanx" not in page
    assert not gains_chart(result).data[0].x
    assert all(value is None for line in convergence_chart(result).data for value in line.y)


def test_a_step_whose_designs_were_all_rejected_has_failed() -> None:
    result = _result(_design(400.0, 400.0), _design(200.0, 200.0), REJECTED, FAILED)
    assert result.gain(result.stages[3]) is None
    assert result.network_gains(result.stages[3]) == [None, None]
    assert result.best is result.stages[2].designs[0]
    assert "best hardware" in codesign_page(result)


def test_a_searched_network_and_its_front_are_told_with_what_was_validated(
    result: CodesignResult,
) -> None:
    one, two, three = (
        _design(edp, edp, network=name, accuracy=top1)
        for edp, name, top1 in ((25.0, "n1", 0.9), (36.0, "n2", 0.95), (49.0, "n3", 0.9))
    )
    objectives = FrontObjectives(("edp",), ("accuracy",))
    front = tuple(objectives.front([three, two, FAILED, one, REJECTED]))
    assert front == (one, two), "n3 is beaten by n1"
    chosen = Stage("network too", (one, two), chosen=two)
    searched = SearchedNetwork(0.94, "n0", 0.9, "n2", 0.95, 0.945, (three, one, two))
    whole = replace(
        result,
        stages=(*result.stages, chosen),
        searched=searched,
        front=DesignFront(objectives, (one, two, three, FAILED), front, {"n2": 0.945}),
    )
    assert whole.best is two, "where the accuracy had to reach a floor"
    page = codesign_page(whole)
    for text in ("94.50%", "not validated", "with the same network"):
        assert text in page
    designs, best = front_chart(whole.front).data
    assert list(designs.x) == pytest.approx([25, 36, 49])
    assert list(best.y) == [0.9, 0.95]


def test_metrics_of_a_design_have_the_units_of_their_names() -> None:
    design = _design(40.0, 90.0, accuracy=0.5)
    assert metric(design, "edp") == pytest.approx(60.0)
    assert metric(design, "energy") == pytest.approx(6.0)
    assert metric(design, "latency") == pytest.approx(10 / CHIP.clock_mhz * 1e-3)
    assert metric(design, "area") == CHIP.area_mm2
    for minimise, maximise in ((("edp",), ()), (("edp", "edp"), ()), (("watts", "area"), ())):
        with pytest.raises(RecipeError, match="received"):
            FrontObjectives(minimise, maximise)


def test_the_drawing_says_the_sizes_of_the_chip() -> None:
    rows, columns = (axis.size for axis in CHIP.axes)
    drawing, words = array_drawing(CHIP), array_words(CHIP)
    assert f"down: {rows} PEs over" in drawing
    assert f"across: {columns} PEs over" in drawing
    assert words.startswith(f"{rows * columns} PEs as {rows} (")
    assert f"{CHIP.buffer.total_bytes / 1024:.1f} KiB" in words
    long = replace(CHIP, axes=(replace(CHIP.axes[0], size=500),))
    assert "(cut in the drawing)" in array_drawing(long)
    assert "down:" not in array_drawing(long)
