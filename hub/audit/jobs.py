"""The audit log's chore: write down how far its chain goes, where the database's owner cannot change it afterwards."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine

from hub import logs
from hub.audit import store
from hub.db import snapshot

log = logs.get_logger()


def note_head_once(engine: Engine, now: datetime) -> int:
    """Log the head of the chain, for whoever collects the logs elsewhere; loudly, if entries are not in the chain."""
    with snapshot(engine) as connection:
        head = store.get_head(connection)
        unchained = store.count_entries(connection) - head.position
    log.info("audit_head", position=head.position, chain_hash=head.chain_hash.hex(), at=now.isoformat())
    if unchained:
        log.error("audit_chain_incomplete", entries_too_many=unchained)
    return 0
