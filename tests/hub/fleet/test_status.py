"""What agents say of themselves: strict where it matters, tolerant of what is new, and never a crash."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.fleet.status import (
    COUNTS_MAX,
    DEVICES_MAX,
    PROBLEMS_MAX,
    STATUS_BYTES_MAX,
    Device,
    Status,
    StatusMalformed,
    parse_status,
)

FULL = {
    "state": "online",
    "agent": "0.1.0",
    "time_unix_s": 1_795_000_000,
    "key_epoch": 2,
    "sequence": 4_711,
    "backlog_seals": 3,
    "unsealed_readings": 7,
    "last_reading_unix_s": 1_794_999_990,
    "journal_bytes": 1_000,
    "journal_bytes_max": 100_000,
    "clock": "synchronised",
    "transport": "mqtt5",
    "meters": [{"role": "grid", "map": "eastron_sdm120", "quantum_wh": "0.98"}],
    "problems": ["clock_unsynchronised"],
    "counts": {"broker_lost": 2},
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


def _bytes(**changes):
    return json.dumps({name: value for name, value in (FULL | changes).items() if value is not ...}).encode()


def test_a_full_status_is_understood_to_the_last_field():
    status = parse_status(_bytes())
    assert status.meters == [Device("grid", "eastron_sdm120", "0.98")]
    for name, value in FULL.items():
        if name != "meters":
            assert getattr(status, name) == value


def test_a_last_will_has_its_state_alone():
    assert parse_status(b'{"state":"offline"}') == Status("offline")


@pytest.mark.parametrize("name", [name for name in FULL if name != "state"])
def test_an_agent_may_leave_out_what_it_does_not_know(name):
    assert getattr(parse_status(_bytes(**{name: ...})), name) in (None, [])


def test_what_a_newer_agent_adds_is_no_reason_to_ignore_it():
    assert parse_status(_bytes(weather={"wind": [1, 2.5, None]}, state="online")).sequence == 4_711


def test_a_device_with_too_many_problems_is_seen_all_the_same():
    status = parse_status(
        _bytes(
            problems=[f"p{number}" for number in range(PROBLEMS_MAX + 1)],
            counts={f"c{number}": 1 for number in range(COUNTS_MAX + 1)},
            meters=[{"role": "grid", "map": "x"}] * (DEVICES_MAX + 1),
        )
    )
    assert status.problems == [f"p{number}" for number in range(PROBLEMS_MAX)]
    assert len(status.counts) == COUNTS_MAX
    assert len(status.meters) == DEVICES_MAX


@pytest.mark.parametrize(
    ("name", "shown"),
    [("Zähler im Keller", "Zähler im Keller"), ("x" * 500, "x" * 64), ("a\nb\x1b[2J\u202e\x00", "a b [2J  "), ("", "")],
)
def test_a_register_map_may_be_called_as_its_owner_likes_and_the_meter_is_seen_all_the_same(name, shown):
    device = {"role": "grid", "map": name}
    assert parse_status(_bytes(meters=[device])).meters == [Device("grid", shown)]


@pytest.mark.parametrize("quantum", ["0.98", "7.81", "100", "1.19e-7", "1E-7", "49/50"])
def test_the_step_of_a_register_may_be_written_as_agents_write_it(quantum):
    device = {"role": "grid", "map": "eastron_sdm120", "quantum_wh": quantum}
    assert parse_status(_bytes(meters=[device])).meters == [Device(**device)]


def test_a_clock_that_was_never_set_is_told_and_not_refused():
    assert parse_status(_bytes(time_unix_s=12)).time_unix_s == 12


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "sleeping"},
        {"state": ...},
        {"sequence": -1},
        {"sequence": 2**53},
        {"sequence": 1.0},
        {"sequence": "1"},
        {"sequence": True},
        {"backlog_seals": 10**30},
        {"time_unix_s": 10**12},
        {"agent": ""},
        {"agent": "x" * 65},
        {"agent": "0.1\n"},
        {"agent": "0.1\x00"},
        {"agent": "\u202e0.1"},
        {"clock": "Synchronised"},
        {"problems": None},
        {"problems": ["Journal full"]},
        {"problems": ["journal_full\n"]},
        {"problems": [""]},
        {"problems": ["x" * 65]},
        {"counts": {"a b": 1}},
        {"counts": {"a": -1}},
        {"meters": [{"role": "grid"}]},
        {"meters": [{"role": "grid", "map": "x", "quantum_wh": "many"}]},
        {"padding": "x" * STATUS_BYTES_MAX},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_what_breaks_a_bound_is_refused_whole(changes):
    with pytest.raises(StatusMalformed):
        parse_status(_bytes(**changes))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b'"online"',
        b"{",
        b'{"state":"online"}x',
        b"[" * 4_000,
        b"\xff\xfe",
        b'{"state":"on\xffline"}',
        b'{"state":"online","sequence":NaN}',
        b'{"state":"online","x":Infinity}',
        b'{"state":"online","sequence":1e400}',
        b'{"state":"online","agent":"\\ud800"}',
        b'{"state":"online","x":' + b"[" * 2_000 + b"]" * 2_000 + b"}",
        b'{"state":"online","sequence":' + b"9" * 4_000 + b"}",
    ],
)
def test_bytes_that_are_no_status_are_refused_by_name(payload):
    with contextlib.suppress(StatusMalformed):  # a few bytes may well be a status
        parse_status(payload)


@given(st.dictionaries(st.sampled_from(sorted(FULL)) | st.text(max_size=10), json_values, max_size=8) | json_values)
def test_no_json_raises_anything_else(value):
    payload = json.dumps(value).encode()
    try:
        status = parse_status(payload)
    except StatusMalformed:
        return
    assert status.state in ("online", "offline")
    assert len(status.problems) <= PROBLEMS_MAX


def test_of_a_name_that_is_said_twice_the_last_word_counts():
    assert parse_status(b'{"state":"online","state":"offline","counts":{"a":1,"a":2}}').counts == {"a": 2}


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(payload):
    with contextlib.suppress(StatusMalformed):  # a few bytes may well be a status
        parse_status(payload)
