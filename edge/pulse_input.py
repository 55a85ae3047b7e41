"""An S0 output on a GPIO line: the kernel's events in, a count that survives us out.

The count is on the disk before it is used, so after a crash it never falls and nothing is counted twice. What pulsed
while nobody listened is lost, and said: `pulses_unobserved`.
"""

import asyncio
import errno
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import gpiod
from gpiod.line import Bias, Direction, Edge

from edge.bus_settings import MeterSettings, PulseBus
from edge.errors import ModbusError
from edge.pulses import LINE_EVENT, PulseCounter, count_bytes, first_count, split_events

PULSES_UNOBSERVED = "pulses_unobserved"
EVENTS_PER_READ = 64
EVENT_BUFFER = 1024
"""The most that the kernel keeps for us."""
FILE_BYTES_MAX = 4096
CONSUMER = "commonwatt"


class PulseLine(Protocol):
    """A line whose events can be read from a file descriptor."""

    @property
    def fd(self) -> int:
        """Where the kernel's records come from."""

    def release(self) -> None:
        """Stop listening."""


class PulseInput:
    """One S0 meter. `problems` tells what the last reading must be held against; `counts` what went wrong so far.

    Without `keeps_count` nothing is written: only for looking.
    """

    def __init__(
        self,
        bus: PulseBus,
        open_line: Callable[[PulseBus], PulseLine] | None = None,
        *,
        keeps_count: bool = True,
    ) -> None:
        self._bus = bus
        self._keeps_count = keeps_count
        self._open_line = open_line or open_pulse_line
        self._line: PulseLine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._counter = PulseCounter(bus.pulse_min_ms)
        self._partial = b""
        self._lost = ""
        self._unobserved = False
        self._base: int | None = None
        self._stored: int | None = None
        self._events_lost_before = 0
        self.counts: Counter[str] = Counter()
        self.problems: set[str] = set()
        with suppress(ModbusError):  # each reading tries again, and says why it cannot
            self._listen()

    @property
    def meters(self) -> Sequence[MeterSettings]:
        """The one meter."""
        return self._bus.meters

    async def read(self) -> bytes:
        """The count, as the bytes of its register; it is on the disk by then. Raises ModbusError `pulse…`."""
        if self._lost:
            why, self._lost = self._lost, ""
            self._stop_listening()
            raise ModbusError("pulse_line_lost", f"{self._where()}: {why}")
        self._listen()
        self._drain()
        count = self._count()
        if self._keeps_count and count != self._stored:
            self._store(count)
        unobserved = self._unobserved or self._counter.events_lost > self._events_lost_before
        self.counts["pulse_events_lost"] += self._counter.events_lost - self._events_lost_before
        self._events_lost_before = self._counter.events_lost
        self.counts[PULSES_UNOBSERVED] += unobserved
        self.problems = {PULSES_UNOBSERVED} if unobserved else set()
        self._unobserved = False
        return count_bytes(count)

    def close(self) -> None:
        """Stop listening."""
        self._stop_listening()

    def _count(self) -> int:
        assert self._base is not None
        return self._base + self._counter.counted

    # ── the line ────────────────────────────────────────────────────────────────────────────────────────

    def _listen(self) -> None:
        """Raises ModbusError."""
        if self._base is None:
            self._load()
        if self._line is None:
            self._line = self._open_line(self._bus)
            self._base = self._count()
            self._counter, self._partial, self._events_lost_before = PulseCounter(self._bus.pulse_min_ms), b"", 0
        if self._loop is None:
            with suppress(RuntimeError):  # made outside a loop: the kernel keeps the events until the first reading
                self._loop = asyncio.get_running_loop()
                self._loop.add_reader(self._line.fd, self._drain)

    def _drain(self) -> None:
        """Take what the kernel has for us; it keeps only so much."""
        while self._line is not None and not self._lost:
            try:
                data = os.read(self._line.fd, EVENTS_PER_READ * LINE_EVENT.size)
            except BlockingIOError:
                return
            except OSError as error:
                data, why = b"", str(error)
            else:
                why = "the device is gone"
            if not data:
                self._lose(why)
                return
            events, self._partial = split_events(self._partial + data, self._bus.line)
            for event in events:
                self._counter.take(event)

    def _lose(self, why: str) -> None:
        self._lost, self._unobserved = why, True
        if self._loop is not None and self._line is not None:
            self._loop.remove_reader(self._line.fd)
            self._loop = None

    def _stop_listening(self) -> None:
        if self._line is None:
            return
        if self._loop is not None:
            with suppress(RuntimeError):  # its loop may have ended before us
                self._loop.remove_reader(self._line.fd)
            self._loop = None
        self._line.release()
        self._line = None

    # ── the file ────────────────────────────────────────────────────────────────────────────────────────

    def _load(self) -> None:
        """Go on from the count on the disk. Raises ModbusError."""
        file = self._bus.file
        try:
            with file.open("rb") as stream:
                text = stream.read(FILE_BYTES_MAX)
        except FileNotFoundError:
            self._base = first_count(self._bus.start_wh, self._bus.impulses_per_kwh)
            return
        except OSError as error:
            raise ModbusError("pulse_file_unreadable", f"{file}: {error.strerror}") from None
        try:
            document = json.loads(text)
            count, impulses_per_kwh = document["pulses"], document["impulses_per_kwh"]
        except (ValueError, KeyError, TypeError, RecursionError):
            count = impulses_per_kwh = None
        if type(count) is not int or type(impulses_per_kwh) is not int or count < 0:
            raise ModbusError("pulse_file_unreadable", f"{file} does not hold a count")
        if impulses_per_kwh != self._bus.impulses_per_kwh:
            why = f"{file} counts {impulses_per_kwh} impulses per kWh, the configuration {self._bus.impulses_per_kwh}"
            raise ModbusError("pulse_file_differs", why)
        self._base = self._stored = count
        self._unobserved = True

    def _store(self, count: int) -> None:
        """Whole or not at all, and on the disk. Raises ModbusError `pulse_file_unwritable`."""
        file = self._bus.file
        part = file.with_name(file.name + ".part")
        try:
            with part.open("w", encoding="utf-8") as stream:
                json.dump({"pulses": count, "impulses_per_kwh": self._bus.impulses_per_kwh}, stream)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(file)
            _sync_directory(file.parent)
        except OSError as error:
            raise ModbusError("pulse_file_unwritable", f"{file}: {error.strerror}") from None
        self._stored = count

    def _where(self) -> str:
        return f"{self._bus.name}: line {self._bus.line} of {self._bus.chip}"


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class PulsePipe:
    """A named pipe through which the records of a simulated line come."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # for writing too, so that it does not end with a writer

    def release(self) -> None:
        """Close it."""
        os.close(self.fd)


def open_pulse_line(bus: PulseBus) -> PulseLine:
    """Listen to both edges of a GPIO line, the contact between it and ground; or to a named pipe of records.

    Raises ModbusError `pulse_chip_missing`, `pulse_chip_forbidden`, `pulse_line_busy`, `pulse_line_unknown` or
    `pulse_chip_unusable`.
    """
    where = f"{bus.name}: line {bus.line} of {bus.chip}"
    try:
        if stat.S_ISFIFO(bus.chip.stat().st_mode):
            return PulsePipe(bus.chip)
        return _request_line(bus)
    except FileNotFoundError:
        raise ModbusError("pulse_chip_missing", f"{where}: there is no such device") from None
    except PermissionError:
        raise ModbusError("pulse_chip_forbidden", f"{where}: not allowed; the agent's user needs its group") from None
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise ModbusError("pulse_line_busy", f"{where}: in use; is the agent running?") from None
        raise ModbusError("pulse_chip_unusable", f"{where}: {error}") from None
    except ValueError as error:
        raise ModbusError("pulse_line_unknown", f"{where}: {error}") from None


def _request_line(bus: PulseBus) -> PulseLine:
    settings = gpiod.LineSettings(
        direction=Direction.INPUT,
        edge_detection=Edge.BOTH,
        bias=Bias.PULL_UP,
        active_low=True,
    )
    request = gpiod.request_lines(
        str(bus.chip), config={bus.line: settings}, consumer=CONSUMER, event_buffer_size=EVENT_BUFFER
    )
    os.set_blocking(request.fd, False)
    return request
