"""(b) COPY fed from a subscriber: decodes, verifies nothing, one transaction, acknowledges at once. A bound, no hub.

A crash loses everything, and a single repeat fails it all. It is as fast as it can be made within that: rows are
packed by numpy in blocks, in the binary form of COPY.
"""

import queue
import time

import numpy as np
import psycopg

from infra.bench.script_site import SECTION_AT, arguments, columns, finish, subscribe

BLOCK_MESSAGES_MAX = 500
LINGER_S = 0.005
"""Larger blocks, and peace for the thread that receives."""
COPY_HEADER, COPY_TRAILER = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
COLUMNS = ("time_unix_s", "production_wh", "consumption_wh", "power_w", "voltage_dv", "frequency_mhz")
TABLE = (
    "CREATE TABLE copy_readings (meter_no integer, time_unix_s bigint, production_wh bigint, consumption_wh bigint,"
    " power_w integer, voltage_dv integer, frequency_mhz integer, PRIMARY KEY (meter_no, time_unix_s))"
)


def _row() -> "np.dtype[np.void]":
    fields = [("columns", ">i2"), ("meter_no_length", ">i4"), ("meter_no", ">i4")]
    for place, name in enumerate(COLUMNS):
        fields += [(f"{name}_length", ">i4"), (name, ">i8" if place < 3 else ">i4")]
    return np.dtype(fields)


ROW = _row()


def pack(messages: list[tuple[int, list[list[int]]]]) -> bytes:
    """Rows of a block of (meter number, columns), ready for COPY."""
    counts = [len(message[0]) for _, message in messages]
    rows = np.zeros(sum(counts), ROW)
    rows["columns"] = 1 + len(COLUMNS)
    rows["meter_no_length"] = 4
    rows["meter_no"] = np.repeat([meter_no for meter_no, _ in messages], counts)
    for place, name in enumerate(COLUMNS):
        rows[f"{name}_length"] = 8 if place < 3 else 4
        joined: list[int] = []
        for _, message in messages:
            joined += message[place]
        rows[name] = np.array(joined, dtype=np.int64)
    return rows.tobytes()


def main() -> None:
    """Subscribe and copy until the agreed number of messages has come, then commit."""
    given = arguments()
    arrived: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
    numbers: dict[str, int] = {}
    with psycopg.connect(given.database_url) as connection:
        connection.execute(TABLE)
        connection.commit()
        subscribe(given, lambda topic, payload: arrived.put((topic, payload)))
        readings, missing = 0, given.messages
        with connection.cursor().copy(
            f"COPY copy_readings (meter_no, {', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"
        ) as copy:
            copy.write(COPY_HEADER)
            while missing:
                block = [arrived.get()]
                time.sleep(LINGER_S)
                while len(block) < min(BLOCK_MESSAGES_MAX, missing) and not arrived.empty():
                    block.append(arrived.get())
                missing -= len(block)
                decoded = [
                    (numbers.setdefault(topic, len(numbers)), columns(payload[SECTION_AT:])) for topic, payload in block
                ]
                readings += sum(len(message[0]) for _, message in decoded)
                copy.write(pack(decoded))
            copy.write(COPY_TRAILER)
        connection.commit()
        finish(readings)


if __name__ == "__main__":
    main()
