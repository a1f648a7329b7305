"""Keeps the counts of the fault tests and prints them as a table at the end; also into FAULT_TABLE."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.counts import Counts


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[Counts | str], None]:
    """Return a function that adds a line to the table and, on a quiet machine, asserts its time."""

    def add(counts: Counts | str) -> None:
        request.node.user_properties.append(("faults", str(counts)))
        if isinstance(counts, Counts):
            counts.check_time()

    return add


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the table, also what workers of a parallel run reported."""
    lines = [
        ("" if outcome == "passed" else "FAILED: ") + value
        for outcome in ("passed", "failed")
        for test in terminalreporter.stats.get(outcome, [])
        for name, value in test.user_properties
        if name == "faults" and test.when == "call"
    ]
    if lines:
        terminalreporter.section("faults: counts")
        for line in lines:
            terminalreporter.write_line(line)
    if lines and (path := os.environ.get("FAULT_TABLE")):
        Path(path).write_text("\n".join([*lines, ""]))
