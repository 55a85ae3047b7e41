"""The part of `commonwatt verify` that checks an export of the audit log. Standard library only.

What it proves: these entries stand in this order, none left out between the first and the last, and none changed since
the last hash was made. Whoever owns the database can make a whole new chain; that it is not the old one shows only a
head that was kept elsewhere (`--head`): the hub logs one every hour.

Each line holds an entry as the text that was hashed:

    entry_hash = SHA-256(entry in UTF-8)
    chain_hash = SHA-256(chain_hash of the line before ‖ position as 8 bytes, big-endian ‖ entry_hash)

Before the first entry of all there are 32 zero bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

FORMAT = "commonwatt-audit/1"
VERIFICATION_FORMAT = "commonwatt-audit-verification/1"
NO_ENTRIES = bytes(32)
POSITION_MAX = 2**53 - 1
HEADER = {
    "format": str,
    "community_id": str,
    "from_position": int,
    "to_position": int,
    "chain_hash_before": str,
}
_LINE = {"position": int, "entry": str, "chain_hash": str}
_ENTRY = {"at": str, "actor": str, "action": str, "subject": str, "audit_id": int, "detail": dict}
_HASH = re.compile("[0-9a-f]{64}")
_COMMUNITY = re.compile("[a-z0-9-]{1,64}")
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
"""Names and times are shown to people as they are: nothing else may be in them."""


@dataclass(frozen=True)
class Head:
    """How far the chain went when somebody looked."""

    position: int
    chain_hash: bytes


class NotAnAuditLogError(Exception):
    """The header is not one of this format."""


@dataclass
class AuditReport:
    """What the file proves. `fault` is the first that does not fit, and nothing after it is believed."""

    community_id: str
    from_position: int
    to_position: int
    entries: int = 0
    head: Head | None = None
    first_at: str | None = None
    last_at: str | None = None
    fault_position: int | None = None
    fault: str = ""

    @property
    def verified(self) -> bool:
        """Whether everything that the header promises is there and fits."""
        return self.fault_position is None

    def note(self, position: int, fault: str) -> None:
        """Keep the first fault."""
        if self.fault_position is None:
            self.fault_position, self.fault = position, fault


def verify_audit(header: dict[str, Any], lines: Iterable[bytes | None], kept: Head | None = None) -> AuditReport:
    """Work the chain out again, up to the first line that does not fit. Raises NotAnAuditLogError.

    `kept` is a head that was noted down earlier: the chain has to lead to it.
    """
    first, last = header["from_position"], header["to_position"]
    if (
        not 1 <= first <= last + 1 <= POSITION_MAX
        or not _HASH.fullmatch(header["chain_hash_before"])
        or not _COMMUNITY.fullmatch(header["community_id"])
    ):
        raise NotAnAuditLogError("its header names no part of a chain")
    report = AuditReport(header["community_id"], first, last)
    previous = bytes.fromhex(header["chain_hash_before"])
    if first == 1 and previous != NO_ENTRIES:
        report.note(1, "before the first entry there can be nothing")
        return report
    reached: dict[int, bytes] = {first - 1: previous}
    position = first - 1
    for line in lines:
        position += 1
        try:
            entry, chain_hash = _read_line(line, position, last)
        except ValueError as fault:
            report.note(position, str(fault))
            return report
        previous = link(previous, position, entry)
        if previous != chain_hash:
            report.note(position, "its hash does not follow from its text and the entries before it")
            return report
        if kept is not None and position == kept.position:
            reached[position] = previous
        at = json.loads(entry)["at"]
        report.entries += 1
        report.first_at, report.last_at = report.first_at or at, at
        report.head = Head(position, previous)
    if position < last:
        report.note(position + 1, f"missing: the file should go on to {last}")
    elif kept is not None and reached.get(kept.position) != kept.chain_hash:
        outside = kept.position not in reached
        report.note(kept.position, "the kept head is not in this file" if outside else "not the head that was kept")
    return report


def link(previous: bytes, position: int, entry: str) -> bytes:
    """The hash of the chain with one more entry."""
    entry_hash = hashlib.sha256(entry.encode("utf-8", "surrogatepass")).digest()
    return hashlib.sha256(previous + position.to_bytes(8, "big") + entry_hash).digest()


def _read_line(line: bytes | None, position: int, last: int) -> tuple[str, bytes]:
    """The entry's text and its stated hash. Raises ValueError saying what is wrong."""
    stated = _object(line or b"", _LINE)
    if stated is None or not _HASH.fullmatch(stated["chain_hash"]):
        raise ValueError("not a line of this format")
    if stated["position"] != position:
        raise ValueError(f"its line says {stated['position']}")
    if position > last:
        raise ValueError(f"the header says that the file ends at {last}")
    entry = _object(stated["entry"], _ENTRY)
    if entry is None or not _INSTANT.fullmatch(entry["at"]):
        raise ValueError("not an entry of an audit log")
    return stated["entry"], bytes.fromhex(stated["chain_hash"])


def _object(text: bytes | str, types: dict[str, type]) -> dict[str, Any] | None:
    """The object in a text, if it has exactly these fields."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.keys() != types.keys():
        return None
    return found if all(type(found[name]) is kind for name, kind in types.items()) else None


def read_head(text: str) -> Head:
    """A head as it is logged: POSITION:HASH. Raises ValueError."""
    position, _, chain_hash = text.partition(":")
    if not _HASH.fullmatch(chain_hash) or not position.isascii() or not position.isdigit():
        raise ValueError("a head is POSITION:HASH")
    return Head(int(position), bytes.fromhex(chain_hash))


def audit_as_json(report: AuditReport) -> dict[str, Any]:
    """The report for machines."""
    return {
        "format": VERIFICATION_FORMAT,
        "verified": report.verified,
        "community_id": report.community_id,
        "from_position": report.from_position,
        "to_position": report.to_position,
        "verified_entries": report.entries,
        "from": report.first_at,
        "to": report.last_at,
        "head": None
        if report.head is None
        else {"position": report.head.position, "chain_hash": report.head.chain_hash.hex()},
        "fault": None if report.fault_position is None else {"position": report.fault_position, "reason": report.fault},
    }


def audit_as_text(report: AuditReport) -> Iterator[str]:
    """The report for people, line by line."""
    yield f"audit log    of {report.community_id}, positions {report.from_position} to {report.to_position}"
    yield f"verified     {report.entries} entries"
    if report.head is not None:
        yield f"period       {report.first_at} to {report.last_at}"
        yield f"head         {report.head.position}:{report.head.chain_hash.hex()}"
    if report.verified:
        yield "Everything in this file verifies. Compare its head with one that was kept elsewhere."
    else:
        yield f"false        position {report.fault_position}: {report.fault}"
        yield "NOT everything verifies."
