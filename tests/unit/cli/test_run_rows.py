"""Runs as rows and lines."""

from dataclasses import replace

import pytest

from runstream._commands.run_rows import run_fields, run_row
from runstream._types import Run, RunInfo

INFO = RunInfo("a" * 32, "0", "me", "RUNNING", 1, None)


@pytest.mark.parametrize(
    ("liveness", "shown"), [(None, "RUNNING"), ("STALE", "RUNNING (stale)"), ("LOST", "RUNNING (lost)")]
)
def test_the_status_says_when_nobody_is_heard_of(liveness, shown):
    run = Run(replace(INFO, liveness=liveness))
    assert dict(run_fields(run))["Status"] == shown
    assert run_row(run, None)[2] == shown
