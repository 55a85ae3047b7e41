"""A registered fleet and a hub's database, for tests that feed seals to it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from hub.db import create_database_engine, ensure_months, transaction
from hub.readings import service
from hub.readings.envelope import Arrival, open_envelopes
from hub.readings.rules import Policy
from hub.registry.service import Capacity, register_meter
from protocol.topics import domain_of, topic
from simulators.sealing import FleetPlan, SealedMessage, SimulatedMeter

COMMUNITY_ID = "test-community"
START = datetime(2026, 3, 28, 22, 0, tzinfo=UTC)
"""A spring evening: two hours before a month's last days, three before a clock change nobody here may notice."""
POLICY = Policy(COMMUNITY_ID, domain_of(COMMUNITY_ID), backlog_age_max_s=35 * 86_400)
CAPACITY = Capacity(production_capacity_w=10_000, connection_capacity_w=20_000)


@dataclass
class Hub:
    """The ingest as a worker drives it, without broker and threads."""

    engine: Engine
    now: datetime = START + timedelta(hours=2)
    done: list[service.Ingested] = field(default_factory=list)

    def register(self, *meters: SimulatedMeter) -> None:
        with transaction(self.engine) as connection:
            for meter in meters:
                register_meter(
                    connection, meter.enrolment(), CAPACITY, POLICY.domain, POLICY.backlog_age_max_s, "test", self.now
                )

    def take(self, *messages: SealedMessage | tuple[str, bytes]) -> service.Ingested:
        """One batch: sealed messages, or (topic, payload) as the broker may bring them."""
        arrivals = [
            Arrival(topic(COMMUNITY_ID, message.meter_id, "seals"), message.message)
            if isinstance(message, SealedMessage)
            else Arrival(*message)
            for message in messages
        ]
        opened = open_envelopes(arrivals, COMMUNITY_ID, POLICY.domain, service.key_ring(self.engine))
        ensure_months(self.engine, service.months_of(opened, POLICY, self.now))
        with transaction(self.engine) as connection:
            done = service.ingest(connection, opened, POLICY, self.now)
        self.done.append(done)
        return done

    def rows(self, query: str, **values: object) -> list[tuple[object, ...]]:
        with transaction(self.engine) as connection:
            return [tuple(row) for row in connection.execute(text(query), values)]

    def value(self, query: str, **values: object) -> object:
        [[value]] = self.rows(query, **values)
        return value

    def stored_energy_wh(self, meter_id: str) -> tuple[int, int]:
        """Production and consumption by the last closing: what a bill would be made of."""
        [row] = self.rows(
            "SELECT max(production_wh), max(consumption_wh) FROM interval_closings JOIN meters USING (meter_no)"
            " WHERE meter_id = :meter_id",
            meter_id=meter_id,
        )
        assert isinstance(row[0], int) and isinstance(row[1], int)
        return row[0], row[1]

    def release(self, quarantine_id: int) -> None:
        with transaction(self.engine) as connection:
            service.release(connection, quarantine_id, "operator", "looked at it", self.now)

    def reject(self, quarantine_id: int) -> None:
        with transaction(self.engine) as connection:
            service.reject(connection, quarantine_id, "operator", "looked at it", self.now)


@pytest.fixture
def hub(database_url: str) -> Iterator[Hub]:
    engine = create_database_engine(database_url, "commonwatt-test")
    yield Hub(engine)
    engine.dispose()


def fleet(meters: int = 1, seed: int = 1, readings_per_seal: int = 15, interval_s: int = 60) -> list[SimulatedMeter]:
    plan = FleetPlan(
        COMMUNITY_ID,
        seed,
        meters,
        int(START.timestamp()),
        interval_s=interval_s,
        readings_per_seal=readings_per_seal,
    )
    return list(plan.each_meter())


@pytest.fixture
def home(hub: Hub) -> SimulatedMeter:
    [meter] = fleet()
    hub.register(meter)
    return meter
