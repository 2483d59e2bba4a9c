"""Laws of reports: numbers read back, charts add up, and no value, however odd, breaks a page."""

from __future__ import annotations

import base64
import html
import json
import math
import re
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.accuracy.ranking import rank_correlations
from pliant.metrics import ARITHMETIC_METRICS, COST_METRICS, Accuracy, Cost, Measured
from pliant.objective import Limit, Objective
from pliant.report.block_chart import block_chart, drawn_metric
from pliant.report.classes import (
    MAX_DRAWN,
    balanced_accuracy,
    class_rows,
    confusion_chart,
    confusion_pairs,
)
from pliant.report.drawing import drawing
from pliant.report.evidence_cards import comparison, openings_text
from pliant.report.figure import hover, wrapped
from pliant.report.front_chart import MAX_POINTS, thinned
from pliant.report.headline import tiles, verdict
from pliant.report.packed import ALPHABET, pack
from pliant.report.quantities import count, duration, format_timestamp, points, significant, size
from pliant.report.ranking_page import ranking_page
from pliant.report.reproduce import metadata
from pliant.report.run_page import run_page
from pliant.report.shown import KnownCost, ShownNetwork, reported_metrics, shown_networks
from pliant.report.slots import slot_name, stage_of, within_stage
from pliant.report.summary import (
    BlockResult,
    Classification,
    ClassResult,
    Confusion,
    Mistake,
    SplitOpening,
    Summary,
    TrainingStep,
    read_summary_file,
    summary_to_json,
    write_summary_file,
)
from pliant.report.training_chart import MAX_POINTS as MAX_STEPS
from pliant.report.training_chart import averaged, training_chart
from pliant.spaces.presets import PRESETS, preset

SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
NUMBERS = st.one_of(
    st.integers(-(10**15), 10**40),
    st.floats(-1e20, 1e20),
    st.floats(1e-12, 1),
    st.sampled_from([9.995, 99.95, 999.95, 9_999.5, 999_999.5, 1e12 - 1, 0.0001, 9.9999e-5]),
)


def read_back(text: str) -> float:
    """The number of a text such as 4,320 or 2.1 x 10^-6."""
    plain = text.replace("\N{NO-BREAK SPACE}", "").replace(",", "")
    mantissa, _, power = plain.partition("\N{MULTIPLICATION SIGN}10")
    return float(f"{mantissa}e{power.translate(SUPERSCRIPTS) or 0}")


@given(NUMBERS, st.integers(2, 5))
def test_written_numbers_read_back_to_their_digits(value: float, digits: int) -> None:
    found = read_back(significant(value, digits))
    assert found == pytest.approx(value, rel=0.5001 * 10 ** (1 - digits), abs=0)


@given(st.one_of(st.integers(0, 10**13), st.floats(0.001, 1e13)))
def test_written_counts_read_back(number: float) -> None:
    factors = {"k": 1e3, "M": 1e6, "G": 1e9}
    text = count(number)
    factor = factors.get(text[-1], 1.0)
    assert read_back(text.rstrip("kMG")) * factor == pytest.approx(number, rel=0.0051)


@given(st.integers(0, 2**45))
def test_written_sizes_read_back(number: int) -> None:
    digits, unit = size(number).split("\N{NO-BREAK SPACE}")
    factor = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit]
    assert read_back(digits) * factor == pytest.approx(number, rel=0.0051)


@given(st.one_of(st.floats(0.01, 1e6), st.sampled_from([59.7, 3599.7, 7199.9])))
def test_written_durations_read_back_and_carry_over(seconds: float) -> None:
    units = {"s": 1, "min": 60, "h": 3600}
    pairs = re.findall(r"([\d.]+) (s|min|h)", duration(seconds).replace("\N{NO-BREAK SPACE}", " "))
    assert sum(float(number) * units[unit] for number, unit in pairs) == pytest.approx(
        seconds, rel=0.05, abs=31 if seconds > 3600 else 0.5
    )
    assert all(float(number) < 60 for number, unit in pairs if unit != "h")


def test_numbers_beyond_floats_and_numbers_that_are_none() -> None:
    assert significant(7**500).endswith("10⁴²²")
    assert [significant(value) for value in (math.nan, -math.inf)] == ["nan", "-inf"]
    assert significant(np.float32(0.25)) == "0.250"
    assert significant("as it is") == "as it is"
    assert points(None) == duration(None) == count(None) == size(None) == "not measured"
    for text in ("", "2026-13-01", "<b>", "2026-01-05T10:20:30+25:00"):
        assert format_timestamp(text) == text


