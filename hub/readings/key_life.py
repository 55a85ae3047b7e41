"""Rotation and revocation as far as seals go: where the next key begins, and what a revoked key's word is worth.

Both lock the streams of all the meter's keys first, as ingest locks those of its batch, and the meter after them, so
that of a rotation and a seal that come at once one comes first: either the seal counts and the rotation names another
base than the last seal, or the seal is beyond the handover.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection

from hub.db import driver
from hub.errors import KeyAlreadyRevoked, KeyEpochDiffers, MalformedInput, RotationBaseDiffers, RotationTooOften
from hub.readings import decisions_store, store
from hub.readings.rules import KEY_REVOKED
from hub.registry import keys_service
from hub.registry import service as registry
from hub.registry.key_rules import BY_OLD_KEY, Base, Rotation, open_rotation
from hub.registry.keys_store import MeterKey
from hub.registry.rules import FIRST_EPOCH
from hub.registry.rules import KEY_REVOKED as REVOKED
from hub.registry.store import Meter
from protocol.limits import FUTURE_MAX_S
from protocol.seal import NO_PREDECESSOR
from protocol.topics import topic

CLOCK_DIFFERENCE_MAX = timedelta(seconds=FUTURE_MAX_S)
ROTATIONS_PER_DAY_MAX = 24
"""By the old key, and as many by the owner: a thief can neither fill the hub with keys nor use up the owner's part."""


def rotate_key(
    connection: Connection, meter_id: str, message: bytes, records: Sequence[bytes], domain: bytes, now: datetime
) -> tuple[MeterKey, bool]:
    """Let a new key take over; returns it, and whether it did so just now (the same bytes again change nothing).

    Raises RotationInvalid, MeterNotFound, MeterRetired, KeyEpochDiffers, RotationTooOften, RotationBaseDiffers,
    MeterKeyInUse.
    """
    rotation = open_rotation(message, records, meter_id, domain, int(now.timestamp()))
    meter = registry.get_meter(connection, meter_id)
    known = _find_same(connection, meter, rotation)
    if known:
        return known, False
    keys_service.check_endorsement(meter, keys_service.list_keys(connection, meter.meter_no), rotation)
    meter = _lock(connection, meter)  # only now: before, anybody could have locked anybody's meter
    known = _find_same(connection, meter, rotation)
    if known:
        return known, False
    keys = keys_service.list_keys(connection, meter.meter_no)
    endorsed_by = keys_service.check_endorsement(meter, keys, rotation)
    _check_pace(keys, endorsed_by, now)
    base = find_base(connection, meter.meter_no, keys)
    if difference := base.differs_from(rotation.statement):
        raise RotationBaseDiffers(difference)
    keys_service.install_key(connection, meter, rotation, endorsed_by, base, now)
    return keys_service.list_keys(connection, meter.meter_no)[-1], True


def _check_pace(keys: Sequence[MeterKey], endorsed_by: str, now: datetime) -> None:
    today = sum(key.endorsed_by == endorsed_by and key.registered_at > now - timedelta(days=1) for key in keys)
    if today >= ROTATIONS_PER_DAY_MAX:
        raise RotationTooOften(f"{today} within a day")


def find_base(connection: Connection, meter_no: int, keys: Sequence[MeterKey]) -> Base:
    """Where the next key must begin: the last seal that counts, or the statement of a key that has none yet.

    A revoked key of whose seals none counts is passed over: what it stated of itself is worth nothing either.
    """
    db = driver(connection)
    for key in reversed(keys):
        facts = decisions_store.find_last_counted(db, meter_no, key.key_epoch)
        if facts is not None:
            return Base(
                key.key_epoch,
                facts.sequence,
                facts.seal_hash,
                facts.closed_until_unix_s,
                facts.production_wh,
                facts.consumption_wh,
                facts.surplus_wh,
                facts.sealed_at_unix_s,
                facts.last_reading_unix_s,
                facts.last_production_wh,
                facts.last_consumption_wh,
                facts.production_excess_ws,
                facts.consumption_excess_ws,
            )
        if key.state != REVOKED or key.key_epoch == FIRST_EPOCH:
            return _statement_base(key)
    raise AssertionError("every meter has a first key")


