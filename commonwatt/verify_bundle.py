"""The part of `commonwatt verify` that follows a mint: which seals of which meters a transaction turned into GRID.

A bundle is lines of JSON: a header that names the transaction, and for each meter in it what it says was minted, how
the meter's keys came to be, and the evidence of the seals behind it (`verify.py`), beginning with the last one that an
earlier transaction had presented. What a file can prove is that the meter signed this energy, and that the amounts
follow from it; that the transaction took place is what a node is asked for (`verify_chain.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from commonwatt.verify_keys import FaultError, check_key, check_signature, read_handover, unhex
from commonwatt.verify_report import FALSE, Report, as_json
from protocol.enrolment import Enrolment, split_enrolment
from protocol.errors import ProtocolError
from protocol.seal import split_message

FORMAT = "commonwatt-provenance/1"
VERIFICATION_FORMAT = "commonwatt-provenance-verification/1"
METERS_MAX = 64
"""More accounts than that no transaction can name."""
UNITS_PER_WH = 1_000_000

HEADER = {
    "format": str,
    "community_id": str,
    "genesis_hash": str,
    "program_id": str,
    "transaction": str,
    "slot": int,
    "meters": int,
}
SECTION = {
    "meter_id": str,
    "owner": str,
    "key_epoch": int,
    "first_sequence": int,
    "last_sequence": int,
    "surplus_wh": int,
    "minted_wh": int,
    "written_off_wh": int,
    "earned_back_wh": int,
    "amount_units": str,
    "enrolment": str,
    "rotations": list,
}


@dataclass
class Mint:
    """One meter's part of the transaction: what the file states, what its evidence proves, and what is false."""

    stated: dict[str, Any]
    evidence: Report | None = None
    first_seal: bytes = b""
    """The first message of the evidence; behind the first mint of a key, of the seal that was presented before."""
    last_seal: bytes = b""
    """The last message of the evidence, as the meter signed it."""
    faults: list[str] = field(default_factory=list)

    @property
    def owner(self) -> bytes:
        """The wallet that the GRID went to, by the meter's own statement."""
        statement = None if self.evidence is None else self.evidence.statement
        return b"" if statement is None else statement.owner

    @property
    def amount_units(self) -> int:
        """GRID in base units, as stated; checked against the energy."""
        return int(self.stated["amount_units"])


@dataclass
class Bundle:
    """What the file proves, and, if a node was asked, what that said."""

    header: dict[str, Any]
    mints: list[Mint] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    chain: list[str] | None = None
    """What a node confirmed; None if none was asked."""

    @property
    def verified(self) -> bool:
        """Whether nothing is false and nothing is missing."""
        return not self.faults and all(
            not mint.faults and mint.evidence is not None and mint.evidence.verified for mint in self.mints
        )


def begin_mint(stated: dict[str, Any]) -> Mint:
    """A meter's section, before its evidence: every watt-hour of surplus went somewhere, and the amount follows."""
    mint = Mint(stated)
    parts_wh = [stated[name] for name in ("minted_wh", "written_off_wh", "earned_back_wh")]
    if min(parts_wh) < 0 or sum(parts_wh) != stated["surplus_wh"]:
        mint.faults.append(f"{stated['surplus_wh']} Wh of surplus are not the sum of {parts_wh}, its parts")
    if stated["amount_units"] != str(stated["minted_wh"] * UNITS_PER_WH):
        mint.faults.append(f"{stated['amount_units']} units are not {stated['minted_wh']} Wh")
    if not 1 <= stated["first_sequence"] <= stated["last_sequence"]:
        mint.faults.append("there are no such sequences")
    return mint


def end_mint(mint: Mint, header: dict[str, Any], evidence: Report) -> None:
    """Hold the evidence against what the section says. The evidence's own findings stay in its report."""
    mint.evidence, stated, statement = evidence, mint.stated, evidence.statement
    if statement is None:
        return  # its report says why
    if (evidence.meter_id, evidence.key_epoch) != (stated["meter_id"], stated["key_epoch"]):
        mint.faults.append(f"the evidence is of {evidence.meter_id}, key epoch {evidence.key_epoch}")
    if evidence.community_id != header["community_id"]:
        mint.faults.append(f"the evidence is of the community {evidence.community_id}")
    if statement.owner.hex() != stated["owner"]:
        mint.faults.append(f"the meter names {statement.owner.hex()} as its owner")
    gained_wh = evidence.end.surplus_wh - _start_wh(mint, evidence)
    if gained_wh != stated["surplus_wh"]:
        mint.faults.append(f"the seals state {gained_wh} Wh of surplus, not {stated['surplus_wh']}")
    try:
        reached = _follow_keys(stated)
    except FaultError as fault:
        mint.faults.append(f"key {fault.reason}: {fault.detail}")
        return
    if reached.public_key != statement.public_key:
        mint.faults.append("the keys lead to another key than the one that sealed")


