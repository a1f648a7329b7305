"""Searches over both stores give what the same filter and order give in Python."""

import math
import random
import re
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from runstream.v1 import runs_pb2
from runstream_server.errors import DeadlineExceeded, InvalidArgument
from runstream_server.search import plan, query
from runstream_server.search.entities import SUMMARIES
from runstream_server.search.tree import Entity, comparisons
from runstream_server.store.engine import Database
from runstream_server.store.runs import ParamRow, RunStore, TagRow, resolve, write_events
from runstream_server.store.tables import experiments, latest_metrics, runs, tags

LONG = "a" * 300
TEXTS = ["", "a", "A", "aB", "a%b", "a_b", "x/y", "\\", "naïve", "NAÏVE", "10", "9", LONG, LONG + "b", "it's"]
NUMBERS = [-math.inf, -1.5, -0.0, 0.0, 1.0, 2.0**60, math.inf, math.nan]
KEYS = ["k", "a/b", "val loss"]
STATUSES = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}


@dataclass
class Fact:
    """What is known of a run."""

    name: str
    start: int
    end: int | None
    status: int
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]
    datasets: list[str]
    id: str = ""


@pytest.fixture(scope="module")
def store(db):
    """Return a store of 60 runs with a mixture of everything, and the facts about them."""
    choose = random.Random(7)
    store = RunStore(db)
    facts = []
    for number in range(60):
        fact = Fact(
            name=choose.choice(TEXTS[1:]) + str(number % 7),
            start=1000 + number // 3,
            end=choose.choice([None, 5, 6, 7]),
            status=choose.choice(list(STATUSES)),
            metrics={key: choose.choice(NUMBERS) for key in KEYS if choose.random() < 0.7},
            params={key: choose.choice(TEXTS) for key in KEYS if choose.random() < 0.7},
            tags={key: choose.choice(TEXTS) for key in KEYS if choose.random() < 0.7},
            datasets=sorted({choose.choice("pqr") for _ in range(choose.randint(0, 2))}),
        )
        fact.id = store.create_run("0", run_name=fact.name, start_time=fact.start).info.run_id
        fact.tags["mlflow.runName"] = fact.name
        store.update_run(fact.id, status=fact.status, end_time=fact.end)
        named = [runs_pb2.Dataset(name=name, digest="1", source="{}") for name in fact.datasets]
        store.log_inputs(fact.id, [runs_pb2.DatasetInput(dataset=dataset) for dataset in named])
        facts.append(fact)
    db.write(_fill, facts)
    return store, facts


def _fill(connection, facts):
    for fact in facts:
        key = resolve(connection, [fact.id])[fact.id]
        write_events(
            connection,
            [ParamRow(key.run, key.run_id, 0, name, value) for name, value in fact.params.items()],
            [TagRow(key.run, 0, name, value) for name, value in fact.tags.items()],
        )
        put_metrics(connection, key.run, fact.metrics)


def put_metrics(connection, run, values, experiment=0):
    for name, value in values.items():
        nan = math.isnan(value)
        connection.execute(
            sa.insert(latest_metrics).values(
                run=run,
                key=name,
                experiment=experiment,
                value=None if nan else value,
                is_nan=nan,
                step=0,
                timestamp=0,
                count=3,
                nan_count=int(nan),
                **summaries_of(value),
            )
        )


def summaries_of(value):
    """Return summaries that differ from the last value and from each other."""
    if not math.isfinite(value):
        return {}
    return {"min": value - 2, "max": value + 2, "mean": value / 2, "min_step": 3, "max_step": 4}


def summary(fact, key, name):
    """Return a summary of a metric of a fact, None without one."""
    if key not in fact.metrics:
        return None
    value = fact.metrics[key]
    return {
        "last": value,
        "count": 3,
        "nan_count": int(math.isnan(value)),
        "step": 0,
        **summaries_of(value),
    }.get(name)


def search(store, filter="", order_by=(), max_results=1000, token="", experiment_ids=("0",)):
    return store.search_runs(
        runs_pb2.SearchRunsRequest(
            experiment_ids=experiment_ids,
            filter=filter,
            order_by=order_by,
            max_results=max_results,
            page_token=token,
        )
    )


