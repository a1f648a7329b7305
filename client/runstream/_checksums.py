"""What each of many slots is, and whether it is whole: markers of a whole range looked at together.

CRC-32 is linear: the checksum of 28 bytes is the exclusive or of one table entry a byte, and another starting
value changes it by a constant. So a column of bytes costs one look-up in numpy, and a kind one comparison.
"""

from __future__ import annotations

import zlib
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from runstream import _slots as slots

DAMAGED = 255
"""Kind of a slot whose marker fits nothing."""
_BODY = slots.MARKER_OFFSET


def kinds(array: npt.NDArray[Any], version: int) -> npt.NDArray[np.uint8]:
    """Return the kind of each slot: 0 for one not written, DAMAGED for one that cannot be true."""
    markers = array["marker"].astype(np.uint32)
    if version == 1:
        found = markers ^ np.uint32(slots.MAGIC_1)
        known = (found > 0) & (found <= slots.SKIP)
        return np.where(markers == 0, 0, np.where(known, found, DAMAGED)).astype(np.uint8)
    sums = _checksums(array)
    point = slots.seed_of(slots.POINT, version)
    found = np.where(_fits(markers, sums, point), slots.POINT, 0).astype(np.uint8)
    rest = np.flatnonzero((found == 0) & (markers != 0))
    if len(rest):
        found[rest] = _others(markers[rest], sums[rest], version)
    return found


def _others(
    markers: npt.NDArray[np.uint32], sums: npt.NDArray[np.uint32], version: int
) -> npt.NDArray[np.uint8]:
    found = np.where(markers == slots.SKIPPED, slots.SKIP, DAMAGED).astype(np.uint8)
    for kind in (*slots.RECORDS, slots.MORE):
        found[_fits(markers, sums, slots.seed_of(kind, version))] = kind
    return found


def _fits(markers: npt.NDArray[np.uint32], sums: npt.NDArray[np.uint32], seed: int) -> npt.NDArray[np.bool_]:
    expected = sums ^ np.uint32(zlib.crc32(bytes(_BODY), seed) ^ zlib.crc32(bytes(_BODY)))
    fits: npt.NDArray[np.bool_] = np.where(expected == 0, 1, expected) == markers
    return fits


def _checksums(array: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """Return zlib.crc32 of the first 28 bytes of each slot."""
    columns = np.frombuffer(array.tobytes(), np.uint8).reshape(-1, slots.SLOT_BYTES).T
    sums = np.full(len(array), zlib.crc32(bytes(_BODY)), np.uint32)
    for table, column in zip(_tables(), columns[:_BODY], strict=True):
        sums ^= table[column]
    return sums


@cache
def _tables() -> list[npt.NDArray[np.uint32]]:
    """Return for each place of a byte what each of its values adds to the checksum."""
    zero = zlib.crc32(bytes(_BODY))

    def adds(place: int, value: int) -> int:
        return zlib.crc32(bytes([*bytes(place), value, *bytes(_BODY - place - 1)])) ^ zero

    return [np.array([adds(place, value) for value in range(256)], np.uint32) for place in range(_BODY)]
