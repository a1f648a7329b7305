"""Buckets of one series, from overviews of chunks where they tell enough, from points elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from runstream_server.ingest.buckets import Buckets
from runstream_server.ingest.overviews import ROWS, Axis, Overview, along, least_shift
from runstream_server.ingest.pieces import Piece, Range, clusters, load_cluster
from runstream_server.ingest.scan import Scan


def read_buckets(
    scan: Scan, key: str, range_: Range, max_points: int, axis: Axis = "step", shift: int = 0
) -> Buckets:
    """Return at most `max_points` buckets of the points of a key inside a range.

    shift: binary logarithm of the least width. Along timestamps the rows have steps for timestamps and the
    other way round.
    """
    groups = list(clusters([piece for piece in scan.pieces[key] if range_.meets(piece)]))
    known = _overviews(scan, groups, range_, max_points, axis)
    buckets = Buckets(max_points, max(shift, least_shift(list(known.values()), max_points)))
    for cluster in groups:
        overview = known.get(cluster[0].chunk or 0) if len(cluster) == 1 else None
        if overview and overview.shift <= buckets.shift:
            buckets.add_rows(overview.rows, overview.shift)
        else:
            buckets.add(along(range_.cut(load_cluster(cluster)), axis))
    return buckets


def _overviews(
    scan: Scan, groups: Sequence[Sequence[Piece]], range_: Range, max_points: int, axis: Axis
) -> dict[int, Overview]:
    """Return overviews of chunks that are wholly inside the range and share no points with another piece."""
    alone = [cluster[0] for cluster in groups if len(cluster) == 1]
    wanted = [piece.chunk for piece in alone if piece.chunk and piece.sorted and range_.holds(piece)]
    # An overview has more than ROWS / 2 buckets unless the chunk has few steps; with fewer chunks than this
    # the answer is finer than their overviews.
    if 2 * ROWS * len(wanted) <= max_points:
        return {}
    return scan.overviews(wanted, axis)
