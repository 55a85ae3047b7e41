"""A hub that ingests, a model of the program, and rounds of minting between them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise

import pytest
from solders.pubkey import Pubkey

from hub.chain import lookup_tables, lookup_tables_store
from hub.db import create_database_engine, snapshot, transaction
from hub.minting import queries, service
from hub.minting.queries import Balance
from hub.minting.rules import QUIET, Nothing, Step
from hub.readings import service as readings
from protocol.seal import decode_seal
from simulators.sealing import SealedMessage, SimulatedMeter
from tests.hub.minting.chain_model import AT, MINT, PROGRAM, ModelChain
from tests.hub.readings.conftest import POLICY, START, Hub, fleet

METERS_MAX = 50


@dataclass
class House(Hub):
    """The hub of the readings' tests, with a chain behind it."""

    chain: ModelChain = None  # type: ignore[assignment]

    def join(self, *meters: SimulatedMeter, capacity_w: int = 10_000) -> None:
        """Register here and there."""
        self.register(*meters)
        for meter in meters:
            self.chain.register(meter.meter_id, self.now, capacity_w)

    def make_table(self, *meters: SimulatedMeter) -> None:
        """A lookup table with what mints of these meters name, finalized."""
        table = Pubkey.from_bytes(hashlib.sha256(b"a table").digest())
        owners = [bytes(meter.owner_key.verify_key) for meter in meters]
        pairs = [
            (AT.meter(meter.meter_id), AT.grid_account(owner, MINT))
            for meter, owner in zip(meters, owners, strict=True)
        ]
        addresses = [*lookup_tables.common_addresses(AT, MINT), *(each for pair in pairs for each in pair)]
        with transaction(self.engine) as connection:
            connection.execute(
                lookup_tables_store.chain_lookup_tables.insert().values(table_address=bytes(table), created_at=self.now)
            )
            lookup_tables_store.insert_addresses(connection, table, 0, addresses)
            lookup_tables_store.set_extended(connection, table, 1)

    def plan(self) -> int:
        with transaction(self.engine) as connection:
            return service.plan_steps(connection, bytes(PROGRAM), METERS_MAX, self.now)

    def mint(self, rounds: int = 1) -> int:
        """So many rounds, each finalized before the next; how many steps were done."""
        steps = 0
        for _ in range(rounds):
            self.now += timedelta(seconds=60)
            steps += self.plan()
            self.chain.work(self.now)
        return steps

    def mint_all(self) -> None:
        """Until nothing more happens."""
        for _ in range(40):
            if not self.mint():
                return
        raise AssertionError("minting goes on for ever")

    def step(self, meter_id: str) -> Step:
        with transaction(self.engine) as connection:
            return service.assess(connection, meter_id, self.now).step

    def why(self, meter_id: str) -> str:
        """Why nothing is minted now."""
        step = self.step(meter_id)
        assert isinstance(step, Nothing), step
        return step.reason.value

    def by_day(self, meter_id: str) -> dict[date, Balance]:
        step = self.step(meter_id)
        stopped = isinstance(step, Nothing) and step.reason not in QUIET | {"gap", "held_seal"}
        with snapshot(self.engine) as connection:
            meter = service.assess(connection, meter_id, self.now).meter
            days = queries.list_balances(connection, meter.meter_no, stopped=stopped)
        for day, each in days.items():
            given = each.accepted_wh + each.taken_back_wh
            found = each.minted_wh + each.written_off_wh + each.earned_back_wh + each.pending_wh + each.held_wh
            assert given == found, (day, each)
        return days

    def balance(self, meter_id: str) -> Balance:
        return sum(self.by_day(meter_id).values(), Balance())

    def entries(self, reason: str | None = None) -> list[int]:
        rows = self.rows("SELECT quarantine_id, reason FROM quarantine WHERE state = 'held' ORDER BY 1")
        return [int(str(number)) for number, why in rows if reason in (None, why)]

    def declare_lost(self, meter_id: str, first: int, key_epoch: int = 1) -> int:
        with transaction(self.engine) as connection:
            return readings.declare_gap_lost(
                connection, meter_id, key_epoch, first, "operator", "the device burnt", self.now
            )


@pytest.fixture
def house(database_url: str) -> Iterator[House]:
    engine = create_database_engine(database_url, "commonwatt-test")
    chain = ModelChain(engine, POLICY.domain)
    found = House(engine, START + timedelta(days=1), chain=chain)
    chain.start(found.now)
    yield found
    engine.dispose()


def sunny(meters: int = 1, seed: int = 1, readings_per_seal: int = 15) -> list[SimulatedMeter]:
    """Homes that begin with much sun and little use."""
    found = fleet(meters, seed, readings_per_seal)
    for meter in found:
        meter._power_w = [5_000, 1_000]
    return found


@pytest.fixture
def home(house: House) -> SimulatedMeter:
    [meter] = sunny()
    house.join(meter)
    return meter


def surplus_of(messages: list[SealedMessage]) -> list[int]:
    """What each of these consecutive seals adds to the surplus, from their bytes."""
    counters = [decode_seal(message.message[:124]).surplus_wh for message in messages]
    return [later - earlier for earlier, later in pairwise(counters)]
