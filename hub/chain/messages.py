"""Transactions as bytes: a message (version 0), the signatures before it, and how long it all is.

A message of the hub's: the hub pays and signs first, so that its signature is the transaction's id; then the compute
budget; then what the plan says. Every message carries its business id, so that no two ever share a signature: where
no instruction has it in its data, the first compute budget instruction names an address made of it, which that
program ignores, and by which explorers find the transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import MessageV0, from_bytes_versioned, to_bytes_versioned
from solders.pubkey import Pubkey

from hub.chain.instructions import compute_unit_limit, compute_unit_price

TRANSACTION_BYTES_MAX: Final = 1_232
"""What fits into a packet; the chain takes no more."""
SIGNATURE_BYTES: Final = 64
NO_SIGNATURE: Final = bytes(SIGNATURE_BYTES)


def reference_of(business_id: UUID) -> Pubkey:
    """The address that stands for a business id in messages whose instructions have no room for it."""
    return Pubkey.from_bytes(hashlib.sha256(b"commonwatt business id" + business_id.bytes).digest())


def build_message(
    payer: Pubkey,
    instructions: Sequence[Instruction],
    compute_units: int,
    compute_unit_price_micro_lamports: int,
    blockhash: bytes,
    business_id: UUID,
    lookup_tables: Sequence[AddressLookupTableAccount] = (),
) -> bytes:
    """The bytes that are signed. The same arguments make the same bytes."""
    limit = compute_unit_limit(compute_units)
    if not any(business_id.bytes in bytes(each.data) for each in instructions):
        reference = AccountMeta(reference_of(business_id), is_signer=False, is_writable=False)
        limit = Instruction(limit.program_id, bytes(limit.data), [reference])
    budget = [limit]
    if compute_unit_price_micro_lamports:
        budget.append(compute_unit_price(compute_unit_price_micro_lamports))
    message = MessageV0.try_compile(payer, [*budget, *instructions], list(lookup_tables), Hash.from_bytes(blockhash))
    return bytes(to_bytes_versioned(message))


def transaction_of(message: bytes, signatures: Sequence[bytes]) -> bytes:
    """What goes over the wire: the signatures in the order of the message's signers, then the message."""
    assert len(signatures) < 0x80, "longer counts take two bytes"
    return bytes([len(signatures)]) + b"".join(signatures) + message


def transaction_bytes(message: bytes) -> int:
    """How long the transaction of this message is, with all its signatures."""
    return 1 + SIGNATURE_BYTES * len(signers_of(message)) + len(message)


def signers_of(message: bytes) -> tuple[Pubkey, ...]:
    """Who must sign, the payer first."""
    parsed = from_bytes_versioned(message)
    return tuple(parsed.account_keys[: parsed.header.num_required_signatures])


def programs_of(message: bytes) -> tuple[Pubkey, ...]:
    """The programs of the message's instructions, in their order."""
    parsed = from_bytes_versioned(message)
    return tuple(parsed.account_keys[each.program_id_index] for each in parsed.instructions)
