"""Tables as artifacts: JSON `{"columns": […], "data": [[…]]}` as MLflow writes it, or Parquet."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runstream._content import need, plain
from runstream._errors import InvalidParameter

ENDINGS = (".json", ".parquet")


@dataclass
class Table:
    """Rows under named columns."""

    columns: list[str]
    rows: list[list[Any]]

    def extended(self, other: Table) -> Table:
        """Return this table with the other's rows below; a column that one lacks is null there."""
        columns = list(dict.fromkeys([*self.columns, *other.columns]))
        rows = [
            [row[table.columns.index(name)] if name in table.columns else None for name in columns]
            for table in (self, other)
            for row in table.rows
        ]
        return Table(columns, rows)


def check_ending(path: str) -> None:
    """Check that a table can be written to a path of this name. Raises: InvalidParameter."""
    if not path.endswith(ENDINGS):
        raise InvalidParameter(f"a table is written to a .json or .parquet file, not {path!r}")


def to_table(data: Any) -> Table:
    """Return a table from a dict of columns, a dict of single values, or a pandas DataFrame.

    Raises: InvalidParameter for anything else, and for columns of different lengths.
    """
    if hasattr(data, "to_json") and hasattr(data, "columns"):
        document = json.loads(data.to_json(orient="split", index=False, date_format="iso"))
        return Table([str(name) for name in document["columns"]], document["data"])
    if not isinstance(data, dict):
        raise InvalidParameter(f"a table is a dict of columns or a DataFrame, not {type(data).__name__}")
    lists = [isinstance(value, list | tuple) or hasattr(value, "tolist") for value in data.values()]
    if not any(lists):
        return Table(list(map(str, data)), [list(data.values())])
    lengths = {len(value) for value, many in zip(data.values(), lists, strict=True) if many}
    if len(lengths) > 1:
        raise InvalidParameter(f"the columns of a table have different lengths: {sorted(lengths)}")
    count = lengths.pop()
    columns = [
        list(value) if many else [value] * count for value, many in zip(data.values(), lists, strict=True)
    ]
    return Table(list(map(str, data)), [list(row) for row in zip(*columns, strict=True)])


def read_table(path: Path) -> Table:
    """Return the table in a file. Raises: Unsupported for Parquet without pandas."""
    if path.suffix == ".parquet":
        return to_table(_pandas(path).read_parquet(path))
    document = json.loads(path.read_text())
    return Table(document["columns"], document["data"])


def write_table(path: Path, table: Table) -> None:
    """Write a table in the format of the file's ending. Raises: Unsupported for Parquet without pandas."""
    if path.suffix == ".parquet":
        _pandas(path).DataFrame(table.rows, columns=table.columns).to_parquet(path, index=False)
    else:
        path.write_text(json.dumps({"columns": table.columns, "data": table.rows}, default=plain))


def _pandas(path: Path) -> Any:
    return need("pandas", f"a table in {path.name}", "pandas")
