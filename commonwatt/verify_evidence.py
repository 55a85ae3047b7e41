"""The evidence of one meter: seal after seal, held against the meter's own statements and signatures.

Needs the export, the public format (`protocol/`) and PyNaCl; of the hub neither code nor database nor word. What it
proves is that the holder of one key signed this energy, seal after seal, with nothing left out or changed. Whose key
that is the enrolment says of itself: compare it with what you know (`--key`). Where another key took over, the file
carries the rotation, and the energy goes on from the seal that the rotation names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, BinaryIO

from commonwatt.verify_keys import (
    BY_ITSELF,
    KEY_LINE,
    FaultError,
    Handover,
    KnownKey,
    check_key,
    check_signature,
    read_handover,
    unhex,
)
from commonwatt.verify_report import FALSE, HELD, MISSING, Energy, Report
from protocol.enrolment import Enrolment, split_enrolment
from protocol.errors import ProtocolError
from protocol.limits import MESSAGE_BYTES_MAX, SEQUENCE_MAX
from protocol.readings import Reading, decode_readings
from protocol.seal import NO_PREDECESSOR, Message, Seal, seal_hash, split_message
from protocol.settlement import Netting, first_closed_until, time_floor
from protocol.topics import check_meter_id, domain_of

FORMAT = "commonwatt-evidence/1"
FORMAT_OF_SEVERAL_KEYS = "commonwatt-evidence/2"
"""The same, with a key line before the seals of each further key epoch."""
LINE_BYTES_MAX = 2 * MESSAGE_BYTES_MAX + 1_024
COUNTED_STATES, UNCOUNTED_STATES = ("accepted", "released"), ("quarantined", "rejected")

_HEADER = {
    "format": str,
    "community_id": str,
    "genesis_hash": str,
    "program_id": str,
    "domain": str,
    "meter_id": str,
    "key_epoch": int,
    "from_sequence": int,
    "to_sequence": int,
    "enrolment": str,
}
SEAL_LINE = {"sequence": int, "state": str, "received_at": str, "message": str}


class UnreadableError(Exception):
    """The file is not an export of evidence."""


@dataclass(frozen=True)
class Link:
    """What the next seal is held against. The base of a key epoch is the link with sequence 0.

    `exact`: its last reading is known, so that the next seal's energy can be worked out again.
    """

    sequence: int
    seal_hash: bytes
    sealed_at_unix_s: int
    closed_until_unix_s: int
    counters: Energy
    last_reading: Reading
    exact: bool = True


def verify(file: BinaryIO, expected_key: bytes | None = None) -> Report:
    """Read an export to its end and say what holds. Raises UnreadableError if it is no export at all."""
    return verify_lines(read_lines(file), expected_key)


def verify_lines(lines: Iterator[bytes | None], expected_key: bytes | None) -> Report:
    """The same, line by line."""
    header = read_fields(next(lines, None), _HEADER)
    if header is None or header["format"] not in (FORMAT, FORMAT_OF_SEVERAL_KEYS):
        raise UnreadableError(f"its first line is not the header of {FORMAT}")
    try:
        meter_id = check_meter_id(header["meter_id"])
    except ProtocolError as fault:
        raise UnreadableError(f"its header names no meter: {fault}") from fault
    report = Report(header["community_id"], meter_id, header["key_epoch"])
    several_keys = header["format"] == FORMAT_OF_SEVERAL_KEYS
    try:
        report.statement = _check_enrolment(header, None if several_keys else expected_key)
    except FaultError as fault:
        report.note(FALSE, 0, 0, fault.reason, fault.detail)
        return report  # without the key there is nothing to hold the seals against
    report.keys.append(KnownKey(report.key_epoch, report.statement.public_key, BY_ITSELF))
    base = _statement_link(report.statement)
    chain = _Chain(report, report.statement, header["from_sequence"], header["to_sequence"], base)
    for line in lines:
        stated = read_fields(line, KEY_LINE) if several_keys else None
        if stated is None:
            chain.take(line)
            continue
        chain.end()
        try:
            handover = read_handover(stated, report.statement)
        except FaultError as fault:
            report.key_epoch += 1
            report.note(FALSE, 0, 0, fault.reason, fault.detail)
            return report
        chain = chain.hand_over(handover)
    chain.end()
    if expected_key is not None and all(expected_key != key.public_key for key in report.keys):
        report.note(FALSE, 0, 0, "enrolment_key", "none of the meter's keys here is the expected one")
    return report


_Passed = dict[bytes, tuple[int, Link, Energy]]
_FIRST_BASE = b""
"""In place of a hash: bases have none, and the latest one stands under that of nothing."""


class _Chain:
    """Takes the seals in the order of the file and holds each against the one before."""

    def __init__(
        self,
        report: Report,
        statement: Enrolment,
        from_sequence: int,
        to_sequence: int,
        base: Link,
        passed: _Passed | None = None,
    ) -> None:
        self._report = report
        self._statement = statement
        self._from, self._to = from_sequence, to_sequence
        self._next = from_sequence
        self._link = base
        self._counted = 0
        self._passed = {} if passed is None else passed
        """By hash: the links so far, of which key epoch, and what was unproved there. The next key's base is one."""
        self._pass()
        if from_sequence == 1 and report.start_unix_s is None:
            report.start_unix_s = report.end_unix_s = statement.valid_from_unix_s
            report.start = report.end = base.counters

    def take(self, line: bytes | None) -> None:
        """Check one line; what is false is noted under its sequence, or under the one that should be here."""
        report, named = self._report, self._next
        report.seals += 1
        try:
            stated = _read_seal_line(line)
            named = stated["sequence"]
            message, readings = self._open(unhex(stated["message"]))
        except FaultError as fault:
            if named == self._next:
                self._next += 1  # false, but not missing
            report.note(FALSE, named, named, fault.reason, fault.detail)
            return
        sequence = message.seal.sequence
        if stated["state"] in UNCOUNTED_STATES:
            report.note(HELD, sequence, sequence, stated["state"])
        else:
            self._counted = max(self._counted, sequence)
        try:
            self._place(message, named)
            self._follow(message, readings)
        except FaultError as fault:
            if sequence == self._next:
                self._next += 1
            report.note(FALSE, sequence, sequence, fault.reason, fault.detail)
        else:
            report.verified_seals += 1
            report.readings += len(readings)

    def end(self) -> None:
        """Note what is missing at the end."""
        if self._next <= self._to:
            self._report.note(MISSING, self._next, self._to, "not_in_the_file")

    def hand_over(self, handover: Handover) -> _Chain:
        """Go on under the next key from the seal that its statement names, and note it if that is not what it says."""
        report, statement = self._report, handover.statement
        report.key_epoch, report.statement = statement.key_epoch, statement
        report.keys.append(handover.key)
        report.exchanges += handover.exchanges
        counters = Energy(statement.production_wh, statement.consumption_wh, statement.surplus_wh)
        valid_from_unix_s = statement.valid_from_unix_s
        found = self._passed.get(statement.last_seal_hash)
        if found is not None and found[1].sequence == 0 and found[1].counters != counters:
            found = self._passed[_FIRST_BASE]  # everything since was taken back with its keys
        if found is None:
            report.note(MISSING, 0, 0, "base_not_in_the_file", f"names seal {statement.last_seal_hash.hex()}")
            report.unproved += counters - report.end
            base = _statement_link(statement)
        else:
            key_epoch, named, report.unproved = found
            if named.sequence == 0:
                valid_from_unix_s = first_closed_until(valid_from_unix_s)
            if (named.counters, named.closed_until_unix_s) != (counters, valid_from_unix_s):
                report.note(FALSE, 0, 0, "rotation_base", f"does not begin where sequence {named.sequence} ended")
            if self._counted > (named.sequence if key_epoch == self._statement.key_epoch else 0):
                report.note(HELD, 0, 0, "beyond_the_handover", f"sequences up to {self._counted} of the key before")
            base = replace(named, sequence=0, seal_hash=NO_PREDECESSOR, counters=counters)
        report.end, report.end_unix_s = counters, statement.valid_from_unix_s
        return _Chain(report, statement, 1, handover.to_sequence, base, self._passed)

    def _open(self, data: bytes) -> tuple[Message, list[Reading]]:
        """What can be checked of a seal alone: form, signature, domain, and that it binds these readings."""
        try:
            message = split_message(data)
            check_signature(self._statement.public_key, message.seal_bytes, message.signature)
            if message.seal.domain != self._statement.domain:
                raise FaultError("domain", f"sealed for {message.seal.domain.hex()}")
            return message, decode_readings(message.section)
        except ProtocolError as fault:
            raise FaultError(fault.code, fault.detail) from fault

    def _place(self, message: Message, named: int) -> None:
        """Whether the seal's number follows, and what is missing before it."""
        sequence = message.seal.sequence
        if named != sequence:
            raise FaultError("sequence_mismatch", f"its line says {named}")
        if sequence == self._link.sequence and seal_hash(message.seal_bytes) != self._link.seal_hash:
            raise FaultError("equivocation", "the meter signed two seals with this sequence")
        if sequence <= self._link.sequence:
            raise FaultError("sequence_order", f"comes after sequence {self._link.sequence}")
        if not self._from <= sequence <= self._to:
            raise FaultError("outside_the_export", f"the header says {self._from} to {self._to}")
        if sequence > self._next:
            self._report.note(MISSING, self._next, sequence - 1, "not_in_the_file")
        self._next = sequence + 1

    def _follow(self, message: Message, readings: list[Reading]) -> None:
        """Hold a genuine seal against its predecessor and make it the next one's.

        Its fault is its own: the next is judged from what this one states.
        """
        seal, before, report = message.seal, self._link, self._report
        counters = Energy(seal.production_wh, seal.consumption_wh, seal.surplus_wh)
        self._link = Link(
            seal.sequence,
            seal_hash(message.seal_bytes),
            seal.sealed_at_unix_s,
            seal.closed_until_unix_s,
            counters,
            readings[-1],
        )
        if report.start_unix_s is None:  # the export begins here, in the midst of an epoch
            report.start_unix_s, report.start, report.end = seal.closed_until_unix_s, counters, counters
        gained = counters - report.end
        report.end_unix_s = max(report.start_unix_s, seal.closed_until_unix_s)
        report.end, report.last_reading = counters, readings[-1]
        direct = seal.sequence == before.sequence + 1 and before.exact
        try:
            _check_order(seal, readings, before)
            if direct:
                _check_netting(seal, readings, before)
            else:
                _check_bounds(seal, readings, before)
        except FaultError:
            report.unproved += gained
            raise
        else:
            report.unproved += Energy() if direct else gained
        finally:
            self._pass()

    def _pass(self) -> None:
        self._passed.setdefault(_FIRST_BASE, (self._statement.key_epoch, self._link, self._report.unproved))
        self._passed[self._link.seal_hash] = (self._statement.key_epoch, self._link, self._report.unproved)


