"""What live updates need on the hub's clock: forgetting."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine

from hub.db import transaction
from hub.live.store import forget_updates
from hub.live.tails import RESUME_MAX

KEPT_FOR: Final = timedelta(hours=24)
KEPT_MAX: Final = RESUME_MAX
"""Of each topic; more than that nobody may ask for."""
FORGET_AT_ONCE_MAX: Final = 20_000


def forget_old_updates_once(engine: Engine, now: datetime, limit: int = FORGET_AT_ONCE_MAX) -> int:
    """Drop updates that were told long ago, `limit` per transaction; who was away for longer reads the state anew."""
    forgotten = 0
    while True:
        with transaction(engine) as connection:
            deleted = forget_updates(connection, now - KEPT_FOR, KEPT_MAX, limit)
        forgotten += deleted
        if deleted < limit:
            return forgotten
