"""Use cases of the readings domain. Each takes a transaction, decides by the rules, writes by the store.

`ingest` is the hot path: lock the streams of the batch, read what the rules need, judge message by message, write
everything, return. The caller commits and only then acknowledges. The database is the only memory: a worker that dies
anywhere loses nothing but time, and a seal posted over HTTP or through another worker meets the same locks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Final

from psycopg.errors import UniqueViolation
from sqlalchemy import Connection, Engine

from hub import audit, metrics
from hub.db import Driver, driver, ensure_monthly_partitions, ensure_months, transaction
from hub.errors import (
    GapAlreadyLost,
    GapNotFound,
    MeterNotFound,
    QuarantineAlreadyDecided,
    QuarantineEntryNotFound,
    QuarantineNotReleasable,
    SealEquivocates,
    SealNotTaken,
    SealUnverifiable,
)
from hub.readings import decisions_store, gaps_store, live_updates, store
from hub.readings.envelope import (
    BAD_SIGNATURE,
    UNKNOWN_METER,
    Arrival,
    KeyRing,
    MeterKeys,
    Readings,
    Refusal,
    VerifiedSeal,
    decode_readings,
    open_envelopes,
)
from hub.readings.notices import STOLEN_NAME, raise_alarm, tell_of_held
from hub.readings.rules import (
    EQUIVOCATION,
    RELEASABLE,
    TOO_OLD,
    Outcome,
    Policy,
    SealFacts,
    State,
    Stream,
    Verdict,
    judge,
)
from hub.registry import service as registry
from protocol.committed import Committed
from protocol.errors import ProtocolError
from protocol.limits import FUTURE_MAX_S
from protocol.seal import split_message
from protocol.settlement import interval_end
from protocol.topics import check_meter_id, topic

UNVERIFIED_KEPT_MAX: Final = 100
FORKS_KEPT_MAX: Final = 100
"""Of messages without a valid signature (per topic) and of second histories (per meter) so many are kept; beyond that
they are counted and logged. Every verified seal with a number of its own is kept."""
TOPIC_KEPT_CHARACTERS: Final = 200
STOLEN_NAME_MESSAGES: Final = 10
"""So many badly signed messages on a meter's topic in a day are no flipped bit: somebody else uses its account."""


@dataclass(slots=True)
class Ingested:
    """What a batch did. `receipts` tells each meter what is stored now; publish them after the commit."""

    verdicts: list[tuple[VerifiedSeal, Verdict]] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    not_kept: int = 0
    receipts: dict[str, Committed] = field(default_factory=dict)
    readings_stored: int = 0
    streams: dict[tuple[int, int], Stream] = field(default_factory=dict)


def ingest(connection: Connection, opened: Sequence[VerifiedSeal | Refusal], policy: Policy, now: datetime) -> Ingested:
    """Judge and store a batch in the caller's transaction. Raises only what the database raises."""
    done = Ingested(refusals=[result for result in opened if isinstance(result, Refusal)])
    sealed = [result for result in opened if isinstance(result, VerifiedSeal)]
    db = driver(connection)
    if sealed:
        done.streams = _load_streams(db, sealed)
        now_unix_s = int(now.timestamp())
        done.verdicts = [
            (one, judge(done.streams[one.meter_no, one.key_epoch], one, policy, now_unix_s)) for one in sealed
        ]
        _write(connection, done, now)
        _complete_hashes(db, done.streams)
        live_updates.tell_of_batch(connection, done.streams, done.verdicts, now)
        done.receipts = {stream.meter_id: receipt_of(stream) for stream in _current_streams(db, done.streams)}
    _keep_refusals(connection, done, now)
    return done


def receipt_of(stream: Stream) -> Committed:
    """What may be told to the meter once the transaction is committed."""
    return Committed(stream.key_epoch, stream.contiguous_sequence, stream.contiguous_seal_hash, stream.ranges_beyond())


def get_receipt(connection: Connection, meter_no: int, key_epoch: int) -> Committed:
    """What the hub has of this key's seals as the transaction sees it."""
    return receipt_of(store.list_streams(driver(connection), [(meter_no, key_epoch)])[meter_no, key_epoch])


