"""What people are told about transactions and the chain, whichever domain planned them: that one is delayed, that the
chain cannot be read, that something does not fit.

It is in the registry because everything that plans transactions lies here or above, and what tells people beneath.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from hub.chain.inbox import Trouble
from hub.chain.intent import Ended
from hub.notifications.alarms import raise_chain_alarm
from hub.notifications.service import tell_later

TRANSACTION_UNKNOWN: Final = "transaction_unknown"
"""Kind of an alarm."""

WHAT: Final[Mapping[str, str]] = {
    "user.register": "the registration of your wallet",
    "meter.register": "the registration of a meter",
    "meter.rotate_key": "another key of a meter",
    "mint": "the minting of energy",
}
"""What an intent of a kind does, to its member. A kind without a line is the hub's own business."""
OTHER: Final = "a step of the hub"


def tell_of_unknown(connection: Connection, ended: Ended, owners: Collection[bytes], now: datetime) -> None:
    """Tell operators that nobody knows what became of a transaction, and the owners of these wallets that theirs is
    delayed. To be called by the reaction of a kind, once for each intent that became unknown.
    """
    assert ended.outcome == "unknown", ended.outcome
    detail = {
        "intent_id": str(ended.intent_id),
        "kind": ended.kind,
        "subject": ended.subject,
        "signature": ended.signature,
        "error": ended.error,
    }
    why = (
        f"The chain does not say what became of a transaction ({ended.kind}, {ended.subject}). The hub keeps asking, "
        "and signs no other in its place until that is certain."
    )
    raise_chain_alarm(connection, TRANSACTION_UNKNOWN, why, detail, now)
    data = {"what": WHAT.get(ended.kind, OTHER), "signature": ended.signature or ""}
    for owner in sorted(set(owners)):
        key = f"delayed:{ended.intent_id}"
        tell_later(connection, ended.subject, "chain.transaction_delayed", data, now, owner=owner, key=key)


def tell_of_trouble(connection: Connection, trouble: Trouble, now: datetime) -> None:
    """Tell operators what the watcher, the inbox or the comparison of accounts came upon."""
    raise_chain_alarm(connection, trouble.kind, trouble.why, trouble.detail, now)
