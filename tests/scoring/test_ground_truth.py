"""Scores and known accuracies are joined by the text of the architecture; a misfit is told."""

from __future__ import annotations

import pytest

from pliant.errors import DataError
from pliant.report.ranking_page import ranking_page, write_ranking_page
from pliant.scoring.ground_truth import read_truth, table_correlations
from pliant.scoring.images import Shape, noise_batch
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


def test_rows_of_one_network_are_averaged(tmp_path, table):
    path = tmp_path / "repeats.csv"
    path.write_text("architecture,valid_12,top1\na,1,0.5\nb,2,0.6\na,3,0.7\n")
    truth = read_truth(path)
    assert truth.accuracies == {"a": pytest.approx(0.6), "b": 0.6}
    assert (truth.column, truth.averaged) == ("top1", {"a"})
    lines = [f"net{number},{number + swing}" for number in range(30) for swing in (-9, 9)]
    path.write_text("\n".join(["arch,test", *lines]))
    found = table_correlations(table / "scores.parquet", path)
    assert found.averaged == 30
    assert next(row for row in found.rows if row.name == "good").kendall.value == 1


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("test_loss,test_time,test_acc", "test_acc"),
        ("testLoss,valid_error,validAccuracy", "validAccuracy"),
        ("test_seconds,top-1", "top-1"),
        ("cifar10_test_pct,cifar10_valid_12_epochs_pct,flops_millions", "cifar10_test_pct"),
        ("test-epochs,val", "val"),
    ],
)
def test_what_is_no_accuracy_is_not_taken_for_one(header, column, tmp_path):
    values = ",".join(str(place) for place in range(header.count(",") + 1))
    (tmp_path / "truth.csv").write_text(f"arch,{header}\na,{values}\n")
    truth = read_truth(tmp_path / "truth.csv")
    assert (truth.column, truth.accuracies["a"]) == (column, header.split(",").index(column))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("test_loss,latency_ms", "is named as accuracies are; it has test_loss, latency_ms"),
        ("test_acc_12,test_acc_200", "may be test_acc_12 or test_acc_200. Name one with --column"),
        ("acc,accuracy", "may be acc or accuracy"),
        ("test,test", "has .test. more than once. Rename one"),
    ],
)
def test_a_column_that_cannot_be_told_is_asked_for(header, said, tmp_path):
    (tmp_path / "truth.csv").write_text(f"arch,{header}\na,1,2\n")
    with pytest.raises(DataError, match=said):
        read_truth(tmp_path / "truth.csv")


def test_a_table_without_parameters(tmp_path, table):
    write_rows([ScoreRow("net1", "zen", 1.0)], tmp_path / "zen.csv")
    with pytest.raises(DataError, match="has no parameters"):
        table_correlations(tmp_path / "zen.csv", table / "truth.csv")


def test_networks_are_scored_on_at_least_one_image() -> None:
    with pytest.raises(DataError, match="at least one image, received 0"):
        noise_batch(Shape(3, 8, 10), images=0)
