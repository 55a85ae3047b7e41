"""Statuses as agents make them, noted in a real database."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from hub.db import transaction
from hub.fleet.service import Statement, record_statuses
from hub.fleet.status import parse_status


def status_bytes(**changes: object) -> bytes:
    """What a healthy agent says; a change of None leaves the field out."""
    said: dict[str, object] = {
        "state": "online",
        "agent": "0.1.0",
        "time_unix_s": int(datetime.now(UTC).timestamp()),
        "key_epoch": 1,
        "sequence": 1,
        "backlog_seals": 0,
        "unsealed_readings": 4,
        "clock": "synchronised",
        "transport": "mqtt5",
        "meters": [{"role": "grid", "map": "eastron_sdm120", "quantum_wh": "0.98"}],
        "problems": [],
        "counts": {"broker_lost": 1},
    } | changes
    return json.dumps({name: value for name, value in said.items() if value is not None}).encode()


@pytest.fixture
def say(engine) -> Callable[..., set[str]]:
    """Has a meter say something: say("roof", at=…, live=…, backlog_seals=…)."""

    def note(meter_id: str, at: datetime | None = None, live: bool = True, **changes: object) -> set[str]:
        statement = Statement(meter_id, parse_status(status_bytes(**changes)), at or datetime.now(UTC), live)
        with transaction(engine) as connection:
            return record_statuses(connection, [statement], datetime.now(UTC))

    return note
