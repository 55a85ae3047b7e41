"""What the readings domain tells those who look at it now: energy that came, seals that are held or released, alarms.

One update for each meter and batch, however many seals it brought: who wants each reading reads them over HTTP.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import Connection

from hub.live.owners import OfMeter, tell_owners
from hub.live.publishing import Update, publish
from hub.live.topics import ALERTS
from hub.readings.envelope import VerifiedSeal
from hub.readings.rules import Outcome, SealFacts, State, Stream, Verdict
from hub.readings.store import utc


def tell_of_batch(
    connection: Connection,
    streams: Mapping[tuple[int, int], Stream],
    verdicts: Iterable[tuple[VerifiedSeal, Verdict]],
    now: datetime,
) -> None:
    """Tell owners what was stored of their meters."""
    accepted: dict[tuple[int, int], list[tuple[VerifiedSeal, SealFacts]]] = {}
    held: Counter[tuple[int, int, str]] = Counter()
    for one, verdict in verdicts:
        if verdict.facts is not None and verdict.facts.state is State.ACCEPTED:
            accepted.setdefault((one.meter_no, one.key_epoch), []).append((one, verdict.facts))
        elif verdict.outcome is Outcome.QUARANTINED:
            held[one.meter_no, one.key_epoch, verdict.reason] += 1
    happened = []
    for key, brought in accepted.items():
        happened.append(OfMeter(streams[key].owner, "meter.read", _readings(streams[key], brought)))
    for (meter_no, key_epoch, reason), seals in held.items():
        stream = streams[meter_no, key_epoch]
        data = {"meter_id": stream.meter_id, "reason": reason, "seals": seals}
        happened.append(OfMeter(stream.owner, "meter.seals_held", data))
    if happened:
        tell_owners(connection, happened, now)


def tell_of_decision(
    connection: Connection, meter_id: str, owner: bytes, decision: str, seals: int, now: datetime
) -> None:
    """Tell an owner that an operator released or rejected seals."""
    tell_owners(connection, [OfMeter(owner, f"meter.seals_{decision}", {"meter_id": meter_id, "seals": seals})], now)


def tell_of_lost_gap(
    connection: Connection, meter_id: str, owner: bytes, key_epoch: int, first: int, last: int, now: datetime
) -> None:
    """Tell an owner that an operator gave missing seals up."""
    data = {"meter_id": meter_id, "key_epoch": key_epoch, "first_sequence": first, "last_sequence": last}
    tell_owners(connection, [OfMeter(owner, "meter.gap_lost", data)], now)


def tell_of_alarm(connection: Connection, alarm_id: int, kind: str, meter_id: str, why: str, now: datetime) -> None:
    """Tell operators what to look into."""
    data = {"alarm_id": alarm_id, "alarm": kind, "meter_id": meter_id, "raised_at": now, "why": why}
    publish(connection, [Update(ALERTS, "alarm.raised", data)], now)


def _readings(stream: Stream, seals: list[tuple[VerifiedSeal, SealFacts]]) -> dict[str, object]:
    """What a batch brought of a meter: which stretch of time, and the newest reading in it."""
    newest, facts = max(seals, key=lambda seal: seal[1].last_reading_unix_s)
    powers_w = newest.readings.powers_w
    return {
        "meter_id": stream.meter_id,
        "key_epoch": stream.key_epoch,
        "sequence": facts.sequence,
        "sealed_at": utc(facts.sealed_at_unix_s),
        "first_reading_at": utc(min(each.first_reading_unix_s for _, each in seals)),
        "last_reading_at": utc(facts.last_reading_unix_s),
        "production_wh": facts.last_production_wh,
        "consumption_wh": facts.last_consumption_wh,
        "power_w": None if powers_w is None else powers_w[-1],
        "seals": len(seals),
        "readings": sum(each.reading_count for _, each in seals),
    }
