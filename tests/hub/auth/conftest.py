"""Members who are signed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Engine

from hub.auth import members_service, sessions_service
from hub.auth.sessions_rules import Client
from hub.auth.sessions_service import Tokens
from hub.db import transaction
from hub.permissions import Role
from hub.token_keys import TokenKeys, read_token_keys
from tests.hub.auth.mailing import Office, sending

LAPTOP = Client("192.0.2.1", "a laptop")
PHONE = Client("198.51.100.7", "a phone")


def bearing(tokens: Tokens) -> dict[str, str]:
    """The header of whoever has these tokens."""
    return {"Authorization": f"Bearer {tokens.access_token}"}


def problem(answer: httpx.Response, status: int, code: str) -> httpx.Response:
    """The same answer, which is this refusal."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    return answer


def a_member(engine: Engine, *roles: Role, member_type: Role = Role.CONSUMER, name: str = "Ada") -> UUID:
    """A new active member with these roles, who has nothing to prove it with."""
    now = datetime.now(UTC)
    with transaction(engine) as connection:
        member_id = members_service.create_member(connection, member_type, name, "", now)
        for role in roles:
            members_service.give_role(connection, member_id, role, "a test", "test", now)
    return member_id


def opened(
    engine: Engine, keys: TokenKeys, member_id: UUID, at: datetime | None = None, client: Client = LAPTOP
) -> Tokens:
    """The tokens of a session that begins now, or at another time."""
    with transaction(engine) as connection:
        return sessions_service.open_session(connection, member_id, "test", client, keys, at or datetime.now(UTC))


@pytest.fixture
def token_keys(settings) -> TokenKeys:
    return read_token_keys(settings)


@pytest.fixture
def signed_in(server, token_keys) -> Callable[..., Tokens]:
    """Signs in a new member with these roles, or the one named, at a running hub."""

    def sign_in(*roles: Role, member_id: UUID | None = None, at: datetime | None = None) -> Tokens:
        return opened(server.engine, token_keys, member_id or a_member(server.engine, *roles), at)

    return sign_in


@pytest.fixture
def office(settings, engine, running_hub, mail_server) -> Iterator[Office]:
    """A running hub that sends mail, and the server that takes it."""
    with running_hub(sending(settings, mail_server), engine) as server:
        yield Office(server, mail_server)
