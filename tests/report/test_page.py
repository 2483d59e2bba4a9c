"""The page reports all of a summary, invents nothing, and no name in it can take it over."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from pliant.metrics import Accuracy, Cost, DeliveredFile, Measured
from pliant.objective import Limit, Objective
from pliant.report.classes import balanced_accuracy, class_rows, confusion_chart
from pliant.report.delivered_files import file_rows
from pliant.report.front_chart import MAX_POINTS
from pliant.report.headline import goal
from pliant.report.packed import packed_plotly
from pliant.report.run_page import run_page, write_report
from pliant.report.summary import NetworkResult, Summary, TrainingStep

HOSTILE = (
    "</script><script>window.taken = 1</script>"
    '<img src="http://evil.invalid/x" onerror="taken()">"\'&<b>'
)
VOID = {"meta", "wbr", "br", "hr", "img"}


class Reader(HTMLParser):
    """Elements, attributes and text of a page; an element that is not closed is an error."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html.replace(packed_plotly().text, ""))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts.append((self.elements[-1][1], data))
        elif self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        """What is read, with plain spaces."""
        return re.sub(r"\s+", " ", "".join(self.words).replace("\N{NO-BREAK SPACE}", " "))

    def charts(self) -> dict[str, Any]:
        """The figures by the id of their place."""
        return {
            str(attributes["data-chart"]): json.loads(unpacked(data, attributes["data-length"]))
            for attributes, data in self.scripts
            if "data-chart" in attributes
        }


def unpacked(text: str, length: int | str | None) -> str:
    """What `pack` made, taken apart by the standard library."""
    stream = base64.b85decode(text.translate(str.maketrans(",./:", "&<>`")))
    return zlib.decompress(stream[: int(length or 0)]).decode()


def _strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []


def test_the_headline_is_about_the_chosen_network(summary: Summary) -> None:
    text = Reader(run_page(summary)).text
    assert (
        "the chosen one answers in 0.285 ms, within the limit of 0.310 ms, and is right on 89.57 % "
        "of 10,000 test images. It was chosen for its validation accuracy among networks "
        "of at most 0.310 ms latency. Costs were measured on Synthetic CPU, onnxruntime"
    ) in text
    assert "✓ within the limit of 0.310 ms; ± 0.0055 ms" in text
    assert "95 % interval 89.0 % to 90.2 %, 10,000 images" in text  # Wilson, by hand
    assert "Latency, in its own process0.286 ms" in text


def test_a_limit_that_is_missed_is_told(summary: Summary) -> None:
    missed = replace(summary, objective=Objective(limits=(Limit("latency_ms", 0.2),)))
    text = Reader(run_page(missed)).text
    assert "0.285 ms, above the limit of 0.200 ms," in text
    assert "✗ above" in text
    assert "✓ within" not in text


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (Objective(), "its validation accuracy"),
        (Objective(("macs",), minimise="macs"), "the lowest MACs"),
        (
            Objective(
                ("energy_uj",), (Limit("accuracy", 0.9), Limit("parameters", 3e5)), "energy_uj"
            ),
            "the lowest energy among networks of at least 90.00 % accuracy and at most 300 k "
            "parameters",
        ),
    ],
)
def test_the_goal_in_words(objective: Objective, words: str) -> None:
    assert goal(objective).replace("\N{NO-BREAK SPACE}", " ") == words


def test_a_target_on_paper_is_never_called_measured(on_paper: Summary) -> None:
    reader = Reader(run_page(replace(on_paper, note=None)))
    text = reader.text
    assert "the chosen one needs 27.3 µJ per image (predicted) and is right on 89.57 %" in text
    assert "the lowest energy among networks of at least 88.00 % accuracy" in text
    assert text.count("predicted by a chip; this target is not measured") == 2  # lead, chart
    assert "predicted by a chip" in text.split("Test accuracy")[0]  # tiles
    assert "✓ reaches the limit of 88.00 %; 95 % interval 89.1 % to 90.3 %" in text
    assert "✓ within the limit of 0.300 ms; predicted by a chip" in text
    assert not re.search(r"(?<!not )measured", text.split("The evidence")[0])
    figure = reader.charts()["chart-front"]
    assert figure["layout"]["xaxis"]["title"]["text"] == "Energy (µJ)"
    assert [line["y0"] for line in figure["layout"]["shapes"]] == [0.88]
    filled = next(
        one for one in figure["data"] if one.get("name") == "front of the search, validated"
    )
    chart_of = {"x": on_paper.front[0].predicted.energy_uj, "y": on_paper.front[0].validated.top1}
    assert {axis: filled[axis][0] for axis in "xy"} == chart_of
    blocks = reader.charts()["chart-blocks"]["data"]
    assert [one["name"] for one in blocks] == ["energy", "MACs", "parameters"]


