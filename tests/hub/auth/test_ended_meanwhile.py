"""A request that was let in, and whose session ends before it acts: it leaves nothing that outlives the session."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from hub.auth import members_service, sessions_service
from hub.authorisation import DECISION_LIFE_S
from hub.db import transaction
from hub.permissions import Role
from tests.hub.auth.conftest import bearing, problem
from tests.hub.auth.mailing import BETTER, GOOD, Office, somebody
from tests.hub.auth.signing_wallet import SigningWallet
from tests.hub.auth.test_wallets_races import is_anybody_waiting

PASSWORD = {"kind": "password", "password": GOOD}


@contextmanager
def thief_of(office: Office) -> Iterator[tuple[httpx.Client, UUID, UUID]]:
    """Somebody who has found a member's session and password; the member, and the session."""
    _, tokens = office.member()
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    with httpx.Client(base_url=office.server.url, headers=headers, timeout=60) as client:
        yield client, UUID(tokens["member_id"]), UUID(tokens["session_id"])


def end_while_it_works(
    office: Office, member_id: UUID, session_id: UUID, call: Callable[[], httpx.Response]
) -> httpx.Response:
    """What a call is answered whose session is ended after it was let in, and before it acts."""
    with ThreadPoolExecutor(1) as pool, transaction(office.server.engine) as connection:
        reference = f"member:{member_id}"
        sessions_service.end_sessions_of_member(connection, member_id, "ended_elsewhere", reference, datetime.now(UTC))
        answer = pool.submit(call)
        while not answer.done() and not is_anybody_waiting(office.server.engine):
            time.sleep(0.01)
        assert not answer.done(), f"it did not wait: {answer.result().text}"
        connection.commit()
    with transaction(office.server.engine) as connection:
        query = text("SELECT ended_because FROM sessions WHERE session_id = :session_id")
        assert connection.execute(query, {"session_id": session_id}).scalar_one() == "ended_elsewhere"
    return answer.result()


def ways_in(office: Office, member_id: UUID) -> list[tuple[str, str]]:
    with transaction(office.server.engine) as connection:
        return [(each.kind, each.value) for each in members_service.list_identities(connection, member_id)]


def test_who_was_signed_out_meanwhile_links_no_wallet(office):
    with thief_of(office) as (client, member_id, session_id):
        before = ways_in(office, member_id)
        body = {"new": SigningWallet.new().link_answer(client), "existing": PASSWORD}
        answer = end_while_it_works(office, member_id, session_id, lambda: client.post("/me/wallets", json=body))
        problem(answer, 401, "unauthorized")
        assert ways_in(office, member_id) == before


def test_who_was_signed_out_meanwhile_unlinks_no_wallet(office):
    with thief_of(office) as (client, member_id, session_id):
        owners = SigningWallet.new()
        linked = client.post("/me/wallets", json={"new": owners.link_answer(client), "existing": PASSWORD})
        assert linked.status_code == 201, linked.text
        before = ways_in(office, member_id)
        body = {**owners.named, "existing": PASSWORD}
        answer = end_while_it_works(office, member_id, session_id, lambda: client.post("/me/wallets/unlink", json=body))
        problem(answer, 401, "unauthorized")
        assert ways_in(office, member_id) == before


def test_who_was_signed_out_meanwhile_has_no_code_mailed(office):
    with thief_of(office) as (client, member_id, session_id):
        thiefs = somebody()
        body = {"email": thiefs, "existing": PASSWORD}
        answer = end_while_it_works(office, member_id, session_id, lambda: client.post("/me/email", json=body))
        problem(answer, 401, "unauthorized")
        office.deliver()
        assert office.subjects(thiefs) == []


def test_who_was_signed_out_meanwhile_changes_neither_address_nor_password(office):
    with thief_of(office) as (client, member_id, session_id):
        thiefs = somebody()
        client.post("/me/email", json={"email": thiefs, "existing": PASSWORD})
        office.deliver()
        before = ways_in(office, member_id)
        code = {"token": office.token(thiefs)}
        answer = end_while_it_works(office, member_id, session_id, lambda: client.post("/me/email/verify", json=code))
        problem(answer, 401, "unauthorized")
        assert ways_in(office, member_id) == before
    with thief_of(office) as (client, member_id, session_id):
        [(_, address)] = ways_in(office, member_id)
        change = {"current": GOOD, "new": BETTER}
        answer = end_while_it_works(office, member_id, session_id, lambda: client.post("/me/password", json=change))
        problem(answer, 401, "unauthorized")
        assert office.sign_in(address, GOOD).status_code == 200


@pytest.mark.parametrize("repeated", [False, True])
def test_who_was_signed_out_meanwhile_gets_no_api_key(office, repeated):
    """Neither a new one, nor once more the one that its first request made."""
    with thief_of(office) as (client, member_id, session_id):
        body = {"name": "a thief's", "scopes": ["meters.read"], "expires_in_s": 86_400}
        headers = {"Idempotency-Key": f"thief-{member_id}"}
        if repeated:
            assert client.post("/me/api-keys", json=body, headers=headers).status_code == 201

        def ask() -> httpx.Response:
            return client.post("/me/api-keys", json=body, headers=headers)

        problem(end_while_it_works(office, member_id, session_id, ask), 401, "unauthorized")
        with transaction(office.server.engine) as connection:
            query = text("SELECT count(*) FROM api_keys WHERE member_id = :member_id")
            assert connection.execute(query, {"member_id": member_id}).scalar_one() == int(repeated)


@pytest.mark.parametrize("taken_away", ["the session", "the role"])
def test_who_holds_the_body_back_until_its_rights_are_gone_has_none(server, signed_in, taken_away):
    admin = signed_in(Role.ADMIN)
    accomplice = server.member()
    let_go = threading.Event()

    def body() -> Iterator[bytes]:
        yield b'{"role": "admin", '
        let_go.wait(30)
        yield b'"reason": "before they notice"}'

    def give() -> httpx.Response:
        headers = {**bearing(admin), "Content-Type": "application/json", "Idempotency-Key": f"late-{admin.session_id}"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
            return client.post(f"/members/{accomplice.member_id}/roles/give", content=body())

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(give)
        time.sleep(1.2 * DECISION_LIFE_S)
        with transaction(server.engine) as connection:
            if taken_away == "the role":
                connection.execute(
                    text("DELETE FROM member_roles WHERE member_id = :member_id"), {"member_id": admin.member_id}
                )
            else:
                sessions_service.end_sessions_of_member(
                    connection, admin.member_id, "ended_elsewhere", "test", datetime.now(UTC)
                )
        let_go.set()
    if taken_away == "the role":
        problem(answer.result(), 403, "forbidden")
    else:
        problem(answer.result(), 401, "unauthorized")
    with transaction(server.engine) as connection:
        assert Role.ADMIN not in members_service.roles_of(connection, accomplice.member_id)
