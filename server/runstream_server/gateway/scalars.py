"""Reads one JSON value into one protobuf scalar: leniently in spelling, exactly in value.

What clients send: Python JSON numbers; Java int64 and NaN as strings; R every scalar as a string
(`"0.5"`, `"1.7e+12"`, `"TRUE"`, `"Inf"`). What is refused is what would change: 1.5 for an integer, 2^63.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

Convert = Callable[[Any], Any]
"""Turns a JSON value into a field's Python value. Raises: Refused."""


class Refused(ValueError):
    """Raised when a value does not fit its field; readers above add the path on its way up."""

    def __init__(self, expected: str, value: object) -> None:
        super().__init__(expected)
        self.expected = expected
        """What the field takes, e.g. `a whole number`."""
        self.value = value
        """What came instead."""
        self.path: list[str] = []
        """Innermost part first, e.g. ["step", "metrics[3]"]."""


class Literal(str):
    """A JSON number with a fraction or exponent, kept as text so that no digit is lost."""

    __slots__ = ()


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_SPECIAL = {"nan": math.nan, "inf": math.inf, "infinity": math.inf, "-inf": -math.inf, "-infinity": -math.inf}
_BOOLEANS = {"true": True, "false": False}
_MAX_DIGITS = 400


def integer(lowest: int, highest: int) -> Convert:
    """Return a converter to an int within [lowest, highest]."""
    expected = f"a whole number from {lowest} to {highest}"

    def convert(value: Any) -> int:
        if type(value) is not int:
            value = _whole(value, expected)
        if not lowest <= value <= highest:
            raise Refused(expected, value)
        return int(value)

    return convert


def _whole(value: Any, expected: str) -> int:
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if isinstance(value, str) and len(value) < _MAX_DIGITS and _NUMBER.fullmatch(value):
        if value.isdigit():
            return int(value)
        number = Decimal(value)
        # adjusted() first: int() of 1e9999 would be computed digit by digit.
        if number.adjusted() < 20 and number == number.to_integral_value():
            return int(number)
    raise Refused(expected, value)


def double(value: Any) -> float:
    """Return a float from a number, a decimal string, or a spelling of NaN or an infinity."""
    if isinstance(value, str):
        return _double_text(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refused("a number", value)
    try:
        return float(value)
    except OverflowError:
        raise Refused("a number that fits a double", value) from None


def _double_text(text: str) -> float:
    if len(text) < _MAX_DIGITS and _NUMBER.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise Refused("a number that fits a double", text)
        return number
    special = _SPECIAL.get(text.lower().removeprefix("+"))
    if special is None:
        raise Refused("a number", text)
    return special


def boolean(value: Any) -> bool:
    """Return a bool from true, false, or their spellings in any case."""
    if isinstance(value, bool):
        return value
    found = _BOOLEANS.get(value.lower()) if isinstance(value, str) else None
    if found is None:
        raise Refused("true or false", value)
    return found


def text(value: Any) -> str:
    """Return a string that can be stored as UTF-8. Numbers are not strings, as in MLflow."""
    if not isinstance(value, str) or isinstance(value, Literal):
        raise Refused("a string", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused("text without lone surrogates", value) from None
    return value


def binary(value: Any) -> bytes:
    """Return bytes from base64, standard or URL-safe, padded or not."""
    if not isinstance(value, str):
        raise Refused("base64", value)
    try:
        plain = value.translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Refused("base64", value) from None


def enum_prefix(enum: EnumDescriptor) -> str:
    """Return what our names of an enum's values begin with and MLflow's do not: RunStatus -> RUN_STATUS_."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", enum.name).upper() + "_"


def enum_names(enum: EnumDescriptor) -> dict[int, str]:
    """Return each number's name as MLflow spells it, without our prefix."""
    return {value.number: value.name.removeprefix(enum_prefix(enum)) for value in enum.values}


def enumeration(enum: EnumDescriptor) -> Convert:
    """Return a converter from a name, with or without prefix, or a number that the enum has."""
    names = {value.name: value.number for value in enum.values}
    names |= {name: number for number, name in enum_names(enum).items()}
    expected = "one of " + ", ".join(name for number, name in enum_names(enum).items() if number)
    number_of = integer(-(2**31), 2**31 - 1)

    def convert(value: Any) -> int:
        found = names.get(value) if isinstance(value, str) else None
        if found is None:
            try:
                found = number_of(value)
            except Refused:
                raise Refused(expected, value) from None
        if found not in enum.values_by_number:
            raise Refused(expected, value)
        return found

    return convert


_KINDS: dict[int, Convert] = {
    FieldDescriptor.CPPTYPE_INT32: integer(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: integer(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: integer(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: integer(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: double,
    FieldDescriptor.CPPTYPE_FLOAT: double,
    FieldDescriptor.CPPTYPE_BOOL: boolean,
}


def converter(field: FieldDescriptor) -> Convert:
    """Return the converter of one value of a scalar field, repeated or not."""
    if field.enum_type is not None:
        return enumeration(field.enum_type)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return binary
    if field.type == FieldDescriptor.TYPE_STRING:
        return text
    return _KINDS[field.cpp_type]
