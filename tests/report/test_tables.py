import csv
import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metasynth.report.tables import ABSENT, Table, format_column

RECORDS = [
    {"sigma_true": 0.1, "sigma_learned": 0.10234, "steps": 600, "dice": {"clean": {"mean": 0.81}}},
    {"sigma_true": 0.0, "steps": 1200, "note": "a|b"},
]


def test_records_become_rows_under_dotted_keys():
    table = Table.from_records("All.", RECORDS)
    assert table.columns == ("sigma_true", "sigma_learned", "steps", "dice.clean.mean", "note")
    assert table.rows == ((0.1, 0.10234, 600, 0.81, None), (0.0, None, 1200, None, "a|b"))


def test_chosen_columns_have_headings():
    table = Table.from_records("Some.", RECORDS, {"steps": "Steps", "dice.clean.mean": "Dice"})
    assert (table.columns, table.rows) == (("Steps", "Dice"), ((600, 0.81), (1200, None)))


def test_markdown_is_aligned():
    lines = Table.from_records("All.", RECORDS).markdown().splitlines()
    assert lines == [
        "| sigma_true | sigma_learned | steps | dice.clean.mean | note |",
        "| ---------: | ------------: | ----: | --------------: | ---- |",
        f"|      0.100 |         0.102 |   600 |           0.810 | {ABSENT}    |",
        f"|      0.000 |             {ABSENT} |  1200 |               {ABSENT} | a\\|b |",
    ]


def test_csv_keeps_full_precision():
    table = Table("x", ("name, with comma", "value"), (('a "quoted"', 0.1 + 0.2), (None, 1)))
    rows = list(csv.reader(io.StringIO(table.csv(), newline="")))
    assert rows == [["name, with comma", "value"], ['a "quoted"', "0.30000000000000004"], ["", "1"]]


@pytest.mark.parametrize("text", ["=1+1", "+1-1", "-a", "@sum", "\t=1", "\r=1"])
def test_no_cell_of_a_csv_is_a_formula(text):
    written = Table("x", (text, "plain"), ((text, "a-b"), (-0.5, None))).csv()
    rows = list(csv.reader(io.StringIO(written, newline="")))
    assert rows == [[f"'{text}", "plain"], [f"'{text}", "a-b"], ["-0.5", ""]]


def test_numbers_written_as_text_are_no_formulas():
    assert Table("x", ("a",), (("-0.5",), ("+1e3",), ("-inf",))).csv() == "a\r\n-0.5\r\n+1e3\r\n-inf\r\n"


def test_html_in_a_cell_shows_as_it_is():
    table = Table("x", ("<b>a</b>", "p"), (("<img src=x onerror=alert(1)>|&", "<0.0001"), ("R&D, a > b", "<!--")))
    lines = table.markdown().splitlines()
    assert [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if "---" not in line] == [
        ["&lt;b&gt;a&lt;/b&gt;", "p"],
        ["&lt;img src=x onerror=alert(1)&gt;\\|&amp;", "<0.0001"],
        ["R&D, a > b", "&lt;!--"],
    ]


def test_a_table_without_rows():
    table = Table.from_records("None.", [], {"a": "A"})
    assert table.cells() == []
    assert table.markdown() == "| A   |\n| --: |\n".replace("A  ", "  A")


def test_uneven_rows_are_refused():
    with pytest.raises(ValueError, match="rows: row 2 has 1 values for 2 columns"):
        Table("x", ("a", "b"), ((1, 2), (1,)))


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.1, 0.12345, None, math.nan], ["0.100", "0.123", ABSENT, ABSENT]),
        ([12.5, 0.25], ["12.50", "0.25"]),
        ([123.456, 1.0], ["123.5", "1.0"]),
        ([12345.6], ["12346"]),
        ([1.5e-4, 0.0], ["1.50e-04", "0.00e+00"]),
        ([3, 100000], ["3", "100000"]),
        ([0.0], ["0.000"]),
        ([[0.025, 0.2], 0.1], ["0.025 – 0.200", "0.100"]),
        ([True, "text"], ["True", "text"]),
        ([math.inf, 1.0], ["inf", "1.000"]),
    ],
)
def test_numbers_of_a_column_share_their_decimals(values, texts):
    assert format_column(values) == texts


cells = st.none() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]))


@given(st.lists(st.tuples(cells, cells), max_size=5))
def test_every_line_of_markdown_has_the_same_width_and_cells(rows):
    lines = Table("x", ("first", "second"), tuple(rows)).markdown().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 2 + len(rows)
    assert all(line.replace("\\|", "").count("|") == 3 for line in lines)