def _start_wh(mint: Mint, evidence: Report) -> int:
    """Where the surplus stood before the first seal of this mint: at the seal before, or where its key began."""
    if mint.stated["first_sequence"] == 1:
        return evidence.start.surplus_wh
    try:
        return split_message(mint.first_seal).seal.surplus_wh
    except ProtocolError:
        return evidence.start.surplus_wh  # the evidence's own findings say that it is no seal


def _follow_keys(stated: dict[str, Any]) -> Enrolment:
    """From the meter's first key to the one of this epoch, each endorsed by the one before or the owner."""
    try:
        statement, signed, signature = split_enrolment(unhex(stated["enrolment"]))
    except ProtocolError as fault:
        raise FaultError(fault.code, fault.detail) from fault
    check_key(statement.public_key)
    check_signature(statement.public_key, signed, signature)
    if statement.key_epoch != 1:
        raise FaultError("key_epoch", "the first key has epoch 1")
    for epoch, rotation in enumerate(stated["rotations"], 2):
        if not isinstance(rotation, str):
            raise FaultError("line_malformed", "not a rotation")
        line = {"key_epoch": epoch, "rotation": rotation, "replacements": [], "to_sequence": 0}
        statement = read_handover(line, statement).statement
    if statement.key_epoch != stated["key_epoch"]:
        raise FaultError("key_epoch", f"the keys end with epoch {statement.key_epoch}")
    return statement


def bundle_as_json(bundle: Bundle) -> dict[str, Any]:
    """The report for machines."""
    return {
        "format": VERIFICATION_FORMAT,
        "verified": bundle.verified,
        "transaction": bundle.header["transaction"],
        "slot": bundle.header["slot"],
        "faults": bundle.faults,
        "chain": bundle.chain,
        "mints": [
            {
                **{name: mint.stated[name] for name in SECTION if name not in ("enrolment", "rotations")},
                "faults": mint.faults,
                "evidence": None if mint.evidence is None else as_json(mint.evidence),
            }
            for mint in bundle.mints
        ],
    }


def bundle_as_text(bundle: Bundle) -> Iterator[str]:
    """The report for people: the trail from the register to the token, line by line."""
    yield f"transaction  {bundle.header['transaction']}, slot {bundle.header['slot']}"
    for mint in bundle.mints:
        stated, evidence = mint.stated, mint.evidence
        yield f"meter        {stated['meter_id']} of {bundle.header['community_id']}, key epoch {stated['key_epoch']}"
        yield f"owner        {stated['owner']}"
        if evidence is not None:
            if evidence.statement is not None:
                yield f"key          {evidence.statement.public_key.hex()}"
            gained = asdict(evidence.end - evidence.start)
            yield (
                f"sealed       sequences {stated['first_sequence']} to {stated['last_sequence']}:"
                f" {evidence.verified_seals} of {evidence.seals} seals and {evidence.readings} readings verify"
            )
            yield (
                f"energy       {gained['production_wh']} Wh produced, {gained['consumption_wh']} consumed,"
                f" {gained['surplus_wh']} surplus"
            )
            for finding in evidence.findings:
                detail = f": {finding.detail}" if finding.detail else ""
                where = f"{stated['meter_id']}, sequence {finding.first_sequence}"
                yield f"{finding.kind:<12} {where}: {finding.reason}{detail}"
        yield (
            f"minted       {grid(stated['minted_wh'] * UNITS_PER_WH)} GRID for {stated['minted_wh']} Wh;"
            f" {stated['written_off_wh']} written off, {stated['earned_back_wh']} had been minted before"
        )
        yield from (f"{FALSE:<12} {stated['meter_id']}: {fault}" for fault in mint.faults)
    yield from (f"chain        {fact}" for fact in bundle.chain or ())
    yield from (f"{FALSE:<12} {fault}" for fault in bundle.faults)
    if not bundle.verified:
        yield "NOT everything verifies."
    elif bundle.chain is None:
        yield "Everything in this file verifies. That the transaction took place a node can tell: --rpc URL."
    else:
        yield "Everything verifies, and the chain says the same."


def grid(amount_units: int) -> str:
    """GRID with its nine decimals, without those that say nothing."""
    whole, part = divmod(amount_units, 10**9)
    return f"{whole}.{part:09}".rstrip("0").rstrip(".")
