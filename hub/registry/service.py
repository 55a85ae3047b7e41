"""Use cases of the registry. Each takes the caller's transaction and never touches the network: that is the outbox."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from psycopg import errors as pg
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from hub.audit import append_audit
from hub.errors import (
    MalformedInput,
    MeterAlreadyRegistered,
    MeterKeyInUse,
    MeterNotActive,
    MeterNotSuspended,
)
from hub.outbox.store import add_job
from hub.registry import rules, store
from hub.signatures import SigningKey
from protocol.command import Command, encode_command
from protocol.enrolment import Enrolment
from protocol.errors import ProtocolError
from protocol.topics import shard_of

BROKER_SECRET_BYTES = 32

CREATE_ACCOUNT = "broker.create_account"
SEND_COMMAND = "meter.command"
"""Kinds of outbox jobs; `jobs.py` does them."""


@dataclass(frozen=True)
class Capacity:
    """What an operator states about an installation. It bounds what its readings may say."""

    production_capacity_w: int
    connection_capacity_w: int
    register_quantum_wh: int = rules.REGISTER_QUANTUM_WH_DEFAULT


def register_meter(
    connection: Connection,
    enrolment: bytes,
    capacity: Capacity,
    domain: bytes,
    age_max_s: int,
    actor: str,
    now: datetime,
) -> store.Meter:
    """Take in a meter by its own signed statement, and have the broker make its account.

    Raises EnrolmentInvalid, MeterAlreadyRegistered, MeterKeyInUse.
    """
    statement, signed, signature = rules.check_first_enrolment(enrolment, domain, int(now.timestamp()), age_max_s)
    try:
        meter_no = store.insert_meter(connection, _meter_row(statement, capacity, now))
        store.insert_meter_key(connection, _key_row(statement, meter_no, signed, signature))
    except IntegrityError as fault:
        raise _named(fault, statement.meter_id) from fault
    store.insert_empty_stream(connection, meter_no, statement.key_epoch)
    append_audit(
        connection,
        now,
        actor,
        "meter.register",
        f"meter:{statement.meter_id}",
        {
            "public_key": statement.public_key.hex(),
            "owner": statement.owner.hex(),
            "production_capacity_w": capacity.production_capacity_w,
            "connection_capacity_w": capacity.connection_capacity_w,
            "register_quantum_wh": capacity.register_quantum_wh,
        },
    )
    add_job(connection, CREATE_ACCOUNT, statement.meter_id, {}, now)
    return store.get_meter(connection, statement.meter_id)


def queue_accounts(connection: Connection, actor: str, now: datetime) -> int:
    """Have the broker make every meter's account again, for when it has lost them; returns how many. Audited."""
    meter_ids = store.list_meter_ids(connection)
    for meter_id in meter_ids:
        add_job(connection, CREATE_ACCOUNT, meter_id, {}, now)
    append_audit(connection, now, actor, "broker.recreate_accounts", "broker", {"meters": len(meter_ids)})
    return len(meter_ids)


def get_meter(connection: Connection, meter_id: str) -> store.Meter:
    """The meter with this id. Raises MeterNotFound."""
    return store.get_meter(connection, meter_id)