def revoke_key(
    connection: Connection,
    meter_id: str,
    key_epoch: int,
    revoked_from: datetime,
    reason: str,
    community_id: str,
    actor: str,
    now: datetime,
) -> tuple[list[int], int]:
    """Take the word of a key back from a time on: what it sealed since no longer counts, and nothing new does.

    So do the keys that it endorsed since, one after another, with all that they sealed. Returns the epochs revoked and
    how many seals were withdrawn into the quarantine. Audited.

    Raises MeterNotFound, MeterKeyNotFound, KeyAlreadyRevoked, MalformedInput for a time to come.
    """
    if revoked_from > now + CLOCK_DIFFERENCE_MAX:
        raise MalformedInput("from: a key is revoked from now or from the past on")
    meter = _lock(connection, registry.get_meter(connection, meter_id))
    keys = keys_service.list_keys(connection, meter.meter_no)
    key = keys_service.find_key(keys, key_epoch)
    if key.revoked_from is not None and key.revoked_from <= revoked_from:
        raise KeyAlreadyRevoked(f"key epoch {key_epoch}, from {key.revoked_from.isoformat()}")
    revoked = [(key, revoked_from)] + [
        (each, each.valid_from)
        for each in _endorsed_since(keys, key, revoked_from)
        if each.revoked_from is None or each.revoked_from > each.valid_from
    ]
    name = topic(community_id, meter_id, "seals")
    db = driver(connection)
    withdrawn = 0
    for each, since in revoked:
        detail = f"key epoch {each.key_epoch} is revoked from {since.isoformat()}"
        rows = decisions_store.withdraw_sealed(db, meter.meter_no, each.key_epoch, since, each.revoked_from)
        store.insert_quarantine(
            db,
            [
                (meter.meter_no, each.key_epoch, sequence, name, KEY_REVOKED, detail, True, None, seal_hash, now)
                for sequence, seal_hash in rows
            ],
        )
        decisions_store.hold_for_revocation(db, meter.meter_no, each.key_epoch, since)
        withdrawn += len(rows)
    epochs = [(each.key_epoch, since) for each, since in revoked]
    keys_service.revoke_keys(connection, meter, epochs, reason, withdrawn, actor, now)
    return [each for each, _ in epochs], withdrawn


def _endorsed_since(keys: Sequence[MeterKey], revoked: MeterKey, since: datetime) -> list[MeterKey]:
    """The later keys whose only warrant is the revoked one's endorsement at a time when it was worth nothing."""
    found: list[MeterKey] = []
    for key in keys:
        if key.key_epoch <= revoked.key_epoch:
            continue
        if key.endorsed_by != BY_OLD_KEY or (not found and key.registered_at < since):
            break
        found.append(key)
    return found


def _find_same(connection: Connection, meter: Meter, rotation: Rotation) -> MeterKey | None:
    """The key that these very bytes installed. Raises KeyEpochDiffers if others have its place."""
    if rotation.statement.key_epoch > meter.key_epoch:
        return None
    keys = keys_service.list_keys(connection, meter.meter_no)
    key = keys_service.find_key(keys, rotation.statement.key_epoch)
    if keys_service.same_rotation(connection, meter.meter_no, key, rotation):
        return key
    raise KeyEpochDiffers(f"another key has epoch {key.key_epoch} of {meter.meter_id}")


def _lock(connection: Connection, meter: Meter) -> Meter:
    db = driver(connection)
    store.lock_streams_for_update(db, [(meter.meter_no, FIRST_EPOCH)])  # no key is born from here on but ours
    store.lock_streams_for_update(db, store.list_stream_epochs(db, meter.meter_no))
    return registry.get_meter_for_update(connection, meter.meter_id)


def _statement_base(key: MeterKey) -> Base:
    statement = key.decoded
    return Base(
        key.key_epoch,
        0,
        NO_PREDECESSOR,
        statement.valid_from_unix_s,
        statement.production_wh,
        statement.consumption_wh,
        statement.surplus_wh,
        key.base_sealed_at_unix_s,
        key.base_reading_unix_s,
        key.base_production_wh,
        key.base_consumption_wh,
        key.base_production_excess_ws,
        key.base_consumption_excess_ws,
    )
