"""What the filter language accepts, what it means, and where it says an error is."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runstream_server.errors import InvalidArgument
from runstream_server.search.entities import EXPERIMENTS, LOGGED_MODELS, MODELS, RUNS, VERSIONS
from runstream_server.search.order import parse_order
from runstream_server.search.parser import parse_filter
from runstream_server.search.tree import And, Comparison, Entity, Not, Or, comparisons

LANGUAGES = [RUNS, EXPERIMENTS, MODELS, VERSIONS, LOGGED_MODELS]


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
        ("params.lr < 0.01", (Entity.PARAM, "lr", "<", 0.01)),
        ("params.n = 5", (Entity.PARAM, "n", "=", 5.0)),
        ("params.model IN ('a', 'b')", (Entity.PARAM, "model", "IN", ("a", "b"))),
        ("tags.a ~ '^x'", (Entity.TAG, "a", "RLIKE", "^x")),
        ("run_name rlike 'a|b'", (Entity.ATTRIBUTE, "run_name", "RLIKE", "a|b")),
        ("start_time > '2026-11-01'", (Entity.ATTRIBUTE, "start_time", ">", 1793491200000)),
        ("end_time <= '2026-11-01T14:30:05.25Z'", (Entity.ATTRIBUTE, "end_time", "<=", 1793543405250)),
        ("start_time < '2026-11-01 01:00+02:00'", (Entity.ATTRIBUTE, "start_time", "<", 1793487600000)),
        ("duration > '2h'", (Entity.ATTRIBUTE, "duration", ">", 7_200_000)),
        ("duration >= '1d2h3m4s5ms'", (Entity.ATTRIBUTE, "duration", ">=", 93_784_005)),
        ("duration < 1.5", (Entity.ATTRIBUTE, "duration", "<", 1.5)),
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


A, B, C = (Comparison(Entity.METRIC, key, "=", 1.0) for key in "abc")


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("metrics.a = 1 OR metrics.b = 1", Or((A, B))),
        ("metrics.a = 1 or metrics.b = 1 and metrics.c = 1", Or((A, And((B, C))))),
        ("(metrics.a = 1 OR metrics.b = 1) AND metrics.c = 1", And((Or((A, B)), C))),
        ("NOT metrics.a = 1", Not(A)),
        ("not not metrics.a = 1", Not(Not(A))),
        ("NOT metrics.a = 1 AND metrics.b = 1", And((Not(A), B))),
        ("NOT (metrics.a = 1 AND metrics.b = 1)", Not(And((A, B)))),
        ("((metrics.a = 1))", A),
    ],
)
def test_or_not_and_parentheses_bind_as_in_sql(text, node):
    assert parse_filter(text, RUNS) == (node if isinstance(node, And) else And((node,)))


@pytest.mark.parametrize(
    ("text", "key", "summary", "ambiguous"),
    [
        ("metrics.loss.min < 1", "loss", "min", True),
        ("metrics.a.b.max < 1", "a.b", "max", True),
        ("metrics.`loss.min` < 1", "loss.min", None, False),
        ('metrics."loss.min" < 1', "loss.min", None, False),
        ("metrics.`loss`.min < 1", "loss", "min", False),
        ("metrics.`loss.min`.max < 1", "loss.min", "max", False),
        ("metrics.min < 1", "min", None, False),
        ("metrics.loss.median < 1", "loss.median", None, False),
    ],
)
def test_a_summary_is_named_after_the_key(text, key, summary, ambiguous):
    (node,) = comparisons(parse_filter(text, RUNS))
    assert (node.key, node.summary, node.ambiguous) == (key, summary, ambiguous)
    (term, *_) = parse_order([text.replace("< 1", "DESC")], RUNS)
    assert (term.key, term.summary, term.ambiguous, term.ascending) == (key, summary, ambiguous, False)


def test_logged_models_have_no_summaries():
    assert clause("metrics.loss.min < 1", LOGGED_MODELS)[1] == "loss.min"


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
        ("(metrics.a = 1", "the ( is not closed", "("),
        ("(metrics.a = 1 metrics.b = 2)", "Invalid clause(s)", "metrics.b = 2)"),
        ("metrics.a = 1)", "Invalid clause(s)", ")"),
        ("()", "Invalid clause(s)", ")"),
        ("metrics.a = 1 OR", "Invalid clause(s)", None),
        ("metrics.a = 1 OR AND metrics.b = 1", "Invalid clause(s)", None),
        ("NOT", "Invalid clause(s)", None),
        ("NOT bogus OR metrics.a = 1", "Invalid clause(s) in filter string: 'bogus'", "bogus"),
        ("metrics.`a`.median > 1", "expected a summary after the key", "median"),
        ("params.a > 'x'", "without quotes", ">"),
        ("params.a > '5'", "without quotes", ">"),
        ("params.a LIKE 5", "quoted string value for LIKE", "LIKE"),
        ("tags.a = 5", "Expected a quoted string value for tag", "5"),
        ("tags.a > 5", "Invalid comparator '>'", ">"),
        ("params.a RLIKE '('", "Invalid regular expression", "'('"),
        ("params.a ~ '(?=x)'", "Invalid regular expression", "'(?=x)'"),
        ("params.a ~ '(?i)x'", "(?", None),
        ("params.a ~ '(a)\\1'", "Invalid regular expression", None),
        ("params.a ~ 'a{1000}'", "repetitions", None),
        ("params.a ~ '[[.a.]]'", "not supported", None),
        ("params.a ~ '((a{1,200}){1,200}){1,200}'", "Invalid regular expression", None),
        ("start_time > '2026-13-01'", "a time such as '2026-11-01T14:30'", "'2026-13-01'"),
        ("start_time > 'yesterday'", "a time such as", "'yesterday'"),
        ("duration > '2 h'", "a duration such as '1h30m'", "'2 h'"),
        ("duration > '2026-11-01'", "a duration such as", None),
        ("params.a = `x`", "Expected a quoted string value", "`x`"),
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
        "NOT " * 10_000 + "metrics.a > 1",
        " OR ".join(["metrics.a > 1"] * 101),
        f"params.a RLIKE '{'(a|b)' * 1000}'",
        f"params.a = '{'x' * 1_000_000}'",
        f"params.a LIKE '{'%' * 9000}'",
        "'" * 60_001,
        "`" * 60_001,
        f"metrics.a = {'1' * 60_000}x",
        f"metrics.{'a.' * 30_000} = 1",
    ],
    ids=[
        "terms",
        "terms over",
        "parens",
        "nots",
        "ors",
        "regex",
        "literal",
        "pattern",
        "quotes",
        "backquotes",
        "digits",
        "dots",
    ],
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
    ' " ` 'x' 1 -2.5 1e9 a.min name status duration start_time version_number \ ; -- % _ é"""
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
