"""Frames through a CSV and back, and what stands in the file where text looks like a formula."""

import csv
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from selftrans.errors import UserError
from selftrans.reporting.csv import read_csv, write_csv

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\n=1", "＝1", "'=1", "''@x"]
HARMLESS = ["SiT-B/2", "8 → 6", "λ = 0.1", "'quoted'", "it's", "a,b", 'say "x"', "NA", "null", " =1"]


def cells_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("text", FORMULAS)
def test_what_a_spreadsheet_would_compute_begins_with_an_apostrophe(tmp_path, text):
    write_csv(tmp_path / "a.csv", pd.DataFrame({"row": [text, "plain"], text: [1, 2]}))
    assert cells_of(tmp_path / "a.csv") == [["row", "'" + text], ["'" + text, "1"], ["plain", "2"]]


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_stays_as_it_is(tmp_path, text):
    write_csv(tmp_path / "a.csv", pd.DataFrame({"row": [text]}))
    assert cells_of(tmp_path / "a.csv") == [["row"], [text]]


def test_numbers_stay_numbers(tmp_path):
    """A column of steps with gaps would be written as 30.0 by default."""
    frame = pd.DataFrame({"a": [-0.5, 1e-9, None], "b": [-3, None, 30], "c": [True, False, None]}).convert_dtypes()
    write_csv(tmp_path / "a.csv", frame)
    assert cells_of(tmp_path / "a.csv")[1:] == [["-0.5", "-3", "True"], ["1e-09", "", "False"], ["", "30", ""]]
    assert_frame_equal(read_csv(tmp_path / "a.csv"), frame)


def test_every_break_of_a_line_is_one_of_the_cell(tmp_path):
    write_csv(tmp_path / "a.csv", pd.DataFrame({"row": ["\r=1", "a\r\nb\rc"]}))
    assert cells_of(tmp_path / "a.csv") == [["row"], ["'\n=1"], ["a\nb\nc"]]


@given(texts=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r")), min_size=1, max_size=5))
def test_every_text_comes_back(tmp_path_factory, texts):
    path = tmp_path_factory.getbasetemp() / "texts.csv"
    rows = [*texts, *FORMULAS, *HARMLESS]
    write_csv(path, pd.DataFrame({"row": rows}))
    assert read_csv(path)["row"].fillna("").tolist() == rows


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n1,2,3\n", b"a\n\xff\n"])
def test_a_file_that_is_no_csv_is_named(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.csv: not a CSV \(.+\); delete it"):
        read_csv(tmp_path / "a.csv")
    (tmp_path / "a.csv").unlink()
    with pytest.raises(UserError, match=r"a\.csv: no such file"):
        read_csv(tmp_path / "a.csv")


def test_no_other_module_writes_csv():
    package = Path(__file__).parents[2] / "selftrans"
    writers = [path for path in package.rglob("*.py") if re.search(r"to_csv|csv\.writer|DictWriter", path.read_text())]
    assert writers == [package / "reporting" / "csv.py"]
