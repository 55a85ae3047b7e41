"""What minting does on its own clock, in the chain process."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from hub import logs, metrics
from hub.db import transaction
from hub.minting import service
from hub.settings import Settings

log = logs.get_logger()


def mint_once(engine: Engine, settings: Settings, now: datetime) -> int:
    """Plan a step for each of up to `mint_meters_max` meters that have one; returns how many.

    Nothing is sent here: the intents are in the database when it returns, and the sender's to do.
    """
    try:
        with transaction(engine) as connection:
            planned = service.plan_steps(
                connection, bytes.fromhex(settings.program_id_hex), settings.mint_meters_max, now
            )
    except IntegrityError as fault:
        if "mints_open_idx" not in str(fault.orig):
            raise
        log.info("minting_taken_meanwhile")  # by another process: what it planned is as good
        return 0
    metrics.MINTING_STEPS_PLANNED.inc(planned)
    return planned
