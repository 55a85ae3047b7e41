"""One simulated meter: a model, what passes through it, and what is wrong with it. Pure; time is an argument."""

from collections.abc import Callable
from dataclasses import dataclass

from simulators.meters.faults import OF_THE_ANSWER, Kind, Schedule
from simulators.meters.measured import Measured
from simulators.meters.registers import Model, Point, Read, Refusal, Words

NO_FAULTS = Schedule()


@dataclass(frozen=True)
class Answer:
    """To one read: words, or an exception, or (words None) nothing at all; late, or short of its last bytes."""

    words: Words | Refusal | None
    delay_s: float = 0.0
    bytes_lost: int = 0


class Meter:
    """A meter at a unit address. `faults` may be exchanged at any time.

    truth: what the meter would measure at an instant if nothing were wrong.
    """

    def __init__(self, model: Model, unit: int, truth: Callable[[int], Measured], faults: Schedule = NO_FAULTS) -> None:
        self.model = model
        self.unit = unit
        self.truth = truth
        self.faults = faults

    def read(self, read: Read, time_unix_s: int) -> Answer:
        """What it answers at an instant."""
        fault = self.faults.passing_at(time_unix_s)
        if fault is not None and fault.kind is Kind.SILENT:
            return Answer(None)
        if fault is not None and fault.kind is Kind.EXCEPTION:
            return Answer(Refusal(fault.size))
        words = self.model.read(read, self.faults.measured(time_unix_s, self.truth), self.unit)
        if isinstance(words, tuple) and fault is not None and fault.kind not in OF_THE_ANSWER:
            words = self.faults.words(time_unix_s, read, words, self._whole_points(read))
        if fault is not None and fault.kind is Kind.SLOW:
            return Answer(words, delay_s=fault.size / 1_000)
        if fault is not None and fault.kind is Kind.SHORT:
            return Answer(words, bytes_lost=fault.size)
        return Answer(words)

    def _whole_points(self, read: Read) -> list[Point]:
        table = self.model.table(read.function)
        if table is None:
            return []
        end = read.address + read.count
        return [
            point
            for point in table.points_near(read)
            if read.address <= point.address and point.address + point.words <= end
        ]
