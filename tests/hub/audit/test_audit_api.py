"""Auditors see who did what, and take away a file that proves itself."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import pytest

from commonwatt.verify_audit import HEADER, read_head, verify_audit
from hub.api_types import iso
from hub.audit import append_audit, store
from hub.audit.api import LINKS_PER_PAGE
from hub.db import transaction
from hub.permissions import Role

NOW = datetime(2026, 11, 20, 6, tzinfo=UTC)


@pytest.fixture
def acts(server):
    """Ten acts, a minute apart, by two members on three meters; what it took to start the server came before."""
    with transaction(server.engine) as connection:
        before = store.get_head(connection).position
    for number in range(10):
        with transaction(server.engine) as connection:
            append_audit(
                connection,
                NOW + timedelta(minutes=number),
                f"member:{'ada' if number % 2 else 'bo key:7'}",
                "meter.suspend" if number < 5 else "member.give_role",
                f"meter:{number % 3}",
                {"reason": f"no. {number}"},
            )
    return before


def _numbers(server, **query):
    answer = server.client.get("/audit", params=query)
    assert answer.status_code == 200, answer.text
    return [
        int(entry["detail"]["reason"][4:])
        for entry in answer.json()["entries"]
        if str(entry["detail"].get("reason", "")).startswith("no. ")
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        ({"actor": "member:ada"}, [9, 7, 5, 3, 1]),
        ({"actor": "member:bo"}, [8, 6, 4, 2, 0]),
        ({"actor": "member:bo key:7"}, [8, 6, 4, 2, 0]),
        ({"actor": "member:b"}, []),
        ({"actor": "member:%"}, []),
        ({"subject": "meter:1"}, [7, 4, 1]),
        ({"action": "meter.suspend"}, [4, 3, 2, 1, 0]),
        ({"action": "meter"}, [4, 3, 2, 1, 0]),
        ({"action": "mete"}, []),
        ({"from": iso(NOW + timedelta(minutes=8))}, [9, 8]),
        ({"from": iso(NOW), "to": iso(NOW + timedelta(minutes=2))}, [1, 0]),
        ({"actor": "member:ada", "subject": "meter:1", "action": "member"}, [7]),
    ],
)
def test_an_auditor_finds_acts_by_who_what_to_what_and_when(server, acts, query, expected):
    assert _numbers(server, **query) == expected


def test_pages_follow_each_other_without_a_gap_while_more_is_done(server, acts):
    cursor, positions = "", []
    while cursor is not None:
        answer = server.client.get("/audit", params={"limit": 4, "cursor": cursor}).json()
        positions += [entry["position"] for entry in answer["entries"]]
        cursor = answer["next_cursor"]
        with transaction(server.engine) as connection:
            append_audit(connection, NOW, "member:eve", "meter.resume", "meter:1", {})
    assert positions == list(range(acts + 10, 0, -1))


def test_the_head_of_a_page_is_that_of_the_export(server, acts):
    head = server.client.get("/audit", params={"limit": 1}).json()["head"]
    assert head["position"] == acts + 10
    exported = server.client.get("/audit/export")
    assert exported.headers["Content-Type"] == "application/x-ndjson"
    report = _verified(exported.content, f"{head['position']}:{head['chain_hash']}")
    assert (report.verified, report.entries, report.fault) == (True, acts + 10, "")


def _verified(content, kept=None):
    lines = iter(io.BytesIO(content))
    header = json.loads(next(lines))
    assert header.keys() == HEADER.keys()
    return verify_audit(header, lines, None if kept is None else read_head(kept))


def test_a_part_of_the_chain_can_be_taken_by_whoever_has_what_came_before(server, acts):
    part = _verified(server.client.get("/audit/export", params={"from_position": acts + 6}).content)
    assert (part.verified, part.entries) == (True, 5)
    nothing = _verified(server.client.get("/audit/export", params={"from_position": acts + 11}).content)
    assert (nothing.verified, nothing.entries) == (True, 0)
    answer = server.client.get("/audit/export", params={"from_position": acts + 12})
    assert (answer.status_code, answer.json()["code"]) == (422, "malformed_input")


def test_a_long_log_is_exported_in_pages_without_a_seam(server):
    with transaction(server.engine) as connection:
        for number in range(2 * LINKS_PER_PAGE + 1):
            append_audit(connection, NOW, "member:ada", "meter.suspend", f"meter:{number}", {})
    report = _verified(server.client.get("/audit/export").content)
    assert report.verified, report.fault
    assert report.entries > 2 * LINKS_PER_PAGE


def test_members_and_operators_read_no_audit_log(server):
    for role in (Role.OPERATOR, Role.INVESTOR, Role.ASSET_MANAGER):
        with server.acting(server.member(role)) as client:
            for path in ("/audit", "/audit/export"):
                assert client.get(path).status_code == 403
    with server.acting(server.member(Role.AUDITOR)) as client:
        assert client.get("/audit").status_code == 200
        assert client.get("/audit/export").status_code == 200
    assert server.anonymous.get("/audit").status_code == 401


@pytest.mark.parametrize("query", ["actor=", "actor=%00", "action=%C3%A9", "from=yesterday", "limit=0", "colour=green"])
def test_a_question_that_makes_no_sense_is_malformed(server, query):
    answer = server.client.get(f"/audit?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "malformed_input")