@pytest.mark.parametrize("metric", ["energy_uj", "peak_memory_bytes", "macs", "parameters"])
def test_every_cost_can_be_the_axis(on_paper: Summary, metric: str) -> None:
    objective = Objective((metric,), (Limit(metric, 5),))
    figure = Reader(run_page(replace(on_paper, objective=objective))).charts()["chart-front"]
    assert figure["layout"]["shapes"][0]["x0"] == 5
    filled = next(
        one for one in figure["data"] if one.get("name") == "front of the search, validated"
    )
    assert filled["x"] == [getattr(one.predicted, metric) for one in on_paper.front]


def test_every_network_has_its_command(summary: Summary) -> None:
    reader = Reader(run_page(summary))
    copied = [attributes.get("data-copy") for _, attributes in reader.elements]
    for network in (*summary.front, *summary.random_front, summary.chosen):
        # Once in its panel, once in its table.
        assert copied.count(network.command) == 2
        assert network.command in reader.text


def test_a_chosen_network_beside_the_front_is_shown(summary: Summary) -> None:
    chosen = replace(summary.chosen, architecture="r9_other", command="pliant deploy other")
    reader = Reader(run_page(replace(summary, chosen=chosen)))
    copied = [attributes.get("data-copy") for _, attributes in reader.elements]
    assert "pliant deploy other" in copied
    articles = [attributes for tag, attributes in reader.elements if tag == "article"]
    assert len([one for one in articles if "hidden" not in one]) == 1
    assert "r9_other" in reader.text


def test_points_of_the_front_name_their_panels(summary: Summary) -> None:
    reader = Reader(run_page(summary))
    panels = {attributes["id"] for tag, attributes in reader.elements if tag == "article"}
    traces = reader.charts()["chart-front"]["data"]
    assert panels == {key for one in traces for key in one.get("customdata", [])}
    assert len(panels) == len(summary.front) + len(summary.random_front)


