"""What commands print: hidden characters, JSON, numbers, cells of a spreadsheet."""

import json

import pytest

from runstream._commands import output
from runstream._commands.sheets import safe_cell


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äöü 中文 🙂", "plain äöü 中文 🙂"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\tb\nc\rd", "a\\tb\\nc\\rd"),
        ("abc\u202etxt.exe", "abc\\u202etxt.exe"),
        ("\u2066x\u2069\u200e\u200f\u061c", "\\u2066x\\u2069\\u200e\\u200f\\u061c"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("\x00\x7f\x9b31m", "\\x00\\x7f\\x9b31m"),
    ],
)
def test_hidden_characters_are_made_visible(text, shown):
    assert output.visible(text) == shown


def test_json_reads_back_the_same_and_holds_no_hidden_character(capsys):
    document = {"name": "a\u202eb\x1b[0m\x9b\x7f\n", "value": [1, 2.5, 2**62, -(2**63)]}
    output.print_json(document)
    printed = capsys.readouterr().out
    assert json.loads(printed) == document
    assert not output._HIDDEN.search(printed.replace("\n", ""))


def test_json_writes_numbers_that_are_none_as_protobuf_does(capsys):
    output.print_json({"values": [float("nan"), float("inf"), float("-inf"), 0.1]})
    assert json.loads(capsys.readouterr().out) == {"values": ["NaN", "Infinity", "-Infinity", 0.1]}


def test_a_table_in_a_pipe_is_one_line_a_row_with_tabs_between_cells(capsys):
    output.print_table(["Name", "Value"], [("a\tb\nc", 1), (None, 2)])
    assert capsys.readouterr().out == "Name\tValue\na\\tb\\nc\t1\n\t2\n"


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "1970-01-01 00:00:00"), (None, ""), (2**63 - 1, str(2**63 - 1)), (-(2**63), str(-(2**63)))],
)
def test_times_of_any_int64_can_be_shown(milliseconds, text):
    assert output.time_text(milliseconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(None, ""), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 40, "1.0 TiB")]
)
def test_sizes_are_shown_in_powers_of_1024(size, text):
    assert output.size_text(size) == text


@pytest.mark.parametrize(
    "cell", ["=HYPERLINK(1)", "+cmd|' /C calc'!A0", "@SUM(A1)", "-2+3", "\tx", "\r=1", "--1", "-", "=1", "+"]
)
def test_a_cell_that_could_be_a_formula_gets_an_apostrophe(cell):
    assert safe_cell(cell) == f"'{cell}"


@pytest.mark.parametrize(
    "cell", ["-1", "+1.5", "-1e-05", "-.5", "-inf", "-Infinity", "NaN", "1", "a=b", "", "'=1", "x-y"]
)
def test_numbers_and_harmless_cells_stay_as_they_are(cell):
    assert safe_cell(cell) == cell
