"""Telling members what happens to their meters: a meter is the member's whose wallet its enrolment names as owner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection

from hub.auth import members_service
from hub.live.publishing import Update, publish
from hub.live.topics import meters_of


class OfMeter(msgspec.Struct, frozen=True):
    """What happened to a meter with this owner (a public key)."""

    owner: bytes
    kind: str
    data: Mapping[str, object]


def tell_owners(connection: Connection, happened: Sequence[OfMeter], now: datetime) -> None:
    """Publish this to the owners, in this order. One query for all; who has linked no such wallet costs no more."""
    members = members_service.members_of_wallets(connection, {each.owner for each in happened})
    if members:
        publish(
            connection,
            [
                Update(meters_of(members[each.owner]), each.kind, each.data)
                for each in happened
                if each.owner in members
            ],
            now,
        )
