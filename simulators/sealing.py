"""A simulated agent's output: seeded meters that enrol and seal, without registers and without a network.

Everything follows from a seed, so a test knows the exact energy before the first message leaves.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nacl.signing import SigningKey

from protocol.enrolment import KIND_SOLAR, MEASURES_GENERATION_AND_GRID, Enrolment, encode_enrolment
from protocol.limits import READINGS_PER_SEAL_MAX
from protocol.readings import Reading, encode_readings
from protocol.rotation import join_rotation
from protocol.seal import NO_PREDECESSOR, Seal, encode_seal, join_message, seal_hash, sha256
from protocol.settlement import Netting, first_closed_until
from protocol.topics import check_community_id, check_meter_id, domain_of

POWER_STEP_W = 400
POWER_W_MAX = 6_000
"""Production and consumption wander in steps of up to the one and never exceed the other."""
START_PRODUCTION_WH, START_CONSUMPTION_WH, START_SURPLUS_WH = 100_000, 80_000, 40_000
WATT_SECONDS_PER_WH = 3_600


@dataclass(frozen=True)
class FleetPlan:
    """Everything that a fleet's bytes follow from. Readings are taken at start + n × interval, n from 1."""

    community_id: str
    seed: int
    meters: int
    start_unix_s: int
    interval_s: int = 60
    readings_per_seal: int = 15
    seals_per_meter: int = 4
    prefix: str = "fleet"

    def __post_init__(self) -> None:
        """Raises ProtocolError for bad names, ValueError for numbers that make no fleet."""
        check_community_id(self.community_id)
        check_meter_id(self.meter_id(max(0, self.meters - 1)))
        if min(self.meters, self.interval_s, self.seals_per_meter) < 1:
            raise ValueError("a fleet has at least one meter, one seal each, and a second between readings")
        if not 1 <= self.readings_per_seal <= READINGS_PER_SEAL_MAX:
            raise ValueError(f"1 to {READINGS_PER_SEAL_MAX} readings fit into a seal")

    def meter_id(self, number: int) -> str:
        """The name of the n-th meter, from 0."""
        return f"{self.prefix}-{self.seed}-{number:05d}"

    def each_meter(self) -> "Iterator[SimulatedMeter]":
        """All meters of the fleet, before their first seal."""
        for number in range(self.meters):
            yield SimulatedMeter(
                meter_id=self.meter_id(number),
                key=seeded_key(f"{self.seed}/{number}"),
                domain=domain_of(self.community_id),
                start_unix_s=self.start_unix_s,
                interval_s=self.interval_s,
                readings_per_seal=self.readings_per_seal,
            )


@dataclass(frozen=True)
class SealedMessage:
    """One message, ready to publish."""

    meter_id: str
    sequence: int
    readings: int
    message: bytes


@dataclass(frozen=True)
class ExpectedEnergy:
    """What the hub must hold once every seal of a meter is stored. `sealed_…` are the counters of its last
    seal."""

    meter_id: str
    seals: int
    readings: int
    production_wh: int
    consumption_wh: int
    surplus_wh: int
    sealed_production_wh: int
    sealed_consumption_wh: int
    closed_until_unix_s: int


def seeded_key(text: str) -> SigningKey:
    """A key for simulations alone: whoever knows the text has it."""
    return SigningKey(hashlib.sha256(b"commonwatt simulated meter/" + text.encode()).digest())


