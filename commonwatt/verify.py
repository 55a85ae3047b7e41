"""`commonwatt verify`: check a meter's evidence, what is behind a token, or the audit log, offline, trusting nobody.

Which of them a file is its first line says; what each can prove the three modules say that check them
(`verify_evidence.py`, `verify_bundle.py`, `verify_audit.py`). Of the hub it needs neither code nor database nor word.

Exit status: 0 everything verifies and nothing is missing, 1 something is false or missing, 2 the file is not readable.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from commonwatt import verify_audit as audit
from commonwatt import verify_bundle as bundles
from commonwatt.verify_chain import NodeError, check_chain, node
from commonwatt.verify_evidence import SEAL_LINE, UnreadableError, read_fields, read_lines, verify_lines
from commonwatt.verify_keys import FaultError, unhex
from commonwatt.verify_report import Report, as_json, as_text
from commonwatt.verify_single_file import single_file

# --- what is behind a token ------------------------------------------------------------------------------------


def verify_bundle(header: dict[str, Any], lines: Iterator[bytes | None]) -> bundles.Bundle:
    """Read a bundle to its end and say what holds. `lines` begin behind the header."""
    bundle = bundles.Bundle(header)
    stated = read_fields(next(lines, None), bundles.SECTION)
    while stated is not None and len(bundle.mints) < bundles.METERS_MAX:
        mint = bundles.begin_mint(stated)
        evidence, stated = _section(lines)
        mint.first_seal, mint.last_seal = _message(evidence[1:2]), _message(evidence[-1:])
        try:
            bundles.end_mint(mint, header, verify_lines(iter(evidence), None))
        except UnreadableError as fault:
            mint.faults.append(f"its evidence: {fault}")
        bundle.mints.append(mint)
    if len(bundle.mints) != header["meters"] or not bundle.mints:
        bundle.faults.append(f"{len(bundle.mints)} meters are in the file, and its header says {header['meters']}")
    return bundle


def _section(lines: Iterator[bytes | None]) -> tuple[list[bytes | None], dict[str, Any] | None]:
    """The lines up to the next meter's section, and that section's first line."""
    section: list[bytes | None] = []
    for line in lines:
        stated = read_fields(line, bundles.SECTION)
        if stated is not None:
            return section, stated
        section.append(line)
    return section, None


def _message(line: Sequence[bytes | None]) -> bytes:
    stated = read_fields(line[0], SEAL_LINE) if line else None
    try:
        return b"" if stated is None else unhex(stated["message"])
    except FaultError:
        return b""


def _key(text: str) -> bytes:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError("a key is 64 hexadecimal digits")
    return bytes.fromhex(text)


def _head(text: str) -> audit.Head:
    try:
        return audit.read_head(text)
    except ValueError as fault:
        raise argparse.ArgumentTypeError(str(fault)) from fault


def app(args: Sequence[str] | None = None, prog_name: str = "commonwatt verify") -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=prog_name,
        description="Check an export of a meter's evidence, the bundle behind a token, or the audit log, offline.",
    )
    parser.epilog = "Status 0: everything verifies. 1: something is false or missing. 2: the file is not readable."
    parser.add_argument("export", metavar="FILE", nargs="?", help="what to check; - for standard input")
    parser.add_argument(
        "--single-file", type=Path, metavar="PATH", help="write this verifier there, as one file that Python can run"
    )
    parser.add_argument("--key", type=_key, metavar="HEX", help="the meter's public key, as you know it")
    parser.add_argument(
        "--head", type=_head, metavar="POSITION:HASH", help="a head of the audit log that you have kept"
    )
    parser.add_argument("--rpc", metavar="URL", help="a Solana node, to be asked whether a bundle's mint took place")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    options = parser.parse_args(args)
    if options.single_file is not None:
        _write_single_file(options.single_file, prog_name)
        sys.exit(0)
    if options.export is None:
        parser.error("which file?")
    try:
        with sys.stdin.buffer if options.export == "-" else Path(options.export).open("rb") as file:
            report = _verify_any(file, options.key, options.head)
        if options.rpc is not None:
            _ask_node(report, options.rpc)
    except (UnreadableError, audit.NotAnAuditLogError, NodeError, OSError) as fault:
        print(f"{prog_name}: {options.export}: {fault}", file=sys.stderr)
        sys.exit(2)
    for line in _told(report, options.json):
        print(line)
    sys.exit(0 if report.verified else 1)


def _ask_node(report: AnyReport, url: str) -> None:
    if not isinstance(report, bundles.Bundle):
        raise UnreadableError("--rpc is for the bundle behind a token, and this is none")
    check_chain(report, node(url))


AnyReport = Report | bundles.Bundle | audit.AuditReport


def _write_single_file(path: Path, prog_name: str) -> None:
    try:
        path.write_bytes(single_file())
    except OSError as fault:
        print(f"{prog_name}: {fault}", file=sys.stderr)
        sys.exit(2)
    print(f"Wrote {path}. With Python and PyNaCl, anywhere: python {path} FILE")


def _verify_any(file: BinaryIO, key: bytes | None, head: audit.Head | None) -> AnyReport:
    lines = read_lines(file)
    first = next(lines, None)
    header = read_fields(first, audit.HEADER)
    if header is not None and header["format"] == audit.FORMAT:
        return audit.verify_audit(header, lines, head)
    if head is not None:
        raise UnreadableError("a head is kept of an audit log, and this is none")
    header = read_fields(first, bundles.HEADER)
    if header is not None and header["format"] == bundles.FORMAT:
        return verify_bundle(header, lines)
    return verify_lines(chain([first], lines), key)


def _told(report: AnyReport, for_machines: bool) -> Iterable[str]:
    if isinstance(report, Report):
        return [json.dumps(as_json(report))] if for_machines else as_text(report)
    if isinstance(report, bundles.Bundle):
        shown = bundles.bundle_as_json(report)
        return [json.dumps(shown)] if for_machines else bundles.bundle_as_text(report)
    return [json.dumps(audit.audit_as_json(report))] if for_machines else audit.audit_as_text(report)


if __name__ == "__main__":
    app()
