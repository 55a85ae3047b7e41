"""A change asked for twice under one key happens once."""

from __future__ import annotations

import threading

from sqlalchemy import text

from hub.db import transaction
from hub.idempotency import _lock_or_refuse
from hub.permissions import Role


def _post(server, path, body, key):
    headers = {} if key is None else {"Idempotency-Key": key}
    return server.client.post(path, json=body, headers=headers)


def _count(server, table):
    with server.engine.connect() as connection:
        return connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()


def test_a_change_without_a_key_is_refused(server, new_meter):
    body = new_meter().registration()
    for key in (None, "", "with space", "x" * 256):
        answer = _post(server, "/meters", body, key)
        assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_missing")
    assert _count(server, "meters") == 0


def test_two_keys_are_none(server, new_meter):
    """Whichever of them counted, the repeat through a proxy that keeps the other would be done again."""
    keys = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
    answer = server.client.post("/meters", json=new_meter().registration(), headers=keys)
    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_missing")
    assert _count(server, "meters") == 0


def test_a_repeat_gets_the_same_answer_and_changes_nothing(server, new_meter):
    body = new_meter().registration()
    acts = _count(server, "audit_log")
    first = _post(server, "/meters", body, "k" * 255)
    again = _post(server, "/meters", dict(reversed(body.items())), "k" * 255)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (_count(server, "meters"), _count(server, "audit_log"), _count(server, "outbox_jobs")) == (1, acts + 1, 1)


def test_the_stored_answer_does_not_hold_the_password(server, new_meter):
    password = server.register(new_meter()).json()["broker"]["password"]
    with server.engine.connect() as connection:
        [stored] = connection.execute(text("SELECT response_body FROM idempotency_keys")).scalars()
    assert password.encode() not in stored


def test_a_key_with_another_request_is_refused(server, new_meter):
    assert _post(server, "/meters", new_meter("a").registration(), "one").status_code == 201
    answer = _post(server, "/meters", new_meter("b").registration(), "one")
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    server.register(new_meter("b"))
    assert _post(server, "/meters/a/suspend", {"reason": "x"}, "two").status_code == 200
    answer = _post(server, "/meters/b/suspend", {"reason": "x"}, "two")
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


def test_the_same_key_on_another_route_is_another_key(server, new_meter):
    assert _post(server, "/meters", new_meter("a").registration(), "one").status_code == 201
    assert _post(server, "/meters/a/suspend", {"reason": "x"}, "one").status_code == 200
    assert _post(server, "/meters/a/resume", {"reason": "x"}, "one").status_code == 200


def test_a_refusal_is_not_remembered(server, new_meter):
    assert _post(server, "/meters/roof/suspend", {"reason": "x"}, "one").status_code == 404
    server.register(new_meter("roof"))
    assert _post(server, "/meters/roof/suspend", {"reason": "x"}, "one").status_code == 200


def test_a_repeat_of_a_request_in_flight_is_told_so(server, new_meter):
    body = new_meter().registration()
    with transaction(server.engine) as connection:
        _lock_or_refuse(connection, f"POST /meters {server.admin.split()[0].removeprefix('member:')}", "busy")
        answer = _post(server, "/meters", body, "busy")
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_in_flight")
    assert _post(server, "/meters", body, "busy").status_code == 201


def test_many_repeats_at_once_change_once(server, new_meter):
    server.register(new_meter("roof"))
    answers = []

    def command():
        answers.append(_post(server, "/meters/roof/commands", {"kind": "restart"}, "storm"))

    threads = [threading.Thread(target=command) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = {answer.status_code for answer in answers}
    assert statuses <= {202, 409}
    assert {answer.json()["counter"] for answer in answers if answer.status_code == 202} == {1}
    assert _count(server, "outbox_jobs") == 2
    assert _post(server, "/meters/roof/commands", {"kind": "restart"}, "storm").json()["counter"] == 1


def test_a_member_repeats_a_request_through_another_key_or_session(server):
    """A machine whose API key was exchanged between the two tries must not do it twice."""
    member = server.member(Role.OPERATOR)
    with server.acting(member) as client, server.signed_in(member.member_id) as session:
        body = {"group": "meters", "channel": "webhook", "enabled": False}
        headers = {"Idempotency-Key": "one"}
        first = client.post("/me/notification-preferences", json=body, headers=headers)
        again = session.post("/me/notification-preferences", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.headers["Idempotency-Replayed"] == "true"


def test_two_members_may_choose_the_same_key(server):
    body = {"group": "meters", "channel": "webhook", "enabled": False}
    for _ in range(2):
        with server.acting(server.member()) as client:
            answer = client.post("/me/notification-preferences", json=body, headers={"Idempotency-Key": "one"})
        assert answer.status_code == 200
        assert "Idempotency-Replayed" not in answer.headers
