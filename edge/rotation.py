"""Rotation: the meter's next key takes over, and no power cut leaves the device between the two.

    key on the disk → rotation in the journal → handed in to the hub → journal switches → key file switches

Each step is on the disk before the next begins. Until the outcome is known nothing is sealed (the journal refuses
it): seals of an old key that the hub has retired would be held, seals of a new one that it does not know refused.
Whatever is interrupted is finished by the next start (`open_identity`) or by rotating again, which hands in the same
bytes. The agent is stopped meanwhile: the journal is locked.
"""

from edge.enrolment import decode_journaled, get_enrolment, netting_flag
from edge.errors import HubRefusedError, IdentityError, JournalError, RotationError
from edge.hub_client import post
from edge.identity import (
    Identity,
    discard_next_key,
    install_next_key,
    load_identity,
    load_or_create_identity,
    next_key_file,
)
from edge.journal import Exchange, Journal, PendingRotation
from edge.receipts import HUB_IS_AHEAD
from edge.sealing import Chain
from edge.settings import Settings
from protocol.enrolment import ENROLMENT_METER_REPLACED, Enrolment, encode_enrolment
from protocol.replacement import REGISTER_NAMES, Replacement, encode_replacement
from protocol.rotation import join_rotation, split_rotation
from protocol.seal import NO_PREDECESSOR

REGISTER_NUMBERS = {name: number for number, name in REGISTER_NAMES.items()}


def open_identity(settings: Settings, journal: Journal) -> Identity:
    """The meter's key, after a rotation that was cut off between journal and key file was finished.

    Raises IdentityError, or JournalError if the journal cannot be read. Whether the key is the enrolled one is for
    `get_enrolment` to say.
    """
    identity = load_identity(settings.key_file)
    message = journal.find_enrolment()
    waiting = next_key_file(settings.key_file)
    if message is None or not waiting.exists():
        return identity
    enrolled = decode_journaled(message).public_key
    if enrolled == identity.public_key or load_identity(waiting).public_key != enrolled:
        return identity
    install_next_key(settings.key_file)
    return load_identity(settings.key_file)


def begin_rotation(settings: Settings, journal: Journal) -> PendingRotation:
    """The rotation to hand in: the one that is pending, or a new one, journaled before anybody hears of it.

    Raises JournalError `rotation_backlog` while the hub lacks a seal, `receipt_hub_is_ahead` if the journal is an older
    copy, IdentityError if the key of a pending one is gone, or as `get_enrolment`.
    """
    pending = journal.find_rotation()
    if pending is not None:
        _check_key_is_here(settings, pending)
        return pending
    identity = open_identity(settings, journal)
    before = get_enrolment(settings, identity, journal, other_netting=True)
    if journal.hub_was_ahead():
        raise JournalError(HUB_IS_AHEAD, "the hub has seals that this journal never made: enrol with --replaces")
    if backlog := len(journal.unconfirmed_sequences()):
        raise JournalError("rotation_backlog", f"{backlog} seals have no receipt: let the agent run until they have")
    discard_next_key(settings.key_file)  # of an attempt that was refused, or ended before it was journaled
    successor = load_or_create_identity(next_key_file(settings.key_file))
    exchanges = journal.exchanges()
    flags = netting_flag(settings) | (ENROLMENT_METER_REPLACED if exchanges else 0)
    statement = next_statement(before, journal.get_chain(), successor.public_key, flags)
    signed = encode_enrolment(statement)
    records = [encode_replacement(replacement(statement, exchange)) for exchange in exchanges]
    pending = PendingRotation(
        join_rotation(signed, successor.sign(signed), identity.sign(signed)),
        tuple(record + successor.sign(record) for record in records),
    )
    journal.begin_rotation(pending)
    return pending


def hand_in_rotation(settings: Settings, journal: Journal) -> Enrolment:
    """Give the rotation to the hub and switch to the new key. Returns its statement.

    Raises HubRefusedError if the hub will not have it (the old key goes on), HubUnansweredError if nobody knows (it
    stays pending; repeat this), and as `begin_rotation`.
    """
    pending = begin_rotation(settings, journal)
    try:
        post(settings.hub, f"/meters/{settings.meter_id}/keys", request_of(pending))
    except HubRefusedError:
        discard_rotation(settings, journal)
        raise
    return finish_rotation(settings, journal)


def request_of(rotation: PendingRotation) -> dict[str, object]:
    """What the hub is to get, by whoever hands it in."""
    return {"rotation": rotation.message.hex(), "replacements": [record.hex() for record in rotation.records]}


def finish_rotation(settings: Settings, journal: Journal) -> Enrolment:
    """The hub has the new key: switch to it. Raises RotationError `rotation_none`, IdentityError, JournalError."""
    pending = journal.find_rotation()
    if pending is None:
        raise RotationError("rotation_none", "there is no rotation whose outcome is open")
    _check_key_is_here(settings, pending)
    statement, signed, signature, _ = split_rotation(pending.message)
    journal.finish_rotation(signed + signature)
    install_next_key(settings.key_file)
    return statement


def _check_key_is_here(settings: Settings, pending: PendingRotation) -> None:
    """Before anybody hears of the rotation, or it is finished: a meter with a key that is gone can only be replaced."""
    waiting = next_key_file(settings.key_file)
    if not waiting.exists():
        why = f"{waiting} is gone: if the hub has not taken the rotation, `commonwatt edge rotate --refused`"
        raise IdentityError("key_missing", why)
    if load_identity(waiting).public_key != split_rotation(pending.message)[0].public_key:
        raise IdentityError("key_differs", f"{waiting} is not the key of the pending rotation")


def discard_rotation(settings: Settings, journal: Journal) -> None:
    """The hub has refused the new key: the old one goes on. Raises RotationError `rotation_none`, JournalError."""
    if journal.find_rotation() is None:
        raise RotationError("rotation_none", "there is no rotation whose outcome is open")
    journal.discard_rotation()
    discard_next_key(settings.key_file)


def next_statement(before: Enrolment, chain: Chain, public_key: bytes, flags: int) -> Enrolment:
    """What the next key states: it begins exactly where the last seal ended, or its predecessor's statement began."""
    if chain.sequence:
        counters = chain.production_wh, chain.consumption_wh, chain.surplus_wh, chain.closed_until_unix_s
        last_seal_hash = bytes.fromhex(chain.last_seal_hash)
    else:
        counters = before.production_wh, before.consumption_wh, before.surplus_wh, before.valid_from_unix_s
        last_seal_hash = NO_PREDECESSOR
    return Enrolment(
        before.domain,
        before.meter_id,
        before.kind,
        before.measurement,
        before.key_epoch + 1,
        before.owner,
        public_key,
        *counters,
        last_seal_hash,
        flags,
    )


def replacement(statement: Enrolment, exchange: Exchange) -> Replacement:
    """The record of an exchanged register, to be signed by the key that begins with the new meter."""
    return Replacement(
        statement.domain,
        statement.meter_id,
        statement.key_epoch,
        REGISTER_NUMBERS[exchange.register],
        exchange.at_unix_s,
        exchange.final_wh,
        exchange.initial_wh,
        exchange.old_serial,
        exchange.new_serial,
    )
