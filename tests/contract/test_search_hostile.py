"""Whatever text comes as a filter or an order: an answer or a refusal, over every door, and soon."""

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runstream.v1 import experiments_pb2, logged_models_pb2, registry_pb2, runs_pb2, views_pb2
from tests.doors import ApiError

ALLOWED = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
WORDS = st.sampled_from(
    [
        *(
            "metrics",
            "params",
            "tags",
            "attributes",
            "datasets",
            "run_id",
            "start_time",
            "status",
            "duration",
        ),
        *("metrics.loss", "metrics.loss.min", "params.`a b`", 'tags."x.y"', "attributes.end_time", "name"),
        *("and", "AND", "or", "not", "in", "is", "null", "like", "ILIKE", "rlike", "between", "order", "asc"),
        *("=", "!=", ">", ">=", "<", "<=", "~", "(", ")", ",", ".", ";", "--", "/*", "'", '"', "`", "%", "_"),
        *("1", "-1", "0.5", "1e400", "-1e-400", "nan", "inf", "9" * 40, "0x10", "1_000", "'a'", '"b"', "''"),
        *("'2026-11-01'", "'1h'", "'(?=a)'", "'[a'", "'(a+)+$'", "\\", "\x00", "\ud7ff", "é", "🙂", "\n"),
    ]
)
TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(WORDS, max_size=14).map(" ".join),
    st.lists(st.one_of(WORDS, st.text(max_size=4)), max_size=14).map("".join),
)


def requests(experiment, text, order):
    """Return a request of each search that takes the text as its filter, and one as its order."""
    ids = [experiment]
    query = views_pb2.RunQuery(experiment_ids=ids, filter=text)
    return [
        runs_pb2.SearchRunsRequest(experiment_ids=ids, filter=text, max_results=1),
        runs_pb2.SearchRunsRequest(experiment_ids=ids, order_by=[order, text], max_results=1),
        experiments_pb2.SearchExperimentsRequest(filter=text, max_results=1),
        registry_pb2.SearchRegisteredModelsRequest(filter=text, max_results=1),
        registry_pb2.SearchModelVersionsRequest(filter=text, max_results=1),
        logged_models_pb2.SearchLoggedModelsRequest(experiment_ids=ids, filter=text, max_results=1),
        views_pb2.WindowRunsRequest(query=query, columns=[order], limit=1),
        views_pb2.AggregateRunsRequest(query=query, group_by=[text]),
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS, order=TEXTS, which=st.integers(0, 7))
def test_no_text_is_too_much(call, experiment, text, order, which):
    assert outcome(call, requests(experiment, text, order)[which]) in ALLOWED, (text, order)


def outcome(call, request):
    """Return how a call ends, as a status code."""
    try:
        call(request)
    except ApiError as error:
        return error.code
    return grpc.StatusCode.OK


CLAUSE = "params.a = '1'"
HOSTILE = {
    "1e5 terms": " OR ".join([CLAUSE] * 100_000),
    "1e5 short terms": " OR ".join(["a=1"] * 10_000),
    "1e4 parentheses": "(" * 10_000 + CLAUSE + ")" * 10_000,
    "1e4 open": "(" * 10_000,
    "1e4 nots": "NOT " * 10_000 + CLAUSE,
    "1 MB literal": f"params.a = '{'x' * 1_000_000}'",
    "1 MB key": f"params.`{'x' * 1_000_000}` = '1'",
    "1 MB number": f"metrics.a = {'9' * 1_000_000}",
    "1e5 in list": f"run_id IN ({', '.join(['1'] * 100_000)})",
    "1 MB regex": f"params.a RLIKE '{'a?' * 500_000}'",
    "nested regex": f"params.a RLIKE '{'(' * 5_000}{')' * 5_000}'",
    "repeated regex": "params.a RLIKE '((a{1000}){1000}){1000}'",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_sizes_are_refused(call, experiment, text):
    with pytest.raises(ApiError) as caught:
        call(runs_pb2.SearchRunsRequest(experiment_ids=[experiment], filter=text))
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert len(caught.value.message) < 1000


def test_many_order_terms_are_refused(call, experiment):
    with pytest.raises(ApiError) as caught:
        call(runs_pb2.SearchRunsRequest(experiment_ids=[experiment], order_by=["metrics.a"] * 100_000))
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
