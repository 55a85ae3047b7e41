"""Delivering: sends what was signed, asks what became of it, and writes down what follows.

The same bytes are sent every time, each try is counted before it is made, and what the node's answers prove is decided
in `sending.py`.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from hub import logs, metrics
from hub.chain import intents_store as store
from hub.chain import sending
from hub.chain.chain_state import check_genesis
from hub.chain.handling import (
    ERROR_LENGTH_MAX,
    LEASE,
    STEP_TIMEOUT_S,
    WALLET_TOO_LATE,
    Sender,
    end,
    is_late,
    newest,
    postpone,
    refusal,
)
from hub.chain.intent import Attempt, IntentState
from hub.chain.intents import react
from hub.chain.intents_store import Leased
from hub.chain.messages import transaction_of
from hub.chain.rpc import PreflightRefused, Status
from hub.chain.sending import Evidence, Verdict, judge, needs_history
from hub.errors import ChainAway, ChainDiffers, ChainLags, HubError

ALREADY_PROCESSED: Final = "AlreadyProcessed"

log = logs.get_logger()


async def send(sender: Sender, leased: Leased) -> None:
    """Look what became of an open intent's transaction, and send it if it is not known."""
    attempt = newest(leased.intent)
    if attempt.sends:  # before the first try there is nothing to ask for
        try:
            verdict, status = await _look(sender, attempt)
        except HubError as fault:
            await _count_silence(sender, leased, attempt, fault)
            return
        if verdict != Verdict.MAY_LAND:
            await _conclude(sender, leased, verdict, status)
            return
    if attempt.sends >= sending.TRIES_MAX:
        if attempt.refusal_code is not None:
            await postpone(sender, leased, sending.REFUSED_PAUSE_S)  # what the node refused to pass on is not unknown
        else:
            await _become_unknown(sender, leased, "chain_silent", f"unknown after {attempt.sends} tries")
        return
    if not await sender.write(lambda connection: _count_try(connection, leased, attempt, sender.clock())):
        log.warning("chain_lease_lost")
        return
    outcome, code, said = await _hand_over(sender, attempt)
    metrics.CHAIN_SENDS.labels(leased.intent.kind, outcome).inc()
    log.info("chain_transaction_sent", signature=attempt.signature, outcome=outcome, error=said)
    next_at = sender.clock() + timedelta(seconds=sending.pause_after_send_s(attempt.sends + 1))

    def note(connection: Connection) -> None:
        if store.postpone(connection, leased, next_at, setbacks=0):
            store.set_refusal(connection, attempt, code, said)

    await sender.write(note)


def _count_try(connection: Connection, leased: Leased, attempt: Attempt, now: datetime) -> bool:
    ours = store.keep_lease(connection, leased, now + LEASE)
    if ours:
        store.count_send(connection, attempt)
    return ours


async def _hand_over(sender: Sender, attempt: Attempt) -> tuple[str, str | None, str]:
    """Send the stored bytes. Returns how it went, the program's refusal if there was one, and what was said."""
    signatures = [attempt.hub_signature]
    if attempt.wallet_signature is not None:
        signatures.append(attempt.wallet_signature)
    try:
        await sender.node.send(transaction_of(attempt.message, signatures), attempt.signed_at_slot)
    except PreflightRefused as fault:
        if fault.fault.name == ALREADY_PROCESSED:
            return "taken", None, ""
        if not fault.fault.for_good:
            return "not_taken", None, str(fault.fault)
        code, error = refusal(attempt.message, fault.fault, fault.logs)
        return "refused", code, error
    except HubError as fault:
        return "not_answered", None, f"{fault.code}: {fault.detail}"[:ERROR_LENGTH_MAX]
    return "taken", None, ""


async def _count_silence(sender: Sender, leased: Leased, attempt: Attempt, fault: HubError) -> None:
    """The node does not even say what it knows: a try as good as made, for after the last of them it is unknown."""
    if attempt.sends >= sending.TRIES_MAX:
        await _become_unknown(sender, leased, fault.code, fault.detail)
        return
    now = sender.clock()
    next_at = now + timedelta(seconds=sending.pause_after_send_s(attempt.sends + 1))

    def note(connection: Connection) -> None:
        if store.postpone(connection, leased, next_at):
            store.count_send(connection, attempt)

    await sender.write(note)
    log.warning("chain_not_asked", error=fault.code, detail=fault.detail)


