"""Pieces of one series: what one chunk or the segments of one source hold of it, decoded when needed.

A read works on pieces so that it decodes only what can touch its answer, and holds little at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np

from runstream_server.ingest.bounds import Bounds
from runstream_server.ingest.points import Points, distinct, merge


@dataclass(frozen=True, slots=True)
class Range:
    """Inclusive bounds of the points asked for."""

    min_step: int = -(2**63)
    max_step: int = 2**63 - 1
    min_timestamp: int = -(2**63)
    max_timestamp: int = 2**63 - 1

    def meets(self, piece: Piece) -> bool:
        """Whether the piece may hold points inside."""
        return (
            piece.min_step <= self.max_step
            and piece.max_step >= self.min_step
            and piece.min_timestamp <= self.max_timestamp
            and piece.max_timestamp >= self.min_timestamp
        )

    def holds(self, piece: Piece) -> bool:
        """Whether every point of the piece is inside."""
        return (
            piece.min_step >= self.min_step
            and piece.max_step <= self.max_step
            and piece.min_timestamp >= self.min_timestamp
            and piece.max_timestamp <= self.max_timestamp
        )

    def cut(self, points: Points) -> Points:
        """Return the points inside."""
        step, timestamp = points.step, points.timestamp
        inside = (step >= self.min_step) & (step <= self.max_step)
        return points.where(inside & (timestamp >= self.min_timestamp) & (timestamp <= self.max_timestamp))


@dataclass(frozen=True, slots=True)
class Piece:
    """Points of one series from one source and generation."""

    source: int
    generation: int
    count: int
    min_step: int
    max_step: int
    min_timestamp: int
    max_timestamp: int
    load: Callable[[], Points]
    """Returns the points of this one key, sorted or not."""
    sorted: bool
    """Whether `load` returns sorted, distinct points, `count` of them."""
    chunk: int | None = None
    """Id of the chunk, None for points of segments."""

    def hidden_above(self, limit: int) -> Piece:
        """Return the piece of which only steps up to `limit` are visible; its count is not known then."""
        return replace(self, max_step=limit, sorted=False)


def pieces_of(
    bounds: Bounds,
    source: int,
    generation: int,
    load: Callable[[str], Points],
    keys: Iterable[str],
    *,
    ordered: bool,
    chunk: int | None = None,
) -> Iterator[tuple[str, Piece]]:
    """Yield a piece for each of `keys` that the bounds know."""
    position = {key: index for index, key in enumerate(bounds.keys)}
    for key in keys:
        if (at := position.get(key)) is not None:
            yield (
                key,
                Piece(
                    source,
                    generation,
                    int(bounds.count[at]),
                    int(bounds.min_step[at]),
                    int(bounds.max_step[at]),
                    int(bounds.min_timestamp[at]),
                    int(bounds.max_timestamp[at]),
                    lambda key=key: load(key),  # type: ignore[misc]
                    ordered,
                    chunk,
                ),
            )


def clusters(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Yield pieces in groups such that equal points can only be within a group.

    Equal points have one source and generation, and lie where both the steps and the timestamps overlap.
    """
    parts: dict[tuple[int, int], list[Piece]] = {}
    for piece in pieces:
        parts.setdefault((piece.source, piece.generation), []).append(piece)
    for part in parts.values():
        yield from _part(part, ("step", "timestamp"))


def _part(pieces: list[Piece], axes: tuple[str, ...]) -> Iterator[list[Piece]]:
    """Part pieces where no range along an axis spans the seam, and the parts along the other axis."""
    if len(pieces) == 1 or not axes:
        yield pieces
        return
    groups = list(_runs_of_overlap(pieces, axes[0]))
    for group in groups:
        # A finer group may part again along the axis that came before.
        other = ("timestamp" if axes[0] == "step" else "step",)
        yield from _part(group, axes[1:] if len(groups) == 1 else other)


def _runs_of_overlap(pieces: list[Piece], axis: str) -> Iterator[list[Piece]]:
    low, high = attrgetter(f"min_{axis}"), attrgetter(f"max_{axis}")
    group: list[Piece] = []
    end = 0
    for piece in sorted(pieces, key=low):
        if group and low(piece) > end:
            yield group
            group = []
        end = max(end, high(piece)) if group else high(piece)
        group.append(piece)
    yield group


def load_cluster(cluster: Sequence[Piece]) -> Points:
    """Return the distinct points of a cluster, sorted by (step, timestamp, value)."""
    if len(cluster) == 1 and cluster[0].sorted:
        return cluster[0].load()
    return distinct(merge([piece.load() for piece in cluster]))


def count_points(pieces: Sequence[Piece], range_: Range) -> int:
    """Return how many distinct points the pieces hold inside the range, decoding where that is not known."""
    total = 0
    for cluster in clusters([piece for piece in pieces if range_.meets(piece)]):
        alone = cluster[0] if len(cluster) == 1 and cluster[0].sorted else None
        total += alone.count if alone and range_.holds(alone) else len(range_.cut(load_cluster(cluster)))
    return total


def visible(points: Points, limit: int | None) -> Points:
    """Return the points that rewinds leave visible: steps up to `limit`, all without one."""
    if limit is None or not len(points) or int(points.step.max()) <= limit:
        return points
    return points.where(np.asarray(points.step <= limit))
