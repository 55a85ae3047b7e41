"""The enrolment: what the meter's key says of itself, once, from the first poll of the registers.

Repeating it gives the same bytes: the statement is kept in the journal, with the counters from which sealing
starts.
"""

from edge.counters import CounterState
from edge.errors import EnrolmentError, JournalError
from edge.identity import Identity
from edge.journal import Journal
from edge.predecessor import Predecessor, chain_after
from edge.sealing import first_chain
from edge.settings import Settings
from protocol.enrolment import ENROLMENT_PHASES_NOT_NETTED, Enrolment, encode_enrolment, split_enrolment
from protocol.errors import ProtocolError

FIRST_KEY_EPOCH = 1


def enrol(settings: Settings, identity: Identity, journal: Journal, counters: CounterState) -> bytes:
    """Sign the statement for the first poll's counters and journal it. Returns `statement ‖ signature`."""
    statement = Enrolment(
        settings.domain,
        settings.meter_id,
        settings.kind,
        settings.measurement,
        FIRST_KEY_EPOCH,
        settings.owner,
        identity.public_key,
        counters.production_wh,
        counters.consumption_wh,
        0,
        counters.time_unix_s,
        flags=netting_flag(settings),
    )
    signed = encode_enrolment(statement)
    message = signed + identity.sign(signed)
    journal.enrol(message, counters, first_chain(statement))
    return message


def enrol_successor(
    settings: Settings, identity: Identity, journal: Journal, counters: CounterState, predecessor: Predecessor
) -> bytes:
    """Sign the statement of a device that takes the place of a lost one. Returns `statement ‖ signature`.

    It counts only with the owner's endorsement. Raises EnrolmentError `key_in_use`: no key serves two epochs.
    """
    if identity.public_key == predecessor.public_key:
        raise EnrolmentError("key_in_use", f"{settings.key_file} is the predecessor's key: move it away")
    statement = Enrolment(
        settings.domain,
        settings.meter_id,
        settings.kind,
        settings.measurement,
        predecessor.key_epoch + 1,
        settings.owner,
        identity.public_key,
        predecessor.production_wh,
        predecessor.consumption_wh,
        predecessor.surplus_wh,
        predecessor.closed_until_unix_s,
        predecessor.seal_hash,
        netting_flag(settings),
    )
    signed = encode_enrolment(statement)
    message = signed + identity.sign(signed)
    journal.enrol(message, counters, chain_after(predecessor))
    return message


def check_follows(statement: Enrolment, predecessor: Predecessor | None) -> None:
    """The journaled statement is that of the device that takes this predecessor's place, if one is named.

    Raises EnrolmentError `enrolment_in_use`: endorsed and handed in, another's would be refused, and nobody knew why.
    """
    begins = (statement.key_epoch, statement.last_seal_hash)
    if predecessor is not None and begins != (predecessor.key_epoch + 1, predecessor.seal_hash):
        why = "this journal's statement is another: move journal and key away, for a device that replaces it"
        raise EnrolmentError("enrolment_in_use", why)


def netting_flag(settings: Settings) -> int:
    """ENROLMENT_PHASES_NOT_NETTED if the grid meter's map says so, otherwise 0."""
    grid = next(meter for meter in settings.meters if meter.role == "grid")
    return 0 if grid.register_map.phases_netted else ENROLMENT_PHASES_NOT_NETTED


def decode_journaled(message: bytes) -> Enrolment:
    """The statement of a journaled enrolment. Raises JournalError `enrolment_unreadable`."""
    try:
        return split_enrolment(message)[0]
    except ProtocolError as error:
        raise JournalError("enrolment_unreadable", str(error)) from None


def find_enrolment(
    settings: Settings, identity: Identity, journal: Journal, *, other_netting: bool = False
) -> tuple[Enrolment, bytes] | None:
    """The journaled statement and its message, or None before enrolment.

    Raises JournalError `enrolment_differs` when it was made for another key, meter or owner than configured, or, unless
    `other_netting` is allowed, for a meter that nets its phases while this one does not.
    """
    message = journal.find_enrolment()
    if message is None:
        return None
    statement = decode_journaled(message)
    for name, journaled, configured in (
        ("community or chain", statement.domain, settings.domain),
        ("meter_id", statement.meter_id, settings.meter_id),
        ("kind", statement.kind, settings.kind),
        ("measurement", statement.measurement, settings.measurement),
        ("owner", statement.owner, settings.owner),
        ("key", statement.public_key, identity.public_key),
    ):
        if journaled != configured:
            raise JournalError("enrolment_differs", f"the journal was enrolled with another {name}")
    if not other_netting and netting_flag(settings) & ~statement.flags:
        why = "its statement does not say that the grid meter sums its phases: `commonwatt edge rotate` does"
        raise JournalError("enrolment_differs", why)
    return statement, message


def get_enrolment(
    settings: Settings, identity: Identity, journal: Journal, *, other_netting: bool = False
) -> Enrolment:
    """The journaled statement. Raises JournalError `not_enrolled` or `enrolment_differs`."""
    found = find_enrolment(settings, identity, journal, other_netting=other_netting)
    if found is None:
        raise JournalError("not_enrolled", "run `commonwatt edge enrol` first")
    return found[0]
