"""What solana-py's scenarios begin with."""

from __future__ import annotations

from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed
from solana.rpc.models import TxOpts
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

SOL = 10**9
MEMO = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
POLL_S = 0.02
CHECKED = TxOpts(preflight_commitment=Confirmed)
UNCHECKED = TxOpts(skip_preflight=True)


def memo(text: str) -> Instruction:
    return Instruction(MEMO, text.encode(), [])


async def funded(client: AsyncClient, sol: int = 10) -> Keypair:
    """Somebody with money, and the wait for it."""
    key = Keypair()
    airdrop = (await client.request_airdrop(key.pubkey(), sol * SOL, Confirmed)).value
    await client.confirm_transaction(airdrop, Confirmed, POLL_S)
    return key


async def signed(client, payer, *instructions, also=(), tables=()):
    """A transaction with the newest blockhash, and that blockhash with its height."""
    latest = (await client.get_latest_blockhash(Confirmed)).value
    message = MessageV0.try_compile(payer.pubkey(), list(instructions), list(tables), latest.blockhash)
    return VersionedTransaction(message, [payer, *also]), latest


def durable(payer: Keypair, nonce: Hash, *instructions: Instruction) -> VersionedTransaction:
    """A transaction that a nonce keeps from lapsing."""
    message = MessageV0.try_compile(payer.pubkey(), list(instructions), [], nonce)
    return VersionedTransaction(message, [payer])


async def confirmed(client, payer, *instructions, also=(), tables=(), opts=CHECKED) -> Signature:
    """Send, confirm, and hold the outcome good."""
    transaction, latest = await signed(client, payer, *instructions, also=also, tables=tables)
    signature = (await client.send_transaction(transaction, opts)).value
    statuses = await client.confirm_transaction(signature, Confirmed, POLL_S, latest.last_valid_block_height)
    assert statuses.value[0].err is None
    return signature


def writable(key: Pubkey, *, signer: bool = False) -> AccountMeta:
    return AccountMeta(key, is_signer=signer, is_writable=True)


def readable(key: Pubkey, *, signer: bool = False) -> AccountMeta:
    return AccountMeta(key, is_signer=signer, is_writable=False)