def _current_streams(db: Driver, streams: dict[tuple[int, int], Stream]) -> list[Stream]:
    """The stream of each meter's current key, of which its receipt tells, also if only an old key's seals came.

    One that the batch does not write to is not locked: its receipt may be a moment old, which is never wrong.
    """
    wanted = {(stream.meter_no, stream.current_key_epoch) for stream in streams.values()}
    others = sorted(wanted - streams.keys())
    more = store.list_streams(db, others) if others else {}
    return [streams[key] if key in streams else more[key] for key in sorted(wanted)]


def _load_streams(db: Driver, sealed: Sequence[VerifiedSeal]) -> dict[tuple[int, int], Stream]:
    keys = sorted({(one.meter_no, one.key_epoch) for one in sealed})
    store.lock_streams_for_update(db, keys)
    streams = store.list_streams(db, keys)
    wanted = {
        (one.meter_no, one.key_epoch, needed)
        for one in sealed
        for needed in streams[one.meter_no, one.key_epoch].needed(one.seal.sequence)
        if needed > 0
    }
    by_gap = {
        (one.meter_no, one.key_epoch, one.seal.sequence + 1)
        for one in sealed
        if one.seal.sequence < streams[one.meter_no, one.key_epoch].highest_sequence
    }
    unsound = []
    for meter_no, key_epoch, received_at, facts in store.list_seal_facts(db, sorted(wanted)):
        if not facts.linked and (meter_no, key_epoch, facts.sequence) in by_gap:
            facts.readings = _stored_readings(db, meter_no, key_epoch, facts.sequence, received_at)
        if not facts.sound:
            unsound.append((meter_no, key_epoch, facts.sequence))
        streams[meter_no, key_epoch].known[facts.sequence] = facts
    if unsound:
        for meter_no, key_epoch, _, facts in store.list_sound_neighbours(db, unsound):
            streams[meter_no, key_epoch].known.setdefault(facts.sequence, facts)
    return streams


def _stored_readings(db: Driver, meter_no: int, key_epoch: int, sequence: int, received_at: datetime) -> Readings:
    message = store.find_evidence(db, meter_no, key_epoch, sequence, received_at)
    assert message is not None, "every stored seal has its evidence"
    return decode_readings(split_message(message).section)


def _write(connection: Connection, done: Ingested, now: datetime) -> None:
    db = driver(connection)
    admitted = [(one, verdict.facts) for one, verdict in done.verdicts if verdict.facts]
    if admitted:
        accepted = [(one, facts) for one, facts in admitted if facts.state is State.ACCEPTED]
        store.copy_seals(
            db, [(one.meter_no, one.key_epoch, facts, one.arrival.payload) for one, facts in admitted], now
        )
        store.copy_readings(db, [(one.meter_no, one.readings) for one, _ in accepted])
        store.upsert_interval_closings(db, [(one.meter_no, one.key_epoch, one.readings) for one, _ in accepted])
        done.readings_stored = sum(len(one.readings) for one, _ in accepted)
        touched = {(one.meter_no, one.key_epoch) for one, _ in admitted}
        store.update_streams(db, [done.streams[key] for key in sorted(touched)])
    in_batch = {(one.meter_no, one.key_epoch, one.seal.sequence) for one, _ in admitted}
    gapped = [stream for stream in done.streams.values() if stream.gaps_changed]
    if gapped:
        store.replace_gaps(db, gapped, now)
    _keep_quarantined(connection, done, now)  # may lock meters: after the gaps, as the job that asks for them does
    _settle_successors(connection, done, in_batch, now)
    tell_of_held(connection, _held_reasons(done), now)


def _held_reasons(done: Ingested) -> dict[int, str]:
    """Why seals are held from now on, one reason for each meter."""
    reasons = {}
    for one, verdict in done.verdicts:
        if verdict.outcome is Outcome.QUARANTINED:
            reasons[one.meter_no] = verdict.reason
        elif verdict.successor_fault:
            reasons[one.meter_no] = verdict.successor_fault[0]
    return reasons


