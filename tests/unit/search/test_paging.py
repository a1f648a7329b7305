"""Page tokens are opaque, ours, and good for one query."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream_server.errors import InvalidArgument
from runstream_server.search.paging import decode_token, encode_token

KEY = b"k" * 32
QUERY = ["runs", "metrics.a > 1", ["metrics.a"], [[0], 1]]
POSITION = [0, 1.5, float("inf"), None, "naïve", -(2**63)]


def test_a_token_gives_back_the_position():
    assert decode_token(KEY, QUERY, encode_token(KEY, QUERY, POSITION)) == POSITION


@pytest.mark.parametrize(
    ("key", "query"),
    [(b"x" * 32, QUERY), (KEY, ["runs", "", [], [[0], 1]]), (KEY, ["experiments", *QUERY[1:]])],
    ids=["other key", "other filter", "other search"],
)
def test_a_token_of_another_query_is_refused(key, query):
    with pytest.raises(InvalidArgument, match="page token"):
        decode_token(key, query, encode_token(KEY, QUERY, POSITION))


def test_every_changed_character_is_noticed():
    token = encode_token(KEY, QUERY, POSITION)
    for index, char in enumerate(token[:-1]):
        changed = token[:index] + ("A" if char != "A" else "B") + token[index + 1 :]
        with pytest.raises(InvalidArgument):
            decode_token(KEY, QUERY, changed)


@pytest.mark.parametrize("token", ["garbage", "é", "====", "A" * 1_000_000, "\0", "AAAA" * 8, "a b"])
def test_garbage_is_refused(token):
    with pytest.raises(InvalidArgument, match="page token"):
        decode_token(KEY, QUERY, token)


@given(st.text())
def test_no_text_does_anything_but_be_refused(token):
    with pytest.raises(InvalidArgument):
        decode_token(KEY, QUERY, token)
