"""Keeps the counts of the fault tests and prints them as a table at the end."""

from collections.abc import Callable

import pytest


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return a function that adds a line to the table."""

    def add(*parts: str) -> None:
        request.node.user_properties.append(("faults", "; ".join(parts)))

    return add


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the table, also what workers of a parallel run reported."""
    lines = [
        value
        for outcome in ("passed", "failed")
        for test in terminalreporter.stats.get(outcome, [])
        for name, value in test.user_properties
        if name == "faults" and test.when == "call"
    ]
    if lines:
        terminalreporter.section("faults: counts")
        for line in lines:
            terminalreporter.write_line(line)