# Texts that reach a browser.


@given(st.text(max_size=200))
def test_hover_boxes_keep_all_characters_and_no_markup(line: str) -> None:
    text = hover(line)
    assert not re.search(r"<(?!br>)", text)
    assert html.unescape(text.replace("<br>", "")) == line.replace("\0", "")
    rows = wrapped(line)
    assert all(len(row) <= 44 for row in rows if row.count("_") > 1 and len(line) > 44)


@given(st.text(max_size=300))
def test_packed_texts_unpack_and_mean_nothing_to_a_parser(text: str) -> None:
    packed = pack(text)
    assert not set(packed.text) & set("<>&`\"'\\\n ")
    assert len(set(ALPHABET)) == 85
    plain = packed.text.translate(str.maketrans(",./:", "&<>`"))
    stream = base64.b85decode(str(plain))
    assert 0 <= len(stream) - packed.length < 4
    assert zlib.decompress(stream[: packed.length]).decode() == text


@pytest.mark.parametrize("name", PRESETS)
def test_slots_of_shipped_spaces_have_names_of_their_own(name: str) -> None:
    row = PRESETS[name]
    space = preset(name, channels=3, image_size=row.smallest_image, classes=5)
    slots = [block.slot for block in space.blocks(space.largest())]
    assert len({slot_name(slot) for slot in slots}) == len(slots)
    assert len({(stage_of(slot), within_stage(slot)) for slot in slots}) == len(slots)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "slot": st.text(max_size=8),
                "type": st.sampled_from(["ConvBlock", "Head", "Cell", "Nothing", ""]),
                "sizes": st.dictionaries(
                    st.sampled_from(["size", "inputs", "outputs", "classes", "operations", "x"]),
                    st.one_of(st.integers(-5, 10**6), st.text(max_size=3), st.none()),
                ),
            }
        ),
        max_size=4,
    )
)
def test_any_facts_are_drawn_or_named(blocks: list[dict[str, Any]]) -> None:
    drawn = [block for stage in drawing(blocks) for block in stage.blocks]
    assert len(drawn) == len(blocks)
    assert all(0 < box.width_px <= 300 for block in drawn for box in block.boxes)


# Charts.

VALUES = st.one_of(st.none(), st.integers(0, 10**9), st.floats(0, 1e6))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=6))
def test_bars_of_blocks_are_shares_of_what_is_known(rows: list[tuple[Any, Any]]) -> None:
    blocks = [
        BlockResult(f"stage1_block{n}", "ConvBlock", {}, Cost(latency_ms=one, macs=two))
        for n, (one, two) in enumerate(rows)
    ]
    metric = drawn_metric(blocks, ("latency_ms",))
    if all(one is None for one, _ in rows):
        assert metric == (None if all(two is None for _, two in rows) else "macs")
        return
    assert metric == "latency_ms"
    bars = block_chart(blocks, metric).data[0].x
    total = sum(one or 0 for one, _ in rows)
    expected = [None if one is None or not total else one / total for one, _ in rows]
    assert list(bars) == expected


@given(st.integers(0, 4 * MAX_POINTS))
def test_thinning_keeps_few_points_at_even_distances(number: int) -> None:
    found = list(thinned(range(number)))  # type: ignore[arg-type]
    assert len(found) <= MAX_POINTS
    assert len(found) > MAX_POINTS / 2 or len(found) == number
    assert len(set(np.diff(found))) <= 1
    assert not found or found[0] == 0


LOSSES = st.one_of(st.none(), st.floats(0, 10))


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 250), LOSSES), min_size=1, max_size=4))
def test_averaged_curves_keep_phases_and_means(phases: list[tuple[int, float | None]]) -> None:
    curve = [
        TrainingStep(step, step / 10, f"phase {number}", 0.1, {"all": loss, "few": float(step)})
        for number, (steps, loss) in enumerate(phases)
        for step in range(steps)
    ]
    found = averaged(curve)
    assert len(found) <= MAX_STEPS + len(phases)
    assert list(dict.fromkeys(row.phase for row in found)) == [
        f"phase {number}" for number in range(len(phases))
    ]
    for row in found:
        loss = phases[int(row.phase.split()[1])][1]
        assert row.losses["all"] == (None if loss is None else pytest.approx(loss))
    assert min(row.epoch for row in found) >= 0
    traces = training_chart(curve).data
    assert [trace.name for trace in traces[:2]] == ["all", "few"]


