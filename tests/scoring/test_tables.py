"""Tables of scores and lists of architectures: what is read, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pliant.errors import DataError
from pliant.scoring.score_tables import MOST_LETTERS, read_architectures, read_rows


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("arch,arch\na,b\n", r"'arch' more than once\. Rename"),
        ("size,size,arch\n1,2,a\n", "'size' more than once"),
        ("name\na\n", "a column arch or architecture; .* has name"),
        ("arch\n", "has rows, .* has none"),
        ("arch,x\na\n", "cannot be read as CSV"),
        (f"arch\n{'r' * (MOST_LETTERS + 1)}\n", "up to 10,000 letters; .*10,001"),
        ("", "cannot be read as CSV"),
    ],
)
def test_lists_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        read_architectures(path)


def test_a_list_has_its_texts_in_order_and_without_spaces(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(" Architecture ,top1\n b ,1\na,2\n")
    assert read_architectures(path) == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("architecture,method,score,score\na,b,1,2\n", "'score' more than once"),
        ("architecture,score\na,1\n", "a column 'method'"),
        ("architecture,method,score\n", "has rows"),
        ("architecture,method,score\na,b,high\n", "column score holds numbers or nothing"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        read_rows(path)


def test_a_score_that_is_left_out_is_none_and_never_zero(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("architecture,method,score\na,zen,\na,macs,0\nb,zen,inf\n")
    assert [row.score for row in read_rows(path)] == [None, 0.0, float("inf")]


def test_a_parquet_table_with_a_name_twice_is_refused(tmp_path: Path) -> None:
    path, texts = tmp_path / "scores.parquet", pa.array(["a"])
    pq.write_table(pa.table([texts] * 2, names=["architecture", "architecture"]), path)
    with pytest.raises(DataError, match="cannot be read as parquet: Multiple matches"):
        read_rows(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        read_rows(path)
