"""Registering meters and governing them, over HTTP and a real database."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from hub.registry.service import broker_password
from hub.signatures import SigningKey, verify
from protocol.command import RESEND, split_command


def test_a_meter_registers_by_its_own_signed_statement(server, new_meter):
    meter = new_meter()
    answer = server.register(meter).json()
    assert answer["meter_id"] == meter.meter_id
    assert (answer["key_epoch"], answer["state"]) == (1, "active")
    assert answer["broker"] == {
        "username": meter.meter_id,
        "password": broker_password(bytes.fromhex("22" * 32), meter.meter_id),
    }
    assert answer["domain"] == server.settings.domain.hex()
    assert answer["command_public_key"] == SigningKey(bytes.fromhex("11" * 32)).public_key.hex()
    shown = server.client.get(f"/meters/{meter.meter_id}").json()
    assert (shown["kind"], shown["broker_ready"], shown["highest_sequence"]) == ("solar", False, 0)
    with server.engine.connect() as connection:
        jobs = connection.execute(text("SELECT kind, subject, payload FROM outbox_jobs")).all()
        audit = connection.execute(
            text("SELECT actor, action, subject FROM audit_log WHERE action LIKE 'meter.%'")
        ).all()
    assert jobs == [("broker.create_account", meter.meter_id, {})]
    assert audit == [(server.admin, "meter.register", f"meter:{meter.meter_id}")]


def _refused(answer, status, code):
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    return answer.json()


@pytest.mark.parametrize(
    "changes",
    [
        {"domain": bytes(8)},
        {"key_epoch": 2},
        {"last_seal_hash": b"\x01" * 32},
        {"public_key": b"\x01" + bytes(31)},
        {"public_key": SigningKey(bytes(32)).public_key},
        {"valid_from_unix_s": 4_000_000_000},
        {"valid_from_unix_s": 1_600_000_000},
    ],
    ids=[
        "another deployment",
        "a later epoch",
        "a predecessor",
        "a small-order key",
        "another key",
        "future",
        "too old",
    ],
)
def test_a_statement_that_breaks_a_rule_enrols_nothing(server, new_meter, changes):
    body = new_meter().registration()
    meter = new_meter()
    body["enrolment"] = meter.enrolment(**changes).hex()
    _refused(server.post("/meters", body), 422, "enrolment_invalid")
    assert server.client.get("/meters").json() == {"meters": [], "next_cursor": None}


def test_a_changed_bit_anywhere_in_a_statement_is_refused(server, new_meter):
    meter = new_meter()
    statement = meter.enrolment()
    for position in range(0, len(statement), 13):
        changed = bytearray(statement)
        changed[position] ^= 1
        answer = server.post("/meters", meter.registration(enrolment=changed.hex()))
        _refused(answer, 422, "enrolment_invalid")


def test_a_meter_id_is_taken_once(server, new_meter):
    server.register(new_meter("roof"))
    _refused(server.post("/meters", new_meter("roof").registration()), 409, "meter_already_registered")


def test_a_key_belongs_to_one_meter_for_ever(server, new_meter):
    first, second = new_meter(), new_meter()
    second.key = first.key
    server.register(first)
    _refused(server.post("/meters", second.registration()), 409, "meter_key_in_use")


def test_of_two_registrations_at_once_one_wins_and_the_other_is_told_why(server, new_meter):
    meters = [new_meter("roof") for _ in range(6)]
    answers = []
    threads = [
        threading.Thread(target=lambda meter=meter: answers.append(server.post("/meters", meter.registration())))
        for meter in meters
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]


@pytest.mark.parametrize(
    "changes",
    [
        {"production_capacity_w": -1},
        {"production_capacity_w": 10_000_001},
        {"production_capacity_w": 1.5},
        {"production_capacity_w": "1"},
        {"connection_capacity_w": 0},
        {"register_quantum_wh": 0},
        {"register_quantum_wh": 1_001},
        {"enrolment": "zz" * 244},
        {"enrolment": "AA" * 244},
        {"enrolment": "00"},
        {"colour": "green"},
    ],
)
def test_a_registration_out_of_bounds_is_malformed_and_named(server, new_meter, changes):
    problem = _refused(server.post("/meters", new_meter().registration(**changes)), 422, "malformed_input")
    assert next(iter(changes)) in problem["detail"]


def test_meters_are_listed_in_pages(server, new_meter):
    for name in ("c", "a", "b"):
        server.register(new_meter(name))
    first = server.client.get("/meters?limit=2").json()
    assert [meter["meter_id"] for meter in first["meters"]] == ["a", "b"]
    second = server.client.get("/meters", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert ([meter["meter_id"] for meter in second["meters"]], second["next_cursor"]) == (["c"], None)


def test_a_suspended_meter_is_resumed_and_both_are_audited(server, new_meter):
    server.register(new_meter("roof"))
    path = "/meters/roof"
    _refused(server.post(f"{path}/resume", {"reason": "why not"}), 409, "meter_not_suspended")
    assert server.post(f"{path}/suspend", {"reason": "broken seal"}).json()["state"] == "suspended"
    _refused(server.post(f"{path}/suspend", {"reason": "again"}), 409, "meter_not_active")
    assert server.client.get(path).json()["state"] == "suspended"
    assert server.post(f"{path}/resume", {"reason": "mended"}).json()["state"] == "active"
    with server.engine.connect() as connection:
        audit = connection.execute(
            text(
                "SELECT action, detail FROM audit_log"
                " WHERE action IN ('meter.suspend', 'meter.resume') ORDER BY audit_id"
            )
        ).all()
    assert audit == [("meter.suspend", {"reason": "broken seal"}), ("meter.resume", {"reason": "mended"})]


def test_the_audit_log_cannot_be_rewritten(server, new_meter):
    server.register(new_meter())
    for statement in ("UPDATE audit_log SET actor = 'nobody'", "DELETE FROM audit_log", "TRUNCATE audit_log CASCADE"):
        with server.engine.connect() as connection, pytest.raises(DBAPIError, match="append-only"):
            connection.execute(text(statement))


def test_a_command_is_counted_and_signed_by_the_hub(server, new_meter):
    meter = new_meter()
    server.register(meter)
    order = {"kind": "resend", "first": 3, "last": 7, "expires_in_s": 60}
    counters = [server.post(f"/meters/{meter.meter_id}/commands", order).json()["counter"] for _ in range(3)]
    assert counters == [1, 2, 3]
    with server.engine.connect() as connection:
        payloads = connection.execute(
            text("SELECT payload FROM outbox_jobs WHERE kind = 'meter.command' ORDER BY job_id")
        ).scalars()
        messages = [bytes.fromhex(payload["message_hex"]) for payload in payloads]
    key = SigningKey(bytes.fromhex("11" * 32)).public_key
    for counter, message in enumerate(messages, 1):
        command, signed, signature = split_command(message)
        assert verify(key, signed, signature)
        assert (command.meter_id, command.counter) == (meter.meter_id, counter)
        assert (command.kind, command.first, command.last) == (RESEND, 3, 7)


@pytest.mark.parametrize(
    "order",
    [
        {"kind": "explode"},
        {"kind": "resend", "first": 0, "last": 3},
        {"kind": "restart", "first": 1},
        {"kind": "set_interval", "first": 901, "last": 901},
        {"kind": "restart", "expires_in_s": 0},
    ],
)
def test_a_command_that_the_protocol_does_not_know_is_malformed(server, new_meter, order):
    meter = new_meter()
    server.register(meter)
    _refused(server.post(f"/meters/{meter.meter_id}/commands", order), 422, "malformed_input")


def test_commands_go_only_to_active_meters(server, new_meter):
    server.register(new_meter("roof"))
    server.post("/meters/roof/suspend", {"reason": "test"})
    _refused(server.post("/meters/roof/commands", {"kind": "restart"}), 409, "meter_not_active")
    _refused(server.post("/meters/cellar/commands", {"kind": "restart"}), 404, "meter_not_found")
