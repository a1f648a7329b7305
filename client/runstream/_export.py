"""Points of many series as one Parquet file, for DuckDB, pandas and polars; a page is in memory at a time.

    experiment_id | run_id | run_name | key | step | timestamp | value
    text            text     text       text  int64  ms, UTC     float64

Rows are in order of runs as they were asked for, then keys, then (step, timestamp, value).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from runstream._errors import RunstreamError
from runstream._metrics import MetricMethods
from runstream._runs import RunMethods
from runstream._types import MetricSeries, Run

MAX_SERIES = 500
"""Series of one call."""
_GROUP_ROWS = 1 << 20
"""Rows of a row group: what a reader takes at once."""
_TEXTS = ("experiment_id", "run_id", "run_name", "key")


class MissingPyArrow(RunstreamError):
    """Raised when pyarrow, which writes Parquet, is not installed."""


class ExportMethods(MetricMethods, RunMethods):
    """Writes selections of points to a file."""

    def export_metrics(
        self,
        path: str | os.PathLike[str],
        *,
        run_ids: Sequence[str] | None = None,
        experiment_ids: Sequence[str] | None = None,
        filter_string: str = "",
        keys: Sequence[str] | None = None,
    ) -> int:
        """Write the points of runs to a Parquet file and return how many there are.

        Runs are named, or searched for in experiments with a filter as `search_runs` takes it. `keys`: only
        these metrics. The file is there when all of it is. Needs `pip install 'runstream[export]'`.

        Raises: NotFound for an unknown run; InvalidParameter; MissingPyArrow.
        """
        if run_ids is not None:
            runs = self._named(run_ids)
        else:
            runs = self._found(experiment_ids or [], filter_string)
        target = Path(path)
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            with _Writer(part) as writer:
                for run, series in self._series(runs, keys):
                    writer.add(run, series)
            os.replace(part, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
        return writer.rows

    def _named(self, run_ids: Iterable[str]) -> Iterator[Run]:
        for run_id in dict.fromkeys(run_ids):
            yield self.get_run(run_id)

    def _found(self, experiment_ids: Sequence[str], filter_string: str) -> Iterator[Run]:
        token: str | None = None
        while True:
            page = self.search_runs(list(experiment_ids), filter_string, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _series(self, runs: Iterable[Run], keys: Sequence[str] | None) -> Iterator[tuple[Run, MetricSeries]]:
        wanted = None if keys is None else frozenset(keys)
        for group, names in _groups(runs, wanted):
            by_id = {run.info.run_id: run for run in group}
            for begin in range(0, len(names), MAX_SERIES):
                for series in self.iter_metric_series(list(by_id), names[begin : begin + MAX_SERIES]):
                    yield by_id[series.run_id], series


def _groups(runs: Iterable[Run], wanted: frozenset[str] | None) -> Iterator[tuple[list[Run], list[str]]]:
    """Yield runs that one call can ask for together, with all their keys."""
    group: list[Run] = []
    names: set[str] = set()
    for run in runs:
        own = {key for key in run.data.metrics if wanted is None or key in wanted}
        if group and (len(group) + 1) * len(names | own) > MAX_SERIES:
            yield group, sorted(names)
            group, names = [], set()
        if own:
            group.append(run)
            names |= own
    if group:
        yield group, sorted(names)


class _Writer:
    """A Parquet file that is being written."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise MissingPyArrow("Parquet needs pyarrow: pip install 'runstream[export]'") from None
        self._pa = pa
        text = pa.dictionary(pa.int32(), pa.string())
        self._schema = pa.schema(
            [
                *((name, text) for name in _TEXTS),
                ("step", pa.int64()),
                ("timestamp", pa.timestamp("ms", tz="UTC")),
                ("value", pa.float64()),
            ]
        )
        writer: Any = pq.ParquetWriter
        self._file: Any = writer(
            path,
            self._schema,
            compression="zstd",
            use_dictionary=list(_TEXTS),
            column_encoding={
                "step": "DELTA_BINARY_PACKED",
                "timestamp": "DELTA_BINARY_PACKED",
                "value": "BYTE_STREAM_SPLIT",
            },
        )
        self._batches: list[Any] = []
        self._held = 0
        self.rows = 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._flush()
        self._file.close()

    def add(self, run: Run, series: MetricSeries) -> None:
        """Add the points of one series."""
        pa, count = self._pa, len(series.steps)
        texts = (run.info.experiment_id, run.info.run_id, run.info.run_name or "", series.key)
        zeros = pa.array([0], pa.int32()).take(pa.nulls(count, pa.int32()).fill_null(0))
        columns = [pa.DictionaryArray.from_arrays(zeros, pa.array([text])) for text in texts]
        columns += [
            pa.array(series.steps),
            pa.array(series.timestamps).cast(pa.timestamp("ms", tz="UTC")),
            pa.array(series.values, from_pandas=False),
        ]
        self._batches.append(pa.record_batch(columns, schema=self._schema))
        self._held += count
        self.rows += count
        if self._held >= _GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._batches:
            table = self._pa.Table.from_batches(self._batches).unify_dictionaries()
            self._file.write_table(table, row_group_size=_GROUP_ROWS)
        self._batches, self._held = [], 0
