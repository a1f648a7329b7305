"""What order_by accepts, and what ends every order."""

import pytest

from runstream_server.errors import InvalidArgument
from runstream_server.search.entities import EXPERIMENTS, MODELS, RUNS, VERSIONS
from runstream_server.search.order import parse_order


def terms(texts, language=RUNS):
    return [(term.entity.value, term.key, term.ascending) for term in parse_order(texts, language)]


TIES = [("attribute", "start_time", False), ("attribute", "run_id", True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metrics.val_loss ASC", ("metric", "val_loss", True)),
        ("metrics.val_loss", ("metric", "val_loss", True)),
        ("metrics.`val loss` desc", ("metric", "val loss", False)),
        ('params."a b"  DESC', ("parameter", "a b", False)),
        ("tags.mlflow.user", ("tag", "mlflow.user", True)),
        ("attribute.end_time DESC", ("attribute", "end_time", False)),
        ("run_name", ("attribute", "run_name", True)),
    ],
)
def test_a_term_is_an_identifier_and_a_direction(text, expected):
    assert terms([text]) == [expected, *TIES]


def test_ties_are_broken_by_start_time_newest_first_then_run_id():
    assert terms([]) == TIES
    assert terms(["created ASC"]) == [("attribute", "start_time", True), TIES[1]]
    assert terms(["run_id DESC"]) == [("attribute", "run_id", False), TIES[0]]


def test_other_searches_have_default_orders_of_their_own():
    assert terms([], EXPERIMENTS) == [
        ("attribute", "creation_time", False),
        ("attribute", "experiment_id", True),
    ]
    assert terms(["name"], EXPERIMENTS)[-1] == ("attribute", "experiment_id", False)
    assert terms(["timestamp DESC"], MODELS) == [
        ("attribute", "last_updated_timestamp", False),
        ("attribute", "name", True),
    ]
    assert [key for _, key, _ in terms([], VERSIONS)] == ["last_updated_timestamp", "name", "version_number"]


@pytest.mark.parametrize(
    "texts",
    [
        [""],
        ["metrics.x; DROP TABLE runs"],
        ["attributes.start_time DESC, (SELECT 1)"],
        ["metrics.x DESC ASC"],
        ["metrics.x sideways"],
        ["nothing"],
        ["datasets.name"],
        ["start_time", "created"],
        ["metrics.a", "metrics.a DESC"],
        [f"metrics.a{n}" for n in range(21)],
        ["metrics." + "a" * 70_000],
    ],
    ids=lambda texts: texts[0][:30] or "empty",
)
def test_other_terms_are_refused_with_their_number(texts):
    with pytest.raises(InvalidArgument) as caught:
        parse_order(texts, RUNS)
    assert (caught.value.field or "").startswith("order_by")
