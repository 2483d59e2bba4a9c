"""The page says everything that the summary holds, invents nothing, and cannot be taken over by a name in it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from pliant.report.page import page, write_report

HOSTILE = '</script><script>window.taken = 1</script><img src="http://evil.invalid/x" onerror="taken()">"\'&<b>'
VOID = {"meta", "wbr", "br", "hr"}


class Reader(HTMLParser):
    """Elements, attributes and text of a page; an element that is not closed is an error."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html.replace(get_plotlyjs(), ""))
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
            str(attributes["data-chart"]): json.loads(data)
            for attributes, data in self.scripts
            if "data-chart" in attributes
        }


def _strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []


def test_says_what_was_chosen(summary: dict[str, Any]) -> None:
    text = Reader(page(summary)).text
    assert (
        "the chosen one answers in 0.285 ms on Synthetic CPU, within the limit of 0.310 ms, and is right on 89.57 % of 10,000 test images"
        in text
    )
    assert "✓ within the limit of 0.310 ms; ± 0.0055 ms" in text
    assert "± 0.31 % standard error" in text  # sqrt(0.8957 * 0.1043 / 10,000) = 0.00306


def test_a_limit_that_is_missed_is_said(summary: dict[str, Any]) -> None:
    summary["limits"][0]["bound"] = 0.2
    text = Reader(page(summary)).text
    assert "above the limit of 0.200 ms" in text
    assert "✗ above" in text
    assert "✓ within" not in text


def test_every_network_has_its_command(summary: dict[str, Any]) -> None:
    reader = Reader(page(summary))
    copied = [attributes.get("data-copy") for _, attributes in reader.elements]
    for network in [*summary["front"], *summary["random_front"], summary["chosen"]]:
        # Once in its panel, once in its table.
        assert copied.count(network["command"]) == 2
        assert network["command"] in reader.text


def test_a_chosen_network_beside_the_front_is_shown(summary: dict[str, Any]) -> None:
    summary["chosen"] = {
        **summary["chosen"],
        "architecture": "r9_other",
        "command": "pliant deploy other",
    }
    reader = Reader(page(summary))
    assert "pliant deploy other" in [
        attributes.get("data-copy") for _, attributes in reader.elements
    ]
    shown = [
        attributes
        for tag, attributes in reader.elements
        if tag == "article" and "hidden" not in attributes
    ]
    assert len(shown) == 1
    assert "r9_other" in reader.text


def test_points_of_the_front_name_their_panels(summary: dict[str, Any]) -> None:
    reader = Reader(page(summary))
    panels = {attributes["id"] for tag, attributes in reader.elements if tag == "article"}
    named = [
        trace["customdata"]
        for trace in reader.charts()["chart-front"]["data"]
        if "customdata" in trace
    ]
    assert panels == {key for keys in named for key in keys}
    assert len(panels) == len(summary["front"]) + len(summary["random_front"])


