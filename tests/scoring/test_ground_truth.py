"""Scores and known accuracies are joined by the text of the architecture; a misfit is told."""

from __future__ import annotations

import pytest

from pliant.errors import DataError
from pliant.report.ranking_page import ranking_page, write_ranking_page
from pliant.scoring.ground_truth import read_truth, table_correlations
from pliant.scoring.process_pool import ScoreRow
from pliant.scoring.score_tables import write_rows


@pytest.fixture
def table(tmp_path):
    """30 networks of known accuracy and one more; `good` ranks right, `bad` backwards."""
    rows = []
    for number in range(31):
        name = f"net{number}"
        rows += [
            ScoreRow(name, "good", float(number), seconds=0.5),
            ScoreRow(name, "bad", failure="no batch norm")
            if number < 2
            else ScoreRow(name, "bad", -float(number), seconds=1.0),
            ScoreRow(name, "parameters", float(number // 2 + 1), seconds=1e-4),
            ScoreRow(name, "macs", float(number // 2 + 1), seconds=1e-4),
        ]
    write_rows(rows, tmp_path / "scores.parquet")
    lines = [f"{number},net{number},{50 + number},{number % 3}" for number in range(30)]
    (tmp_path / "truth.csv").write_text(
        "\n".join(["index,arch,test_pct,valid_pct", *lines, "99,other,10,0"])
    )
    return tmp_path


def test_scores_are_compared_on_what_both_files_hold(table):
    found = table_correlations(table / "scores.parquet", table / "truth.csv")
    assert (found.column, found.networks, found.without_truth) == ("test_pct", 30, 1)
    by_name = {row.name: row for row in found.rows}
    assert found.rows[0].name == "good"
    assert {"parameters", "macs"} < set(by_name)
    assert by_name["good"].kendall.value == 1
    assert by_name["good"].seconds == 0.5
    assert by_name["good"].regret == 0
    assert by_name["good"].equal_size.value == 1
    assert by_name["bad"].failed == 2
    assert by_name["bad"].kendall.value < -0.7
    assert found.failures == {"bad": "no batch norm"}


def test_page_needs_nothing_else(table):
    found = table_correlations(table / "scores.parquet", table / "truth.csv")
    write_ranking_page(found.rows, table / "page.html", truth=found.column)
    page = (table / "page.html").read_text()
    assert page == ranking_page(found.rows, truth="test_pct")
    assert "default-src 'none'" in page
    assert all(
        name in page
        for name in ("good", "bad", "parameters", "macs", "Over parameters", "30 networks")
    )


@pytest.mark.parametrize(
    ("truth", "column", "said"),
    [
        ("arch,test\nother,1\n", None, r"none of the 31 .* is in .*'net0'.*'other'"),
        ("arch,size\nnet1,1\n", None, "is named as accuracies are; it has size"),
        ("arch,test\nnet1,1\n", "tset", "Did you mean 'test'"),
        ("arch,test\nnet1,high\n", None, "row 2, column test has 'high'"),
        ("arch,test\nnet1,1\nnet2,2\n", None, "at least 3 networks"),
    ],
)
def test_truth_that_does_not_fit(table, truth, column, said):
    (table / "truth.csv").write_text(truth)
    with pytest.raises(DataError, match=said):
        table_correlations(table / "scores.parquet", table / "truth.csv", column=column)


def test_the_first_accuracy_of_a_network_that_stands_twice(tmp_path):
    (tmp_path / "truth.csv").write_text("architecture,valid_12,top1\na,1,0.5\nb,2,0.6\na,3,0.7\n")
    assert read_truth(tmp_path / "truth.csv") == ({"a": 0.5, "b": 0.6}, "top1")


def test_a_table_without_parameters(tmp_path, table):
    write_rows([ScoreRow("net1", "zen", 1.0)], tmp_path / "zen.csv")
    with pytest.raises(DataError, match="has no parameters"):
        table_correlations(tmp_path / "zen.csv", table / "truth.csv")
