"""How a page is found, by how many rows the clauses of a filter select."""

import pytest

from runstream_server.search.entities import RUNS
from runstream_server.search.parser import parse_filter
from runstream_server.search.plan import _planned

TEAM, MODEL = "tags.team = 'a'", "params.model = 'svc'"


@pytest.mark.parametrize(
    ("filter", "runs", "counts", "gathered"),
    [
        (f"{TEAM} AND {MODEL}", 10_000, [2500, 2000], ["team", "model"]),
        (f"{TEAM} AND {MODEL}", 1_000_000, [250_000, 200_000], []),  # more than look-ups cost
        ("tags.team LIKE '%a'", 10_000, [2500], []),  # the index would not answer alone
        ("params.lr < 0.5", 10_000, [2500], []),
        ("metrics.loss.min < 0.5", 10_000, [2500], []),
        ("metrics.loss < 0.5", 10_000, [1000], ["loss"]),
        (TEAM, 100_000, [10], None),  # the planner begins with the ten
    ],
)
def test_clauses_are_gathered_that_an_index_answers_and_few_rows_match(filter, runs, counts, gathered):
    node = parse_filter(filter, RUNS)
    walk = _planned(node, RUNS, [runs, runs, *counts], 100, gathers=True)
    found = None if walk is None else sorted(leaf.key for leaf in walk.gathered)
    assert found == (gathered if gathered is None else sorted(gathered))