def _settle_successors(
    connection: Connection, done: Ingested, in_batch: set[tuple[int, int, int]], now: datetime
) -> None:
    """Write what late predecessors showed about seals stored before this batch."""
    db = driver(connection)
    linked = []
    for one, verdict in done.verdicts:
        successor = verdict.successor
        if successor is None:
            continue
        key = (one.meter_no, one.key_epoch, successor.sequence)
        fault = verdict.successor_fault
        if key not in in_batch:
            if fault is None:
                linked.append(key)
            else:
                _withdraw(db, key, successor)
        if fault:
            row = (*key, one.arrival.topic, *fault, True, None, successor.seal_hash, now)
            store.insert_quarantine(db, [row])
    if linked:
        store.link_seals(db, linked)


def _withdraw(db: Driver, key: tuple[int, int, int], facts: SealFacts) -> None:
    """Take back what a seal brought, if it did: a held one, perhaps of an old key, claims times that are another's."""
    if decisions_store.set_seal_unsound(db, *key):
        decisions_store.withdraw_readings(db, *key[:2], facts.first_reading_unix_s, facts.last_reading_unix_s)


def _keep_quarantined(connection: Connection, done: Ingested, now: datetime) -> None:
    db = driver(connection)
    rows = []
    forks = [one.meter_no for one, verdict in done.verdicts if verdict.outcome is Outcome.EQUIVOCATION]
    forks_kept = store.count_quarantined(db, EQUIVOCATION, forks) if forks else {}
    for one, verdict in done.verdicts:
        if verdict.outcome is Outcome.QUARANTINED:
            kept: tuple[bytes | None, bytes] = (None, one.seal_hash)
        elif verdict.outcome is Outcome.EQUIVOCATION:
            forks_kept[one.meter_no] = forks_kept.get(one.meter_no, 0) + 1
            _answer_equivocation(connection, done, one, verdict.detail, forks_kept[one.meter_no], now)
            if forks_kept[one.meter_no] > FORKS_KEPT_MAX:
                done.not_kept += 1
                continue
            kept = (one.arrival.payload, sha256(one.arrival.payload).digest())
        else:
            continue
        rows.append(
            (
                one.meter_no,
                one.key_epoch,
                one.seal.sequence,
                one.arrival.topic,
                verdict.reason,
                verdict.detail,
                True,
                *kept,
                now,
            )
        )
    if rows:
        store.insert_quarantine(db, rows)


def _answer_equivocation(
    connection: Connection, done: Ingested, one: VerifiedSeal, detail: str, forks: int, now: datetime
) -> None:
    """Suspend a meter whose current key signed two histories. An old or revoked key's holder can silence nobody so."""
    stream = done.streams[one.meter_no, one.key_epoch]
    if one.key_epoch == stream.current_key_epoch and not stream.key_revoked:
        alarming = registry.suspend_for_equivocation(connection, one.meter_no, one.meter_id, detail, now)
    else:
        alarming = forks == 1
    if alarming:
        alarm: dict[str, object] = {"key_epoch": one.key_epoch, "sequence": one.seal.sequence, "detail": detail}
        raise_alarm(connection, EQUIVOCATION, one.meter_no, alarm, now)


def _note_stolen_names(connection: Connection, done: Ingested, now: datetime) -> None:
    """Raise an alarm, once a day and meter, when many messages under its name are signed by none of its keys."""
    counts = Counter(
        refusal.meter_no
        for refusal in done.refusals
        if refusal.reason == BAD_SIGNATURE and refusal.meter_no is not None
    )
    if not counts:
        return
    for meter_no, messages in store.count_bad_signatures(driver(connection), dict(counts), now).items():
        if messages - counts[meter_no] < STOLEN_NAME_MESSAGES <= messages:
            detail: dict[str, object] = {"day": f"{now:%Y-%m-%d}", "messages": messages}
            raise_alarm(connection, STOLEN_NAME, meter_no, detail, now)


def _keep_refusals(connection: Connection, done: Ingested, now: datetime) -> None:
    if not done.refusals:
        return
    _note_stolen_names(connection, done, now)
    db = driver(connection)
    kept = store.count_unverified_quarantine(db, [_kept_topic(refusal) for refusal in done.refusals])
    rows = []
    for refusal in done.refusals:
        name = _kept_topic(refusal)
        if kept.get(name, 0) >= UNVERIFIED_KEPT_MAX:
            done.not_kept += 1
            continue
        kept[name] = kept.get(name, 0) + 1
        payload = refusal.arrival.payload
        digest = sha256(payload).digest()
        rows.append((refusal.meter_no, None, None, name, refusal.reason, refusal.detail, False, payload, digest, now))
    if rows:
        store.insert_quarantine(db, rows)


