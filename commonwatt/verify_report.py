"""What an export of evidence proves, and how that is told to people and to machines. Nothing is decided here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from commonwatt.verify_keys import KnownKey, exchange_json
from protocol.enrolment import KIND_NAMES, MEASUREMENT_NAMES, Enrolment
from protocol.readings import Reading
from protocol.replacement import Replacement

VERIFICATION_FORMAT = "commonwatt-verification/1"
FINDINGS_KEPT_MAX = 10_000
"""Further ones are only counted, so that no file can fill the memory."""

FALSE, MISSING, HELD = "false", "missing", "held"


@dataclass(frozen=True)
class Energy:
    """The three counters of a seal, or a difference of them."""

    production_wh: int = 0
    consumption_wh: int = 0
    surplus_wh: int = 0

    def __add__(self, other: Energy) -> Energy:
        return Energy(
            self.production_wh + other.production_wh,
            self.consumption_wh + other.consumption_wh,
            self.surplus_wh + other.surplus_wh,
        )

    def __sub__(self, other: Energy) -> Energy:
        return self + Energy(-other.production_wh, -other.consumption_wh, -other.surplus_wh)


@dataclass(frozen=True)
class Finding:
    """FALSE, MISSING or HELD sequences of a key epoch, inclusive; sequence 0 is the key's own statement."""

    kind: str
    key_epoch: int
    first_sequence: int
    last_sequence: int
    reason: str
    detail: str = ""


@dataclass
class Report:
    """What the file proves. `unproved` is the part of `end` − `start` that false or missing seals leave open.

    `key_epoch` and `statement` are of the last key that is reached.
    """

    community_id: str
    meter_id: str
    key_epoch: int
    statement: Enrolment | None = None
    seals: int = 0
    verified_seals: int = 0
    readings: int = 0
    start_unix_s: int | None = None
    end_unix_s: int | None = None
    start: Energy = Energy()
    end: Energy = Energy()
    unproved: Energy = Energy()
    last_reading: Reading | None = None
    keys: list[KnownKey] = field(default_factory=list)
    exchanges: list[Replacement] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def verified(self) -> bool:
        """Whether nothing is false and nothing is missing."""
        return self.statement is not None and not self.counts[FALSE] and not self.counts[MISSING]

    def note(self, kind: str, first: int, last: int, reason: str, detail: str = "") -> None:
        """Keep a finding, or only count it when there are too many."""
        self.counts[kind] += last - first + 1
        if len(self.findings) < FINDINGS_KEPT_MAX:
            self.findings.append(Finding(kind, self.key_epoch, first, last, reason, detail))


def as_json(report: Report) -> dict[str, Any]:
    """The report for machines: instants in ISO 8601 UTC, energy in integer Wh."""
    statement = report.statement
    last = report.last_reading
    by_kind: dict[str, list[dict[str, Any]]] = {FALSE: [], MISSING: [], HELD: []}
    for finding in report.findings:
        shown = asdict(finding)
        by_kind[shown.pop("kind")].append(shown)
    return {
        "format": VERIFICATION_FORMAT,
        "verified": report.verified,
        "community_id": report.community_id,
        "meter_id": report.meter_id,
        "kind": KIND_NAMES[statement.kind] if statement else None,
        "measurement": MEASUREMENT_NAMES[statement.measurement] if statement else None,
        "owner": statement.owner.hex() if statement else None,
        "public_key": statement.public_key.hex() if statement else None,
        "key_epoch": report.key_epoch,
        "keys": [{**asdict(key), "public_key": key.public_key.hex()} for key in report.keys],
        "replacements": [exchange_json(record) for record in report.exchanges],
        "seals": report.seals,
        "verified_seals": report.verified_seals,
        "readings": report.readings,
        "from": _iso(report.start_unix_s),
        "to": _iso(report.end_unix_s),
        "start": asdict(report.start),
        "end": asdict(report.end),
        "energy": asdict(report.end - report.start),
        "unproved": asdict(report.unproved),
        "last_reading": None
        if last is None
        else {
            "time": _iso(last.time_unix_s),
            "production_wh": last.production_wh,
            "consumption_wh": last.consumption_wh,
        },
        **by_kind,
        "counts": {kind: report.counts[kind] for kind in by_kind},
    }


def as_text(report: Report) -> Iterator[str]:
    """The report for people, line by line."""
    statement = report.statement
    if statement is not None:
        kind, measurement = KIND_NAMES[statement.kind], MEASUREMENT_NAMES[statement.measurement]
        yield f"meter        {report.meter_id} of {report.community_id} ({kind}, {measurement})"
        yield f"owner        {statement.owner.hex()}"
        yield f"key          {statement.public_key.hex()}, epoch {report.key_epoch}"
        for key in report.keys[:-1]:
            yield f"before that  {key.public_key.hex()}, epoch {key.key_epoch}"
        for record in report.exchanges:
            shown = exchange_json(record)
            old, new = f"{record.old_serial} at {record.final_wh} Wh", f"{record.new_serial} at {record.initial_wh} Wh"
            yield f"exchanged    {shown['register']}: {old} for {new}, {_iso(record.at_unix_s)}"
        yield f"verified     {report.verified_seals} of {report.seals} seals, {report.readings} readings"
        if report.start_unix_s is not None:
            yield f"period       {_iso(report.start_unix_s)} to {_iso(report.end_unix_s)}"
            energy, unproved = asdict(report.end - report.start), asdict(report.unproved)
            start, end = asdict(report.start), asdict(report.end)
            for name, energy_wh in energy.items():
                open_part = f", of which {unproved[name]} Wh unproved" if unproved[name] else ""
                label = name.removesuffix("_wh")
                yield f"{label:<12} {energy_wh} Wh (from {start[name]} to {end[name]}){open_part}"
    for finding in report.findings:
        first, last = finding.first_sequence, finding.last_sequence
        where = "enrolment" if last == 0 else f"sequence {first}" if first == last else f"sequences {first} to {last}"
        detail = f": {finding.detail}" if finding.detail else ""
        where = where if len(report.keys) < 2 else f"key epoch {finding.key_epoch}, {where}"
        yield f"{finding.kind:<12} {report.meter_id}, {where}: {finding.reason}{detail}"
    if len(report.findings) == FINDINGS_KEPT_MAX:
        yield f"             only the first {FINDINGS_KEPT_MAX} findings are shown"
    if report.verified:
        yield "Everything in this file verifies."
    else:
        yield f"NOT everything verifies: {report.counts[FALSE]} false, {report.counts[MISSING]} missing."


def _iso(unix_s: int | None) -> str | None:
    return None if unix_s is None else datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")
