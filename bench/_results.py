"""Results on disk, and the tables that docs/benchmarks.md shows of them.

bench/results/runs/NAME.json     the last runs of one benchmark, each with machine, versions and commit
docs/benchmarks.md               between `<!-- bench NAME -->` and `<!-- end -->`: their medians
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.figures import Figure, number

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "bench" / "results" / "runs"
PAGE = ROOT / "docs" / "benchmarks.md"
KEPT = 3
"""Runs of a benchmark that are kept; the tables show medians of them."""
_PLACE = re.compile(r"(<!-- bench (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def save(name: str, machine: Mapping[str, Any], figures: Mapping[str, Figure]) -> None:
    """Add a run of one benchmark to those that are kept; figures of other items of it stay."""
    RUNS.mkdir(parents=True, exist_ok=True)
    run = {"machine": dict(machine), "figures": {key: figure.plain() for key, figure in figures.items()}}
    runs = [*load(name), run][-KEPT:]
    (RUNS / f"{name}.json").write_text(json.dumps(runs, indent=1, ensure_ascii=False) + "\n")


def load(name: str) -> list[dict[str, Any]]:
    """Return the kept runs of a benchmark, oldest first; none when it was never saved."""
    path = RUNS / f"{name}.json"
    return list(json.loads(path.read_text())) if path.exists() else []


def medians(name: str) -> dict[str, Figure]:
    """Return each figure of a benchmark as the median of its runs, in the order of the newest one."""
    runs = [run["figures"] for run in load(name)]
    return {key: _median([run[key] for run in runs if key in run]) for key in (runs[-1] if runs else {})}


def _median(found: list[dict[str, Any]]) -> Figure:
    values = [item["value"] for item in found]
    against = {
        name: statistics.median(item["against"][name] for item in found if name in item.get("against", {}))
        for name in found[-1].get("against", {})
    }
    figure = Figure(**{**found[-1], "value": statistics.median(values), "against": against})
    figure.spread = (min(values), max(values)) if len(values) > 1 else None
    return figure


def markdown(name: str) -> str:
    """Return the table of a benchmark, with a line about its runs."""
    figures, runs = medians(name), load(name)
    if not runs:
        return "Not measured yet.\n"
    rows = ["| | median | spread | goal | ratio | |", "|---|---:|---|---|---|---|"]
    for key, figure in figures.items():
        spread = " to ".join(map(number, figure.spread)) if figure.spread else ""
        verdict = {True: " reached", False: " **missed**", None: ""}[figure.reached]
        cells = [
            key,
            f"{number(figure.value)} {figure.unit}",
            spread,
            figure.goal + verdict,
            figure.ratios,
            figure.note,
        ]
        rows.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    commits = ", ".join(dict.fromkeys(str(run["machine"]["commit"]) for run in runs))
    machine = runs[-1]["machine"]
    rows.append(
        f"\n{len(runs)} run{'s' * (len(runs) > 1)}, newest {machine['time']}, commits {commits}; "
        f"{machine['cpus']} x {machine['processor']}, {machine['postgresql']}, Python {machine['python']}"
        + (f"; {machine['seconds']} s a run." if "seconds" in machine else ".")
    )
    return "\n".join(rows) + "\n"


def fill(page: str) -> str:
    """Return a page with the tables of the results between its markers."""
    return _PLACE.sub(lambda place: place[1] + markdown(place[2]) + place[3], page)