def _kept_topic(refusal: Refusal) -> str:
    """The topic as the database can hold and index it; legal ones are shorter and have no such character."""
    return refusal.arrival.topic[:TOPIC_KEPT_CHARACTERS].replace("\x00", "\ufffd")


def _complete_hashes(db: Driver, streams: dict[tuple[int, int], Stream]) -> None:
    """Fetch the hash of a contiguous end that lies beyond what the batch had loaded."""
    unknown = [
        (stream.meter_no, stream.key_epoch, stream.contiguous_sequence)
        for stream in streams.values()
        if stream.contiguous_sequence and stream.contiguous_seal_hash is None
    ]
    if not unknown:
        return
    for meter_no, key_epoch, _, facts in store.list_seal_facts(db, unknown):
        streams[meter_no, key_epoch].contiguous_seal_hash = facts.seal_hash
    store.update_streams(db, [streams[key[:2]] for key in unknown])


# --- one seal over HTTP ----------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Posted:
    """The answer to a posted seal, true once the transaction is committed."""

    state: str
    reason: str
    key_epoch: int
    sequence: int
    receipt: Committed


def receive_posted(engine: Engine, policy: Policy, meter_id: str, message: bytes, now: datetime) -> Posted:
    """Store one posted seal in a transaction of its own.

    Raises MeterNotFound, or SealUnverifiable when no key of the meter signed these bytes: nothing is kept then,
    because anybody may post. Raises SealEquivocates, after the meter is suspended, when another seal has this number,
    and SealNotTaken when the meter must send it again later.
    """
    try:
        name = topic(policy.community_id, check_meter_id(meter_id), "seals")
    except ProtocolError as fault:
        raise MeterNotFound(meter_id) from fault
    metrics.MESSAGES_RECEIVED.labels("http").inc()
    [opened] = open_envelopes([Arrival(name, message)], policy.community_id, policy.domain, key_ring(engine))
    if isinstance(opened, Refusal):
        metrics.MESSAGE_OUTCOMES.labels("refused", opened.reason).inc()
        if opened.reason == UNKNOWN_METER:
            raise MeterNotFound(meter_id)
        raise SealUnverifiable(f"{opened.reason}: {opened.detail}")
    ensure_months(engine, months_of([opened], policy, now))
    with transaction(engine) as connection:
        done = ingest(connection, [opened], policy, now)
    count(done)
    [(_, verdict)] = done.verdicts
    stream = done.streams[opened.meter_no, opened.key_epoch]
    if verdict.outcome is Outcome.EQUIVOCATION:
        raise SealEquivocates(verdict.detail)
    if verdict.outcome is Outcome.NOT_TAKEN:
        raise SealNotTaken(f"{verdict.reason}: {verdict.detail}")
    return Posted(verdict.outcome.value, verdict.reason, opened.key_epoch, opened.seal.sequence, receipt_of(stream))


def key_ring(engine: Engine) -> KeyRing:
    """A key ring that reads from this database, each time in a transaction of its own."""

    def load(meter_ids: Sequence[str]) -> list[MeterKeys]:
        with transaction(engine) as connection:
            return store.list_meter_keys(driver(connection), meter_ids)

    return KeyRing(load)


def months_of(opened: Sequence[VerifiedSeal | Refusal], policy: Policy, now: datetime) -> set[tuple[int, int]]:
    """The months whose partitions a batch may write to: of its arrival, its readings and their intervals.

    Readings outside what the policy accepts are not stored, so a liar's clock creates no partition.
    """
    earliest_unix_s = int(now.timestamp()) - policy.backlog_age_max_s
    latest_unix_s = int(now.timestamp()) + FUTURE_MAX_S
    months = {(now.year, now.month)}
    for one in opened:
        if isinstance(one, VerifiedSeal):
            first, last = one.readings.times_unix_s[0], one.readings.times_unix_s[-1]
            months |= months_between(max(first, earliest_unix_s), min(interval_end(last), latest_unix_s + 900))
    return months


