"""The sender: builds, signs, sends and asks, so that each intent happens once, whatever breaks on the way.

Every step takes one intent (a lease with a fencing token), talks to the node outside any transaction, and writes what
came of it in one. A crash between any two lines loses nothing: a transaction is stored before it is sent, a try is
counted before it is made, and sending the same bytes again is harmless. What follows from what the node says is decided
in `sending.py`. docs/decisions/sending.md tells why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from solders.keypair import Keypair
from sqlalchemy import Connection, Engine

from hub import logs, metrics
from hub.chain import intents_store as store
from hub.chain import sending
from hub.chain.chain_state import ChainGate, check_genesis
from hub.chain.intent import Attempt, Intent, IntentState, Reactions
from hub.chain.intents import end_intent, react
from hub.chain.intents_store import Leased
from hub.chain.lookup_tables import load_tables
from hub.chain.messages import (
    NO_SIGNATURE,
    TRANSACTION_BYTES_MAX,
    build_message,
    programs_of,
    signers_of,
    transaction_bytes,
    transaction_of,
)
from hub.chain.program_errors import TransactionFault
from hub.chain.rpc import Blockhash, Node, PreflightRefused, Status
from hub.chain.sending import Evidence, Verdict, judge, needs_history
from hub.db import is_database_away, transaction
from hub.errors import ChainAway, ChainDiffers, ChainLags, HubError

STEP_TIMEOUT_S: Final = 12.0
"""For all that a step asks of the node."""
LEASE: Final = timedelta(seconds=15)
"""Longer than a step. Were it shorter, the same bytes would be sent twice, and the fence would hold all the same."""
IDLE_PAUSE_S: Final = 0.25
AWAY_PAUSE_S: Final = 2.0
ERROR_LENGTH_MAX: Final = 500

TOO_LARGE: Final = "transaction_too_large"
SIGNERS_DIFFER: Final = "signers_differ"
WALLET_TOO_LATE: Final = "wallet_too_late"
ALREADY_PROCESSED: Final = "AlreadyProcessed"

log = logs.get_logger()
T = TypeVar("T")


@dataclass(frozen=True)
class Sender:
    """What the steps need. `reactions` are the domains', by kind of intent; `clock` says what time it is."""

    engine: Engine
    node: Node
    key: Keypair
    genesis_hash: bytes
    gate: ChainGate
    reactions: Reactions
    compute_unit_price_micro_lamports: int
    clock: Callable[[], datetime]

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Do this in a transaction of its own, in another thread."""

        def run() -> T:
            with transaction(self.engine) as connection:
                return work(connection)

        return await asyncio.to_thread(run)

    async def lease(self, states: Collection[IntentState]) -> Leased | None:
        """The intent in one of these states that has been due for longest."""
        now = self.clock()
        return await self.write(lambda connection: store.lease_due(connection, states, now, now + LEASE))


async def build_once(sender: Sender) -> bool:
    """Build and sign a transaction for one planned intent. False if there is none, or nothing may be signed."""
    return sender.gate.usable and await _step(sender, [IntentState.PLANNED], _build)


async def send_once(sender: Sender) -> bool:
    """Send one open intent's transaction, again if need be, or write how it ended. False if there is none."""
    return sender.gate.checked and await _step(sender, [IntentState.OPEN], _send)


async def reconcile_once(sender: Sender) -> bool:
    """Ask what became of one transaction that is unknown, or that a wallet may have sent by itself. For ever."""
    return sender.gate.checked and await _step(sender, [IntentState.UNKNOWN, IntentState.AWAITING_WALLET], _reconcile)


def measure_intents_once(connection: Connection, now: datetime) -> int:
    """Set the gauges of what has not ended. Returns how many intents those are."""
    backlogs = store.list_backlogs(connection)
    metrics.CHAIN_INTENTS.clear()
    metrics.CHAIN_OLDEST_INTENT.clear()
    oldest: dict[IntentState, datetime] = {}
    for each in backlogs:
        metrics.CHAIN_INTENTS.labels(each.kind, each.state.value).set(each.intents)
        oldest[each.state] = min(each.oldest_at, oldest.get(each.state, each.oldest_at))
    for state, at in oldest.items():
        metrics.CHAIN_OLDEST_INTENT.labels(state.value).set(max(0.0, (now - at).total_seconds()))
    return sum(each.intents for each in backlogs)


