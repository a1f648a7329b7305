"""Generated points: any bits of a double, any int64, and few enough values that equal points happen."""

import struct

import numpy as np
from hypothesis import strategies as st

from runstream_server.ingest.points import Points, group, value_rank

INT64 = st.integers(-(2**63), 2**63 - 1)
BITS = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0])
NAN_WITH_PAYLOAD = struct.unpack("<d", struct.pack("<Q", 0xFFF8_DEAD_BEEF_0001))[0]
SPECIAL = [0.0, -0.0, 1.0, 0.1, float("inf"), float("-inf"), float("nan"), NAN_WITH_PAYLOAD, 5e-324]
VALUES = st.one_of(st.sampled_from(SPECIAL), st.floats(), BITS)
STEPS = st.one_of(st.integers(-20, 20), st.sampled_from([-(2**63), 2**63 - 1, 0]), INT64)
KEYS = st.sampled_from(["a", "loss", "val/loss", "ключ", "z" * 250])


@st.composite
def rows(draw, max_size=60):
    """Draw (key, step, timestamp, value) rows in any order."""
    return draw(st.lists(st.tuples(KEYS, STEPS, STEPS, VALUES), min_size=1, max_size=max_size))


def points_of(rows) -> Points:
    """Return rows as Points."""
    keys = sorted({row[0] for row in rows})
    return group(
        keys,
        np.array([keys.index(row[0]) for row in rows]),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.int64),
        np.array([row[3] for row in rows], np.float64),
    )


def bits(values) -> list[int]:
    """Return doubles as their bits, which compare as stored."""
    return [int(item) for item in np.asarray(values, np.float64).view(np.uint64)]


def rank(value: float) -> int:
    """Return the order of a value among values."""
    return int(value_rank(np.array([value]))[0])


def identity(row) -> tuple[str, int, int, int]:
    """Return what makes a point equal to another one."""
    return (row[0], row[1], row[2], rank(row[3]))


def rows_of(points: Points) -> list[tuple[str, int, int, int]]:
    """Return Points as rows, values as bits."""
    keys = [key for key, count in zip(points.keys, points.counts.tolist(), strict=True) for _ in range(count)]
    columns = (points.step.tolist(), points.timestamp.tolist(), bits(points.value))
    return list(zip(keys, *columns, strict=True))