def months_between(first_unix_s: int, last_unix_s: int) -> set[tuple[int, int]]:
    """Every month from one time to another; none if they are the wrong way round."""
    if last_unix_s < first_unix_s:
        return set()
    first, last = store.utc(first_unix_s), store.utc(last_unix_s)
    return {
        (month // 12, month % 12 + 1) for month in range(first.year * 12 + first.month - 1, last.year * 12 + last.month)
    }


def count(done: Ingested) -> None:
    """Add a committed batch to the metrics."""
    metrics.READINGS_STORED.inc(done.readings_stored)
    outcomes = Counter((verdict.outcome.value, verdict.reason) for _, verdict in done.verdicts)
    outcomes.update(("refused", refusal.reason) for refusal in done.refusals)
    for (outcome, reason), number in outcomes.items():
        metrics.MESSAGE_OUTCOMES.labels(outcome, reason).inc(number)


# --- what an operator decides ----------------------------------------------------------------------------------


def release(connection: Connection, quarantine_id: int, actor: str, note: str, now: datetime) -> None:
    """Let a quarantined seal count after all. Audited.

    Raises QuarantineEntryNotFound, QuarantineAlreadyDecided, or QuarantineNotReleasable for what contradicts the
    meter's own signatures.
    """
    entry = _undecided(connection, quarantine_id)
    if entry.reason not in RELEASABLE or entry.sequence is None or entry.key_epoch is None:
        raise QuarantineNotReleasable(entry.reason)
    assert entry.meter_no is not None
    _count_after_all(connection, entry.meter_no, entry.key_epoch, entry.sequence)
    _decide(connection, quarantine_id, "released", actor, note, now)
    _tell_of_decision(connection, entry.meter_no, "released", now)


def reject(connection: Connection, quarantine_id: int, actor: str, note: str, now: datetime) -> None:
    """Decide that a quarantined message never counts. Audited. Raises as `release` does."""
    entry = _undecided(connection, quarantine_id)
    if entry.sequence is not None and entry.meter_no is not None and entry.reason != EQUIVOCATION:
        assert entry.key_epoch is not None
        decisions_store.set_seal_state(
            driver(connection), entry.meter_no, entry.key_epoch, entry.sequence, State.REJECTED
        )
    _decide(connection, quarantine_id, "rejected", actor, note, now)
    if entry.sequence is not None and entry.meter_no is not None:
        _tell_of_decision(connection, entry.meter_no, "rejected", now)


def _tell_of_decision(connection: Connection, meter_no: int, decision: str, now: datetime) -> None:
    meter = registry.get_meter(connection, registry.get_meter_id(connection, meter_no))
    live_updates.tell_of_decision(connection, meter.meter_id, meter.owner, decision, 1, now)


def release_backlog(connection: Connection, meter_id: str, actor: str, note: str, now: datetime) -> int:
    """Release all seals of a meter that are held only for their age and whose chain verifies. Returns how many."""
    db = driver(connection)
    meter = registry.get_meter(connection, meter_id)
    store.lock_streams_for_update(db, store.list_stream_epochs(db, meter.meter_no))  # before entries, as everywhere
    entries = decisions_store.list_linked_for_update(db, meter_id, TOO_OLD)
    for entry in entries:
        assert entry.meter_no is not None and entry.key_epoch is not None and entry.sequence is not None
        _count_after_all(connection, entry.meter_no, entry.key_epoch, entry.sequence)
        _decide(connection, entry.quarantine_id, "released", actor, note, now)
    if entries:
        live_updates.tell_of_decision(connection, meter_id, meter.owner, "released", len(entries), now)
    return len(entries)


def declare_gap_lost(
    connection: Connection, meter_id: str, key_epoch: int, first: int, actor: str, reason: str, now: datetime
) -> int:
    """Give up the gap that begins with this sequence, so that minting can go across it; returns where it ends. Audited.

    Of what the counters say across it, only what cannot be anything but surplus is credited; the rest is written off.
    Seals of it that come after all are kept as evidence and held; they count only if an operator releases them before
    minting has gone across.

    Raises MeterNotFound, GapNotFound, GapAlreadyLost.
    """
    db = driver(connection)
    meter = registry.get_meter(connection, meter_id)
    store.lock_streams_for_update(db, [(meter.meter_no, key_epoch)])  # a seal of it that comes now is before or after
    last = gaps_store.find_gap_last(db, meter.meter_no, key_epoch, first)
    if last is None:
        raise GapNotFound(f"no gap of key epoch {key_epoch} begins with {first}")
    if gaps_store.find_lost_gap_for_update(db, meter.meter_no, key_epoch, first) is not None:
        raise GapAlreadyLost(f"key epoch {key_epoch}, seals {first} to {last}")
    gaps_store.insert_lost_gap(db, meter.meter_no, key_epoch, first, last, actor, reason, now)
    detail = {"key_epoch": key_epoch, "first_sequence": first, "last_sequence": last, "reason": reason}
    audit.append_audit(connection, now, actor, "gap.declare_lost", f"meter:{meter_id}", detail)
    live_updates.tell_of_lost_gap(connection, meter_id, meter.owner, key_epoch, first, last, now)
    return last


def _undecided(connection: Connection, quarantine_id: int) -> decisions_store.Entry:
    db = driver(connection)
    store.lock_streams_for_update(db, decisions_store.list_streams_of_entry(db, quarantine_id))  # as ingest: first
    entry = decisions_store.find_entry_for_update(db, quarantine_id)
    if entry is None:
        raise QuarantineEntryNotFound(str(quarantine_id))
    if entry.state != "held":
        raise QuarantineAlreadyDecided(entry.state)
    return entry


def _count_after_all(connection: Connection, meter_no: int, key_epoch: int, sequence: int) -> None:
    """Give a held seal's readings to the meter. The caller has locked the stream."""
    db = driver(connection)
    lost = gaps_store.find_lost_gap_for_update(db, meter_no, key_epoch, sequence)
    if lost is not None and lost[2]:
        raise QuarantineNotReleasable("it was declared lost, and minting has gone across it")
    [(_, _, received_at, facts)] = store.list_seal_facts(db, [(meter_no, key_epoch, sequence)])
    [stream] = store.list_streams(db, [(meter_no, key_epoch)]).values()
    if stream.superseded_after is not None and sequence > stream.superseded_after:
        _check_comes_before_later_keys(db, meter_no, key_epoch, facts)
    readings = _stored_readings(db, meter_no, key_epoch, sequence, received_at)
    ensure_monthly_partitions(
        connection, months_between(facts.first_reading_unix_s, interval_end(facts.last_reading_unix_s))
    )
    try:
        store.copy_readings(db, [(meter_no, readings)])
    except UniqueViolation as fault:
        raise QuarantineNotReleasable("another seal that counts has a reading at the same instant") from fault
    store.upsert_interval_closings(db, [(meter_no, key_epoch, readings)])
    decisions_store.set_seal_state(db, meter_no, key_epoch, sequence, State.RELEASED)


def _check_comes_before_later_keys(db: Driver, meter_no: int, key_epoch: int, facts: SealFacts) -> None:
    """A seal beyond the handover may count only between it and the first reading of every later key.

    Otherwise two keys would count the same energy. Raises QuarantineNotReleasable.
    """
    for first_unix_s, production_wh, consumption_wh in decisions_store.list_later_starts(db, meter_no, key_epoch):
        if first_unix_s is None or production_wh is None or consumption_wh is None:
            raise QuarantineNotReleasable("another key has taken over, and its first seal is not here yet")
        if (
            facts.last_reading_unix_s >= first_unix_s
            or facts.last_production_wh > production_wh
            or facts.last_consumption_wh > consumption_wh
        ):
            raise QuarantineNotReleasable("another key has taken over and measured the same time or energy")


def _decide(connection: Connection, quarantine_id: int, state: str, actor: str, note: str, now: datetime) -> None:
    decisions_store.set_decision(driver(connection), quarantine_id, state, actor, note, now)
    audit.append_audit(connection, now, actor, f"quarantine.{state}", f"quarantine:{quarantine_id}", {"note": note})