async def run_steps(step: Callable[[Sender], Awaitable[bool]], sender: Sender, stop: asyncio.Event) -> None:
    """Repeat a step until `stop` is set. The loop only paces; a database that is away is tried again."""
    while not stop.is_set():
        pause_s = 0.0
        try:
            worked = await step(sender)
        except Exception as fault:
            if not is_database_away(fault):
                raise
            log.warning("chain_database_away", error=str(fault).splitlines()[0])
            pause_s = AWAY_PAUSE_S
        else:
            pause_s = 0.0 if worked else IDLE_PAUSE_S
        if pause_s:
            await _wait(stop, pause_s)


async def _wait(stop: asyncio.Event, pause_s: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), pause_s)
    except TimeoutError:
        return


async def _step(
    sender: Sender, states: Collection[IntentState], work: Callable[[Sender, Leased], Awaitable[None]]
) -> bool:
    leased = await sender.lease(states)
    if leased is None:
        return False
    intent = leased.intent
    with logs.bound(intent_id=str(intent.intent_id), intent_kind=intent.kind, intent_subject=intent.subject):
        try:
            await work(sender, leased)
        except Exception as fault:  # noqa: BLE001 - one intent must not stop the others, whatever is wrong with it
            await _set_back(sender, leased, fault)
    return True


# --- building


async def _build(sender: Sender, leased: Leased) -> None:
    intent = leased.intent
    if _is_late(intent, sender.clock()):
        await _end(sender, leased, IntentState.EXPIRED, WALLET_TOO_LATE, "the wallet did not sign in time")
        return
    async with asyncio.timeout(STEP_TIMEOUT_S):
        blockhash = await sender.node.latest_blockhash()
        message = await _message(sender, intent, blockhash)
        signers = tuple(bytes(each) for each in signers_of(message))
        expected = (bytes(sender.key.pubkey()), *([] if intent.wallet is None else [intent.wallet]))
        if signers != expected or transaction_bytes(message) > TRANSACTION_BYTES_MAX:
            code = SIGNERS_DIFFER if signers != expected else TOO_LARGE
            log.error("chain_plan_impossible", reason=code, bytes=transaction_bytes(message))
            await _end(sender, leased, IntentState.FAILED, code, f"{transaction_bytes(message)} bytes")
            return
        unsigned = transaction_of(message, [NO_SIGNATURE] * len(signers))
        simulation = await sender.node.simulate(unsigned, blockhash.slot)
    if simulation.fault is not None and simulation.fault.by_program:
        await _end(sender, leased, IntentState.FAILED, *_refusal(message, simulation.fault, simulation.logs))
        return
    if simulation.fault is not None:
        await _set_back(sender, leased, ChainLags(f"simulation: {simulation.fault}"))
        return
    attempt = Attempt(
        attempt_no=1 + len(intent.attempts),
        message=message,
        hub_signature=bytes(sender.key.sign_message(message)),
        wallet_signature=None,
        last_valid_block_height=blockhash.last_valid_block_height,
        signed_at_slot=blockhash.slot,
        sends=0,
        refusal_code=None,
        refusal="",
    )
    await sender.write(lambda connection: _store_attempt(connection, leased, attempt, sender.clock()))


def _store_attempt(connection: Connection, leased: Leased, attempt: Attempt, now: datetime) -> None:
    """Stored before it is sent, and only if the intent is still ours: otherwise nobody ever sees the signature."""
    intent = leased.intent
    if intent.wallet is None:
        state, next_at = IntentState.OPEN, now
    else:
        state, next_at = IntentState.AWAITING_WALLET, now + timedelta(seconds=sending.WALLET_PAUSE_S)
    if not store.change_state(connection, intent, state, leased.lease_token, next_at=next_at, setbacks=0):
        log.warning("chain_lease_lost")
        return
    store.insert_attempt(connection, intent.intent_id, attempt, now)
    log.info("chain_transaction_signed", signature=attempt.signature, attempt_no=attempt.attempt_no)


async def _message(sender: Sender, intent: Intent, blockhash: Blockhash) -> bytes:
    tables = []
    if intent.lookup_tables:
        tables = await sender.write(lambda connection: load_tables(connection, intent.lookup_tables, blockhash.slot))
    return build_message(
        sender.key.pubkey(),
        intent.instructions,
        intent.compute_units,
        sender.compute_unit_price_micro_lamports,
        blockhash.hash,
        intent.intent_id,
        tables,
    )


