"""Keys, passwords and permissions over HTTP: who may do what, once, and what is written down about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from hub.db import transaction
from hub.registry.service import broker_password, pending_commands
from hub.signatures import SigningKey
from protocol.command import split_command
from protocol.credential import CredentialRequest, encode_credential_request
from protocol.enrolment import ENROLMENT_METER_REPLACED, ENROLMENT_PHASES_NOT_NETTED, Enrolment, encode_enrolment
from protocol.replacement import REGISTER_GENERATION, REGISTER_GRID_IMPORT, Replacement, encode_replacement
from protocol.rotation import join_rotation

DAY = int(datetime.now(UTC).timestamp()) // 86_400 * 86_400 - 86_400
NEXT, OTHER = SigningKey(b"\x51" * 32), SigningKey(b"\x52" * 32)
SECRET = bytes.fromhex("22" * 32)


def _refused(answer, status, code):
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    return answer.json()["detail"]


@pytest.fixture
def home(server, new_meter):
    """A home with two seals of yesterday."""
    meter = new_meter("roof", valid_from_unix_s=DAY)
    server.register(meter)
    for number in (1, 2):
        answer = server.post_seal(meter, meter.seal([(DAY + 900 * number, 100 * number, 50 * number)]))
        assert answer.json()["state"] == "accepted"
    return meter


def rotation_of(meter, key=NEXT, endorser=None, **changes):
    netting = meter.netting
    fields = {
        "domain": meter.domain,
        "meter_id": meter.meter_id,
        "kind": 1,
        "measurement": 1,
        "key_epoch": 2,
        "owner": bytes(32),
        "public_key": key.public_key,
        "production_wh": netting.production_wh,
        "consumption_wh": netting.consumption_wh,
        "surplus_wh": netting.surplus_wh,
        "valid_from_unix_s": netting.closed_until_unix_s,
        "last_seal_hash": meter.previous,
    }
    signed = encode_enrolment(Enrolment(**(fields | changes)))
    return join_rotation(signed, key.sign(signed), (endorser or meter.key).sign(signed))


def record_of(meter, key=NEXT, register=REGISTER_GENERATION, **changes):
    fields = {
        "domain": meter.domain,
        "meter_id": meter.meter_id,
        "key_epoch": 2,
        "register": register,
        "at_unix_s": DAY + 2_000,
        "final_wh": 48_210_700,
        "initial_wh": 12,
        "old_serial": "SDM630-21034477",
        "new_serial": "SDM630-25110021",
    }
    signed = encode_replacement(Replacement(**(fields | changes)))
    return signed + key.sign(signed)


def hand_in(server, meter, rotation, *records):
    body = {"rotation": rotation.hex(), "replacements": [record.hex() for record in records]}
    return server.anonymous.post(f"/meters/{meter.meter_id}/keys", json=body)


def audited(server, action):
    with server.engine.connect() as connection:
        rows = connection.execute(
            text("SELECT actor, detail FROM audit_log WHERE action = :action ORDER BY audit_id"), {"action": action}
        )
        return [(row.actor, row.detail) for row in rows]


def test_a_rotation_needs_no_token_and_its_bytes_again_are_answered_alike(server, home):
    rotation = rotation_of(home)
    first = hand_in(server, home, rotation)
    assert first.status_code == 201, first.text
    assert first.json() == {
        "meter_id": "roof",
        "key_epoch": 2,
        "public_key": NEXT.public_key.hex(),
        "endorsed_by": "old_key",
        "state": "active",
        "phases_netted": True,
        "minting_allowed": True,
    }
    again = hand_in(server, home, rotation)
    assert (again.status_code, again.json()) == (200, first.json())
    _refused(hand_in(server, home, rotation_of(home, OTHER)), 409, "key_epoch_differs")
    [(actor, detail)] = audited(server, "meter.rotate_key")
    assert (actor, detail["key_epoch"], detail["endorsed_by"], detail["base"]) == ("meter:roof", 2, "old_key", [1, 2])
    assert server.client.get("/meters/roof").json()["key_epoch"] == 2


def test_refusals_have_names_and_the_base_is_told(server, home):
    detail = _refused(hand_in(server, home, rotation_of(home, surplus_wh=0)), 409, "rotation_base_differs")
    assert f"hash {home.previous.hex()}" in detail
    _refused(hand_in(server, home, rotation_of(home, endorser=OTHER)), 422, "rotation_invalid")
    _refused(hand_in(server, home, rotation_of(home)[:-1]), 422, "malformed_input")
    _refused(hand_in(server, home, rotation_of(home, meter_id="elsewhere")), 422, "rotation_invalid")
    _refused(hand_in(server, home, rotation_of(home, key_epoch=9)), 409, "key_epoch_differs")
    body = {"rotation": rotation_of(home, meter_id="elsewhere").hex()}
    _refused(server.anonymous.post("/meters/elsewhere/keys", json=body), 404, "meter_not_found")
    assert len(server.client.get("/meters/roof/keys").json()["keys"]) == 1


def test_every_changed_bit_of_a_rotation_is_refused(server, home):
    rotation = rotation_of(home)
    for position in range(0, len(rotation), 11):
        changed = bytearray(rotation)
        changed[position] ^= 1
        assert hand_in(server, home, bytes(changed)).status_code in (409, 422)
    assert hand_in(server, home, rotation).status_code == 201


def test_the_keys_of_a_meter_are_listed_with_where_the_next_begins(server, home):
    hand_in(server, home, rotation_of(home, flags=ENROLMENT_METER_REPLACED), record_of(home))
    shown = server.client.get("/meters/roof/keys").json()
    assert [(key["key_epoch"], key["state"], key["superseded_after_sequence"]) for key in shown["keys"]] == [
        (1, "superseded", 2),
        (2, "active", None),
    ]
    assert shown["keys"][1]["replacements"] == [record_of(home).hex()]
    following = shown["next"]
    assert (following["key_epoch"], following["sequence"], following["seal_hash"]) == (2, 0, "00" * 32)
    assert (following["production_wh"], following["last_production_wh"]) == (200, 200)
    _refused(server.anonymous.get("/meters/roof/keys"), 401, "unauthorized")


@pytest.mark.parametrize(
    "changes",
    [
        {"meter_id": "cellar"},
        {"domain": b"elsewher"},
        {"key_epoch": 3},
        {"at_unix_s": DAY + 3 * 86_400},
        {"key": OTHER},
    ],
    ids=["another meter", "another deployment", "another epoch", "tomorrow", "another key"],
)
def test_a_record_of_an_exchange_that_breaks_a_rule_installs_nothing(server, home, changes):
    rotation = rotation_of(home, flags=ENROLMENT_METER_REPLACED)
    _refused(hand_in(server, home, rotation, record_of(home, **changes)), 422, "rotation_invalid")
    assert server.client.get("/meters/roof").json()["key_epoch"] == 1


def test_records_of_exchanges_are_one_a_register_and_come_with_a_statement_that_says_so(server, home):
    plain, replaced = rotation_of(home), rotation_of(home, flags=ENROLMENT_METER_REPLACED)
    _refused(hand_in(server, home, plain, record_of(home)), 422, "rotation_invalid")
    _refused(hand_in(server, home, replaced, record_of(home), record_of(home)), 422, "rotation_invalid")
    records = record_of(home, register=REGISTER_GRID_IMPORT), record_of(home)
    assert hand_in(server, home, replaced, *records).status_code == 201
    assert hand_in(server, home, replaced, *records).status_code == 200
    _refused(hand_in(server, home, replaced, record_of(home)), 409, "key_epoch_differs")
    with server.engine.connect() as connection:
        rows = connection.execute(
            text("SELECT register, final_wh, initial_wh, old_serial FROM meter_replacements ORDER BY register")
        ).all()
    assert rows == [(1, 48_210_700, 12, "SDM630-21034477"), (2, 48_210_700, 12, "SDM630-21034477")]


def test_a_meter_that_sums_its_phases_mints_only_by_an_operators_word(server, new_meter):
    meter = new_meter("roof")
    body = meter.registration(enrolment=meter.enrolment(flags=ENROLMENT_PHASES_NOT_NETTED).hex())
    assert server.post("/meters", body).status_code == 201
    shown = server.client.get("/meters/roof").json()
    assert (shown["phases_netted"], shown["minting_allowed"]) == (False, False)
    order = {"allowed": True, "reason": "one phase only"}
    assert server.post("/meters/roof/minting", order, "a-key").json() == {"meter_id": "roof", "minting_allowed": True}
    assert server.post("/meters/roof/minting", order, "a-key").status_code == 200
    _refused(server.post("/meters/roof/minting", order), 409, "minting_unchanged")
    assert server.client.get("/meters/roof").json()["minting_allowed"]
    assert server.post("/meters/roof/minting", {"allowed": False, "reason": "after all"}).status_code == 200
    assert audited(server, "meter.allow_minting") == [
        (server.admin, {"reason": "one phase only", "phases_netted": False, "register_quantum_wh": 10})
    ]
    assert len(audited(server, "meter.forbid_minting")) == 1
    _refused(server.post("/meters/roof/minting", {"allowed": 1, "reason": "x"}), 422, "malformed_input")


def test_a_rotation_gives_no_permission_to_mint_and_may_take_it(server, home):
    answer = hand_in(server, home, rotation_of(home, flags=ENROLMENT_PHASES_NOT_NETTED)).json()
    assert (answer["phases_netted"], answer["minting_allowed"]) == (False, False)
    home.key, home.previous = NEXT, bytes(32)
    back = rotation_of(home, OTHER, key_epoch=3)
    answer = hand_in(server, home, back).json()
    assert (answer["phases_netted"], answer["minting_allowed"]) == (True, False)


def request_of(meter, key=None, **changes):
    fields = {
        "domain": meter.domain,
        "meter_id": meter.meter_id,
        "key_epoch": 1,
        "at_unix_s": int(datetime.now(UTC).timestamp()),
        "nonce": bytes(range(16)),
    }
    signed = encode_credential_request(CredentialRequest(**(fields | changes)))
    return signed + (key or meter.key).sign(signed)


def ask(server, request):
    return server.anonymous.post("/agent/credentials", json={"request": request.hex()})


def test_whoever_has_the_key_is_told_the_password(server, home):
    answer = ask(server, request_of(home))
    assert answer.json() == {"username": "roof", "password": broker_password(SECRET, "roof")}
    hand_in(server, home, rotation_of(home))
    _refused(ask(server, request_of(home)), 401, "credential_request_invalid")
    _refused(ask(server, request_of(home, key_epoch=2)), 401, "credential_request_invalid")
    assert ask(server, request_of(home, NEXT, key_epoch=2)).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"key": OTHER},
        {"domain": b"elsewher"},
        {"meter_id": "nobody"},
        {"key_epoch": 2},
        {"at_unix_s": DAY},
        {"at_unix_s": DAY + 3 * 86_400},
    ],
)
def test_a_request_for_the_password_that_is_not_the_meters_own_and_fresh_is_refused(server, home, changes):
    _refused(ask(server, request_of(home, **changes)), 401, "credential_request_invalid")


def test_a_revoked_key_and_a_retired_meter_get_no_password(server, home, new_meter):
    now = datetime.now(UTC).replace(microsecond=0)
    body = {"from": now.isoformat().replace("+00:00", "Z"), "reason": "stolen"}
    answer = server.post("/meters/roof/keys/1/revoke", body)
    assert answer.json() == {"meter_id": "roof", "revoked_key_epochs": [1], "withdrawn_seals": 0}
    _refused(ask(server, request_of(home)), 401, "credential_request_invalid")
    other = new_meter("cellar")
    server.register(other)
    assert ask(server, request_of(other)).status_code == 200
    assert server.post("/meters/cellar/retire", {"reason": "demolished"}).json()["state"] == "retired"
    _refused(ask(server, request_of(other)), 401, "credential_request_invalid")


def test_a_renewed_password_is_another_and_the_first_is_what_it_always_was(server, home):
    generations = [broker_password(SECRET, "roof", generation) for generation in range(5)]
    assert generations[0] == generations[1] == broker_password(SECRET, "roof")
    assert len(set(generations)) == 4
    first = server.post("/meters/roof/broker-password", {"reason": "leaked"}, "a-key")
    assert first.json() == {
        "meter_id": "roof",
        "password_generation": 2,
        "broker": {"username": "roof", "password": generations[2]},
    }
    assert server.post("/meters/roof/broker-password", {"reason": "leaked"}, "a-key").json() == first.json()
    assert ask(server, request_of(home)).json()["password"] == generations[2]
    assert audited(server, "meter.renew_password") == [(server.admin, {"generation": 2, "reason": "leaked"})]
    with server.engine.connect() as connection:
        kinds = connection.execute(text("SELECT kind FROM outbox_jobs ORDER BY job_id")).scalars().all()
        assert kinds == ["broker.create_account"] * 2
        stored = connection.execute(text("SELECT convert_from(response_body, 'UTF8') FROM idempotency_keys")).scalars()
        assert not any(generations[2] in body for body in stored), "passwords are stored nowhere"


def test_a_retired_meter_stays_retired(server, home):
    assert server.post("/meters/roof/retire", {"reason": "demolished"}).status_code == 200
    for path, body in (
        ("retire", {"reason": "again"}),
        ("broker-password", {"reason": "again"}),
        ("minting", {"allowed": False, "reason": "again"}),
    ):
        _refused(server.post(f"/meters/roof/{path}", body), 409, "meter_retired")
    _refused(server.post("/meters/roof/resume", {"reason": "again"}), 409, "meter_not_suspended")
    _refused(hand_in(server, home, rotation_of(home)), 409, "meter_retired")
    answer = server.post_seal(home, home.seal([(DAY + 2_700, 300, 150)])).json()
    assert (answer["state"], answer["reason"]) == ("quarantined", "meter_retired")
    assert audited(server, "meter.retire") == [(server.admin, {"reason": "demolished"})]


def test_a_revocation_is_performed_once_and_written_down(server, home):
    since = datetime.fromtimestamp(DAY + 1_800, UTC).isoformat().replace("+00:00", "Z")
    body = {"from": since, "reason": "stolen"}
    first = server.post("/meters/roof/keys/1/revoke", body, "a-key")
    assert first.json()["withdrawn_seals"] == 1
    assert server.post("/meters/roof/keys/1/revoke", body, "a-key").json() == first.json()
    _refused(server.post("/meters/roof/keys/1/revoke", body), 409, "key_already_revoked")
    _refused(server.post("/meters/roof/keys/7/revoke", body), 404, "meter_key_not_found")
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    _refused(server.post("/meters/roof/keys/1/revoke", {"from": tomorrow, "reason": "x"}), 422, "malformed_input")
    [(actor, detail)] = audited(server, "meter.revoke_key")
    assert (actor, detail["withdrawn_seals"], detail["reason"]) == (server.admin, 1, "stolen")
    entries = server.client.get("/quarantine").json()["entries"]
    assert [(entry["sequence"], entry["reason"], entry["state"]) for entry in entries] == [(2, "key_revoked", "held")]


@pytest.mark.parametrize(
    "path", ["retire", "minting", "broker-password", "keys/1/revoke"], ids=lambda path: path.replace("/", "-")
)
def test_what_operators_do_needs_their_token_and_an_idempotency_key(server, home, path):
    body = {"reason": "x"} | ({"allowed": False} if path == "minting" else {})
    body |= {"from": "2026-01-01T00:00:00Z"} if path.endswith("revoke") else {}
    headers = {"Idempotency-Key": "a-key"}
    _refused(server.anonymous.post(f"/meters/roof/{path}", json=body, headers=headers), 401, "unauthorized")
    _refused(server.client.post(f"/meters/roof/{path}", json=body), 400, "idempotency_key_missing")


def test_commands_wait_for_a_meter_that_asks_and_are_forgotten_when_they_expire(server, home):

    for expires_in_s in (60, 3_600):
        server.post("/meters/roof/commands", {"kind": "restart", "expires_in_s": expires_in_s})
    now = datetime.now(UTC)
    with transaction(server.engine) as connection:
        waiting = pending_commands(connection, 1, 0, now)
        assert [split_command(message)[0].counter for message in waiting] == [1, 2]
        assert pending_commands(connection, 1, 1, now) == waiting[1:]
        assert pending_commands(connection, 1, 0, now + timedelta(seconds=61)) == waiting[1:]
        assert pending_commands(connection, 1, 0, now + timedelta(days=1)) == []