@st.composite
def classifications(draw: st.DrawFn) -> Classification:
    """From a random confusion matrix; a class may have no images."""
    classes = draw(st.integers(1, 5))
    counts = [[draw(st.integers(0, 9)) for _ in range(classes)] for _ in range(classes)]
    pairs = [
        Confusion(label, answer, counts[label][answer])
        for label in range(classes)
        for answer in range(classes)
        if label != answer and counts[label][answer]
    ]
    return Classification(
        classes=tuple(
            ClassResult(f"class {n}", sum(counts[n]), counts[n][n]) for n in range(classes)
        ),
        confusions=tuple(sorted(pairs, key=lambda pair: -pair.images)),
        mistakes=(),
    )


@settings(max_examples=25, deadline=None)
@given(classifications())
def test_classes_by_force(found: Classification) -> None:
    recalls = [one.right / one.images for one in found.classes if one.images]
    balanced = balanced_accuracy(found)
    assert balanced == (pytest.approx(np.mean(recalls)) if recalls else None)
    rows = class_rows(found)
    assert Counter(row[0] for row in rows) == Counter(one.name for one in found.classes)
    by_name = {one.name: one for one in found.classes}
    order = [by_name[row[0]] for row in rows]
    shares = [one.right / one.images if one.images else 2 for one in order]
    assert shares == sorted(shares)
    for row, one in zip(rows, order, strict=True):
        worst = max(
            (p.images for p in found.confusions if found.classes[p.label] is one), default=0
        )
        assert row[4].endswith(f"({worst})") if worst else row[4] == "—"
    figure = confusion_chart(found)
    assert figure is not None
    for share, one in zip(figure.data[0].z, found.classes, strict=True):
        assert sum(share) == pytest.approx(1 if one.images else 0)
    assert len(confusion_pairs(found, most=2)) == min(2, len(found.confusions))


def test_too_many_classes_are_no_picture() -> None:
    for number, drawn in ((MAX_DRAWN, True), (MAX_DRAWN + 1, False)):
        classes = tuple(ClassResult(str(n), 1, 1) for n in range(number))
        found = Classification(classes=classes, confusions=(), mistakes=())
        assert (confusion_chart(found) is not None) == drawn


# What is known of a network's costs.


@given(st.booleans(), st.booleans(), st.booleans(), st.sampled_from(COST_METRICS))
def test_a_cost_is_as_good_as_the_best_that_is_known(
    summary: Summary, predicted: bool, beside: bool, apart: bool, metric: str
) -> None:
    def measured(value: float) -> Measured:
        return Measured(Cost(**{metric: value}), Cost(**{metric: 0.5}))

    result = replace(
        summary.chosen,
        predicted=Cost(**{metric: 1}) if predicted else Cost(),
        measured=measured(2) if beside else None,
        measured_apart=measured(3) if apart else None,
    )
    known = ShownNetwork("key", "search", True, result).cost(metric)
    if metric in ARITHMETIC_METRICS:
        expected = KnownCost(metric, 1, "computed") if predicted else None
    elif beside or apart:
        expected = KnownCost(metric, 2 if beside else 3, "measured", 0.5)
    else:
        expected = KnownCost(metric, 1, "predicted") if predicted else None
    assert known == (expected or KnownCost(metric, None, "unknown"))
    shown = reported_metrics(ShownNetwork("key", "search", True, result))
    assert shown == ((metric,) if expected else ())


def test_the_chosen_network_is_shown_once(summary: Summary) -> None:
    for chosen in (*summary.front, replace(summary.chosen, architecture="r9")):
        shown = shown_networks(replace(summary, chosen=chosen))
        assert [one.result for one in shown if one.chosen] == [chosen]
        assert len({one.key for one in shown}) == len(shown)
        assert len(shown) == len(summary.front) + len(summary.random_front) + (
            chosen.architecture == "r9"
        )