# --- sending


async def _send(sender: Sender, leased: Leased) -> None:
    attempt = _newest(leased.intent)
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
            await _postpone(sender, leased, sending.REFUSED_PAUSE_S)  # what the node refused to pass on is not unknown
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
        await sender.node.send(transaction_of(attempt.message, signatures))
    except PreflightRefused as fault:
        if fault.fault.name == ALREADY_PROCESSED:
            return "taken", None, ""
        if not fault.fault.by_program:
            return "not_taken", None, str(fault.fault)
        code, error = _refusal(attempt.message, fault.fault, fault.logs)
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


# --- asking


async def _reconcile(sender: Sender, leased: Leased) -> None:
    intent = leased.intent
    verdict, status = await _look(sender, _newest(intent))
    if verdict != Verdict.MAY_LAND:
        await _conclude(sender, leased, verdict, status)
    elif intent.state == IntentState.UNKNOWN:
        await _postpone(sender, leased, sending.UNKNOWN_PAUSE_S)
    else:
        await _postpone(sender, leased, sending.WALLET_PAUSE_S)


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
    intent, attempt = leased.intent, _newest(leased.intent)
    match verdict:
        case Verdict.LANDED:
            assert status is not None
            await _end_landed(sender, leased, attempt, status)
        case Verdict.ON_ITS_WAY:
            await _postpone(sender, leased, sending.SEEN_PAUSE_S)
        case Verdict.HISTORY_PRUNED if intent.state == IntentState.UNKNOWN:
            await _postpone(sender, leased, sending.PRUNED_PAUSE_S, error_code=verdict.value)
        case Verdict.HISTORY_PRUNED:
            await _become_unknown(sender, leased, verdict.value, "the node has forgotten when it may have landed")
        case Verdict.LAPSED if attempt.refusal_code is not None:
            await _end(sender, leased, IntentState.FAILED, attempt.refusal_code, attempt.refusal)
        case Verdict.LAPSED if _is_late(intent, sender.clock()):
            await _end(sender, leased, IntentState.EXPIRED, WALLET_TOO_LATE, "its time was over before it landed")
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
        code, error = _refusal(attempt.message, status.fault, ())
    await _end(sender, leased, state, code, error, attempt.hub_signature, status.slot)


async def _end(
    sender: Sender,
    leased: Leased,
    state: IntentState,
    code: str | None,
    error: str,
    ended_by: bytes | None = None,
    slot: int | None = None,
) -> None:
    def write(connection: Connection) -> bool:
        return end_intent(
            connection,
            leased.intent,
            leased.lease_token,
            state,
            sender.reactions,
            sender.clock(),
            error_code=code,
            error=error[:ERROR_LENGTH_MAX],
            ended_by=ended_by,
            slot=slot,
        )

    if not await sender.write(write):
        log.warning("chain_lease_lost")


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


async def _postpone(sender: Sender, leased: Leased, pause_s: float, **changes: object) -> None:
    next_at = sender.clock() + timedelta(seconds=pause_s)
    await sender.write(lambda connection: store.postpone(connection, leased, next_at, setbacks=0, **changes))


async def _set_back(sender: Sender, leased: Leased, fault: Exception) -> None:
    """Later again, and later each time."""
    if is_database_away(fault):
        raise fault
    setbacks = leased.intent.setbacks + 1
    pause_s = sending.pause_after_setback_s(setbacks)
    if isinstance(fault, (HubError, TimeoutError)):
        log.warning("chain_step_postponed", error=getattr(fault, "code", "chain_away"), detail=str(fault))
    else:
        log.error("chain_step_failed", exc_info=fault)
    next_at = sender.clock() + timedelta(seconds=pause_s)
    await sender.write(lambda connection: store.postpone(connection, leased, next_at, setbacks=setbacks))


def _is_late(intent: Intent, now: datetime) -> bool:
    return intent.valid_until is not None and now >= intent.valid_until


def _newest(intent: Intent) -> Attempt:
    assert intent.newest is not None, "only a planned intent has no attempt"
    return intent.newest


def _refusal(message: bytes, fault: TransactionFault, lines: Collection[str]) -> tuple[str, str]:
    """The refusal's name, and what was logged at the end."""
    said = f"{fault}" + "".join(f"; {line}" for line in list(lines)[-3:])
    return fault.code(programs_of(message)), said[:ERROR_LENGTH_MAX].replace("\x00", "\ufffd")
