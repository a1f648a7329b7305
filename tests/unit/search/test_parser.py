"""What the filter language accepts, what it means, and where it says an error is."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runstream_server.errors import InvalidArgument
from runstream_server.search.entities import EXPERIMENTS, MODELS, RUNS, VERSIONS
from runstream_server.search.order import parse_order
from runstream_server.search.parser import parse_filter
from runstream_server.search.tree import And, Comparison, Entity

LANGUAGES = [RUNS, EXPERIMENTS, MODELS, VERSIONS]


def clause(text, language=RUNS):
    node = parse_filter(text, language)
    assert isinstance(node, And)
    (only,) = node.terms
    assert isinstance(only, Comparison)
    return only.entity, only.key, only.operator, only.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metrics.loss < 0.5", (Entity.METRIC, "loss", "<", 0.5)),
        ("metric.loss>=-1e-3", (Entity.METRIC, "loss", ">=", -0.001)),
        ("metrics.`val loss` != 3", (Entity.METRIC, "val loss", "!=", 3.0)),
        ('metrics."a/b" = 3', (Entity.METRIC, "a/b", "=", 3.0)),
        ("metrics.2nd = .5", (Entity.METRIC, "2nd", "=", 0.5)),
        ("params.lr = '0.1'", (Entity.PARAM, "lr", "=", "0.1")),
        ('param.lr = "0.1"', (Entity.PARAM, "lr", "=", "0.1")),
        ("parameters.a.b LIKE 'x%'", (Entity.PARAM, "a.b", "LIKE", "x%")),
        ("params.n = 'it''s'", (Entity.PARAM, "n", "=", "it's")),
        ('params.n = "it\'s"', (Entity.PARAM, "n", "=", "it's")),
        ("tags.mlflow.parentRunId = 'x'", (Entity.TAG, "mlflow.parentRunId", "=", "x")),
        ("`tags`.`mlflow.user` ilike 'A_'", (Entity.TAG, "mlflow.user", "ILIKE", "A_")),
        ("tag.a is not null", (Entity.TAG, "a", "IS NOT NULL", None)),
        ("params.a IS NULL", (Entity.PARAM, "a", "IS NULL", None)),
        ("status = 'RUNNING'", (Entity.ATTRIBUTE, "status", "=", "RUNNING")),
        ("attr.start_time > 5", (Entity.ATTRIBUTE, "start_time", ">", 5)),
        ("Created > 5.5", (Entity.ATTRIBUTE, "start_time", ">", 5.5)),
        ("run.`Run name` = 'x'", (Entity.ATTRIBUTE, "run_name", "=", "x")),
        ('"run name" = "x"', (Entity.ATTRIBUTE, "run_name", "=", "x")),
        ("run_id IN ('a', 'b',)", (Entity.ATTRIBUTE, "run_id", "IN", ("a", "b"))),
        ("run_id not  in ('a')", (Entity.ATTRIBUTE, "run_id", "NOT IN", ("a",))),
        ("dataset.name LIKE '%x'", (Entity.DATASET, "name", "LIKE", "%x")),
        ("datasets.context IN ('train')", (Entity.DATASET, "context", "IN", ("train",))),
        ("\n metrics.loss\t<\n1 ", (Entity.METRIC, "loss", "<", 1.0)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_clause_means_what_it_means_in_mlflow(text, expected):
    assert clause(text) == expected


def test_clauses_are_joined_by_and_in_any_case():
    node = parse_filter("metrics.a > 1 AND params.b = 'AND' and tags.c != 'x'", RUNS)
    assert isinstance(node, And)
    assert [term.key for term in node.terms if isinstance(term, Comparison)] == ["a", "b", "c"]


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_filter_matches_everything(text):
    assert parse_filter(text, RUNS) == And(())


def test_other_searches_have_their_own_words():
    assert clause("creation_time >= 7", EXPERIMENTS) == (Entity.ATTRIBUTE, "creation_time", ">=", 7)
    assert clause("experiment_id IN ('1', '2')", EXPERIMENTS)[3] == ("1", "2")
    assert clause("name ILIKE 'a%'", MODELS) == (Entity.ATTRIBUTE, "name", "ILIKE", "a%")
    assert clause("version_number <= '3'", VERSIONS) == (Entity.ATTRIBUTE, "version_number", "<=", 3)
    assert clause("source_path LIKE 's3:%'", VERSIONS)[1] == "source_path"


@pytest.mark.parametrize(
    ("text", "says", "marks"),
    [
        ("bogus", "Invalid clause(s) in filter string: 'bogus'", "bogus"),
        ("metrics.a > 1 AND bogus AND x", "Invalid clause(s) in filter string: 'bogus'", "bogus"),
        ("metrics.a > 1 AND", "Invalid clause(s) in filter string", None),
        ("AND", "Invalid clause(s) in filter string: 'AND'", "AND"),
        ("metrics.a >", "Invalid clause(s) in filter string: 'metrics.a >'", "metrics.a >"),
        ("metrics.a = 1 OR metrics.b = 2", "joined by AND", "OR metrics.b = 2"),
        ("NOT metrics.a = 1", "joined by AND", "NOT metrics.a = 1"),
        ("(metrics.a = 1)", "joined by AND", "(metrics.a = 1)"),
        (
            "metrics.a = 1 metrics.b = 2",
            "Invalid clause(s) in filter string: 'metrics.b = 2'",
            "metrics.b = 2",
        ),
        ("metrics.a == 1", "Expected numeric value", "="),
        ("metrics.a <> 1", "Expected numeric value", ">"),
        ("metrics.a = '1'", "Expected numeric value type for metric", "'1'"),
        ("metrics.a LIKE 'x'", "Invalid comparator 'LIKE'", "LIKE"),
        ("metrics.a IS NULL", "Invalid comparator 'IS NULL'", "IS"),
        ("params.a = 1", "Expected a quoted string value for parameter", "1"),
        ("params.a = `x`", "Expected a quoted string value", "`x`"),
        ("params.a > 'x'", "Invalid comparator '>'", ">"),
        ("params.a IN ('x')", "Invalid comparator 'IN'", "IN"),
        ("status IN ('x')", "Invalid comparator 'IN'", "IN"),
        ("start_time = '5'", "Expected numeric value type for numeric attribute", "'5'"),
        ("start_time LIKE '5'", "Invalid comparator 'LIKE'", "LIKE"),
        ("run_id IN ()", "got empty list", "("),
        ("run_id IN ('a' 'b')", "expected , or )", "'b'"),
        ("run_id IN (1)", "non-empty list of string values", "1"),
        ("run_id IN 'a'", "expected a list", "'a'"),
        ("foo.a = 'x'", "Invalid entity type", "foo"),
        ("Metrics.a = 1", "Invalid entity type", "Metrics"),
        ("foo = 'x'", "Invalid attribute key", "foo"),
        ("datasets.foo = 'x'", "Invalid dataset key", "foo"),
        ("metrics.a-b > 1", "quote keys", "-"),
        ("metrics. > 1", "expected a key", ">"),
        ("params.a = 'x", "is not closed", "'x"),
        ("params.`a = 'x'", "is not closed", None),
        ("' OR 1=1 --", "is not closed", "' OR 1=1 --"),
        ("params.a = 'x'; DROP TABLE runs", "unexpected character ';'", ";"),
        ("params.a = 'x' -- y", "unexpected character '-'", "-"),
        ("params.a = 'x\0'", "U+0000", None),
    ],
)
def test_an_error_says_what_is_wrong_and_shows_where(text, says, marks):
    with pytest.raises(InvalidArgument) as caught:
        parse_filter(text, RUNS)
    assert says in caught.value.message
    assert caught.value.field == "filter"
    if marks:
        _, line, carets = caught.value.message.split("\n")
        start = carets.index("^")
        assert line[start : start + carets.count("^")] == marks


@pytest.mark.parametrize(
    "text",
    [
        " AND ".join(["metrics.a > 1"] * 100_000),
        " AND ".join(["metrics.a > 1"] * 101),
        "(" * 10_000 + "metrics.a > 1" + ")" * 10_000,
        f"params.a = '{'x' * 1_000_000}'",
        f"params.a LIKE '{'%' * 9000}'",
        "'" * 60_001,
        "`" * 60_001,
        f"metrics.a = {'1' * 60_000}x",
        f"metrics.{'a.' * 30_000} = 1",
    ],
    ids=["terms", "terms over", "parens", "literal", "pattern", "quotes", "backquotes", "digits", "dots"],
)
def test_hostile_sizes_are_refused(text):
    with pytest.raises(InvalidArgument) as caught:
        parse_filter(text, RUNS)
    assert len(caught.value.message) < 1000


def test_a_long_filter_shows_only_the_neighbourhood_of_the_error():
    text = "metrics.a > 1 AND " * 50 + "bogus AND " + "metrics.a > 1 AND " * 40 + "metrics.a > 1"
    with pytest.raises(InvalidArgument) as caught:
        parse_filter(text, RUNS)
    _, line, carets = caught.value.message.split("\n")
    assert line.startswith("  …")
    assert line.endswith("…")
    assert line[carets.index("^") :].startswith("bogus AND")


WORDS = r"""metrics params tags attributes datasets run . . = != < <= LIKE ILIKE IN NOT IS NULL AND OR ( ) ,
    ' " ` 'x' 1 -2.5 1e9 a name status start_time version_number \ ; -- % _ é"""
words = st.sampled_from([*re.split(r"\s+", WORDS), "\n", "\u202e"])


@settings(max_examples=600, deadline=None)
@given(st.one_of(st.text(), st.lists(words).map(" ".join), st.lists(words).map("".join)))
def test_no_text_does_anything_but_parse_or_be_refused(text):
    for language in LANGUAGES:
        for read in (parse_filter, lambda text, language: parse_order([text], language)):
            try:
                read(text, language)
            except InvalidArgument as error:
                assert error.message  # noqa: PT017 - both outcomes are right
