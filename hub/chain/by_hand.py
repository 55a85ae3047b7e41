"""Transactions of an operator, sent by hand and waited for. They are stored nowhere: whatever an operator does looks
first at what the chain has already, so that a command which was interrupted is simply given again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final
from uuid import uuid4

import base58
from solders.instruction import Instruction
from solders.keypair import Keypair

from hub.chain.messages import build_message, programs_of, signers_of, transaction_of
from hub.chain.rpc import Node, PreflightRefused
from hub.chain.rpc_answers import Level
from hub.errors import ChainAway, ChainLags, ChainRefuses, TransactionExpired, TransactionRefused

FEE_LAMPORTS: Final = 5_000
"""Of a signature; each Ed25519 signature that a transaction has verified costs as much."""
COMPUTE_UNITS: Final = 200_000
POLL_PAUSE_FIRST_S: Final = 0.1
POLL_PAUSE_MAX_S: Final = 0.8
"""Twice as long each time: a quick cluster is not waited for, and a busy node is not pestered."""
RESEND_PAUSE_S: Final = 2.0
_LEVELS: Final[Sequence[Level]] = ("processed", "confirmed", "finalized")


def fees_lamports(signatures: int, transactions: int, compute_unit_price_micro_lamports: int) -> int:
    """What so many transactions with so many signatures in all take, whatever they do."""
    of_one = -(-COMPUTE_UNITS * compute_unit_price_micro_lamports // 1_000_000)
    return FEE_LAMPORTS * signatures + of_one * transactions


async def carry_out(
    node: Node,
    instructions: Sequence[Instruction],
    signers: Sequence[Keypair],
    level: Level = "finalized",
    compute_unit_price_micro_lamports: int = 0,
) -> str:
    """Sign (the first pays), send, and wait until it is in a block of this level. Returns the transaction's id.

    Raises TransactionRefused, TransactionExpired if it did not land, and errors of the chain: then it may have landed.
    """
    blockhash = await node.latest_blockhash()
    price = compute_unit_price_micro_lamports
    message = build_message(signers[0].pubkey(), instructions, COMPUTE_UNITS, price, blockhash.hash, uuid4())
    by_key = {keypair.pubkey(): keypair for keypair in signers}
    signatures = [bytes(by_key[key].sign_message(message)) for key in signers_of(message)]
    wire = transaction_of(message, signatures)
    sent_at_s, pause_s = None, POLL_PAUSE_FIRST_S
    while True:
        finalized = await node.finalized()
        status = (await node.statuses([signatures[0]])).found[0]
        if status is not None and status.fault is not None:
            raise TransactionRefused(status.fault.code(programs_of(message)))
        if status is not None and _LEVELS.index(status.level) >= _LEVELS.index(level):
            return base58.b58encode(signatures[0]).decode()
        if status is None and finalized.block_height > blockhash.last_valid_block_height:
            raise TransactionExpired("it did not land; give the command again")
        if status is None and (sent_at_s is None or time.monotonic() - sent_at_s >= RESEND_PAUSE_S):
            sent_at_s = time.monotonic()
            await _send(node, message, wire)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, POLL_PAUSE_MAX_S)


async def _send(node: Node, message: bytes, wire: bytes) -> None:
    try:
        await node.send(wire)
    except PreflightRefused as fault:
        if fault.fault.by_program:
            said = "".join(f"\n  {line}" for line in fault.logs)
            raise TransactionRefused(f"{fault.fault.code(programs_of(message))}{said}") from None
    except (ChainAway, ChainRefuses, ChainLags):
        return  # it may have arrived: the next look tells
