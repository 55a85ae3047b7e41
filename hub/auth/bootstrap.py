"""The first admin: made by whoever may run commands with the hub's secrets, and then nobody needs to again."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection

from hub.auth import api_keys_service, members_service, members_store
from hub.errors import AdminExists, MalformedInput
from hub.permissions import KEY_SCOPES, Role

ACTOR = "command line"
KEY_LIFE = timedelta(days=366)


def bootstrap_admin(connection: Connection, member_secret: bytes, name: str, another: bool, now: datetime) -> str:
    """Make an admin with an API key of every scope; returns the key. Audited.

    Raises AdminExists if there is an active one and not `another`, MalformedInput without a name.
    """
    if not name.strip() or not name.isprintable():
        raise MalformedInput("the admin's name: one or more letters")
    members_store.lock_admins(connection)  # of two at once, one is first
    if members_service.members_with_role(connection, [Role.ADMIN]) and not another:
        raise AdminExists
    member_id = members_service.create_member(connection, Role.CONSUMER, name, ACTOR, now)
    members_service.give_role(connection, member_id, Role.ADMIN, "bootstrap", ACTOR, now)
    key = api_keys_service.create_api_key(
        connection, member_secret, member_id, "bootstrap", KEY_SCOPES, KEY_LIFE, ACTOR, now
    )
    return api_keys_service.api_key_text(member_secret, key.key_id)
