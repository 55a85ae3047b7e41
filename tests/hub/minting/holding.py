"""A meter whose step the program refused, without a program."""

from __future__ import annotations

from datetime import datetime
from uuid import uuid4

from sqlalchemy import Connection

from hub.minting import store
from hub.minting.store import Mint, NewMint
from hub.registry import service as registry


def hold_minting(connection: Connection, meter_id: str, now: datetime) -> Mint:
    """As if its last transaction had failed."""
    meter = registry.get_meter(connection, meter_id)
    intent_id = uuid4()
    new = NewMint(meter.meter_no, intent_id, store.SUBMIT, 1, 1, 1, 0, 900, 0, 0, 0, 0, 0, 0)
    store.insert_mint(connection, new, (), now)
    [step] = store.list_open_for_update(connection, intent_id)
    store.set_failed(connection, intent_id, "over_capacity", now)
    store.insert_hold(connection, step, "over_capacity", "Custom 6036 in 1", now)
    return step
