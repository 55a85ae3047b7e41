"""What the fleet does on the hub's clock: its figures for Prometheus."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine

from hub import metrics
from hub.db import transaction
from hub.fleet import queries


def measure_fleet_once(engine: Engine, now: datetime) -> int:
    """Set the gauges of the whole fleet. Never a label that a device could invent."""
    with transaction(engine) as connection:
        totals = queries.sum_up_fleet(connection, now)
    for presence, count in totals.presences.items():
        metrics.FLEET_METERS.labels(presence).set(count)
    metrics.FLEET_PROBLEM_METERS.set(totals.meters_with_problems)
    metrics.FLEET_BACKLOG_SEALS.set(totals.backlog_seals)
    metrics.FLEET_MISSING_SEALS.set(totals.missing_seals)
    return 0
