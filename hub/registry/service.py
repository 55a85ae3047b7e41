"""Use cases of the registry. Each takes the caller's transaction and never touches the network: that is the outbox."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Collection, Mapping, Sequence
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
    MeterRetired,
    MintingUnchanged,
)
from hub.live.owners import OfMeter, tell_owners
from hub.notifications.service import notify_owner, tell_later
from hub.outbox.store import add_job
from hub.registry import commands_store, key_rules, keys_store, rules, store
from hub.signatures import SigningKey
from protocol.command import Command, encode_command
from protocol.enrolment import ENROLMENT_PHASES_NOT_NETTED, Enrolment
from protocol.errors import ProtocolError
from protocol.topics import shard_of

BROKER_SECRET_BYTES = 32

CREATE_ACCOUNT = "broker.create_account"
"""Gives the meter its account with the password in force, or takes a retired meter's away. One kind, so that the outbox
keeps the order: no account comes back behind its removal."""
SEND_COMMAND = "meter.command"
"""Kinds of outbox jobs; `jobs.py` does them."""

FIRST_PASSWORD_GENERATION = 1
PENDING_COMMANDS_MAX = 100


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
        keys_store.insert_meter_key(connection, _first_key_row(statement, meter_no, signed, signature, now))
    except IntegrityError as fault:
        raise _named(fault, statement.meter_id) from fault
    keys_store.insert_empty_stream(connection, meter_no, statement.key_epoch)
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
            "phases_netted": _phases_netted(statement),
            "minting_allowed": may_mint_at_once(statement, capacity.register_quantum_wh),
        },
    )
    add_job(connection, CREATE_ACCOUNT, statement.meter_id, {}, now)
    notify_owner(connection, statement.owner, "meter.registered", {"meter_id": statement.meter_id}, now)
    tell_owners(connection, [OfMeter(statement.owner, "meter.registered", {"meter_id": statement.meter_id})], now)
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


def get_meter_id(connection: Connection, meter_no: int) -> str:
    """The id of a meter that exists."""
    return store.get_meter_id(connection, meter_no)


def get_meter_for_update(connection: Connection, meter_id: str) -> store.Meter:
    """The meter with this id, its row locked until the transaction ends. Raises MeterNotFound."""
    return store.get_meter_for_update(connection, meter_id)


def broker_password(broker_secret: bytes, meter_id: str, generation: int = FIRST_PASSWORD_GENERATION) -> str:
    """The password of a meter's broker account: derived, so that it is stored nowhere.

    The generation goes in from the second on, so that the first is what it has been since before there were any.
    """
    name = b"broker-password\x00" + meter_id.encode()
    if generation > FIRST_PASSWORD_GENERATION:
        name += b"\x00" + str(generation).encode()  # no meter id holds a zero byte
    digest = hmac.new(broker_secret, name, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def renew_broker_password(connection: Connection, meter_id: str, reason: str, actor: str, now: datetime) -> int:
    """Give the meter another broker password; returns its generation. The old one ends when the outbox has told the
    broker. Audited. Raises MeterNotFound, MeterRetired.
    """
    meter = _living_meter_for_update(connection, meter_id)
    generation = store.next_password_generation(connection, meter.meter_no)
    add_job(connection, CREATE_ACCOUNT, meter_id, {}, now)
    detail = {"generation": generation, "reason": reason}
    append_audit(connection, now, actor, "meter.renew_password", f"meter:{meter_id}", detail)
    _tell_owner(connection, meter, "meter.password_renewed", reason, now)
    return generation


def list_meters(
    connection: Connection, owners: Collection[bytes] | None, after_meter_id: str, limit: int
) -> Sequence[store.Meter]:
    """Meters of these owners, or of all, in the order of their ids, beginning behind `after_meter_id`."""
    return store.list_meters(connection, owners, after_meter_id, limit)


def count_meters(connection: Connection, owners: Collection[bytes]) -> int:
    """How many meters these owners have, retired ones included."""
    return store.count_meters(connection, owners)


def set_minting_allowed(
    connection: Connection, meter_id: str, allowed: bool, reason: str, actor: str, now: datetime
) -> None:
    """Decide whether what the meter measures may be minted, whatever its statement says of its phases. Audited.

    Raises MeterNotFound, MeterRetired, MintingUnchanged.
    """
    meter = _living_meter_for_update(connection, meter_id)
    if meter.minting_allowed == allowed:
        raise MintingUnchanged(f"{meter_id}: {'allowed' if allowed else 'not allowed'}")
    store.set_minting_allowed(connection, meter.meter_no, allowed)
    action = "meter.allow_minting" if allowed else "meter.forbid_minting"
    detail = {
        "reason": reason,
        "phases_netted": meter.phases_netted,
        "register_quantum_wh": meter.register_quantum_wh,
    }
    append_audit(connection, now, actor, action, f"meter:{meter_id}", detail)
    _tell_owner(connection, meter, "meter.minting_allowed" if allowed else "meter.minting_forbidden", reason, now)


def retire_meter(connection: Connection, meter_id: str, reason: str, actor: str, now: datetime) -> None:
    """End the meter's life for good: later seals are held, its broker account goes. Audited.

    Raises MeterNotFound, MeterRetired.
    """
    meter = _living_meter_for_update(connection, meter_id)
    store.set_state(connection, meter.meter_no, meter.state, rules.RETIRED)
    add_job(connection, CREATE_ACCOUNT, meter_id, {}, now)
    append_audit(connection, now, actor, "meter.retire", f"meter:{meter_id}", {"reason": reason})
    _tell_owner(connection, meter, "meter.retired", reason, now)


def _living_meter_for_update(connection: Connection, meter_id: str) -> store.Meter:
    meter = store.get_meter_for_update(connection, meter_id)
    if meter.state == rules.RETIRED:
        raise MeterRetired(meter_id)
    return meter


def suspend_meter(connection: Connection, meter_id: str, reason: str, actor: str, now: datetime) -> None:
    """Hold whatever the meter sends from now on. Raises MeterNotFound, MeterNotActive."""
    meter = store.get_meter_for_update(connection, meter_id)
    if not store.set_state(connection, meter.meter_no, rules.ACTIVE, rules.SUSPENDED):
        raise MeterNotActive(f"{meter_id} is {meter.state}")
    append_audit(connection, now, actor, "meter.suspend", f"meter:{meter_id}", {"reason": reason})
    _tell_owner(connection, meter, "meter.suspended", reason, now)


def resume_meter(connection: Connection, meter_id: str, reason: str, actor: str, now: datetime) -> None:
    """Accept the meter's seals again; what was held stays held. Raises MeterNotFound, MeterNotSuspended."""
    meter = store.get_meter_for_update(connection, meter_id)
    if not store.set_state(connection, meter.meter_no, rules.SUSPENDED, rules.ACTIVE):
        raise MeterNotSuspended(f"{meter_id} is {meter.state}")
    append_audit(connection, now, actor, "meter.resume", f"meter:{meter_id}", {"reason": reason})
    _tell_owner(connection, meter, "meter.resumed", reason, now)


