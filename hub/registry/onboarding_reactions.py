"""What the registry does when a registration ended, or an account appeared on the chain: rows, audit log, telling.

Both may come, in either order, and either may come alone: an intent may never learn its end, and an event may be lost
in a cut log. So an account is linked, and its owner told, by whichever is first, and a registration that is open is
ended by the event of its own transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

import base58
from sqlalchemy import Connection

from hub.audit import append_audit
from hub.chain.accounts import MeterAccount, UserAccount
from hub.chain.inbox import EventReaction, StoredEvent
from hub.chain.instructions import REGISTER_METER, REGISTER_USER
from hub.chain.intents import Ended, IntentState, Reaction, end_intent_by_event, find_intent_id_of, get_intent
from hub.chain.mirrors import Mirror, MirroredAccount
from hub.chain.reconcile import AccountReaction
from hub.notifications.kinds import instant
from hub.notifications.service import tell_later
from hub.registry import onboarding_rules as rules
from hub.registry import onboarding_store as store
from hub.registry.chain_notices import tell_of_unknown
from hub.registry.onboarding_service import publish_update
from hub.registry.onboarding_store import ChainAccount, Registration

HUB: Final = "hub"
"""Who did it, for the audit log."""


def end_registration(connection: Connection, ended: Ended, now: datetime) -> None:
    """Note how a registration ended, settle who paid, link the account, tell the member. Harmless to repeat."""
    registration = store.find_registration_for_update(connection, ended.intent_id)
    assert registration is not None, "it is written with its intent"
    if registration.outcome is not None:
        return
    if ended.outcome == "unknown":
        tell_of_unknown(connection, ended, [registration.wallet], now)
    else:
        store.end_registration(
            connection,
            ended.intent_id,
            ended.outcome,
            ended.signature if ended.outcome == "finalized" else None,
            ended.slot,
            ended.error_code,
            ended.error or None,
            now,
        )
        paid = ended.outcome == "finalized"
        store.end_sponsorship(connection, ended.intent_id, store.PAID if paid else store.GIVEN_BACK, now)
        detail = {"subject": ended.subject, "outcome": ended.outcome, "signature": ended.signature}
        if ended.error_code is not None:
            detail["error_code"] = ended.error_code
        append_audit(connection, now, HUB, "registration.end", f"registration:{ended.intent_id}", detail)
    if ended.outcome == "finalized":
        assert ended.signature is not None and ended.slot is not None
        _link(connection, _account_of(registration, ended.signature, ended.slot, now), now)
    elif ended.outcome == "failed":
        reason = (ended.error or ended.error_code or "it is not known").rstrip(".")
        _tell(connection, registration, "chain.registration_failed", {"reason": reason}, now)
    elif ended.outcome == "expired":
        until = {"expires_at": instant(registration.expires_at)}
        _tell(connection, registration, "chain.registration_expired", until, now)
    publish_update(connection, registration, ended.outcome, ended.signature, ended.error_code, now)


def link_account(connection: Connection, stored: StoredEvent, before: Mirror | None, now: datetime) -> None:
    """Link the User or Meter that an event tells of, and end the registration whose transaction this was."""
    linked = _linked(stored.event.account, stored.slot, now)
    if linked is None:
        return
    made = stored.event.instruction == (REGISTER_USER if linked.meter_id is None else REGISTER_METER)
    intent_id = find_intent_id_of(connection, stored.signature) if made else None
    if intent_id is not None:  # first the intent, then what hangs on it, as the sender does
        end_intent_by_event(connection, intent_id, stored.signature, stored.slot, REACTIONS, now)
    _link(connection, replace(linked, signature=stored.signature if made else None), now)


def link_found_account(connection: Connection, account: MirroredAccount, slot: int, now: datetime) -> None:
    """Link a User or Meter that was found on the chain at this slot, of which no event may ever tell; and end the
    registration of it of which nobody knew what had become.

    An account of this program needs the hub's signature, and there is one registration of it at a time: so it was this
    one's newest transaction. One that is not unknown is left to the sender, which learns more.
    """
    linked = _linked(account, slot, now)
    if linked is None:
        return
    registration = store.find_open_registration(connection, _subject_of(linked))
    if registration is not None and registration.wallet == linked.wallet:
        intent = get_intent(connection, registration.registration_id)
        if intent.state is IntentState.UNKNOWN and intent.signature is not None:
            end_intent_by_event(connection, intent.intent_id, intent.signature, slot, REACTIONS, now)
    _link(connection, linked, now)


def _linked(account: MirroredAccount, slot: int, now: datetime) -> ChainAccount | None:
    """The account as it is linked, without the transaction that made it; None if it is nobody's."""
    if isinstance(account, UserAccount):
        return ChainAccount(bytes(account.address), store.USER, account.wallet, None, "active", None, slot, now)
    if isinstance(account, MeterAccount):
        state = rules.ACCOUNT_STATES[account.state]
        return ChainAccount(
            bytes(account.address), store.METER, account.owner, account.meter_id, state, None, slot, now
        )
    return None


def _subject_of(account: ChainAccount) -> str:
    if account.meter_id is not None:
        return f"meter:{account.meter_id}"
    return f"wallet:{base58.b58encode(account.wallet).decode()}"


def _link(connection: Connection, account: ChainAccount, now: datetime) -> None:
    """Note the account; when it is new here, audit it and tell its owner."""
    if not store.link_account(connection, account):
        return
    wallet, signature = base58.b58encode(account.wallet).decode(), account.signature
    subject = _subject_of(account)
    detail = {"account": base58.b58encode(account.address).decode(), "wallet": wallet, "signature": signature}
    append_audit(connection, now, HUB, f"{account.kind}.link_account", subject, detail)
    if account.meter_id is None:
        kind, told = "chain.user_registered", {"wallet": wallet}
    else:
        kind, told = "chain.meter_registered", {"meter_id": account.meter_id, "wallet": wallet}
    tell_later(connection, subject, kind, told, now, owner=account.wallet)


def _account_of(registration: Registration, signature: str, slot: int, now: datetime) -> ChainAccount:
    kind = store.USER if registration.kind == rules.USER_KIND else store.METER
    address = base58.b58decode(registration.says["account"])
    return ChainAccount(address, kind, registration.wallet, registration.meter_id, "active", signature, slot, now)


def _tell(connection: Connection, registration: Registration, kind: str, data: dict[str, str], now: datetime) -> None:
    wallet = base58.b58encode(registration.wallet).decode()
    what = f"wallet {wallet}" if registration.meter_id is None else f"meter {registration.meter_id}"
    tell_later(connection, registration.subject, kind, {"what": what, **data}, now, owner=registration.wallet)


REACTIONS: Final[Mapping[str, Reaction]] = {rules.USER_KIND: end_registration, rules.METER_KIND: end_registration}
"""By kind of intent."""

EVENT_REACTIONS: Final[tuple[EventReaction, ...]] = (link_account,)

ACCOUNT_REACTIONS: Final[tuple[AccountReaction, ...]] = (link_found_account,)
