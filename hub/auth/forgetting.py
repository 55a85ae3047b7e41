"""What is forgotten of sessions, keys, challenges and mails, by the clock of the jobs process. The audit log stays."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine

from hub.auth import api_keys_store, mail_proofs_store, sessions_store, wallets_store
from hub.db import transaction

SESSIONS_KEPT_FOR: Final = timedelta(days=7)
KEYS_KEPT_FOR: Final = timedelta(days=90)
"""An expired key is listed so long, for whoever wonders why a machine has fallen silent."""


def forget_ended_sessions_once(engine: Engine, now: datetime) -> int:
    """Drop the sessions that were over long ago; returns how many."""
    with transaction(engine) as connection:
        return sessions_store.forget_sessions(connection, now - SESSIONS_KEPT_FOR)


def forget_ended_keys_once(engine: Engine, now: datetime) -> int:
    """Drop the keys that were over long ago; returns how many."""
    with transaction(engine) as connection:
        return api_keys_store.forget_keys(connection, now - KEYS_KEPT_FOR)


def forget_expired_challenges_once(engine: Engine, now: datetime) -> int:
    """Drop what wallets can no longer answer; returns how many."""
    with transaction(engine) as connection:
        return wallets_store.delete_expired_challenges(connection, now)


def forget_mails_once(engine: Engine, now: datetime) -> int:
    """Drop the mails that nobody can answer any more, with all that registrations said of people; returns how many."""
    with transaction(engine) as connection:
        return mail_proofs_store.forget_mail_proofs(connection, now)