def _statement_link(statement: Enrolment) -> Link:
    """Where a key epoch begins by its own statement. That of a later key does not tell the last reading before it."""
    before_unix_s = statement.valid_from_unix_s - 1  # a reading at that very instant is allowed
    return Link(
        0,
        NO_PREDECESSOR,
        before_unix_s,
        first_closed_until(statement.valid_from_unix_s),
        Energy(statement.production_wh, statement.consumption_wh, statement.surplus_wh),
        Reading(before_unix_s, statement.production_wh, statement.consumption_wh),
        exact=statement.key_epoch == 1,
    )


def _check_enrolment(header: dict[str, Any], expected_key: bytes | None) -> Enrolment:
    """The statement, if the key that it names signed it and the header says the same."""
    try:
        statement, signed, signature = split_enrolment(unhex(header["enrolment"]))
        domain = domain_of(header["community_id"], unhex(header["genesis_hash"]), unhex(header["program_id"]))
    except ProtocolError as fault:
        raise FaultError(fault.code, fault.detail) from fault
    check_key(statement.public_key)
    check_signature(statement.public_key, signed, signature)
    if expected_key not in (None, statement.public_key):
        raise FaultError("enrolment_key", f"the meter's key here is {statement.public_key.hex()}")
    if not statement.domain == domain == unhex(header["domain"]):
        raise FaultError("domain", "the statement is for another community, chain or program")
    if (statement.meter_id, statement.key_epoch) != (header["meter_id"], header["key_epoch"]):
        raise FaultError("header_mismatch", f"the statement is of {statement.meter_id}, epoch {statement.key_epoch}")
    if statement.key_epoch == 1 and statement.last_seal_hash != NO_PREDECESSOR:
        raise FaultError("enrolment_hash", "the first key epoch has no predecessor")
    if not 1 <= header["from_sequence"] <= SEQUENCE_MAX or not 0 <= header["to_sequence"] <= SEQUENCE_MAX:
        raise FaultError("header_mismatch", "there are no such sequences")
    return statement


