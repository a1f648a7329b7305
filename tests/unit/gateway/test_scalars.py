"""What one JSON value may become in one field."""

import math

import pytest

from runstream.v1 import experiments_pb2, registry_pb2, runs_pb2
from runstream_server.gateway import scalars
from runstream_server.gateway.scalars import Literal, Refused

int64 = scalars.integer(-(2**63), 2**63 - 1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (-(2**63), -(2**63)),
        (2**63 - 1, 2**63 - 1),
        (3.0, 3),
        (Literal("3.0"), 3),
        (Literal("1e3"), 1000),
        (Literal("9007199254740993.0"), 9007199254740993),
        ("9223372036854775807", 2**63 - 1),
        ("-20", -20),
        ("+5", 5),
        ("1717000000000", 1717000000000),
        ("1.7e+12", 1700000000000),
        ("1e+05", 100000),
        ("1.717000000000e12", 1717000000000),
    ],
)
def test_an_integer_is_read_from_any_exact_spelling(value, expected):
    assert int64(value) == expected


NOT_INTEGERS: list[object] = [2**63, -(2**63) - 1, 0.5, 1e300, math.nan, math.inf, True, None, [], {}]
NOT_INTEGERS += [Literal("1.5"), Literal("1e400"), "", " 5", "5 ", "0.5", "1_000", "0x10", "NaN", "Infinity"]
NOT_INTEGERS += ["9223372036854775808", "1e9999", "one", "٣", "9" * 5000, "1e99999999999"]


@pytest.mark.parametrize("value", NOT_INTEGERS)
def test_an_integer_that_would_change_is_refused(value):
    with pytest.raises(Refused):
        int64(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (0.1, 0.1),
        (2**64, 2.0**64),
        (Literal("1e-400"), 0.0),
        ("0.5", 0.5),
        ("5e-324", 5e-324),
        ("-1.5E+3", -1500.0),
        ("NaN", math.nan),
        ("nan", math.nan),
        ("Infinity", math.inf),
        ("Inf", math.inf),
        ("-Inf", -math.inf),
        ("-Infinity", -math.inf),
        (math.nan, math.nan),
        (-math.inf, -math.inf),
    ],
)
def test_a_double_is_read_from_any_spelling(value, expected):
    assert scalars.double(value) == pytest.approx(expected, rel=0, abs=0, nan_ok=True)


@pytest.mark.parametrize(
    "value", [True, None, [], {}, "", "NA", "TRUE", "1,5", "1e400", Literal("1e400"), 10**400]
)
def test_what_is_no_double_is_refused(value):
    with pytest.raises(Refused):
        scalars.double(value)


@pytest.mark.parametrize(
    ("value", "expected"), [(True, True), ("TRUE", True), ("true", True), ("False", False)]
)
def test_a_boolean_is_read_in_any_case(value, expected):
    assert scalars.boolean(value) is expected


@pytest.mark.parametrize("value", [1, 0, "1", "yes", "", None, 1.0])
def test_what_is_no_boolean_is_refused(value):
    with pytest.raises(Refused):
        scalars.boolean(value)


@pytest.mark.parametrize("value", [1, Literal("1.5"), True, [], "\ud800"])
def test_a_string_is_only_read_from_a_storable_string(value):
    with pytest.raises(Refused):
        scalars.text(value)


@pytest.mark.parametrize("value", ["AP8+", "AP8-", "AP8-==="])
def test_bytes_are_read_from_either_alphabet(value):
    assert scalars.binary(value) == b"\x00\xff\x3e"


@pytest.mark.parametrize("value", ["A", "a b=", "é", 5])
def test_what_is_no_base64_is_refused(value):
    with pytest.raises(Refused):
        scalars.binary(value)


@pytest.mark.parametrize("value", ["FINISHED", "RUN_STATUS_FINISHED", 3, "3", Literal("3.0")])
def test_an_enum_is_read_from_its_names_and_number(value):
    convert = scalars.enumeration(runs_pb2.RunStatus.DESCRIPTOR)
    assert convert(value) == runs_pb2.RUN_STATUS_FINISHED


@pytest.mark.parametrize("value", ["finished", "DONE", 99, -1, True, "", "1.5"])
def test_an_unknown_enum_value_is_refused_with_the_known_ones(value):
    with pytest.raises(Refused, match="RUNNING, SCHEDULED, FINISHED, FAILED, KILLED"):
        scalars.enumeration(runs_pb2.RunStatus.DESCRIPTOR)(value)


def test_enum_names_are_those_of_mlflow():
    assert scalars.enum_names(experiments_pb2.ViewType.DESCRIPTOR)[1] == "ACTIVE_ONLY"
    assert scalars.enum_names(registry_pb2.ModelVersionStatus.DESCRIPTOR)[1] == "PENDING_REGISTRATION"
