"""What the readings domain does on its own clock: ask meters for seals that are missing, and forget."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine

from hub.db import driver, transaction
from hub.outbox.store import has_unfinished_job
from hub.readings.gaps_store import list_silent_gaps_for_update, mark_gaps_asked
from hub.readings.notices_store import forget_held_notices
from hub.registry.service import SEND_COMMAND, issue_command
from hub.signatures import SigningKey
from protocol.command import RESEND

ASK_AFTER: Final = timedelta(seconds=60)
"""Live seals overtake the backlog of an outage, so a young gap usually closes by itself."""
ASK_AGAIN_AFTER: Final = timedelta(minutes=10)
COMMAND_LIFE: Final = timedelta(hours=1)
GAPS_AT_ONCE_MAX: Final = 100
RESEND_SEALS_MAX: Final = 1_000
"""Of a longer gap the first seals are asked for; the rest follows when these have come."""


HELD_NOTICES_KEPT_FOR: Final = timedelta(days=2)


def forget_held_notices_once(engine: Engine, now: datetime) -> int:
    """Drop the notes of who was told of held seals; each counts for an hour."""
    with transaction(engine) as connection:
        return forget_held_notices(driver(connection), now - HELD_NOTICES_KEPT_FOR)


def ask_for_gaps_once(engine: Engine, domain: bytes, signing_key: SigningKey, now: datetime) -> int:
    """Have every meter with an old gap told to send it again; returns how many gaps were asked for.

    A gap that stays is asked for again, with the pause above, for as long as it is open.
    """
    with transaction(engine) as connection:
        db = driver(connection)
        gaps = list_silent_gaps_for_update(db, now - ASK_AFTER, now - ASK_AGAIN_AFTER, GAPS_AT_ONCE_MAX)
        # where a command has not left yet, because the broker is away, another would only wait behind it
        gaps = [gap for gap in gaps if not has_unfinished_job(connection, SEND_COMMAND, gap.meter_id)]
        for gap in gaps:
            last = min(gap.last_sequence, gap.first_sequence + RESEND_SEALS_MAX - 1)
            expires_at_unix_s = int((now + COMMAND_LIFE).timestamp())
            issue_command(
                connection,
                gap.meter_no,
                gap.meter_id,
                domain,
                signing_key,
                RESEND,
                gap.first_sequence,
                last,
                expires_at_unix_s,
                now,
            )
        mark_gaps_asked(db, gaps, now)
        return len(gaps)
