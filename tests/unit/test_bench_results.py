"""Runs of a benchmark are kept, and their medians fill the page between its markers."""

import pytest

from bench import _results
from bench.figures import Figure, table

MACHINE = {
    "commit": "abc",
    "time": "now",
    "cpus": 2,
    "processor": "P",
    "postgresql": "PostgreSQL",
    "python": "3",
}
PAGE = "before\n<!-- bench speed -->\nold\n<!-- end -->\nafter\n"


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(_results, "RUNS", tmp_path)


def test_the_table_shows_medians_of_the_last_three_runs():
    for value in (900.0, 1.0, 3.0, 2.0):
        _results.save(
            "speed", MACHINE, {"rate": Figure(value, "points/s", at_least=2, against={"echo": 4.0})}
        )
    page = _results.fill(PAGE)
    assert "| rate | 2 points/s | 1 to 3 | ≥ 2 reached | 0.5 x echo |" in page
    assert page.startswith("before\n")
    assert page.endswith("<!-- end -->\nafter\n")
    assert "old" not in page
    assert _results.fill(page) == page


def test_what_was_never_measured_says_so():
    assert "Not measured yet." in _results.fill(PAGE)


def test_a_missed_goal_is_said():
    line = table(
        "speed", {"time": Figure(3.0, "ms", "a note", at_most=2, against={"echo": 1.5})}
    ).splitlines()[-1]
    assert line.split(maxsplit=3)[3] == "goal ≤ 2 MISSED; 2 x echo; a note"
