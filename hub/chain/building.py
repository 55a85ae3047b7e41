"""Building: from a plan to a message that the hub has signed and stored, and that nobody has sent yet.

What the program would refuse is never signed. What a node says is held against what is known already: one that is
behind, or on another chain, refuses and promises what our chain does not.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from hub import logs
from hub.chain import inbox_store, sending
from hub.chain import intents_store as store
from hub.chain.chain_state import check_genesis
from hub.chain.handling import STEP_TIMEOUT_S, WALLET_TOO_LATE, Sender, end, is_late, refusal, set_back
from hub.chain.intent import Attempt, Intent, IntentState
from hub.chain.intents_store import Leased
from hub.chain.lookup_tables import load_tables
from hub.chain.messages import (
    NO_SIGNATURE,
    TRANSACTION_BYTES_MAX,
    build_message,
    signers_of,
    transaction_bytes,
    transaction_of,
)
from hub.chain.rpc import Blockhash
from hub.chain.sending import check_blockhash
from hub.errors import ChainLags, HubKeyEmpty

TOO_LARGE: Final = "transaction_too_large"
SIGNERS_DIFFER: Final = "signers_differ"

log = logs.get_logger()


async def build(sender: Sender, leased: Leased) -> None:
    """Build, simulate, sign and store a transaction for a planned intent; or write that there will be none."""
    intent = leased.intent
    if is_late(intent, sender.clock()):
        await end(sender, leased, IntentState.EXPIRED, WALLET_TOO_LATE, "the wallet did not sign in time")
        return
    async with asyncio.timeout(STEP_TIMEOUT_S):
        finalized = await sender.node.finalized()
        blockhash = await sender.node.latest_blockhash()
        check_blockhash(blockhash, finalized, await sender.write(_read_slot))
        message = await _message(sender, intent, blockhash)
        signers = tuple(bytes(each) for each in signers_of(message))
        expected = (bytes(sender.key.pubkey()), *([] if intent.wallet is None else [intent.wallet]))
        if signers != expected or transaction_bytes(message) > TRANSACTION_BYTES_MAX:
            code = SIGNERS_DIFFER if signers != expected else TOO_LARGE
            log.error("chain_plan_impossible", reason=code, bytes=transaction_bytes(message))
            await end(sender, leased, IntentState.FAILED, code, f"{transaction_bytes(message)} bytes")
            return
        unsigned = transaction_of(message, [NO_SIGNATURE] * len(signers))
        simulation = await sender.node.simulate(unsigned, blockhash.slot)
        await check_genesis(sender.node, sender.genesis_hash)  # the gate looked up to a minute ago
    if simulation.fault is not None and simulation.fault.for_good:
        await end(sender, leased, IntentState.FAILED, *refusal(message, simulation.fault, simulation.logs))
        return
    if simulation.fault is not None:
        why = HubKeyEmpty if simulation.fault.for_want_of_lamports else ChainLags
        await set_back(sender, leased, why(f"simulation: {simulation.fault}"))
        return
    attempt = Attempt(
        attempt_no=1 if intent.newest is None else 1 + intent.newest.attempt_no,
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


def _read_slot(connection: Connection) -> int:
    """The slot that the hub has read up to: a node that is further back knows less than the plan was made from."""
    cursor = inbox_store.find_cursor(connection)
    return 0 if cursor is None else cursor.slot


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
