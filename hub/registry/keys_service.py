"""Use cases of a meter's keys, as far as the registry goes; what seals have to do with it: `hub/readings/key_life.py`.

Old keys are kept for ever: old seals are verified with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from psycopg import errors as pg
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from hub.audit import append_audit
from hub.errors import CredentialRequestInvalid, KeyEpochDiffers, MeterKeyInUse, MeterKeyNotFound, MeterRetired
from hub.live.owners import OfMeter, tell_owners
from hub.notifications.kinds import instant
from hub.notifications.service import notify_owner, tell_later
from hub.registry import key_rules, keys_store, rules, store
from hub.registry.key_rules import Base, Exchange, Rotation
from hub.registry.keys_store import MeterKey
from hub.registry.service import broker_password


def list_keys(connection: Connection, meter_no: int) -> list[MeterKey]:
    """All keys that the meter ever had, oldest first; never empty."""
    return keys_store.list_keys(connection, meter_no)


def list_exchanges(connection: Connection, meter_no: int) -> dict[int, list[bytes]]:
    """The signed records of exchanged meters, by key epoch."""
    return keys_store.list_replacements(connection, meter_no)


def check_endorsement(meter: store.Meter, keys: Sequence[MeterKey], rotation: Rotation) -> str:
    """Who vouches for the rotation. Raises MeterRetired, KeyEpochDiffers, RotationInvalid."""
    if meter.state == rules.RETIRED:
        raise MeterRetired(meter.meter_id)
    if rotation.statement.key_epoch != meter.key_epoch + 1:
        raise KeyEpochDiffers(f"the next key epoch of {meter.meter_id} is {meter.key_epoch + 1}")
    current = find_key(keys, meter.key_epoch)  # the list may be a moment younger than the meter
    return key_rules.endorser_of(
        rotation, current.decoded, meter.owner, current_key_revoked=current.state == rules.KEY_REVOKED
    )


def install_key(
    connection: Connection, meter: store.Meter, rotation: Rotation, endorsed_by: str, base: Base, now: datetime
) -> None:
    """Let the new key take over behind its base: the epochs from there on end, its own begins. Audited.

    The caller holds the locks and has checked everything else. Raises MeterKeyInUse.
    """
    statement = rotation.statement
    for key_epoch in range(base.key_epoch, meter.key_epoch + 1):
        after_sequence = base.sequence if key_epoch == base.key_epoch else 0
        keys_store.set_superseded(connection, meter.meter_no, key_epoch, after_sequence, now)
    try:
        keys_store.insert_meter_key(connection, _key_row(meter.meter_no, rotation, endorsed_by, base, now))
    except IntegrityError as fault:
        constraint = fault.orig.diag.constraint_name if isinstance(fault.orig, pg.UniqueViolation) else None
        raise MeterKeyInUse if constraint == keys_store.PUBLIC_KEY_TAKEN else fault from fault
    keys_store.insert_empty_stream(connection, meter.meter_no, statement.key_epoch)
    keys_store.insert_replacements(connection, [_exchange_row(meter.meter_no, each) for each in rotation.exchanges])
    minting_allowed = key_rules.is_minting_allowed(
        allowed=meter.minting_allowed,
        netted_before=meter.phases_netted,
        netted_now=rotation.phases_netted,
        meter_replaced=rotation.meter_replaced,
    )
    store.set_current_key(connection, meter.meter_no, statement.key_epoch, rotation.phases_netted, minting_allowed)
    append_audit(
        connection,
        now,
        f"meter:{meter.meter_id}",
        "meter.rotate_key",
        f"meter:{meter.meter_id}",
        {
            "key_epoch": statement.key_epoch,
            "public_key": statement.public_key.hex(),
            "endorsed_by": endorsed_by,
            "base": [base.key_epoch, base.sequence],
            "meter_replaced": rotation.meter_replaced,
            "phases_netted": rotation.phases_netted,
            "minting_allowed": minting_allowed,
        },
    )
    told = {
        "meter_id": meter.meter_id,
        "key_epoch": statement.key_epoch,
        "vouched_for_by": "the key before it" if endorsed_by == key_rules.BY_OLD_KEY else "you, the owner",
    }
    tell_later(connection, f"meter:{meter.meter_id}", "meter.key_rotated", told, now, owner=meter.owner)
    tell_owners(connection, [OfMeter(meter.owner, "meter.key_rotated", told)], now)


def same_rotation(connection: Connection, meter_no: int, key: MeterKey, rotation: Rotation) -> bool:
    """Whether this key was installed by exactly these bytes."""
    records = keys_store.list_replacements(connection, meter_no).get(key.key_epoch, [])
    handed_in = sorted(rotation.exchanges, key=lambda each: each.record.register)
    return (key.statement, key.signature, key.endorsement, records) == (
        rotation.signed,
        rotation.signature,
        rotation.endorsement,
        [each.signed + each.signature for each in handed_in],
    )


def revoke_keys(
    connection: Connection,
    meter: store.Meter,
    revoked: Sequence[tuple[int, datetime]],
    reason: str,
    withdrawn: int,
    actor: str,
    now: datetime,
) -> None:
    """Take the word of these keys (epoch, from when) back. Audited; the caller holds the locks and withdraws seals."""
    for key_epoch, revoked_from in revoked:
        keys_store.set_revoked(connection, meter.meter_no, key_epoch, revoked_from)
    detail = {
        "reason": reason,
        "keys": [[key_epoch, revoked_from.isoformat()] for key_epoch, revoked_from in revoked],
        "withdrawn_seals": withdrawn,
    }
    append_audit(connection, now, actor, "meter.revoke_key", f"meter:{meter.meter_id}", detail)
    first_epoch, first_from = revoked[0]
    told = {
        "meter_id": meter.meter_id,
        "key_epoch": first_epoch,
        "revoked_from": instant(first_from),
        "reason": reason.rstrip("."),
        "withdrawn_seals": withdrawn,
    }
    notify_owner(connection, meter.owner, "meter.key_revoked", told, now)
    tell_owners(connection, [OfMeter(meter.owner, "meter.key_revoked", told)], now)


def find_key(keys: Sequence[MeterKey], key_epoch: int) -> MeterKey:
    """The key of an epoch. Raises MeterKeyNotFound."""
    for key in keys:
        if key.key_epoch == key_epoch:
            return key
    raise MeterKeyNotFound(f"key epoch {key_epoch}")


def answer_credential_request(
    connection: Connection, message: bytes, domain: bytes, broker_secret: bytes, now: datetime
) -> tuple[str, str]:
    """The broker's user name and password for the meter whose current key asks.

    Raises CredentialRequestInvalid, without telling what was wrong: anybody may ask.
    """
    opened = key_rules.open_credential_request(message)
    meter = None if opened is None else store.find_meter(connection, opened[0].meter_id)
    if opened is None or meter is None or meter.state == rules.RETIRED:
        raise CredentialRequestInvalid
    key = keys_store.list_keys(connection, meter.meter_no)[-1]
    good = key_rules.is_credential_request_good(
        *opened,
        domain=domain,
        key_epoch=meter.key_epoch,
        public_key=key.public_key,
        now_unix_s=int(now.timestamp()),
    )
    if not good or key.state != rules.KEY_ACTIVE:
        raise CredentialRequestInvalid
    return meter.meter_id, broker_password(broker_secret, meter.meter_id, meter.password_generation)


def _key_row(meter_no: int, rotation: Rotation, endorsed_by: str, base: Base, now: datetime) -> dict[str, object]:
    statement = rotation.statement
    return {
        "meter_no": meter_no,
        "key_epoch": statement.key_epoch,
        "public_key": statement.public_key,
        "statement": rotation.signed,
        "signature": rotation.signature,
        "valid_from": datetime.fromtimestamp(statement.valid_from_unix_s, UTC),
        "production_wh": statement.production_wh,
        "consumption_wh": statement.consumption_wh,
        "surplus_wh": statement.surplus_wh,
        "state": rules.KEY_ACTIVE,
        "endorsed_by": endorsed_by,
        "endorsement": rotation.endorsement,
        "base_sequence": base.sequence,
        "base_sealed_at_unix_s": base.sealed_at_unix_s,
        "base_reading_unix_s": base.last_reading_unix_s,
        "base_production_wh": base.last_production_wh,
        "base_consumption_wh": base.last_consumption_wh,
        "base_production_excess_ws": base.production_excess_ws,
        "base_consumption_excess_ws": base.consumption_excess_ws,
        "registered_at": now,
    }


def _exchange_row(meter_no: int, exchange: Exchange) -> dict[str, object]:
    record = exchange.record
    return {
        "meter_no": meter_no,
        "key_epoch": record.key_epoch,
        "register": record.register,
        "record": exchange.signed,
        "signature": exchange.signature,
        "at": datetime.fromtimestamp(record.at_unix_s, UTC),
        "final_wh": record.final_wh,
        "initial_wh": record.initial_wh,
        "old_serial": record.old_serial,
        "new_serial": record.new_serial,
    }
