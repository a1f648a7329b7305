"""What a benchmark returns, and how it is printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Figure:
    """One measured number."""

    value: float
    unit: str
    note: str = ""
    """What must be known to read it."""
    at_least: float | None = None
    """Goal, of what should be large; in `unit`."""
    at_most: float | None = None
    """Goal, of what should be small; in `unit`."""
    against: dict[str, float] = field(default_factory=dict)
    """Floors and peers by name: what they reached in the same run, in `unit`."""
    spread: tuple[float, float] | None = None
    """Least and greatest of several runs; `value` is their median."""

    @property
    def goal(self) -> str:
        """The goal in words, empty without one."""
        if self.at_least is not None:
            return f"≥ {number(self.at_least)}"
        return f"≤ {number(self.at_most)}" if self.at_most is not None else ""

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return self.value <= self.at_most if self.at_most is not None else None

    @property
    def ratios(self) -> str:
        """The number as a multiple of its floors and peers."""
        return ", ".join(
            f"{_times(self.value, other)} {name}" for name, other in self.against.items() if other
        )

    def plain(self) -> dict[str, Any]:
        """Return what is not empty, for JSON."""
        return {name: value for name, value in vars(self).items() if value not in (None, "", {})}


def number(value: float) -> str:
    """Return a number as it is printed."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}"


def _times(value: float, other: float) -> str:
    ratio = value / other
    return f"{ratio:,.0f} x" if ratio >= 100 else f"{ratio:,.2g} x"


def table(title: str, figures: Mapping[str, Figure]) -> str:
    """Return figures as lines of text."""
    width = max((len(name) for name in figures), default=0)
    lines = [f"\n{title}"]
    for name, figure in figures.items():
        verdict = {True: "reached", False: "MISSED", None: ""}[figure.reached]
        goal = f"goal {figure.goal} {verdict}" if figure.goal else ""
        rest = "; ".join(filter(None, (goal, figure.ratios, figure.note)))
        lines.append(f"  {name:<{width}}  {number(figure.value):>12} {figure.unit:<14} {rest}".rstrip())
    return "\n".join(lines)
