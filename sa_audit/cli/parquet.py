"""``export --format parquet``: changes as a table of typed columns, one row each.

Imports pyarrow (extra ``parquet``) and the room's failures only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import IO, Any, Final

from .failure import CantRun

GROUP: Final = 10_000
"""The rows of a row group, which is what is held in memory."""


def write_table(rows: Iterable[Mapping[str, Any]], columns: Iterable[str], out: IO[bytes]) -> None:
    """Write rows; ``audit_id`` is an integer, ``recorded_at`` a moment in UTC, all others are texts.

    Args:
        rows: by column, values as CSV has them: ``recorded_at`` in ISO 8601 with its offset.
        columns: their names, in order.
        out: where to; it need not be seekable.

    Raises:
        CantRun: if pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise CantRun(f"--format parquet needs the extra parquet ({error}): pip install 'sa-audit[parquet]'") from error
    types = {"audit_id": pa.int64(), "recorded_at": pa.timestamp("us", tz="UTC")}
    schema = pa.schema([pa.field(name, types.get(name, pa.string())) for name in columns])
    with parquet.ParquetWriter(pa.PythonFile(_Forward(out), mode="w"), schema, compression="zstd") as writer:
        typed = ({**row, "recorded_at": dt.datetime.fromisoformat(row["recorded_at"])} for row in rows)
        while group := list(islice(typed, GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


class _Forward:
    """A file that is only written forward, and knows where it is, which a pipe does not."""

    closed = False

    def __init__(self, out: IO[bytes]) -> None:
        self._out, self._at = out, 0

    def write(self, data: Any) -> int:
        """Write bytes."""
        self._out.write(data)
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        """Give how many bytes were written."""
        return self._at

    def flush(self) -> None:
        """Flush."""
        self._out.flush()

    def close(self) -> None:
        """Flush; the file is its opener's."""
        self.flush()
