"""What `runstream doctor` found, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import typer

from runstream._commands.output import print_json, visible

MAX_SKEW = 5.0
"""Seconds that two clocks may differ."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    """What was looked at, e.g. `server`."""
    state: Literal["ok", "warning", "problem"]
    """`problem`: it does not work; `warning`: it works, and something should be done."""
    message: str
    """What is so."""
    way_out: str = ""
    """What to do; empty when nothing is."""


Check = Callable[[], Iterator[Finding]]


def ok(name: str, message: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(name, "ok", message)


def warning(name: str, message: str, way_out: str) -> Finding:
    """Return a finding that works but should be looked at."""
    return Finding(name, "warning", message, way_out)


def problem(name: str, message: str, way_out: str) -> Finding:
    """Return a finding that does not work."""
    return Finding(name, "problem", message, way_out)


def clock(name: str, seconds: float, uncertain: float, whose: str) -> Finding:
    """Return the finding for a clock that is `seconds` ahead of ours, measured to within `uncertain`."""
    if abs(seconds) - uncertain > MAX_SKEW:
        ahead = f"{whose} is {abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} this machine's"
        way_out = "set both clocks by NTP (timedatectl set-ntp true); times of runs and points come from them"
        return problem(name, ahead, way_out)
    return ok(name, f"{whose} and this machine's differ by {abs(seconds):.1f} s")


def report(found: list[Finding], environment: dict[str, str], as_json: bool) -> None:
    """Print what was found; ends with exit code 1 when there is a problem."""
    well = all(finding.state != "problem" for finding in found)
    if as_json:
        print_json({"ok": well, "checks": [asdict(f) for f in found], "environment": environment})
    else:
        _print(found, environment)
    if not well:
        raise typer.Exit(1)


def _print(found: list[Finding], environment: dict[str, str]) -> None:
    width = max(len(finding.name) for finding in found)
    for finding in found:
        typer.echo(f"{finding.state:<8} {finding.name:<{width}}  {visible(finding.message)}")
        if finding.way_out:
            typer.echo(f"{'':<8} {'':<{width}}  -> {visible(finding.way_out)}")
    for name, value in environment.items():
        typer.echo(f"{'set':<8} {visible(name)}={visible(value)}")
    problems = sum(finding.state == "problem" for finding in found)
    typer.echo(f"{problems} problem{'s' * (problems != 1)}" if problems else "nothing is wrong")
