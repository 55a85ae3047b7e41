"""What a transaction minted: the steps of its meters, for whoever follows a token back to its readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from hub.minting.store import SUBMIT, WRITE_OFF


@dataclass(frozen=True)
class Minted:
    """One meter's step in a finalized transaction: its seals first to last, and where their surplus went, in Wh."""

    meter_no: int
    meter_id: str
    owner: bytes
    key_epoch: int
    first_sequence: int
    last_sequence: int
    surplus_wh: int
    minted_wh: int
    written_off_wh: int
    earned_back_wh: int
    slot: int


def list_minted_by(connection: Connection, signature: str) -> Sequence[Minted]:
    """What a transaction presented of each of its meters, in the order of their ids.

    Nothing of a change of keys, nor of a seal that only made way for one: no token comes of either.
    """
    found = connection.execute(
        text(
            "SELECT m.meter_no, m.meter_id, m.owner, n.key_epoch, n.first_sequence, n.last_sequence,"
            " n.surplus_wh, n.minted_wh, n.written_off_wh, n.earned_back_wh, n.slot"
            " FROM mints AS n JOIN meters AS m USING (meter_no)"
            " WHERE n.signature = :signature AND n.state = 'finalized' AND n.step IN (:submit, :write_off)"
            " ORDER BY m.meter_id"
        ),
        {"signature": signature, "submit": SUBMIT, "write_off": WRITE_OFF},
    )
    return [Minted(**row._mapping) for row in found]