def _check_order(seal: Seal, readings: list[Reading], before: Link) -> None:
    """Times rise, counters never fall, and no reading is later than its own seal."""
    first, last = readings[0], before.last_reading
    if readings[-1].time_unix_s > seal.sealed_at_unix_s:
        raise FaultError("time_order", "a reading is later than its own seal")
    if (
        seal.sealed_at_unix_s <= before.sealed_at_unix_s
        or first.time_unix_s <= last.time_unix_s
        or seal.closed_until_unix_s < before.closed_until_unix_s
    ):
        raise FaultError("time_order", f"does not come after sequence {before.sequence}")
    if (
        first.production_wh < last.production_wh
        or first.consumption_wh < last.consumption_wh
        or seal.production_wh < before.counters.production_wh
        or seal.consumption_wh < before.counters.consumption_wh
        or seal.surplus_wh < before.counters.surplus_wh
    ):
        raise FaultError("counter_decreased", f"a counter is below that of sequence {before.sequence}")


def _check_netting(seal: Seal, readings: list[Reading], before: Link) -> None:
    """The seal names its predecessor, and its readings give exactly the energy that it states."""
    if seal.previous_seal_hash != before.seal_hash:
        raise FaultError("chain_mismatch", f"names {seal.previous_seal_hash.hex()} as its predecessor")
    counters, last = before.counters, before.last_reading
    netting = Netting(
        before.closed_until_unix_s,
        counters.production_wh,
        counters.consumption_wh,
        counters.surplus_wh,
        last.production_wh,
        last.consumption_wh,
    )
    for reading in readings:
        netting.add(reading.time_unix_s, reading.production_wh, reading.consumption_wh)
    stated = (seal.closed_until_unix_s, seal.production_wh, seal.consumption_wh, seal.surplus_wh)
    netted = (netting.closed_until_unix_s, netting.production_wh, netting.consumption_wh, netting.surplus_wh)
    if stated != netted:
        raise FaultError("netting_mismatch", f"states {stated}, its readings give {netted} (until, Wh, Wh, Wh)")