def suspend_for_equivocation(connection: Connection, meter_no: int, meter_id: str, detail: str, now: datetime) -> bool:
    """Suspend a meter whose key signed two histories; the hub itself is the actor. Whether it was active."""
    if not store.set_state(connection, meter_no, rules.ACTIVE, rules.SUSPENDED):
        return False
    append_audit(connection, now, "hub", "meter.suspend", f"meter:{meter_id}", {"reason": f"equivocation: {detail}"})
    owner = store.get_meter(connection, meter_id).owner
    told = {"meter_id": meter_id, "reason": "its key has signed two different batches under one number"}
    tell_later(connection, f"meter:{meter_id}", "meter.suspended", told, now, owner=owner)
    tell_owners(connection, [OfMeter(owner, "meter.suspended", told)], now)
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
    expires_at = datetime.fromtimestamp(expires_at_unix_s, UTC)
    commands_store.insert_command(connection, meter_no, counter, expires_at, message, now)
    return counter


def pending_commands(connection: Connection, meter_no: int, after_counter: int, now: datetime) -> list[bytes]:
    """The signed commands with counters above `after_counter` that have not expired, oldest first, for a meter that
    asks instead of listening. At most PENDING_COMMANDS_MAX; it asks again.
    """
    return commands_store.list_pending(connection, meter_no, after_counter, now, PENDING_COMMANDS_MAX)


def _tell_owner(connection: Connection, meter: store.Meter, kind: str, reason: str, now: datetime) -> None:
    told = {"meter_id": meter.meter_id, "reason": reason.rstrip(".")}
    notify_owner(connection, meter.owner, kind, told, now)
    tell_owners(connection, [OfMeter(meter.owner, kind, told)], now)


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
        "phases_netted": _phases_netted(statement),
        "minting_allowed": may_mint_at_once(statement, capacity.register_quantum_wh),
    }


def may_mint_at_once(statement: Enrolment, register_quantum_wh: int) -> bool:
    """Whether a new meter mints before an operator has allowed it: its phases are netted, and its register is fine."""
    return _phases_netted(statement) and register_quantum_wh <= rules.REGISTER_QUANTUM_WH_MINTED_MAX


def _phases_netted(statement: Enrolment) -> bool:
    return not statement.flags & ENROLMENT_PHASES_NOT_NETTED


def _first_key_row(
    statement: Enrolment, meter_no: int, signed: bytes, signature: bytes, now: datetime
) -> dict[str, object]:
    before_unix_s = statement.valid_from_unix_s - 1  # a reading at that very instant is allowed
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
        "state": rules.KEY_ACTIVE,
        "endorsed_by": key_rules.BY_FIRST,
        "base_sequence": 0,
        "base_sealed_at_unix_s": before_unix_s,
        "base_reading_unix_s": before_unix_s,
        "base_production_wh": statement.production_wh,
        "base_consumption_wh": statement.consumption_wh,
        "base_production_excess_ws": 0,
        "base_consumption_excess_ws": 0,
        "registered_at": now,
    }


def _named(fault: IntegrityError, meter_id: str) -> Exception:
    """The refusal that a violated constraint means; the fault itself if it means none."""
    constraint = fault.orig.diag.constraint_name if isinstance(fault.orig, pg.UniqueViolation) else None
    if constraint == store.METER_ID_TAKEN:
        return MeterAlreadyRegistered(meter_id)
    if constraint == keys_store.PUBLIC_KEY_TAKEN:
        return MeterKeyInUse()
    return fault
