"""An export of the audit log proves itself, and the first place where it was tampered with is named."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commonwatt.verify_audit import (
    FORMAT,
    NO_ENTRIES,
    Head,
    NotAnAuditLogError,
    audit_as_json,
    audit_as_text,
    read_head,
    verify_audit,
)

SEED = 20_261_120
FLIPS = 400


def _entry(number, **changes):
    entry = {
        "at": f"2026-11-20T06:{number // 60 % 60:02d}:{number % 60:02d}.000000Z",
        "actor": "member:ada",
        "action": "meter.suspend",
        "detail": {"reason": f"Nr. {number} — „zu heiß“"},
        "subject": f"meter:roof-{number}",
        "audit_id": number + 7,
    }
    return json.dumps(entry | changes, ensure_ascii=False)


def _chained(entries, first=1, previous=NO_ENTRIES):
    """Lines as the hub writes them, by the documented rule and nothing of the verifier's."""
    lines = []
    for position, entry in enumerate(entries, first):
        entry_hash = hashlib.sha256(entry.encode()).digest()
        previous = hashlib.sha256(previous + position.to_bytes(8, "big") + entry_hash).digest()
        lines.append({"position": position, "entry": entry, "chain_hash": previous.hex()})
    return lines


def _header(lines, first=1, before=NO_ENTRIES):
    return {
        "format": FORMAT,
        "community_id": "street",
        "from_position": first,
        "to_position": first + len(lines) - 1,
        "chain_hash_before": before.hex(),
    }


def _bytes(lines):
    return [json.dumps(line).encode() + b"\n" for line in lines]


def _verify(lines, header=None, kept=None):
    return verify_audit(_header(lines) if header is None else header, _bytes(lines), kept)


@given(count=st.integers(0, 30), cut=st.integers(0, 30))
@settings(max_examples=40)
def test_a_whole_log_and_any_later_part_of_it_verify(count, cut):
    lines = _chained([_entry(number) for number in range(count)])
    report = _verify(lines)
    assert report.verified, report.fault
    assert report.entries == count
    cut = min(cut, count)
    before = bytes.fromhex(lines[cut - 1]["chain_hash"]) if cut else NO_ENTRIES
    part = verify_audit(_header(lines[cut:], cut + 1, before), _bytes(lines[cut:]))
    assert part.verified, part.fault
    assert part.entries == count - cut
    if count > cut:
        assert part.head == Head(count, bytes.fromhex(lines[-1]["chain_hash"]))


def _means(line):
    try:
        return json.loads(line)
    except ValueError:
        return None


def test_every_flipped_bit_is_named_by_its_position():
    rng = random.Random(SEED)
    lines = _bytes(_chained([_entry(number) for number in range(12)]))
    for _ in range(FLIPS):
        at = rng.randrange(len(lines))
        spoiled = bytearray(lines[at])
        bit = rng.randrange(8 * (len(spoiled) - 1))
        spoiled[bit // 8] ^= 1 << bit % 8
        if _means(bytes(spoiled)) == _means(lines[at]):
            continue  # \u00df and \u00Df are one letter
        report = verify_audit(_header(lines), [*lines[:at], bytes(spoiled), *lines[at + 1 :]])
        assert report.fault_position == at + 1, spoiled
        assert report.entries == at


def _removed(lines, at):
    return lines[:at] + lines[at + 1 :]


def _swapped(lines, at):
    return [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]


def _swapped_and_renumbered(lines, at):
    swapped = _swapped(lines, at)
    swapped[at] = swapped[at] | {"position": at + 1}
    swapped[at + 1] = swapped[at + 1] | {"position": at + 2}
    return swapped


def _inserted(lines, at):
    forged = {"position": at + 1, "entry": _entry(99), "chain_hash": "ab" * 32}
    return [*lines[:at], forged, *(line | {"position": line["position"] + 1} for line in lines[at:])]


def _inserted_with_a_hash_that_follows(lines, at):
    before = bytes.fromhex(lines[at - 1]["chain_hash"]) if at else NO_ENTRIES
    [forged] = _chained([_entry(99)], at + 1, before)
    return [*lines[:at], forged, *(line | {"position": line["position"] + 1} for line in lines[at:])]


def _repeated(lines, at):
    return [*lines[: at + 1], *lines[at:]]


def _rewritten_with_its_own_hash(lines, at):
    before = bytes.fromhex(lines[at - 1]["chain_hash"]) if at else NO_ENTRIES
    return [*lines[:at], *_chained([_entry(99)], at + 1, before), *lines[at + 1 :]]


@pytest.mark.parametrize(
    ("tamper", "later_by"),
    [
        (_removed, 0),
        (_swapped, 0),
        (_swapped_and_renumbered, 0),
        (_inserted, 0),
        (_inserted_with_a_hash_that_follows, 1),
        (_repeated, 1),
        (_rewritten_with_its_own_hash, 1),
    ],
)
@pytest.mark.parametrize("at", [0, 3, 8])
def test_what_was_removed_moved_inserted_or_rewritten_is_found_where_it_happened(tamper, later_by, at):
    """A forger who works out the hash of what he forged only moves the fault to the entry behind it."""
    lines = _chained([_entry(number) for number in range(10)])
    spoiled = tamper(lines, at)
    report = _verify(spoiled)
    assert report.fault_position == at + 1 + later_by, report.fault
    assert not report.verified


def test_a_log_that_was_cut_at_its_end_is_missing_entries():
    lines = _chained([_entry(number) for number in range(6)])
    report = verify_audit(_header(lines), _bytes(lines[:4]))
    assert (report.fault_position, report.fault) == (5, "missing: the file should go on to 6")
    report = verify_audit(_header(lines[:4]), _bytes(lines))
    assert (report.fault_position, report.entries) == (5, 4)


def test_a_log_made_anew_from_the_beginning_is_betrayed_by_a_head_that_was_kept():
    true = _chained([_entry(number) for number in range(8)])
    head = read_head(f"5:{true[4]['chain_hash']}")
    assert _verify(true, kept=head).verified
    anew = _chained([_entry(number) for number in range(8) if number != 2] + [_entry(50)])
    assert _verify(anew).verified, "a whole new chain is a chain"
    report = _verify(anew, kept=head)
    assert (report.fault_position, report.fault) == (5, "not the head that was kept")
    report = _verify(true[:4], kept=head)
    assert (report.fault_position, report.fault) == (5, "the kept head is not in this file")
    assert _verify(true[:5], kept=replace(head, position=0, chain_hash=NO_ENTRIES)).verified


def test_the_first_entry_of_all_has_nothing_before_it():
    lines = _chained([_entry(1)], previous=b"\x01" * 32)
    report = verify_audit(_header(lines, before=b"\x01" * 32), _bytes(lines))
    assert (report.fault_position, report.entries) == (1, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"from_position": 0},
        {"from_position": 5, "to_position": 3},
        {"to_position": 2**53},
        {"chain_hash_before": "00"},
        {"chain_hash_before": "AB" * 32},
        {"community_id": "\x1b[2J"},
    ],
)
def test_a_header_that_names_no_part_of_a_chain_is_unreadable(changes):
    with pytest.raises(NotAnAuditLogError):
        verify_audit(_header([]) | changes, [])


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "[]",
        "{}",
        _entry(1, at="yesterday"),
        _entry(1, at="\x1b[2J"),
        _entry(1, detail="none"),
        _entry(1, audit_id=1.5),
        _entry(1, colour="green"),
    ],
)
def test_what_is_no_entry_is_false_although_its_hash_follows(entry):
    report = _verify(_chained([_entry(0), entry, _entry(2)]))
    assert (report.fault_position, report.fault) == (2, "not an entry of an audit log")