def _check_bounds(seal: Seal, readings: list[Reading], before: Link) -> None:
    """What still binds a seal whose predecessor is not here: its own closing, and what any netting would keep to."""
    closed = [reading for reading in readings if reading.time_unix_s <= seal.closed_until_unix_s]
    if seal.closed_until_unix_s != time_floor(readings[-1].time_unix_s) or (
        closed and (closed[-1].production_wh, closed[-1].consumption_wh) != (seal.production_wh, seal.consumption_wh)
    ):
        raise FaultError("netting_mismatch", "its counters are not those of its last closed interval")
    produced_wh = seal.production_wh - before.counters.production_wh
    consumed_wh = seal.consumption_wh - before.counters.consumption_wh
    surplus_wh = seal.surplus_wh - before.counters.surplus_wh
    if not max(0, produced_wh - consumed_wh) <= surplus_wh <= produced_wh:
        raise FaultError("surplus_out_of_bounds", f"{surplus_wh} Wh of {produced_wh} produced, {consumed_wh} consumed")


def read_lines(file: BinaryIO) -> Iterator[bytes | None]:
    """The lines of the file; None for one that is too long to be a line of ours."""
    while line := file.readline(LINE_BYTES_MAX):
        if len(line) < LINE_BYTES_MAX or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(LINE_BYTES_MAX)
        yield None


def read_fields(line: bytes | None, types: dict[str, type]) -> dict[str, Any] | None:
    """The object in a line, if it has exactly these fields."""
    try:
        found = json.loads(line or b"")
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.keys() != types.keys():
        return None
    return found if all(type(found[name]) is kind for name, kind in types.items()) else None


def _read_seal_line(line: bytes | None) -> dict[str, Any]:
    """The fields of a seal's line. `state` and `received_at` are the hub's notes: well formed, and not believed."""
    stated = read_fields(line, SEAL_LINE)
    if (
        stated is None
        or stated["state"] not in COUNTED_STATES + UNCOUNTED_STATES
        or not _is_instant(stated["received_at"])
    ):
        raise FaultError("line_malformed", "not a line of this format")
    return stated


def _is_instant(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
