"""docs/search.md is true: every line of its blocks is run, or refused, on both stores."""

import re
from pathlib import Path

import pytest

from runstream_server.errors import InvalidArgument
from runstream_server.search import entities
from runstream_server.search.paging import Pager
from runstream_server.search.query import fetch, prepare
from runstream_server.store.registry_reader import VERSION_SOURCE

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "search.md").read_text()
LANGUAGES = {
    language.name: language
    for language in (
        entities.RUNS,
        entities.EXPERIMENTS,
        entities.MODELS,
        entities.VERSIONS,
        entities.LOGGED_MODELS,
    )
}
LINES = [
    (kind, name, line)
    for kind, name, body in re.findall(r"^```(filter|order|refused) (\w+)\n(.*?)^```$", PAGE, re.M | re.S)
    for line in body.splitlines()
]


@pytest.mark.parametrize(("kind", "name", "line"), LINES, ids=[line for _, _, line in LINES])
def test_a_line_of_the_page_does_what_the_page_says(db, kind, name, line):
    language = LANGUAGES[name]
    order = [line] if kind == "order" else ["name"] if name == "logged_models" else []
    if kind == "refused":
        with pytest.raises(InvalidArgument, match="\\^"):
            run(db, language, line, order)
    else:
        run(db, language, "" if kind == "order" else line, order)


def run(db, language, filter, order):
    search = prepare(
        Pager(db), language, filter=filter, order_by=order, max_results=5, limit=5, page_token=""
    )
    source = VERSION_SOURCE if language is entities.VERSIONS else None
    db.read(fetch, search, list(language.table.primary_key), source=source)


def test_the_page_names_every_attribute_and_summary():
    for language in LANGUAGES.values():
        assert "| " + ", ".join(language.attributes) + " |" in PAGE
    assert "summary     = " + " | ".join(f'"{name}"' for name in entities.SUMMARIES) in PAGE