def test_nothing_is_loaded_from_elsewhere(summary: Summary) -> None:
    html = run_page(summary)
    reader = Reader(html)
    assert packed_plotly().text in html
    loading = {"src", "href", "srcset", "action", "data", "poster", "xlink:href"}
    for tag, attributes in reader.elements:
        if tag == "img":
            assert str(attributes.pop("src")).startswith("data:image/webp;base64,")
        assert not loading & set(attributes), tag
    own = html.replace(packed_plotly().text, "")
    assert not [found for found in ("http://", "https://", "url(") if found in own]
    policies = [
        attributes["content"]
        for _, attributes in reader.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert str(policies[0]).startswith("default-src 'none'")


def test_a_page_is_small_enough_to_send(summary: Summary) -> None:
    """The library inside is Plotly's, whole; packed, a page has at most 2 MB."""
    packed = packed_plotly()
    assert unpacked(packed.text, packed.length) == get_plotlyjs()
    assert not set('<&`"\\') & set(packed.text)
    points = (summary.search.points * MAX_POINTS)[:MAX_POINTS]
    both = (*points, *(replace(one, by="random") for one in points))
    many = replace(summary, search=replace(summary.search, points=both))
    assert len(run_page(many).encode()) <= 2e6


DECIDING = ("version", "objective", "metrics", "by")
"""Fields by whose value a page decides; they keep it."""


def _poisoned(value: Any) -> Any:
    """The summary with every other text in it replaced."""
    if is_dataclass(value) and not isinstance(value, type):
        changes = {}
        for field in fields(value):
            if field.name not in DECIDING:
                changes[field.name] = _poisoned(getattr(value, field.name))
        return replace(value, **changes)
    if isinstance(value, dict):
        return {key + HOSTILE: _poisoned(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_poisoned, value))
    return HOSTILE if isinstance(value, str) else value


def test_hostile_text_stays_text(summary: Summary) -> None:
    honest, taken = Reader(run_page(summary)), Reader(run_page(_poisoned(summary)))
    kinds = {tag for tag, _ in honest.elements}
    assert {tag for tag, _ in taken.elements} <= kinds
    for _, attributes in taken.elements:
        assert not [name for name in attributes if name.startswith("on")]
    assert len(taken.scripts) == len(honest.scripts)
    assert HOSTILE in taken.text
    # Plotly reads its own HTML in hover boxes and labels: only its line breaks may be left there.
    for figure in taken.charts().values():
        for text in _strings(figure):
            assert not re.search(r"<(?!br>)", text), text


EMPTY: dict[str, Any] = {
    "front": (), "random_front": (), "blocks": (), "evidence": (), "predictor": None,
    "ranking": (), "training": None, "classification": None, "test_openings": (),
    "note": None, "machine": {},
}  # fmt: skip


@pytest.mark.parametrize("part", EMPTY)
def test_a_part_that_a_run_lacks_breaks_nothing(summary: Summary, part: str) -> None:
    text = Reader(run_page(replace(summary, **{part: EMPTY[part]}))).text
    assert "None" not in text
    assert "nan" not in text


def _unmeasured(one: NetworkResult) -> NetworkResult:
    return replace(one, test=None, measured=None, measured_apart=None)


def test_what_was_not_measured_is_never_zero(summary: Summary) -> None:
    blocks = [replace(one, cost=replace(one.cost, latency_ms=None)) for one in summary.blocks]
    bare = replace(
        summary,
        chosen=_unmeasured(summary.chosen),
        front=tuple(map(_unmeasured, summary.front)),
        random_front=(),
        blocks=tuple(blocks),
        search=replace(summary.search, points=(), seconds=None),
    )
    reader = Reader(run_page(bare))
    assert "0.273 ms (predicted)" in reader.text
    assert "predicted; not measured yet" in reader.text
    assert "Latency, measurednot measured" in reader.text
    assert not re.search(r"(?<![\d.,])0(\.0+)? (ms|%|k|M|KiB|bytes)\b", reader.text)
    assert reader.charts()["chart-blocks"]["data"][0]["name"] == "MACs"


def test_the_front_is_drawn_where_it_is(summary: Summary) -> None:
    figure = Reader(run_page(summary)).charts()["chart-front"]
    traces = {one.get("name"): one for one in figure["data"]}
    measured = [one.measured.cost.latency_ms for one in summary.front if one.measured]
    assert traces["front of the search, measured"]["x"] == measured
    estimates = [one.estimate.top1 for one in summary.front]
    assert traces["front of the search, predicted"]["y"] == estimates
    assert summary.chosen.measured is not None
    assert traces["chosen"]["x"] == [summary.chosen.measured.cost.latency_ms]
    random = [one.cost.latency_ms for one in summary.search.points if one.by == "random"]
    assert traces["estimated by random search"]["x"] == random


def test_classes_confusions_and_mistakes(summary: Summary) -> None:
    found = summary.classification
    assert found is not None
    reader = Reader(run_page(summary))
    matrix = reader.charts()["chart-confusion"]["data"][0]
    assert matrix["z"][6][0] == 95 / 1000
    assert matrix["text"][6][6] == "820"
    # The least recognised first; a class without an image has no share. Wilson, by hand.
    rows = class_rows(found)
    assert rows[0][0] == found.classes[9].name
    assert rows[-1] == ("Sandal", "0", "no validation image", "—", "—")
    shirt = [text.replace("\N{NO-BREAK SPACE}", " ") for text in rows[3]]
    assert shirt == ["Shirt", "1,000", "82.0 %", "79 % to 84 %", "T-shirt (95)"]
    assert "answer T-shirt (100 %), label Shirt" in reader.text
    right = [940 - 20 * index for index in range(10) if index != 5]
    assert balanced_accuracy(found) == pytest.approx(sum(right) / 9000)
    many = replace(found, classes=found.classes * 5)
    assert confusion_chart(many) is None
    text = Reader(run_page(replace(summary, classification=many))).text
    assert "Shirt taken for T-shirt: 95" in text


def test_shares_of_the_blocks_add_up(summary: Summary) -> None:
    for trace in Reader(run_page(summary)).charts()["chart-blocks"]["data"]:
        assert sum(share or 0 for share in trace["x"]) == pytest.approx(1)


def test_a_long_training_is_drawn_by_its_means(summary: Summary) -> None:
    steps = []
    for n in range(1000):
        phase = "a" if n < 500 else "b"
        steps.append(TrainingStep(n, n / 100, phase, 0.1, {"largest": n % 2}))
    assert summary.training is not None
    training = replace(summary.training, curve=tuple(steps))
    reader = Reader(run_page(replace(summary, training=training)))
    traces = reader.charts()["chart-training"]["data"]
    loss = next(one for one in traces if one.get("name") == "largest")
    assert len(loss["x"]) == 144  # 72 means of up to 7 rows in each phase
    assert loss["x"][:2] == pytest.approx([0.03, 0.10])
    assert loss["y"][:2] == pytest.approx([3 / 7, 4 / 7])
    assert "Every point is the mean of several logged steps." in reader.text


def test_many_estimates_are_thinned_and_this_is_told(summary: Summary) -> None:
    points = (replace(summary.search.points[-1], by="search", cost=Cost(latency_ms=1.0)),) * 7000
    many = replace(summary, search=replace(summary.search, points=points))
    reader = Reader(run_page(many))
    traces = reader.charts()["chart-front"]["data"]
    drawn = next(one for one in traces if one.get("name") == "estimated by the search")
    assert len(drawn["x"]) == 2334 <= MAX_POINTS  # every third
    assert "Of more than 3,000 estimates of a search, evenly spaced ones are drawn." in reader.text


def test_the_evidence_tells_what_fails(summary: Summary) -> None:
    text = Reader(run_page(summary)).text
    assert text.count("✓ holds") == 3
    assert text.count("✗ does not hold") == 1
    assert "The search covers 4.3 % more area than random search." in text
    assert "Predictor+0.830 [0.75, 0.89]" in text
    worse = replace(summary, search=replace(summary.search, hypervolume=0.3))
    assert "The search covers 24.1 % less area" in Reader(run_page(worse)).text


def test_the_file_is_replaced_whole(tmp_path: Path, summary: Summary) -> None:
    path = tmp_path / "run" / "report.html"
    write_report(summary, path)
    first = path.read_text(encoding="utf-8")
    write_report(summary, path)
    assert path.read_text(encoding="utf-8") == first
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_the_page_lists_what_was_decided_and_left_out_of_the_images(summary: Summary) -> None:
    skipped = tuple(f"cat/<{number}>.jpg: truncated" for number in range(201))
    data = replace(summary.data, notes=("Two folders are splits.",), skipped=skipped)
    page = run_page(replace(summary, data=data))
    assert "<li>Two folders are splits.</li>" in page
    assert "201 broken pictures were left out" in page
    assert "cat/&lt;199&gt;.jpg: truncated" in page
    assert "&lt;200&gt;" not in page
    assert "and 1 more; summary.json lists all" in page


def test_both_delivered_files_stand_side_by_side(summary: Summary) -> None:
    def file(name: str, precision: str, latency_ms: float | None) -> DeliveredFile:
        measured = None if latency_ms is None else Measured(Cost(latency_ms=latency_ms), Cost())
        return DeliveredFile(
            name=name,
            precision=precision,
            size_bytes=2_000_000,
            validated=Accuracy(0.91, 100),
            test=Accuracy(0.9, 100),
            measured=measured,
            how="ranges by <b>",
        )

    assert "The delivered files" not in run_page(replace(summary, files=()))
    files = (file("model.onnx", "fp32", 3.28), file("model.int8.onnx", "int8", None))
    page = run_page(replace(summary, files=files))
    assert "The delivered files" in page
    assert "ranges by &lt;b&gt;" in page
    assert [row[3] for row in file_rows(files)] == ["3.28\N{NO-BREAK SPACE}ms", "not measured"]
