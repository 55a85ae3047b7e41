"""What meters say of themselves, between the broker's sessions and the database.

The ingest worker's event loop drops each status on a desk, which costs a dictionary entry; a thread with a connection
of its own parses the newest of each meter and writes them, many at once. Seals never wait for it. Whatever goes wrong,
losing a status is harmless: it is counted, and the next one comes within a minute.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

import msgspec
from sqlalchemy import Engine

from hub import metrics
from hub.db import create_database_engine, is_database_away, transaction
from hub.fleet.service import MALFORMED, Statement, record_statuses
from hub.fleet.status import STATUS_BYTES_MAX, StatusMalformed, parse_status
from hub.logs import get_logger
from hub.readings import consumer
from hub.settings import Settings
from protocol.errors import ProtocolError
from protocol.topics import parse_topic

WAITING_MAX: Final = 50_000
"""Topics on the desk; a status of one more is dropped."""
WRITE_EVERY_S: Final = 1.0
METER_PAUSE_S: Final = 5.0
"""A meter is written at most so often, however much it says."""
AT_ONCE_MAX: Final = 1_000
LAST_WRITE_TIMEOUT_S: Final = 5.0

TOO_LONG: Final = "too_long"
OVERFLOW: Final = "overflow"
SUPERSEDED: Final = "superseded"
BAD_TOPIC: Final = "bad_topic"
UNKNOWN_METER: Final = "unknown_meter"
INTERNAL_FAULT: Final = "internal_fault"

_RECEIVED = metrics.STATUSES_RECEIVED.labels("mqtt")
_SUPERSEDED = metrics.STATUSES_DROPPED.labels(SUPERSEDED)

log = get_logger()


class Noted(msgspec.Struct, frozen=True, gc=False):
    """A status as it came."""

    payload: bytes
    retained: bool
    received_unix_s: float


class StatusDesk:
    """Takes statuses from one thread and writes them from another. A context manager: leaving it writes the last."""

    def __init__(
        self, engine: Engine, community_id: str, clock: Callable[[], float] = time.time, waiting_max: int = WAITING_MAX
    ) -> None:
        self._engine = engine
        self._community_id = community_id
        self._clock = clock
        self._waiting_max = waiting_max
        self._waiting: dict[str, Noted] = {}
        self._written_s: dict[str, float] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(LAST_WRITE_TIMEOUT_S)

    def take(self, topic: str, payload: bytes, retained: bool) -> None:
        """Note a status. The newest of a meter replaces the one that waits; what was kept replaces nothing new."""
        _RECEIVED.inc()
        if len(payload) > STATUS_BYTES_MAX:
            _drop(TOO_LONG)
            return
        with self._lock:
            before = self._waiting.get(topic)
            if before is not None:
                _SUPERSEDED.inc()
                if retained and not before.retained:
                    return
            elif len(self._waiting) >= self._waiting_max:
                _drop(OVERFLOW)
                return
            self._waiting[topic] = Noted(payload, retained, self._clock())

    def write_once(self, now_s: float, pause_s: float = METER_PAUSE_S) -> int:
        """Write the statuses that are due, at most AT_ONCE_MAX; returns how many. Raises what the database raises."""
        self._written_s = {topic: at_s for topic, at_s in self._written_s.items() if now_s - at_s < pause_s}
        with self._lock:
            due = [topic for topic in self._waiting if topic not in self._written_s][:AT_ONCE_MAX]
            batch = {topic: self._waiting.pop(topic) for topic in due}
        if not batch:
            return 0
        try:
            statements = list(filter(None, (self._statement(topic, noted) for topic, noted in batch.items())))
            self._record(statements, datetime.fromtimestamp(self._clock(), UTC))
        except Exception as fault:
            if is_database_away(fault):
                self._put_back(batch)
            else:
                _drop(INTERNAL_FAULT, len(batch))
            raise
        self._written_s |= dict.fromkeys(batch, now_s)
        return len(batch)

    def _put_back(self, batch: Mapping[str, Noted]) -> None:
        """Let these wait on, except where a meter has spoken meanwhile."""
        with self._lock:
            for topic, noted in batch.items():
                newer = self._waiting.get(topic)
                if newer is None or (newer.retained and not noted.retained):
                    self._waiting[topic] = noted

    def _record(self, statements: Sequence[Statement], now: datetime) -> None:
        """Write these together; if something in them cannot be stored, each alone, so that only the culprit is lost."""
        try:
            with transaction(self._engine) as connection:
                registered = record_statuses(connection, statements, now)
        except Exception as fault:
            if is_database_away(fault):
                raise
            if len(statements) == 1:  # a line, no traceback: there may be a thousand in a second
                log.warning("status_cannot_be_stored", meter_id=statements[0].meter_id, error=repr(fault)[:500])
                _drop(INTERNAL_FAULT)
                return
            log.exception("statuses_cannot_be_stored", meters=[each.meter_id for each in statements[:3]])
            for each in statements:
                self._record([each], now)
        else:
            _drop(UNKNOWN_METER, sum(each.meter_id not in registered for each in statements))

    def _statement(self, topic: str, noted: Noted) -> Statement | None:
        try:
            community_id, _, meter_id, channel = parse_topic(topic)
        except ProtocolError:
            community_id = meter_id = channel = ""
        if community_id != self._community_id or channel != "status":
            _drop(BAD_TOPIC)
            return None
        try:
            status = parse_status(noted.payload)
        except StatusMalformed:
            _drop(MALFORMED)
            return None
        received_at = datetime.fromtimestamp(noted.received_unix_s, UTC)
        return Statement(meter_id, status, received_at, live=not noted.retained)

    def _run(self) -> None:
        while not self._stop.wait(WRITE_EVERY_S):
            self._write_all(METER_PAUSE_S)
        self._write_all(0.0)

    def _write_all(self, pause_s: float) -> None:
        try:
            while self.write_once(time.monotonic(), pause_s) == AT_ONCE_MAX:
                pass
        except Exception as fault:
            if is_database_away(fault):
                log.warning("statuses_postponed", error=str(fault).strip().splitlines()[0])
            else:  # our mistake; a thread that ended of it would be missed by nobody
                log.exception("statuses_lost")


def _drop(reason: str, count: int = 1) -> None:
    if count:
        metrics.STATUSES_DROPPED.labels(reason).inc(count)


def run(settings: Settings) -> None:
    """Be an ingest worker, and note what the meters say of themselves, until SIGTERM or SIGINT."""
    engine = create_database_engine(settings.database_url, "commonwatt-fleet", pool_size=1)
    try:
        with StatusDesk(engine, settings.community_id) as desk:
            consumer.run(settings, desk.take)
    finally:
        engine.dispose()