def broker_password(broker_secret: bytes, meter_id: str) -> str:
    """The password of a meter's broker account: derived, so that it is stored nowhere."""
    digest = hmac.new(broker_secret, b"broker-password\x00" + meter_id.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def suspend_meter(connection: Connection, meter_id: str, reason: str, actor: str, now: datetime) -> None:
    """Hold whatever the meter sends from now on. Raises MeterNotFound, MeterNotActive."""
    meter = store.get_meter_for_update(connection, meter_id)
    if not store.set_state(connection, meter.meter_no, rules.ACTIVE, rules.SUSPENDED):
        raise MeterNotActive(f"{meter_id} is {meter.state}")
    append_audit(connection, now, actor, "meter.suspend", f"meter:{meter_id}", {"reason": reason})


def resume_meter(connection: Connection, meter_id: str, reason: str, actor: str, now: datetime) -> None:
    """Accept the meter's seals again; what was held stays held. Raises MeterNotFound, MeterNotSuspended."""
    meter = store.get_meter_for_update(connection, meter_id)
    if not store.set_state(connection, meter.meter_no, rules.SUSPENDED, rules.ACTIVE):
        raise MeterNotSuspended(f"{meter_id} is {meter.state}")
    append_audit(connection, now, actor, "meter.resume", f"meter:{meter_id}", {"reason": reason})


def suspend_for_equivocation(connection: Connection, meter_no: int, meter_id: str, detail: str, now: datetime) -> bool:
    """Suspend a meter whose key signed two histories; the hub itself is the actor. Whether it was active."""
    if not store.set_state(connection, meter_no, rules.ACTIVE, rules.SUSPENDED):
        return False
    append_audit(connection, now, "hub", "meter.suspend", f"meter:{meter_id}", {"reason": f"equivocation: {detail}"})
    return True


def command_meter(
    connection: Connection,
    meter_id: str,
    domain: bytes,
    signing_key: SigningKey,
    kind: int,
    first: int,
    last: int,
    expires_in_s: int,
    actor: str,
    now: datetime,
) -> Mapping[str, object]:
    """An operator's command: counted, signed, audited, sent by the outbox.

    Raises MeterNotFound, MeterNotActive, MalformedInput if the arguments make no command of this kind.
    """
    meter = store.get_meter_for_update(connection, meter_id)
    if meter.state != rules.ACTIVE:
        raise MeterNotActive(f"{meter_id} is {meter.state}")
    expires_at_unix_s = int(now.timestamp()) + expires_in_s
    try:
        counter = issue_command(
            connection,
            meter.meter_no,
            meter_id,
            domain,
            signing_key,
            kind,
            first,
            last,
            expires_at_unix_s,
            now,
        )
    except ProtocolError as fault:
        raise MalformedInput(str(fault)) from fault
    detail = {"counter": counter, "kind": kind, "first": first, "last": last}
    append_audit(connection, now, actor, "meter.command", f"meter:{meter_id}", detail)
    return {"meter_id": meter_id, "counter": counter, "expires_at_unix_s": expires_at_unix_s}


def issue_command(
    connection: Connection,
    meter_no: int,
    meter_id: str,
    domain: bytes,
    signing_key: SigningKey,
    kind: int,
    first: int,
    last: int,
    expires_at_unix_s: int,
    now: datetime,
) -> int:
    """Sign the next command for a meter and leave it to the outbox; returns its counter. Raises ProtocolError."""
    counter = store.next_command_counter(connection, meter_no)
    signed = encode_command(Command(domain, meter_id, counter, expires_at_unix_s, kind, first, last))
    message = signed + signing_key.sign(signed)
    add_job(connection, SEND_COMMAND, meter_id, {"message_hex": message.hex()}, now)
    return counter


def _meter_row(statement: Enrolment, capacity: Capacity, now: datetime) -> dict[str, object]:
    return {
        "meter_id": statement.meter_id,
        "shard": shard_of(statement.meter_id),
        "kind": statement.kind,
        "measurement": statement.measurement,
        "owner": statement.owner,
        "production_capacity_w": capacity.production_capacity_w,
        "connection_capacity_w": capacity.connection_capacity_w,
        "register_quantum_wh": capacity.register_quantum_wh,
        "state": rules.ACTIVE,
        "key_epoch": statement.key_epoch,
        "registered_at": now,
    }


def _key_row(statement: Enrolment, meter_no: int, signed: bytes, signature: bytes) -> dict[str, object]:
    return {
        "meter_no": meter_no,
        "key_epoch": statement.key_epoch,
        "public_key": statement.public_key,
        "statement": signed,
        "signature": signature,
        "valid_from": datetime.fromtimestamp(statement.valid_from_unix_s, UTC),
        "production_wh": statement.production_wh,
        "consumption_wh": statement.consumption_wh,
        "surplus_wh": statement.surplus_wh,
    }


def _named(fault: IntegrityError, meter_id: str) -> Exception:
    """The refusal that a violated constraint means; the fault itself if it means none."""
    constraint = fault.orig.diag.constraint_name if isinstance(fault.orig, pg.UniqueViolation) else None
    if constraint == store.METER_ID_TAKEN:
        return MeterAlreadyRegistered(meter_id)
    if constraint == store.PUBLIC_KEY_TAKEN:
        return MeterKeyInUse()
    return fault