@given(st.sampled_from(["latency_ms", "accuracy"]), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_verdict_is_the_limits(metric: str, bound: float, value: float) -> None:
    found = verdict(Limit(metric, bound), value)
    good = value >= bound if metric == "accuracy" else value <= bound
    assert found.holds == good
    assert found.text.split()[0] in (("reaches", "within") if good else ("below", "above"))


def test_every_limit_has_a_tile_with_its_verdict(on_paper: Summary) -> None:
    [chosen] = [one for one in shown_networks(on_paper) if one.chosen]
    for metric, bound in (("macs", 1), ("parameters", 10**9), ("area_mm2", 3.5), ("accuracy", 1)):
        objective = Objective(("energy_uj",), (Limit(metric, bound),))
        verdicts = [
            one.verdict for one in tiles(replace(on_paper, objective=objective), chosen)
            if one.verdict
        ]  # fmt: skip
        assert [one.holds for one in verdicts] == [metric in ("parameters", "area_mm2")]


@pytest.mark.parametrize(
    ("search", "random", "words"),
    [
        (0.6, 0.5, "20.0\N{NO-BREAK SPACE}% more area"),
        (0.4, 0.5, "20.0\N{NO-BREAK SPACE}% less area"),
        (0.5, 0.5001, "the same area"),
        (0.5, 0.0, "cannot be compared"),
    ],
)
def test_searches_are_compared_by_their_areas(
    summary: Summary, search: float, random: float, words: str
) -> None:
    facts = replace(summary.search, hypervolume=search, random_hypervolume=random)
    assert words in comparison(facts)


def test_how_often_the_test_images_were_used() -> None:
    said = [openings_text((SplitOpening("why", "now"),) * number) for number in range(3)]
    assert [text.split("were ")[1] for text in said] == [
        "not opened yet.", "opened once.", "opened 2 times."
    ]  # fmt: skip


def test_what_reproduces_a_run_is_complete(summary: Summary) -> None:
    rows = dict(metadata(replace(summary, machine={"cpu": "<x>", "my_key": 3})))
    assert rows["Processor"] == "<x>"
    assert rows["My key"] == "3"
    assert rows["Seed"] == str(summary.seed)
    assert rows["Space"] == summary.space.name


# Whole files and pages.


@pytest.mark.parametrize(
    ("name", "text", "number", "whole", "networks", "share"),
    [
        ("", "", None, None, 0, 0.0),
        ("\N{SNOWMAN}\x7f_", "a\n<b>'\"&{{ x }}", 5e-324, 10**30, 7**90, 1.0),
        ("x" * 500, "\t", 1e300, 0, 1, 0.5),
        ("%s{}", "\\", 0.0, 1, 7**500, 1 / 3),
    ],
)
def test_any_values_of_a_summary_come_back_and_make_a_page(
    tmp_path: Path,
    summary: Summary,
    name: str,
    text: str,
    number: float | None,
    whole: int | None,
    networks: int,
    share: float,
) -> None:
    cost = Cost(number, number, whole, whole, whole, whole, number)
    result = replace(
        summary.chosen,
        architecture=name,
        estimate=Accuracy(share, 0),
        validated=Accuracy(1 - share, 7),
        predicted=cost,
        measured=Measured(cost, cost),
        command=text,
    )
    odd = replace(
        summary,
        name=name,
        created=text,
        recipe_toml=text,
        note=text,
        machine={name: text, "cores": 10**30},
        space=replace(summary.space, name=text, size=networks),
        data=replace(summary.data, notes=(text,), skipped=(name,) * 3, train=whole or 0),
        chosen=result,
        front=(result, *summary.front[:1]),
    )
    write_summary_file(odd, tmp_path / "summary.json")
    assert read_summary_file(tmp_path / "summary.json") == odd
    assert run_page(odd).count("</html>") == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_summary_holds_numbers_that_json_has(summary: Summary, value: float) -> None:
    with pytest.raises(ValueError, match=r"not JSON compliant"):
        summary_to_json(replace(summary, search=replace(summary.search, seconds=value)))


@pytest.mark.parametrize("number", [1, MAX_DRAWN + 300])
def test_pages_of_one_class_and_of_very_many(summary: Summary, number: int) -> None:
    classes = tuple(ClassResult(f"class {n} <&>", n % 3, 0) for n in range(number))
    mistakes = (Mistake(0, number - 1, 1.0, ""),)
    found = Classification(classes=classes, confusions=(), mistakes=mistakes)
    names = tuple(one.name for one in classes)
    page = run_page(
        replace(summary, classification=found, space=replace(summary.space, classes=names))
    )
    assert page.count(f"class {number - 1} &lt;&amp;&gt;") >= 1
    assert "class 0 <&>" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)


def test_pages_of_rankings_with_nothing_and_with_odd_scores() -> None:
    assert "</html>" in ranking_page([], truth="test")
    rows = rank_correlations(
        [0.1, 0.2, 0.3], {"parameters": [1, 1, 1], "<b>": [None, math.inf, -math.inf]}
    )
    page = ranking_page(rows, truth="<i>")
    assert "undefined" in page
    assert not re.search(r"<(b|i)>", page)


def test_written_summaries_are_strict_json(summary: Summary) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads(summary_to_json(summary), parse_constant=refuse)
    assert content["version"] == 2
    assert list(content)[-1] == "sha256"