class SimulatedMeter:
    """One meter with its key, its energy and its chain of seals."""

    def __init__(
        self,
        *,
        meter_id: str,
        key: SigningKey,
        domain: bytes,
        start_unix_s: int,
        interval_s: int = 60,
        readings_per_seal: int = 15,
    ) -> None:
        self.meter_id = meter_id
        self.key = key
        self.domain = domain
        self.start_unix_s = start_unix_s
        self.interval_s = interval_s
        self.readings_per_seal = readings_per_seal
        self.key_epoch = 1
        self.sequence = 0
        self.readings = 0
        self.last_seal_hash = NO_PREDECESSOR
        self._rng = random.Random(f"energy/{meter_id}/{bytes(key).hex()}")
        self._power_w = [self._rng.randrange(POWER_W_MAX), self._rng.randrange(POWER_W_MAX)]
        self._energy_ws = [0, 0]
        self._netting = Netting(
            first_closed_until(start_unix_s),
            START_PRODUCTION_WH,
            START_CONSUMPTION_WH,
            START_SURPLUS_WH,
            START_PRODUCTION_WH,
            START_CONSUMPTION_WH,
        )

    @property
    def owner_key(self) -> SigningKey:
        """What the owner endorses with when the meter's own key cannot."""
        return seeded_key(f"owner of {self.meter_id}")

    def enrolment(self) -> bytes:
        """The signed statement with which the meter registers: 244 bytes."""
        statement = encode_enrolment(
            Enrolment(
                self.domain,
                self.meter_id,
                KIND_SOLAR,
                MEASURES_GENERATION_AND_GRID,
                1,
                bytes(self.owner_key.verify_key),
                bytes(self.key.verify_key),
                START_PRODUCTION_WH,
                START_CONSUMPTION_WH,
                START_SURPLUS_WH,
                self.start_unix_s,
            )
        )
        return statement + self.key.sign(statement).signature

    def next_message(self) -> SealedMessage:
        """Take the next readings and seal them at the time of the last."""
        readings = [self._next_reading() for _ in range(self.readings_per_seal)]
        section = encode_readings(readings)
        self.sequence += 1
        seal = encode_seal(
            Seal(
                self.domain,
                self.sequence,
                readings[-1].time_unix_s,
                self._netting.closed_until_unix_s,
                self._netting.production_wh,
                self._netting.consumption_wh,
                self._netting.surplus_wh,
                self.last_seal_hash,
                sha256(section),
            )
        )
        self.last_seal_hash = seal_hash(seal)
        message = join_message(seal, self.key.sign(seal).signature, section)
        return SealedMessage(self.meter_id, self.sequence, len(readings), message)

    def rotation(self, next_key: SigningKey, endorser: SigningKey | None = None, **changes: Any) -> bytes:
        """What the meter hands in so that its next key takes over behind its last seal; its key endorses unless told.

        Changes nothing here; see `take_over`.
        """
        start = (START_PRODUCTION_WH, START_CONSUMPTION_WH, START_SURPLUS_WH, self.start_unix_s)
        netting = self._netting
        closed = (netting.production_wh, netting.consumption_wh, netting.surplus_wh, netting.closed_until_unix_s)
        is_new = self.sequence == 0 and self.key_epoch == 1
        production_wh, consumption_wh, surplus_wh, valid_from_unix_s = start if is_new else closed
        fields: dict[str, Any] = {
            "domain": self.domain,
            "meter_id": self.meter_id,
            "kind": KIND_SOLAR,
            "measurement": MEASURES_GENERATION_AND_GRID,
            "key_epoch": self.key_epoch + 1,
            "owner": bytes(self.owner_key.verify_key),
            "public_key": bytes(next_key.verify_key),
            "production_wh": production_wh,
            "consumption_wh": consumption_wh,
            "surplus_wh": surplus_wh,
            "valid_from_unix_s": valid_from_unix_s,
            "last_seal_hash": self.last_seal_hash,
        }
        signed = encode_enrolment(Enrolment(**(fields | changes)))
        endorsement = (self.key if endorser is None else endorser).sign(signed).signature
        return join_rotation(signed, next_key.sign(signed).signature, endorsement)

    def take_over(self, next_key: SigningKey) -> None:
        """Seal with the next key from now on; what was counted goes on."""
        self.key = next_key
        self.key_epoch += 1
        self.sequence = 0
        self.last_seal_hash = NO_PREDECESSOR

    def leap(self, production_wh: int) -> None:
        """From the next reading on, so much more was produced: a spike that the register itself shows."""
        self._energy_ws[0] += production_wh * WATT_SECONDS_PER_WH

    def messages(self, count: int) -> list[SealedMessage]:
        """The next so many messages."""
        return [self.next_message() for _ in range(count)]

    def expected(self) -> ExpectedEnergy:
        """The sums after everything sealed so far."""
        netting = self._netting
        return ExpectedEnergy(
            meter_id=self.meter_id,
            seals=self.sequence,
            readings=self.readings,
            production_wh=netting.last_production_wh,
            consumption_wh=netting.last_consumption_wh,
            surplus_wh=netting.surplus_wh,
            sealed_production_wh=netting.production_wh,
            sealed_consumption_wh=netting.consumption_wh,
            closed_until_unix_s=netting.closed_until_unix_s,
        )

    def _next_reading(self) -> Reading:
        self.readings += 1
        time_unix_s = self.start_unix_s + self.readings * self.interval_s
        for which in range(2):
            step_w = self._rng.randint(-POWER_STEP_W, POWER_STEP_W)
            self._power_w[which] = max(0, min(POWER_W_MAX, self._power_w[which] + step_w))
            self._energy_ws[which] += self._power_w[which] * self.interval_s
        production_wh = START_PRODUCTION_WH + self._energy_ws[0] // WATT_SECONDS_PER_WH
        consumption_wh = START_CONSUMPTION_WH + self._energy_ws[1] // WATT_SECONDS_PER_WH
        self._netting.add(time_unix_s, production_wh, consumption_wh)
        return Reading(
            time_unix_s,
            production_wh,
            consumption_wh,
            power_w=self._power_w[1] - self._power_w[0],
            voltage_dv=2_300 + self._rng.randint(-20, 20),
            frequency_mhz=50_000 + self._rng.randint(-30, 30),
        )
