"""Homes whose meters seal, and what must become of each watt-hour of them, worked out from the raw readings alone.

A roof's book is kept by the test: what was sealed, what was rejected, what was lost. The readings are taken out of the
messages as anybody would who holds them, and netted here by hand; no counter of a seal is ever believed.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Final

from nacl.signing import SigningKey

from protocol.readings import decode_readings
from protocol.seal import SEAL_BYTES, SIGNATURE_BYTES
from simulators.sealing import START_CONSUMPTION_WH, START_PRODUCTION_WH, SealedMessage, SimulatedMeter, seeded_key

QUARTER_S: Final = 900
UNITS_PER_WH: Final = 1_000_000
COUNTED, REJECTED, LOST = "counted", "rejected", "lost"


@dataclass
class Page:
    """A seal in the book: what its readings say at the ends of its quarters, and what became of it."""

    key_epoch: int
    sequence: int
    boundaries: list[tuple[int, int, int]]
    """(time, production, consumption) at the end of each quarter of an hour."""
    fate: str = COUNTED


@dataclass
class Figures:
    """What must become of the surplus of a day, or of all, in Wh."""

    accepted_wh: int = 0
    minted_wh: int = 0
    written_off_wh: int = 0

    def add(self, accepted_wh: int, written_off_wh: int) -> None:
        self.accepted_wh += accepted_wh
        self.written_off_wh += written_off_wh
        self.minted_wh += accepted_wh - written_off_wh


@dataclass
class Expected:
    """What must become of a meter's surplus."""

    total: Figures = field(default_factory=Figures)
    by_day: dict[date, Figures] = field(default_factory=lambda: defaultdict(Figures))


class Roof(SimulatedMeter):
    """A meter of somebody's, which takes a reading at the end of each quarter of an hour at least."""

    def __init__(self, meter_id: str, owner: SigningKey, domain: bytes, start_unix_s: int) -> None:
        assert start_unix_s % QUARTER_S == 0
        super().__init__(
            meter_id=meter_id,
            key=seeded_key(meter_id),
            domain=domain,
            start_unix_s=start_unix_s,
            interval_s=300,
            readings_per_seal=3,
        )
        self._owner = owner
        self.book: list[Page] = []
        self.rotations = 0

    @property
    def owner_key(self) -> SigningKey:
        return self._owner

    @property
    def owner(self) -> bytes:
        return bytes(self._owner.verify_key)

    def let_the_sun_shine(self) -> None:
        """From the next reading on there is much to spare; then the weather goes on as it likes."""
        self._power_w = [5_200, 900]

    def seals(self, count: int) -> list[SealedMessage]:
        """The next seals, of which each closes a quarter, and their pages in the book."""
        messages = self.messages(count)
        for each in messages:
            readings = decode_readings(each.message[SEAL_BYTES + SIGNATURE_BYTES :])
            ends = [
                (reading.time_unix_s, reading.production_wh, reading.consumption_wh)
                for reading in readings
                if reading.time_unix_s % QUARTER_S == 0
            ]
            assert ends and ends[-1][0] == readings[-1].time_unix_s
            self.book.append(Page(self.key_epoch, each.sequence, ends))
        return messages

    def mark(self, message: SealedMessage, fate: str) -> None:
        """What became of one of the seals that were made last."""
        page = next(each for each in reversed(self.book) if each.sequence == message.sequence)
        page.fate = fate

    def rotate(self) -> tuple[bytes, SigningKey]:
        """The request with which the next key takes over, and that key."""
        self.rotations += 1
        following = seeded_key(f"{self.meter_id}/{self.rotations}")
        return self.rotation(following), following

    def expected(self) -> Expected:  # type: ignore[override]
        """What must have been minted and written off, once everything is settled. Readings in, watt-hours out."""
        expected = Expected()
        last_wh = START_PRODUCTION_WH, START_CONSUMPTION_WH
        passed_wh = last_wh
        """Where production and consumption stood at the last seal that the chain could see."""
        across_wh = 0
        """Surplus in seals that are lost, and nobody can show."""
        for page in self.book:
            surplus_wh = 0
            for _, production_wh, consumption_wh in page.boundaries:
                surplus_wh += max(0, (production_wh - last_wh[0]) - (consumption_wh - last_wh[1]))
                last_wh = production_wh, consumption_wh
            if page.fate == LOST:
                across_wh += surplus_wh
                continue
            written_off_wh, accepted_wh = 0, surplus_wh + across_wh
            if page.fate == REJECTED:
                written_off_wh = accepted_wh
            elif across_wh:
                net_wh = (last_wh[0] - passed_wh[0]) - (last_wh[1] - passed_wh[1])
                written_off_wh = accepted_wh - min(accepted_wh, max(0, net_wh))
            day = datetime.fromtimestamp(page.boundaries[-1][0] - 1, UTC).date()
            expected.total.add(accepted_wh, written_off_wh)
            expected.by_day[day].add(accepted_wh, written_off_wh)
            passed_wh, across_wh = last_wh, 0
        assert not across_wh, "what is lost lies between what counts"
        return expected
