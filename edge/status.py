"""What an agent says of itself: its problems, which last until they are over, and its counts, which only grow.

A change of a problem is in the log at once, and whoever listens (`on_change`) is told.
"""

import logging
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

from edge.bus_settings import MeterSettings
from edge.counters import GENERATION, GRID_EXPORT, GRID_IMPORT
from edge.errors import EdgeError, JournalError
from edge.journal import Journal
from edge.poll import Poll
from edge.settings import Settings

JOURNAL_UNWRITABLE = "journal_unwritable"
QUANTUM_DIGITS = 3
MQTT_TRANSPORTS = {5: "mqtt5", 3: "mqtt3"}
REGISTERS_OF_ROLE = {"generation": (GENERATION,), "grid": (GRID_IMPORT, GRID_EXPORT)}

log = logging.getLogger(__name__)


def _nobody() -> None:
    """Until somebody listens."""


class Standing:
    """The problems and counts of one agent."""

    def __init__(self) -> None:
        self.problems: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.on_change: Callable[[], None] = _nobody
        self._unwritable: set[str] = set()

    def count(self, what: str) -> None:
        """One more of these."""
        self.counts[what] += 1

    def failed(self, error: EdgeError) -> None:
        """Count what failed, and say why in the log."""
        self.count(error.code)
        log.warning(error.code, extra={"why": error.detail})

    def problem(self, name: str, exists: bool) -> None:
        """A problem is there, or is not (any more)."""
        if exists == (name in self.problems):
            return
        if exists:
            self.problems.add(name)
            log.error(name)
        else:
            self.problems.discard(name)
            log.info("resolved", extra={"problem": name})
        self.on_change()

    def journaled(self, what: str, error: JournalError | None = None) -> None:
        """A kind of write went well, or not: the problem lasts until each kind that failed goes well again."""
        if error is None:
            self._unwritable.discard(what)
        else:
            self.failed(error)
            self._unwritable.add(what)
        self.problem(JOURNAL_UNWRITABLE, bool(self._unwritable))


def transport_name(settings: Settings) -> str:
    """How the seals travel, as the status has it."""
    if settings.transport == "mqtt" and settings.mqtt is not None:
        return MQTT_TRANSPORTS[settings.mqtt.version]
    return settings.transport


def journal_status(journal: Journal) -> dict[str, int]:
    """What waits in the journal and how large it is; nothing while the disk does not answer."""
    try:
        unsealed = journal.find_unsealed()
        return {"unsealed_readings": unsealed.count if unsealed else 0, "journal_bytes": journal.used_bytes()}
    except JournalError as error:
        log.warning(error.code, extra={"why": error.detail})
        return {}


def meters_status(meters: tuple[MeterSettings, ...], poll: Poll | None) -> list[dict[str, str]]:
    """Each meter with its map and, once it was read, the step that its energy registers make now, in Wh."""
    found = []
    for meter in meters:
        entry = {"role": meter.role, "map": meter.register_map.map_id}
        steps = (
            [poll.quanta_wh[name] for name in REGISTERS_OF_ROLE[meter.role] if name in poll.quanta_wh] if poll else []
        )
        if steps:
            entry["quantum_wh"] = decimal_text(max(steps))
        found.append(entry)
    return found


def decimal_text(value: Fraction) -> str:
    """A number for eyes, to three digits: 0.000977, 0.98, 7.81, 100."""
    exact = Decimal(value.numerator) / Decimal(value.denominator)
    return f"{exact:.{QUANTUM_DIGITS}g}" if 0 < exact < 10**QUANTUM_DIGITS else f"{exact:.0f}"
