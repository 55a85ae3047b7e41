"""The enrolment: what the meter's key says of itself, once, from the first poll of the registers.

Repeating it gives the same bytes: the statement is kept in the journal, with the counters from which sealing
starts.
"""

from edge.counters import CounterState
from edge.errors import JournalError
from edge.identity import Identity
from edge.journal import Journal
from edge.sealing import first_chain
from edge.settings import Settings
from protocol.enrolment import Enrolment, encode_enrolment, split_enrolment
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
    )
    signed = encode_enrolment(statement)
    message = signed + identity.sign(signed)
    journal.enrol(message, counters, first_chain(statement))
    return message


def find_enrolment(settings: Settings, identity: Identity, journal: Journal) -> tuple[Enrolment, bytes] | None:
    """The journaled statement and its message, or None before enrolment.

    Raises JournalError `enrolment_differs` when it was made for another key, meter or owner than configured.
    """
    message = journal.find_enrolment()
    if message is None:
        return None
    try:
        statement, _, _ = split_enrolment(message)
    except ProtocolError as error:
        raise JournalError("enrolment_unreadable", str(error)) from None
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
    return statement, message


def get_enrolment(settings: Settings, identity: Identity, journal: Journal) -> Enrolment:
    """The journaled statement. Raises JournalError `not_enrolled` or `enrolment_differs`."""
    found = find_enrolment(settings, identity, journal)
    if found is None:
        raise JournalError("not_enrolled", "run `commonwatt edge enrol` first")
    return found[0]