def ids(response):
    return [run.info.run_id for run in response.runs]


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def fold(text):
    return "".join(char.lower() if char.isascii() else char for char in text)


def like(text, pattern):
    wild = {"%": ".*", "_": "."}
    regex = "".join(wild[char] if char in wild else re.escape(char) for char in pattern)
    return re.fullmatch(regex, text, re.DOTALL) is not None


COMPARE = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "LIKE": like,
    "ILIKE": lambda a, b: like(fold(a), fold(b)),
    "RLIKE": lambda a, b: re.search(b, a, re.DOTALL | re.ASCII) is not None,
    "IN": lambda a, b: a in b,
    "NOT IN": lambda a, b: a not in b,
}
NUMERIC = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
TEXTUAL = st.sampled_from(["=", "!=", "LIKE", "ILIKE"])
PATTERNS = st.sampled_from([*TEXTS, "%", "a%", "%b", "_", "A%", "%/%", "na_ve", "%%a%%", "a|%b", "a\\%b"])


REGEXES = st.sampled_from(
    [
        "a",
        "^a",
        "b$",
        "^$",
        "a|x",
        "^(a|A)B?$",
        "[^a]",
        "[A-Z]",
        r"\d+",
        r"\bb",
        r"a.b",
        "(?:a%)+b",
        r"^\w+$",
        "a{2,}",
        r"\\",
        "i.*E",
    ]
)


@st.composite
def clauses(draw):
    """Return a clause as text, and what it says of a fact."""
    kind = draw(
        st.sampled_from(
            [
                "metric",
                "summary",
                "param",
                "number",
                "tag",
                "null",
                "time",
                "duration",
                "status",
                "name",
                "id",
                "dataset",
            ]
        )
    )
    key = draw(st.sampled_from(KEYS))
    if kind == "metric":
        operator, value = draw(NUMERIC), draw(st.sampled_from([-1.5, 0.0, 1.0, 2.0**60, 3.5]))
        return f"metrics.`{key}` {operator} {value!r}", (
            lambda fact: key in fact.metrics and COMPARE[operator](fact.metrics[key], value)
        )
    if kind == "summary":
        operator, value = draw(NUMERIC), draw(st.sampled_from([-2.0, 0.0, 0.5, 3.0]))
        name = draw(st.sampled_from([*SUMMARIES]))
        return f"metrics.`{key}`.{name} {operator} {value!r}", (
            lambda fact: (found := summary(fact, key, name)) is not None and COMPARE[operator](found, value)
        )
    if kind == "number":
        operator, value = draw(NUMERIC), draw(st.sampled_from([9, 9.5, 10, -1, 1e3]))
        return f"params.`{key}` {operator} {value!r}", (
            lambda fact: (
                fact.params.get(key, "") in ("9", "10") and COMPARE[operator](float(fact.params[key]), value)
            )
        )
    if kind in ("param", "tag") and draw(st.booleans()):
        pattern, of, operator = draw(REGEXES), kind + "s", draw(st.sampled_from(["RLIKE", "~"]))
        return f"{of}.`{key}` {operator} {quoted(pattern)}", (
            lambda fact: key in getattr(fact, of) and COMPARE["RLIKE"](getattr(fact, of)[key], pattern)
        )
    if kind in ("param", "tag"):
        operator, value, of = draw(TEXTUAL), draw(PATTERNS), kind + "s"
        return f'{of}."{key}" {operator} {quoted(value)}', (
            lambda fact: key in getattr(fact, of) and COMPARE[operator](getattr(fact, of)[key], value)
        )
    if kind == "null":
        of, absent = draw(st.sampled_from(["params", "tags"])), draw(st.booleans())
        return f"{of}.`{key}` IS {'' if absent else 'NOT '}NULL", (
            lambda fact: (key not in getattr(fact, of)) == absent
        )
    if kind == "time":
        operator, value = draw(NUMERIC), draw(st.sampled_from([5, 6.5, 1007, 10**30, -(10**30)]))
        of = draw(st.sampled_from(["start", "end"]))
        text = repr(value) if isinstance(value, float) else str(value)
        return f"attributes.{of}_time {operator} {text}", (
            lambda fact: getattr(fact, of) is not None and COMPARE[operator](getattr(fact, of), value)
        )
    if kind == "duration":
        operator, value = draw(NUMERIC), draw(st.sampled_from([-1000, -995, 0]))
        return f"duration {operator} {value}", (
            lambda fact: fact.end is not None and COMPARE[operator](fact.end - fact.start, value)
        )
    if kind == "status":
        operator, value = draw(TEXTUAL), draw(st.sampled_from(["RUNNING", "f%", "F%", "%ED", "_______", "x"]))
        return f"status {operator} {quoted(value)}", (
            lambda fact: COMPARE[operator](STATUSES[fact.status], value)
        )
    if kind == "name":
        operator, value = draw(TEXTUAL), draw(PATTERNS)
        return f"run_name {operator} {quoted(value)}", (lambda fact: COMPARE[operator](fact.name, value))
    operator = draw(st.sampled_from(["IN", "NOT IN"]))
    if kind == "dataset":
        names = draw(st.lists(st.sampled_from("pqrs"), min_size=1, max_size=3))
        text = f"datasets.name {operator} ({', '.join(map(quoted, names))})"
        return text, (lambda fact: any(COMPARE[operator](name, names) for name in fact.datasets))
    chosen = draw(st.sets(st.integers(0, 59), min_size=1, max_size=5))
    return (operator, chosen), None


