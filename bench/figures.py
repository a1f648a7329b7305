"""What a benchmark returns, and how it is printed."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class Figure:
    """One measured number."""

    value: float
    unit: str
    note: str = ""
    """What must be known to read it."""


def table(title: str, figures: Mapping[str, Figure]) -> str:
    """Return figures as lines of text."""
    width = max(len(name) for name in figures)
    lines = [f"\n{title}"]
    for name, figure in figures.items():
        number = f"{figure.value:,.0f}" if figure.value >= 1000 else f"{figure.value:,.3g}"
        lines.append(f"  {name:<{width}}  {number:>12} {figure.unit:<14} {figure.note}".rstrip())
    return "\n".join(lines)
