"""Readings and energy as tables for other programs: CSV and Parquet, streamed, units in the column names.

Rows come as an iterator of pages, so the memory used does not depend on the range asked for.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from hub.readings.energy import Energy
from hub.readings.queries import RawReading

CSV_TYPE = "text/csv; charset=utf-8"
PARQUET_TYPE = "application/vnd.apache.parquet"

_INSTANT = pa.timestamp("s", tz="UTC")

RAW_SCHEMA = pa.schema(
    [
        pa.field("time", _INSTANT, nullable=False),
        pa.field("production_wh", pa.int64(), nullable=False),
        pa.field("consumption_wh", pa.int64(), nullable=False),
        pa.field("power_w", pa.int32()),
        pa.field("voltage_dv", pa.int32()),
        pa.field("frequency_mhz", pa.int32()),
        pa.field("flags", pa.int16(), nullable=False),
    ]
)

ENERGY_SCHEMA = pa.schema(
    [
        pa.field("start", _INSTANT, nullable=False),
        pa.field("end", _INSTANT, nullable=False),
        pa.field("production_wh", pa.int64(), nullable=False),
        pa.field("consumption_wh", pa.int64(), nullable=False),
        pa.field("surplus_wh", pa.int64(), nullable=False),
    ]
)

Table = Sequence[tuple[object, ...]]


def raw_rows(readings: Sequence[RawReading]) -> Table:
    """Rows of RAW_SCHEMA."""
    return [
        (
            reading.time,
            reading.production_wh,
            reading.consumption_wh,
            reading.power_w,
            reading.voltage_dv,
            reading.frequency_mhz,
            reading.flags,
        )
        for reading in readings
    ]


def energy_rows(energies: Sequence[Energy], bucket_s: int) -> Table:
    """Rows of ENERGY_SCHEMA."""
    return [
        (
            datetime.fromtimestamp(energy.start_unix_s, UTC),
            datetime.fromtimestamp(energy.start_unix_s + bucket_s, UTC),
            energy.production_wh,
            energy.consumption_wh,
            energy.surplus_wh,
        )
        for energy in energies
    ]


def csv_chunks(schema: pa.Schema, pages: Iterator[Table]) -> Iterator[bytes]:
    """The table as CSV (RFC 4180): a header line, instants in ISO 8601 UTC, empty where there is no value."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(schema.names)
    for page in pages:
        writer.writerows([_cell(value) for value in row] for row in page)
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()


def parquet_chunks(schema: pa.Schema, pages: Iterator[Table]) -> Iterator[bytes]:
    """The table as a Parquet file, one row group a page."""
    sink = _Drain()
    with pq.ParquetWriter(sink, schema) as writer:
        for page in pages:
            if not page:
                continue
            columns = zip(*page, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            yield sink.take()
    yield sink.take()


def _cell(value: object) -> object:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


class _Drain(io.RawIOBase):
    """A file that is only ever written forward, and handed over as it grows."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._length = 0

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: object) -> int:
        """Take some bytes."""
        part = bytes(memoryview(data))  # type: ignore[arg-type]
        self._parts.append(part)
        self._length += len(part)
        return len(part)

    def tell(self) -> int:
        """How many bytes were ever written."""
        return self._length

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