def test_nothing_is_loaded_from_elsewhere(summary: dict[str, Any]) -> None:
    html = page(summary)
    reader = Reader(html)
    assert get_plotlyjs() in html
    for tag, attributes in reader.elements:
        assert not {"src", "href", "srcset", "action", "data", "poster", "xlink:href"} & set(
            attributes
        ), tag
    assert "http://" not in html.replace(get_plotlyjs(), "")
    assert "https://" not in html.replace(get_plotlyjs(), "")
    assert "url(" not in html.replace(get_plotlyjs(), "")
    policy = next(
        attributes["content"]
        for _, attributes in reader.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert str(policy).startswith("default-src 'none'")


def _poisoned(value: object) -> object:
    """The summary with every text in it replaced; what the page decides by keeps its value."""
    if isinstance(value, dict):
        return {
            key: item if key in ("metric", "minimise", "by") else _poisoned(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_poisoned(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_text_stays_text(summary: dict[str, Any]) -> None:
    honest, taken = Reader(page(summary)), Reader(page(_poisoned(summary)))  # type: ignore[arg-type]
    kinds = {tag for tag, _ in honest.elements}
    assert {tag for tag, _ in taken.elements} <= kinds
    assert not [
        attributes
        for _, attributes in taken.elements
        if any(name.startswith("on") for name in attributes)
    ]
    assert len(taken.scripts) == len(honest.scripts)
    assert HOSTILE in taken.text
    # Plotly reads its own HTML in hover boxes and labels: only its line breaks may be left there.
    for figure in taken.charts().values():
        for text in _strings(figure):
            assert not re.search(r"<(?!br>)", text), text


def test_class_names_are_escaped(summary: dict[str, Any]) -> None:
    summary["space"]["classes"] = [HOSTILE]
    html = page(summary)
    assert HOSTILE not in html
    assert HOSTILE in Reader(html).text


PARTS = (
    "chosen", "front", "random_front", "blocks", "evidence", "predictor", "latency_model", "search", "training", "test_openings",
    "limits", "machine", "space", "data", "recipe_toml", "command", "created", "name", "seed", "minimise",
)  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("how", ["absent", "none"])
def test_a_missing_part_breaks_nothing(summary: dict[str, Any], part: str, how: str) -> None:
    if how == "none":
        summary[part] = None
    else:
        del summary[part]
    text = Reader(page(summary)).text
    assert "None" not in text
    assert "nan" not in text


def test_an_empty_run_has_a_page() -> None:
    text = Reader(page({})).text
    assert "No network is chosen yet." in text
    assert "No claim was checked yet." in text


def _emptied(network: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value if key in ("architecture", "command") else None for key, value in network.items()
    }


def test_what_was_not_measured_is_never_zero(summary: dict[str, Any]) -> None:
    summary["front"] = [_emptied(network) for network in summary["front"]]
    summary["random_front"] = []
    summary["chosen"] = _emptied(summary["chosen"])
    summary["blocks"] = [{**block, "latency_ms": None} for block in summary["blocks"]]
    summary["search"] = {"points": []}
    summary["predictor"] = {"kendall_tau": None}
    summary["latency_model"] = {"mape_percent": None}
    reader = Reader(page(summary))
    assert "was not measured yet" in reader.text
    assert "The latency of any block was not measured." in reader.text
    assert not re.search(r"(?<![\d.,])0(\.0+)? (ms|%|k|M|KiB|bytes)\b", reader.text)
    assert "chart-front" not in reader.charts()
    latency = next(
        trace for trace in reader.charts()["chart-blocks"]["data"] if trace["name"] == "latency"
    )
    assert latency["x"] == [None] * len(summary["blocks"])


@pytest.mark.parametrize("metric", ["energy_uj", "peak_memory_bytes", "macs", "own_metric"])
def test_another_metric_is_minimised(summary: dict[str, Any], metric: str) -> None:
    summary["minimise"] = metric
    summary["limits"] = [{"metric": metric, "bound": 5, "text": f"{metric}=5"}]
    for network in [*summary["front"], summary["chosen"]]:
        network["predicted"][metric] = network["measured"][metric] = 4.5
    figure = Reader(page(summary)).charts()["chart-front"]
    assert figure["layout"]["shapes"][0]["x0"] == 5
    measured = next(
        trace for trace in figure["data"] if trace.get("name") == "front of the search, measured"
    )
    own = [network.get(metric, 4.5) for network in summary["front"]]
    assert measured["x"] == own


def test_the_front_is_drawn_where_it_is(summary: dict[str, Any]) -> None:
    traces = {
        trace.get("name"): trace for trace in Reader(page(summary)).charts()["chart-front"]["data"]
    }
    front = summary["front"]
    assert traces["front of the search, measured"]["x"] == [
        network["measured"]["latency_ms"] for network in front
    ]
    assert traces["front of the search, predicted"]["y"] == [
        network["top1_estimate"] for network in front
    ]
    assert traces["chosen"]["x"] == [summary["chosen"]["measured"]["latency_ms"]]
    by_random = [point for point in summary["search"]["points"] if point["by"] == "random"]
    assert traces["estimated by random search"]["x"] == [
        point["predicted_latency_ms"] for point in by_random
    ]


def test_shares_of_the_blocks_add_up(summary: dict[str, Any]) -> None:
    for trace in Reader(page(summary)).charts()["chart-blocks"]["data"]:
        assert sum(share or 0 for share in trace["x"]) == pytest.approx(1)


def test_a_long_training_is_drawn_by_its_means(summary: dict[str, Any]) -> None:
    rows = [
        {
            "step": n,
            "epoch": n / 100,
            "phase": "a" if n < 500 else "b",
            "learning_rate": 0.1,
            "losses": {"largest": n % 2},
        }
        for n in range(1000)
    ]
    summary["training"]["curve"] = rows
    reader = Reader(page(summary))
    loss = next(
        trace
        for trace in reader.charts()["chart-training"]["data"]
        if trace.get("name") == "largest"
    )
    assert len(loss["x"]) == 144  # 72 means of up to 7 rows in each phase
    assert loss["x"][:2] == pytest.approx([0.03, 0.10])
    assert loss["y"][:2] == pytest.approx([3 / 7, 4 / 7])
    assert "Every point is the mean of several logged steps." in reader.text


def test_many_estimates_are_thinned_and_this_is_said(summary: dict[str, Any]) -> None:
    summary["search"]["points"] = [summary["search"]["points"][-1] | {"by": "search"}] * 7000
    reader = Reader(page(summary))
    drawn = next(
        trace
        for trace in reader.charts()["chart-front"]["data"]
        if trace.get("name") == "estimated by the search"
    )
    assert len(drawn["x"]) == 2334  # every third
    assert "Of more than 3,000 estimates of a search, evenly spaced ones are drawn." in reader.text


def test_the_evidence_says_what_fails(summary: dict[str, Any]) -> None:
    text = Reader(page(summary)).text
    assert text.count("✓ holds") == 3
    assert text.count("✗ does not hold") == 1
    assert "The search covers 4.3 % more area than random search." in text
    summary["search"]["hypervolume"] = 0.3
    assert "The search covers 24.1 % less area" in Reader(page(summary)).text


def test_the_file_is_replaced_whole(tmp_path: Path, summary: dict[str, Any]) -> None:
    path = tmp_path / "run" / "report.html"
    write_report(summary, path)
    first = path.read_text(encoding="utf-8")
    write_report(summary, path)
    assert path.read_text(encoding="utf-8") == first
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