async def reconcile(sender: Sender, leased: Leased) -> None:
    """Look what became of a transaction that is unknown, or that a wallet may have sent."""
    intent = leased.intent
    verdict, status = await _look(sender, newest(intent))
    if verdict != Verdict.MAY_LAND:
        await _conclude(sender, leased, verdict, status)
    elif intent.state == IntentState.UNKNOWN:
        await postpone(sender, leased, sending.UNKNOWN_PAUSE_S)
    else:
        await postpone(sender, leased, sending.WALLET_PAUSE_S)


async def _look(sender: Sender, attempt: Attempt) -> tuple[Verdict, Status | None]:
    """Ask what became of a transaction. Raises errors of the chain: then nothing is known that was not before."""
    if not sender.gate.same_chain:
        raise ChainDiffers(sender.gate.detail)
    try:
        async with asyncio.timeout(STEP_TIMEOUT_S):
            finalized = await sender.node.finalized()
            statuses = await sender.node.statuses([attempt.hub_signature])
            status = statuses.found[0]
            first_available_slot = None
            if needs_history(attempt, finalized, status):
                if statuses.slot < finalized.slot:  # another node behind the same address, further back
                    raise ChainLags(f"statuses as of slot {statuses.slot}, finalized {finalized.slot}")
                first_available_slot = await sender.node.first_available_block()
                await check_genesis(sender.node, sender.genesis_hash)
    except TimeoutError:
        raise ChainAway(f"no answers within {STEP_TIMEOUT_S:g} s") from None
    return judge(attempt, Evidence(finalized, status, first_available_slot)), status


async def _conclude(sender: Sender, leased: Leased, verdict: Verdict, status: Status | None) -> None:
    """Write down what follows from anything but that it may still land."""
    intent, attempt = leased.intent, newest(leased.intent)
    match verdict:
        case Verdict.LANDED:
            assert status is not None
            await _end_landed(sender, leased, attempt, status)
        case Verdict.ON_ITS_WAY:
            await postpone(sender, leased, sending.SEEN_PAUSE_S)
        case Verdict.HISTORY_PRUNED if intent.state == IntentState.UNKNOWN:
            await postpone(sender, leased, sending.PRUNED_PAUSE_S, error_code=verdict.value)
        case Verdict.HISTORY_PRUNED:
            await _become_unknown(sender, leased, verdict.value, "the node has forgotten when it may have landed")
        case Verdict.LAPSED if attempt.refusal_code is not None:
            await end(sender, leased, IntentState.FAILED, attempt.refusal_code, attempt.refusal)
        case Verdict.LAPSED if is_late(intent, sender.clock()):
            await end(sender, leased, IntentState.EXPIRED, WALLET_TOO_LATE, "its time was over before it landed")
        case Verdict.LAPSED:
            log.warning("chain_transaction_lapsed", signature=attempt.signature)
            await sender.write(
                lambda connection: store.change_state(
                    connection, intent, IntentState.PLANNED, leased.lease_token, next_at=sender.clock(), setbacks=0
                )
            )
        case Verdict.MAY_LAND:
            raise AssertionError("there is nothing to conclude")


async def _end_landed(sender: Sender, leased: Leased, attempt: Attempt, status: Status) -> None:
    state, code, error = IntentState.FINALIZED, None, ""
    if status.fault is not None:
        state = IntentState.FAILED
        code, error = refusal(attempt.message, status.fault, ())
    await end(sender, leased, state, code, error, attempt.hub_signature, status.slot)


async def _become_unknown(sender: Sender, leased: Leased, code: str, error: str) -> None:
    """Operators see it in the log and the gauges; the domain is told once, and tells the member."""
    intent, now = leased.intent, sender.clock()
    next_at = now + timedelta(seconds=sending.UNKNOWN_PAUSE_S)

    def write(connection: Connection) -> bool:
        changes = {"error_code": code, "error": error[:ERROR_LENGTH_MAX], "next_at": next_at, "setbacks": 0}
        if intent.unknown_at is None:
            changes["unknown_at"] = now
        moved = store.change_state(connection, intent, IntentState.UNKNOWN, leased.lease_token, **changes)
        if moved and intent.unknown_at is None:
            reactions = sender.reactions
            react(connection, intent, "unknown", intent.signature, None, code, error, reactions, now)
        return moved

    if await sender.write(write):
        log.error("chain_intent_unknown", signature=intent.signature, reason=code, detail=error)
    else:
        log.warning("chain_lease_lost")