@given(garbage=st.binary(max_size=300))
def test_no_bytes_break_the_verifier(garbage):
    report = verify_audit(_header([{}]), [garbage])
    assert report.fault_position == 1


@pytest.mark.parametrize("text", ["", "5", "5:ab", ":" + "0" * 64, "-5:" + "0" * 64, "²:" + "0" * 64, "5:" + "g" * 64])
def test_a_head_is_written_in_one_way(text):
    with pytest.raises(ValueError, match="POSITION:HASH"):
        read_head(text)


def _run(arguments, stdin):
    return subprocess.run(
        [sys.executable, "-m", "commonwatt.verify", *arguments, "-"], input=stdin, capture_output=True, check=False
    )


def test_the_command_tells_people_and_machines_and_its_status_tells_scripts():
    lines = _chained([_entry(number) for number in range(3)])
    export = b"".join(_bytes([_header(lines), *lines]))
    good = _run(["--json", "--head", f"2:{lines[1]['chain_hash']}"], export)
    assert good.returncode == 0, good.stderr
    told = json.loads(good.stdout)
    assert (told["verified"], told["verified_entries"], told["fault"]) == (True, 3, None)
    assert told["head"] == {"position": 3, "chain_hash": lines[2]["chain_hash"]}
    bad = _run([], export.replace(b"roof-1", b"roof-7"))
    assert bad.returncode == 1
    assert b"position 2" in bad.stdout
    assert _run([], b"no export").returncode == 2
    assert _run([], b"".join(_bytes([_header(lines) | {"community_id": "\x07"}]))).returncode == 2
    assert _run(["--head", f"2:{'0' * 64}"], b"{}\n").returncode == 2
    for option, expected in (("--head", b"a head is POSITION:HASH"), ("--key", b"a key is 64 hexadecimal digits")):
        mistyped = _run([option, "1:00"], export)
        assert mistyped.returncode == 2
        assert expected in mistyped.stderr


def test_the_report_says_the_same_in_both_ways():
    report = _verify(_chained([_entry(number) for number in range(3)]))
    text = "\n".join(audit_as_text(report))
    told = audit_as_json(report)
    assert f"3:{told['head']['chain_hash']}" in text
    assert told["from"] in text
    assert "Everything in this file verifies" in text
    assert audit_as_json(_verify([]))["head"] is None


def test_the_example_in_the_docs_is_worked_out_right():
    """`docs/decisions/audit-chain.md` shows one entry with its hashes: they are these."""
    entry = (
        '{"at": "2026-11-20T06:00:00.000000Z", "actor": "command line", "action": "member.create",'
        ' "detail": {"type": "consumer"}, "subject": "member:6d0f3a52-0c1b-4c6e-9a55-7f0f2f6b1c11", "audit_id": 1}'
    )
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs/decisions/audit-chain.md").read_text()
    [line] = _chained([entry])
    assert entry in page
    assert hashlib.sha256(entry.encode()).hexdigest() in page
    assert line["chain_hash"] in page
