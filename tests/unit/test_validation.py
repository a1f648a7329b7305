"""The rules for ids, keys, names and values, and that messages stay short and say which field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.v1 import metrics_pb2, runs_pb2
from runstream_server import validation as v
from runstream_server.errors import InvalidArgument

LONE = "\ud800"


@pytest.mark.parametrize("key", ["a", "a/b.c:d-e_f g", "é漢", "x" * 250, "..a"[2:], "a..b", "1", ":"])
def test_keys_of_mlflow_pass(key):
    assert v.check_key(key, "key") == key


@pytest.mark.parametrize(
    "key",
    [
        "",
        ".",
        "..",
        "..a",
        "/a",
        "a/",
        "a//b",
        "a/./b",
        "a/../b",
        "a\n",
        "a\t",
        "a\0",
        "a\u200b",
        LONE,
        "a%",
        "x" * 251,
    ],
)
def test_other_keys_are_refused(key):
    with pytest.raises(InvalidArgument) as caught:
        v.check_key(key, "metrics[3].key")
    assert caught.value.field == "metrics[3].key"


@pytest.mark.parametrize("name", ["digits", "/Users/ann@x/exp", "naïve 漢字 🎈", "עברית", "a" * 500, "a..b"])
def test_experiment_names_pass(name):
    assert v.check_experiment_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/../b", "../a", "a\nb", "a\0", "\x7f", "a\u202eb", "a\u2028b", LONE, "a" * 501]
)
def test_other_experiment_names_are_refused(name):
    with pytest.raises(InvalidArgument):
        v.check_experiment_name(name)


@pytest.mark.parametrize(("text", "key"), [("0", 0), ("7", 7), (str(2**63 - 1), 2**63 - 1)])
def test_experiment_ids_are_decimal(text, key):
    assert v.parse_experiment_id(text) == key


@pytest.mark.parametrize(
    "text",
    ["", "-1", "01", "+1", " 1", "1 ", "1\n", "1.0", "٣", "0x1", str(2**63), "9" * 300, "0 OR 1=1", "../0"],
)
def test_other_experiment_ids_are_refused(text):
    with pytest.raises(InvalidArgument):
        v.parse_experiment_id(text)


def test_values_keep_everything_but_nul_and_lone_surrogates():
    assert v.check_param("k", "line\nbreak\t🎈\u202e") == ("k", "line\nbreak\t🎈\u202e")
    for value in ("a\0b", LONE):
        with pytest.raises(InvalidArgument) as caught:
            v.check_param("k", value, "params[2]")
        assert caught.value.field == "params[2].value"


def test_limits_are_counted_in_characters():
    assert v.check_param("k", "🎈" * 6000) == ("k", "🎈" * 6000)
    assert v.check_tag("k", "🎈" * 8000) == ("k", "🎈" * 8000)
    for check, size in ((v.check_param, 6001), (v.check_tag, 8001), (v.check_experiment_tag, 20_001)):
        with pytest.raises(InvalidArgument, match="maximum length"):
            check("k", "x" * size)


def test_the_run_name_tag_is_one_line():
    with pytest.raises(InvalidArgument):
        v.check_tag("mlflow.runName", "a\nb")
    assert v.check_tag("mlflow.note.content", "a\nb") == ("mlflow.note.content", "a\nb")


@given(
    st.text(max_size=300),
    st.sampled_from([v.check_key, v.check_experiment_name, v.check_model_name, v.check_run_id]),
)
def test_a_refusal_names_the_field_and_stays_short_and_printable(text, check):
    try:
        check(text * 50, "the_field")
    except InvalidArgument as error:
        assert error.field == "the_field"  # noqa: PT017 - passing is right too
        assert len(error.message) < 1500  # noqa: PT017
        assert error.message.isprintable()  # noqa: PT017


def metric(**fields):
    return metrics_pb2.Metric(**{"key": "m", "value": 1.0, "timestamp": 1, **fields})


@pytest.mark.parametrize(
    ("batch", "field"),
    [
        (([metric(), metric(key="../x")], [], []), "metrics[1].key"),
        (([metrics_pb2.Metric(key="m", timestamp=1)], [], []), "metrics[0].value"),
        (([metric(timestamp=-1)], [], []), "metrics[0].timestamp"),
        (([], [runs_pb2.Param(key="a", value="1")] * 2, []), "params"),
        (([], [], [runs_pb2.RunTag(key="a", value="x" * 8001)]), "tags[0].value"),
        (([metric()] * 1001, [], []), "metrics"),
        (([metric()] * 901, [runs_pb2.Param(key=f"p{n}") for n in range(100)], []), "metrics"),
    ],
    ids=["key", "no value", "time", "twice", "tag", "metrics", "in all"],
)
def test_a_batch_names_its_first_fault(batch, field):
    with pytest.raises(InvalidArgument) as caught:
        v.check_batch(*batch)
    assert caught.value.field == field


@pytest.mark.parametrize("alias", ["latest", "Latest", "v1", "V007"])
def test_reserved_aliases_are_looked_up_but_not_set(alias):
    assert v.check_alias(alias) == alias
    with pytest.raises(InvalidArgument, match="reserved"):
        v.check_new_alias(alias)
