"""What goes wrong between the energy and the wire, as a pure function of time and a seed.

A fault works at one of three places: on what the meter has counted (it is reset, exchanged, frozen…), on the words
it answers (a bit flips, the words come in the wrong order…), or on the answer itself (an exception, nothing, half of
it). The energy that really flowed is never touched: whoever reads a faulty meter is to find it out.
"""

import random
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from simulators.meters.measured import Measured
from simulators.meters.registers import Point, Read, Words

FOREVER_UNIX_S = 1 << 62


class Kind(StrEnum):
    """Of a fault; in brackets, what its `size` means."""

    RESET = "reset"
    """The counters start again from zero. Permanent."""
    REPLACED = "replaced"
    """Another meter hangs there, with a serial number of its own and counters at `size` Wh. Permanent."""
    WRAP = "wrap"
    """The counters pass their modulus, `size` Wh, at this instant: until then they stand just below it. Permanent."""
    ZERO = "zero"
    """The meter is starting: counters and power read zero."""
    FROZEN = "frozen"
    """Every register keeps what it held when the fault began."""
    SPIKE = "spike"
    """The import counter reads `size` Wh more, or less."""
    SWAPPED = "swapped"
    """The words of every value come in the opposite order."""
    BIT_FLIP = "bit_flip"
    """One bit of one word is wrong, the same for as long as it lasts."""
    GARBAGE = "garbage"
    """Floats are NaN or infinite, integers all ones."""
    EXCEPTION = "exception"
    """The meter answers the Modbus exception `size`."""
    SILENT = "silent"
    """It answers nothing."""
    SLOW = "slow"
    """It answers `size` milliseconds late."""
    SHORT = "short"
    """The last `size` bytes of the answer are missing."""


PERMANENT = (Kind.RESET, Kind.REPLACED)
OF_THE_ANSWER = (Kind.EXCEPTION, Kind.SILENT, Kind.SLOW, Kind.SHORT)
GARBAGE_FLOATS = (b"\x7f\xc0", b"\xff\xc0", b"\x7f\x80", b"\xff\x80")
GARBAGE_DOUBLES = (b"\x7f\xf8", b"\xff\xf8", b"\x7f\xf0", b"\xff\xf0")
"""The first two bytes of NaN, −NaN, infinity and −infinity."""


@dataclass(frozen=True)
class Fault:
    """From `start_unix_s` until just before `end_unix_s`, which a permanent fault ignores."""

    kind: Kind
    start_unix_s: int
    end_unix_s: int = FOREVER_UNIX_S
    size: int = 0


class Schedule:
    """The faults of one meter, in order of time. Raises ValueError if two passing faults overlap, or if a wrap
    shares the schedule with a reset or an exchange: the instant of the wrap would no longer be known beforehand.
    """

    def __init__(self, faults: Iterable[Fault] = (), seed: int = 0) -> None:
        self.faults = tuple(sorted(faults, key=lambda fault: fault.start_unix_s))
        self.seed = seed
        self._wraps = [fault for fault in self.faults if fault.kind is Kind.WRAP]
        self._permanent = [fault for fault in self.faults if fault.kind in PERMANENT]
        self._passing = [fault for fault in self.faults if fault.kind not in (*PERMANENT, Kind.WRAP)]
        self._permanent_starts = [fault.start_unix_s for fault in self._permanent]
        self._passing_starts = [fault.start_unix_s for fault in self._passing]
        if any(
            before.end_unix_s > after.start_unix_s
            for before, after in zip(self._passing, self._passing[1:], strict=False)
        ):
            raise ValueError("two passing faults overlap")
        if len(self._wraps) > 1 or (self._wraps and self._permanent):
            raise ValueError("a wrap goes with no second wrap, reset or exchange")

    def passing_at(self, time_unix_s: int) -> Fault | None:
        """The passing fault of an instant."""
        at = bisect_right(self._passing_starts, time_unix_s) - 1
        if at < 0 or time_unix_s >= self._passing[at].end_unix_s:
            return None
        return self._passing[at]

    def measured(self, time_unix_s: int, truth: Callable[[int], Measured]) -> Measured:
        """What the meter believes to have measured, given what really flowed at any instant."""
        fault = self.passing_at(time_unix_s)
        if fault is not None and fault.kind is Kind.FROZEN:
            return self._counted(fault.start_unix_s, truth)
        measured = self._counted(time_unix_s, truth)
        if fault is not None and fault.kind is Kind.ZERO:
            return replace(measured, import_wh=0, export_wh=0, power_w=0)
        if fault is not None and fault.kind is Kind.SPIKE:
            return replace(measured, import_wh=max(0, measured.import_wh + fault.size))
        return measured

    def _counted(self, time_unix_s: int, truth: Callable[[int], Measured]) -> Measured:
        now = truth(time_unix_s)
        for wrap in self._wraps:
            then = truth(wrap.start_unix_s)
            return replace(
                now,
                import_wh=(now.import_wh - then.import_wh) % wrap.size,
                export_wh=(now.export_wh - then.export_wh) % wrap.size,
            )
        at = bisect_right(self._permanent_starts, time_unix_s) - 1
        if at < 0:
            return now
        since = self._permanent[at]
        then = truth(since.start_unix_s)
        exchanged = sum(fault.kind is Kind.REPLACED for fault in self._permanent[: at + 1])
        base_wh = since.size if since.kind is Kind.REPLACED else 0
        return replace(
            now,
            import_wh=base_wh + now.import_wh - then.import_wh,
            export_wh=base_wh + now.export_wh - then.export_wh,
            seed=now.seed + exchanged,
        )

    def words(self, time_unix_s: int, read: Read, words: Words, points: Sequence[Point]) -> Words:
        """What becomes of the words of a read; `points` are the values that lie wholly within it."""
        fault = self.passing_at(time_unix_s)
        if fault is None or not words:
            return words
        rng = random.Random(f"{self.seed}/{fault.start_unix_s}/{read.function}/{read.address}")
        if fault.kind is Kind.SWAPPED:
            return _with_each(points, read, words, lambda point, value: value[::-1])
        if fault.kind is Kind.GARBAGE:
            return _with_each(points, read, words, lambda point, value: _garbage(point, rng))
        if fault.kind is Kind.BIT_FLIP:
            at = rng.randrange(len(words))
            return (*words[:at], words[at] ^ 1 << rng.randrange(16), *words[at + 1 :])
        return words


def _with_each(points: Sequence[Point], read: Read, words: Words, change: Callable[[Point, Words], Words]) -> Words:
    changed = list(words)
    for point in points:
        at = point.address - read.address
        changed[at : at + point.words] = change(point, words[at : at + point.words])
    return tuple(changed)


def _garbage(point: Point, rng: random.Random) -> Words:
    width = 2 * point.words
    if point.format[0] == "f":
        raw = rng.choice(GARBAGE_FLOATS if point.format == "f32" else GARBAGE_DOUBLES).ljust(width, b"\0")
    else:
        raw = b"\xff" * width
    words: Words = struct.unpack(f">{point.words}H", raw)
    return words[::-1] if point.low_word_first else words