def tree(leaves):
    """Return filters of clauses joined in every way, as (text, what it says of a fact)."""
    return st.recursive(
        leaves,
        lambda nodes: st.one_of(
            nodes.map(lambda node: (f"NOT ({node[0]})", lambda fact: not node[1](fact))),
            st.lists(nodes, min_size=2, max_size=3).map(
                lambda found: (
                    "(" + " AND ".join(n[0] for n in found) + ")",
                    lambda fact: all(n[1](fact) for n in found),
                )
            ),
            st.lists(nodes, min_size=2, max_size=3).map(
                lambda found: (
                    "(" + " or ".join(n[0] for n in found) + ")",
                    lambda fact: any(n[1](fact) for n in found),
                )
            ),
        ),
        max_leaves=6,
    )


# As many as the profile says where it says more: `make test-fuzz` tries 20,000 on each store.
@settings(
    max_examples=max(250, settings().max_examples),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_filter_selects_what_python_selects(store, data):
    store, facts = store

    def with_ids(found):
        text, test = found
        if test is not None:
            return found
        operator, chosen = text
        wanted = [facts[number].id for number in sorted(chosen)]
        return (
            f"run_id {operator} ({', '.join(map(quoted, wanted))})",
            lambda fact: COMPARE[operator](fact.id, wanted),
        )

    text, test = data.draw(tree(clauses().map(with_ids)))
    assert set(ids(search(store, text))) == {fact.id for fact in facts if test(fact)}, text


def gathering(_connection, node, *_):
    """Walk with every clause gathered that can be."""
    keyed = (Entity.METRIC, Entity.PARAM, Entity.TAG)
    leaves = [leaf for leaf in comparisons(node) if leaf.entity in keyed and leaf.operator != "IS NULL"]
    return plan.Walk(node, frozenset(leaves))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_way_to_a_page_gives_the_same_rows_in_the_same_order(store, data):
    store, _ = store
    plain = clauses().map(lambda found: found if found[1] is not None else ("status = 'FAILED'", None))
    text, _ = data.draw(tree(plain))
    order = [data.draw(st.sampled_from(["metrics.k", "metrics.k DESC", "start_time", "start_time DESC"]))]
    found = []
    for walked in (lambda _connection, node, *_: plan.Walk(node), gathering, lambda *_: None):
        with mock.patch.object(query, "walked", walked):
            found.append(ids(search(store, text, order)))
    assert found[0] == found[1] == found[2], text


def test_a_walk_is_chosen_where_many_match_and_not_where_few_do(db):
    store, chosen = RunStore(db), []
    experiment = store.db.write(_experiment, "walks")
    store.db.write(_many, experiment, 4000)
    decide = plan.walked

    def record(*args):
        chosen.append(decide(*args))
        return chosen[-1]

    with mock.patch.object(query, "walked", record):
        for text in ("tags.team = 'a'", "tags.number = '7'", "NOT tags.number = '7' AND metrics.k >= 0"):
            request = runs_pb2.SearchRunsRequest(
                experiment_ids=[str(experiment)], filter=text, order_by=["metrics.k"], max_results=5
            )
            assert store.search_runs(request).runs
    assert [found is not None for found in chosen] == [True, False, True]


def test_a_search_needs_one_connection(db, monkeypatch):
    monkeypatch.setattr("runstream_server.store.engine.DEADLINE", 0.1)  # of the engine that is made here
    experiment = db.write(_experiment, "one connection")
    db.write(_many, experiment, 2)
    small = Database(db.url, pool_size=1)
    request = runs_pb2.SearchRunsRequest(experiment_ids=[str(experiment)], max_results=1)
    assert RunStore(small).search_runs(request).next_page_token  # the first of its process
    small.close()


def test_the_first_page_by_a_metric_stops_early(db):
    store = RunStore(db)
    experiment = str(store.db.write(_experiment, "early"))
    seen = []
    record = lambda *args: seen.append((args[2], args[3]))  # noqa: E731
    event.listen(db.engine, "before_cursor_execute", record)
    try:
        store.search_runs(
            runs_pb2.SearchRunsRequest(experiment_ids=[experiment], order_by=["metrics.k DESC"])
        )
    finally:
        event.remove(db.engine, "before_cursor_execute", record)
    statement, values = next(item for item in seen if "JOIN latest_metrics" in item[0])
    explain = "EXPLAIN QUERY PLAN" if db.is_sqlite else "EXPLAIN"
    with db.engine.connect() as connection:
        if not db.is_sqlite:
            connection.exec_driver_sql(
                "SET LOCAL enable_sort = off"
            )  # of a few rows it would rather sort all
        plan_of = "\n".join(map(str, connection.exec_driver_sql(f"{explain} {statement}", values).all()))
    assert "latest_metrics_by_value" in plan_of
    assert ("RIGHT PART OF ORDER BY" if db.is_sqlite else "Presorted Key") in plan_of


def test_a_walk_asks_an_index_alone_whether_a_run_has_a_value(db):
    if db.is_sqlite:
        pytest.skip("its planner takes the primary key")
    store = RunStore(db)
    experiment = store.db.write(_experiment, "heads")
    store.db.write(_many, experiment, 2000)
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM (ANALYZE) tags")
    seen = []
    record = lambda *args: seen.append((args[2], args[3]))  # noqa: E731
    event.listen(db.engine, "before_cursor_execute", record)
    try:
        request = runs_pb2.SearchRunsRequest(
            experiment_ids=[str(experiment)], filter="tags.team = 'a'", max_results=5
        )
        assert len(store.search_runs(request).runs) == 5
    finally:
        event.remove(db.engine, "before_cursor_execute", record)
    statement, values = next(item for item in seen if "EXISTS" in item[0] and "FROM runs" in item[0])
    with db.engine.connect() as connection:
        plan_of = "\n".join(map(str, connection.exec_driver_sql(f"EXPLAIN {statement}", values).all()))
    assert "Index Only Scan using tags_by_value" in plan_of, plan_of


def _experiment(connection, name):
    values = {
        "name": name,
        "artifact_location": "mlflow-artifacts:/x",
        "creation_time": 0,
        "last_update_time": 0,
    }
    return connection.scalar(sa.insert(experiments).values(values).returning(experiments.c.id))


def _many(connection, experiment, count):
    """Add runs: every other one of team a, each with a number of its own."""
    rows = [
        {
            "run_id": f"{experiment:08x}{number:024x}",
            "name": "r",
            "status": 1,
            "start_time": 1,
            "artifact_uri": "x",
        }
        for number in range(count)
    ]
    connection.execute(sa.insert(runs), [{**row, "experiment": experiment} for row in rows])
    own = runs.c.experiment == experiment
    keys = [run for (run,) in connection.execute(sa.select(runs.c.id).where(own).order_by(runs.c.id))]
    found = [{"run": run, "experiment": experiment, "key": "team", "value": "ab"[run % 2]} for run in keys]
    found += [
        {"run": run, "experiment": experiment, "key": "number", "value": str(number)}
        for number, run in enumerate(keys)
    ]
    connection.execute(sa.insert(tags), found)
    for run in keys:
        put_metrics(connection, run, {"k": float(run)}, experiment)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("ANALYZE runs, tags, latest_metrics")


def sort_value(fact, term):
    """Return (rank, value) of a fact by a term, rank 0 for what counts."""
    entity, _, key = term.partition(".")
    if entity == "metrics" and key.startswith("k."):
        value = summary(fact, "k", key[2:])
        return (2, 0) if "k" not in fact.metrics else (1, 0) if value is None else (0, value)
    if entity == "metrics":
        value = fact.metrics.get(key)
        return (2, 0) if value is None else (1, 0) if math.isnan(value) else (0, value)
    if entity in ("params", "tags"):
        value = getattr(fact, entity).get(key)
        return (2, "") if value is None else (0, value)
    value = {
        "start_time": fact.start,
        "end_time": fact.end,
        "status": STATUSES[fact.status],
        "run_name": fact.name,
    }[term]
    return (2, 0) if value is None else (0, value)


def in_order(facts, terms):
    """Sort facts by (term, ascending), then newest first, then id."""
    found = sorted(facts, key=lambda fact: fact.id)
    if not any(term == "start_time" for term, _ in terms):
        found.sort(key=lambda fact: -fact.start)
    for term, ascending in reversed(terms):
        found.sort(key=Ranked(term, ascending))
    return [fact.id for fact in found]


class Ranked:
    """Sort key that puts ranks above 0 last in both directions."""

    def __init__(self, term, ascending):
        self.term, self.ascending = term, ascending

    def __call__(self, fact):
        rank, value = sort_value(fact, self.term)
        return (rank, _Value(value, self.ascending) if rank == 0 else _Value(0, True))


class _Value:
    def __init__(self, value, ascending):
        self.value, self.ascending = value, ascending

    def __eq__(self, other):
        return self.value == other.value

    def __lt__(self, other):
        return self.value < other.value if self.ascending else self.value > other.value


TERMS = st.sampled_from(
    [
        "metrics.k",
        "metrics.k.min",
        "metrics.k.count",
        "metrics.a/b",
        "params.k",
        "tags.k",
        "tags.none",
        "start_time",
        "end_time",
        "status",
        "run_name",
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(TERMS, st.booleans()), max_size=3, unique_by=lambda term: term[0]),
    st.integers(1, 70),
)
def test_pages_of_every_size_join_to_the_whole_in_order(store, terms, size):
    store, facts = store
    order = []
    for term, ascending in terms:
        entity, dot, key = term.partition(".")
        plain = not dot or key.startswith("k.")
        order.append((term if plain else f"{entity}.`{key}`") + (" ASC" if ascending else " DESC"))
    found, token = [], ""
    while True:
        page = search(store, "", order, size, token)
        found += ids(page)
        token = page.next_page_token
        if not token:
            break
    assert found == in_order(facts, terms)


def test_a_page_token_is_good_for_its_query_only(store):
    store, _ = store
    token = search(store, order_by=["metrics.k"], max_results=1).next_page_token
    assert search(store, order_by=["metrics.k"], max_results=2, token=token).runs
    others: list[dict[str, Any]] = [
        {"order_by": ["metrics.k DESC"]},
        {"order_by": ["metrics.k"], "filter": "metrics.k > 0"},
        {"order_by": ["metrics.k"], "experiment_ids": ["0", "1"]},
    ]
    for other in others:
        with pytest.raises(InvalidArgument, match="page token"):
            search(store, token=token, **other)


def test_runs_that_come_in_between_do_not_move_the_pages(db):
    store = RunStore(db)
    experiment = db.write(_new_experiment, "between")
    made = [store.create_run(experiment, start_time=number).info.run_id for number in range(10)]
    first = search(store, max_results=4, experiment_ids=[experiment])
    store.create_run(experiment, start_time=100)
    store.delete_run(made[7])  # on the first page
    second = search(store, max_results=4, token=first.next_page_token, experiment_ids=[experiment])
    assert ids(first) + ids(second) == made[9:1:-1]


def _new_experiment(connection, name):
    return str(
        connection.scalar(
            sa.insert(experiments)
            .values(
                name=name, artifact_location=f"mlflow-artifacts:/{name}", creation_time=1, last_update_time=1
            )
            .returning(experiments.c.id)
        )
    )


def test_a_page_takes_a_handful_of_queries_whatever_it_holds(store, db):
    store, _ = store
    seen = []
    record = lambda *args: seen.append(args[2])  # noqa: E731
    search(store)  # reads the key of page tokens
    event.listen(db.engine, "before_cursor_execute", record)
    try:
        search(store, "metrics.k > -10 AND params.k != 'x'", ["start_time"], 50)
    finally:
        event.remove(db.engine, "before_cursor_execute", record)
    assert len([statement for statement in seen if statement.startswith("SELECT")]) <= 9


def test_searching_no_experiment_finds_nothing_and_many_are_fine(store):
    store, facts = store
    assert not search(store, experiment_ids=[]).runs
    many = [str(number) for number in range(100_000)]
    assert len(search(store, experiment_ids=many, max_results=5).runs) == 5
    assert len(facts) == 60


def test_hostile_filters_do_not_reach_the_database(store, db):
    store, _ = store
    for text in (
        "params.k = '''; DROP TABLE runs; --'",
        "params.k = '\\'",
        "tags.`'; DROP TABLE runs` = 'x'",
    ):
        search(store, text)
    assert db.read(lambda connection: connection.scalar(sa.select(sa.func.count()).select_from(runs))) >= 60


def test_a_hundred_clauses_and_twenty_terms_are_answered(store):
    store, _ = store
    filters = " AND ".join(f"params.p{number} IS NULL AND metrics.k != {number}" for number in range(50))
    search(store, filters, [f"metrics.m{number}" for number in range(20)], 5)


def test_a_summary_yields_to_a_metric_of_that_very_name(db):
    store = RunStore(db)
    mine, other = (db.write(_new_experiment, name) for name in ("summaries", "named so"))
    made = {}
    for experiment, metrics in [(mine, {"loss": 5.0}), (other, {"loss": 5.0}), (other, {"loss.min": 1.0})]:
        info = store.create_run(experiment).info
        made[info.run_id] = "+".join(metrics)
        key = db.read(lambda connection, run=info.run_id: resolve(connection, [run]))[info.run_id]
        db.write(put_metrics, key.run, metrics, key.experiment)

    def found(filter, experiment, order=()):
        return [made[run] for run in ids(search(store, filter, order, experiment_ids=[experiment]))]

    assert found("metrics.loss.min = 3", mine) == ["loss"]
    assert found("metrics.loss.min = 3", other) == []
    assert found("metrics.loss.min = 1", other) == ["loss.min"]
    assert found("metrics.`loss.min` = 1", other) == ["loss.min"]
    assert found("metrics.`loss`.min = 3", other) == ["loss"]
    assert found("metrics.loss.min = 1 OR metrics.`loss.min`.max = 3", other, ["metrics.loss.min"]) == [
        "loss.min"
    ]


def test_a_long_regular_expression_search_ends(store, db):
    if db.is_sqlite:
        pytest.skip("RE2 is linear")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runstream_server.search.guard.TIMEOUT_S", 0.001)
        with pytest.raises(DeadlineExceeded):
            search(store[0], " OR ".join(["params.k ~ '(a|b){50}c'"] * 90))
    search(store[0])  # the pool's connection has no timeout left
