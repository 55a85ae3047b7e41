"""The part of `commonwatt verify --rpc` that asks a Solana node whether a mint took place, and what it minted.

Needs nothing but JSON-RPC. The node is believed about what the chain holds, and about nothing that can be worked out:
the transaction is taken apart here, and its signature checked. `docs/program.md` has the layouts.
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from commonwatt.verify_bundle import Bundle, Mint, grid
from commonwatt.verify_keys import FaultError, check_signature
from protocol.seal import SEAL_BYTES, SIGNATURE_BYTES

ED25519_PROGRAM = "Ed25519SigVerify111111111111111111111111111"
SUBMIT_READING, SETTLE_METER_BALANCE, WRITE_OFF = 4, 5, 6
METER, GRID_MINT, GRID_ACCOUNT = 2, 3, 4
"""Places in the account lists of these instructions."""
CONFIG_TAG, CONFIG_DOMAIN, CONFIG_GRID_MINT = b"CWCF", slice(40, 48), slice(176, 208)
MINT_AUTHORITY_SET, MINT_AUTHORITY = slice(0, 4), slice(4, 36)
ANSWER_BYTES_MAX = 4_000_000
TIMEOUT_S = 30.0
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VERSION_0 = 0x80

Call = Callable[[str, list[Any]], Any]
"""Asks the node: method and parameters give the result. Raises NodeError."""


class NodeError(Exception):
    """The node does not answer, or refuses: nothing is known."""


class _MalformedError(Exception):
    """What the node showed is no transaction."""


@dataclass(frozen=True)
class _Instruction:
    program: str
    accounts: tuple[str, ...]
    data: bytes


@dataclass(frozen=True)
class _Transaction:
    signature: bytes
    payer: bytes
    message: bytes
    accounts: tuple[str, ...]
    instructions: tuple[_Instruction, ...]


def node(url: str) -> Call:
    """A node at this address."""

    def call(method: str, parameters: list[Any]) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - what was given
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
                answer = json.loads(response.read(ANSWER_BYTES_MAX))
        except (OSError, ValueError, urllib.error.URLError) as fault:
            raise NodeError(f"{method}: {fault}") from fault
        if not isinstance(answer, dict) or "result" not in answer:
            raise NodeError(f"{method}: {answer.get('error') if isinstance(answer, dict) else answer}")
        return answer["result"]

    return call


def check_chain(bundle: Bundle, call: Call) -> None:
    """Ask the node about the bundle's transaction; notes what it confirms, and what is not as the file says.

    Raises NodeError if it does not answer.
    """
    bundle.chain = []
    try:
        _check(bundle, call, bundle.chain)
    except (_MalformedError, KeyError, TypeError, IndexError, ValueError) as fault:
        bundle.faults.append(f"what the node shows cannot be read: {fault}")


def _check(bundle: Bundle, call: Call, facts: list[str]) -> None:
    header = bundle.header
    genesis = call("getGenesisHash", [])
    if decode_base58(genesis).hex() != header["genesis_hash"]:
        bundle.faults.append(f"the node is of another chain, with the genesis hash {genesis}")
        return
    wanted = {"encoding": "base64", "commitment": "finalized", "maxSupportedTransactionVersion": 0}
    found = call("getTransaction", [header["transaction"], wanted])
    if found is None:
        bundle.faults.append("the node knows no such transaction (it may have forgotten old ones)")
        return
    meta = found["meta"]
    if meta["err"] is not None:
        bundle.faults.append(f"the transaction failed: {meta['err']}")
        return
    loaded = meta.get("loadedAddresses") or {"writable": [], "readonly": []}
    transaction = _parse(base64.b64decode(found["transaction"][0]), [*loaded["writable"], *loaded["readonly"]])
    if encode_base58(transaction.signature) != header["transaction"]:
        bundle.faults.append("the node shows another transaction")
        return
    try:
        check_signature(transaction.payer, transaction.message, transaction.signature)
    except FaultError:
        bundle.faults.append("the transaction's signature is false")
        return
    if found["slot"] != header["slot"]:
        bundle.faults.append(f"it took place in slot {found['slot']}")
    facts.append(f"finalized in slot {found['slot']}, signed and paid by {encode_base58(transaction.payer)}")
    for mint in bundle.mints:
        _check_mint(mint, bundle, transaction, meta, call, facts)


def _check_mint(
    mint: Mint, bundle: Bundle, transaction: _Transaction, meta: dict[str, Any], call: Call, facts: list[str]
) -> None:
    program = encode_base58(bytes.fromhex(bundle.header["program_id"]))
    meter_id = mint.stated["meter_id"]
    account = _presented(mint, transaction, program)
    if account is None:
        mint.faults.append("the transaction does not present this meter's last seal to the program")
        return
    settled = [
        each
        for each in transaction.instructions
        if each.program == program
        and each.data[:1] == bytes([SETTLE_METER_BALANCE])
        and each.accounts[METER] == account
    ]
    if not settled and not mint.amount_units:
        facts.append(f"presented the seal of {meter_id}; there was nothing to mint")
        return
    if len(settled) != 1:
        mint.faults.append(f"the transaction settles this meter {len(settled)} times")
        return
    [settle] = settled
    minted_units = _received(settle.accounts[GRID_ACCOUNT], mint.owner, settle.accounts[GRID_MINT], transaction, meta)
    stated_units = sum(each.amount_units for each in bundle.mints if each.owner == mint.owner)
    if minted_units != stated_units:  # all meters of an owner fill one account
        mint.faults.append(f"the owner received {minted_units} units, and the file says {stated_units}")
        return
    fault = _mint_fault(settle.accounts[GRID_MINT], program, bundle, call)
    if fault:
        mint.faults.append(fault)
        return
    facts.append(
        f"presented the seal of {meter_id}, minted {grid(mint.amount_units)} GRID to {settle.accounts[GRID_ACCOUNT]}"
    )


def _presented(mint: Mint, transaction: _Transaction, program: str) -> str | None:
    """The Meter account to which the program was shown the last seal of this mint, with the meter's signature."""
    statement = None if mint.evidence is None else mint.evidence.statement
    if statement is None:
        return None
    for before, each in zip(transaction.instructions, transaction.instructions[1:], strict=False):
        if each.program != program or each.data[:1] not in (bytes([SUBMIT_READING]), bytes([WRITE_OFF])):
            continue
        if before.program != ED25519_PROGRAM or len(before.data) < 16:
            continue
        signature_at, _, key_at, _, message_at, length, _ = (
            int.from_bytes(before.data[at : at + 2], "little") for at in range(2, 16, 2)
        )
        shown = before.data[message_at : message_at + length]
        signature = before.data[signature_at : signature_at + SIGNATURE_BYTES]
        if (before.data[key_at : key_at + 32], shown + signature) == (
            statement.public_key,
            mint.last_seal[: SEAL_BYTES + SIGNATURE_BYTES],
        ):
            return each.accounts[METER]
    return None


def _received(account: str, owner: bytes, grid_mint: str, transaction: _Transaction, meta: dict[str, Any]) -> int:
    """By how much this token account of this owner grew, in base units."""
    index = transaction.accounts.index(account)

    def amount(balances: list[dict[str, Any]]) -> int:
        for balance in balances:
            if balance["accountIndex"] == index:
                if (balance["mint"], balance["owner"]) != (grid_mint, encode_base58(owner)):
                    raise _MalformedError(f"{account} is not the owner's account of {grid_mint}")
                return int(balance["uiTokenAmount"]["amount"])
        return 0

    return amount(meta["postTokenBalances"]) - amount(meta["preTokenBalances"])


def _mint_fault(grid_mint: str, program: str, bundle: Bundle, call: Call) -> str:
    """Whether the tokens are the community's: minted by nobody but its program. Empty if so."""
    mint_account = _account(grid_mint, call)
    authority = encode_base58(mint_account[1][MINT_AUTHORITY])
    if mint_account[1][MINT_AUTHORITY_SET] != b"\x01\x00\x00\x00":
        return f"{grid_mint} has no mint authority"
    owner, config = _account(authority, call)
    domain = bundle.mints[0].evidence.statement.domain if bundle.mints[0].evidence is not None else b""  # type: ignore[union-attr]
    if owner != program or config[:4] != CONFIG_TAG or config[CONFIG_DOMAIN] != domain:
        return f"{grid_mint} can be minted by {authority}, which is not this community's program"
    if encode_base58(config[CONFIG_GRID_MINT]) != grid_mint:
        return f"{grid_mint} is not this community's GRID"
    return ""


def _account(address: str, call: Call) -> tuple[str, bytes]:
    value = call("getAccountInfo", [address, {"encoding": "base64", "commitment": "finalized"}])["value"]
    return (value["owner"], base64.b64decode(value["data"][0])) if value is not None else ("", b"")


# --- the wire format of transactions ---------------------------------------------------------------------------


class _Reader:
    """Takes bytes from the front. Raises _MalformedError when there are none left."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, length: int) -> bytes:
        """The next bytes."""
        part = self.data[self.at : self.at + length]
        if len(part) < length:
            raise _MalformedError("the transaction is cut off")
        self.at += length
        return part

    def length(self) -> int:
        """A number in Solana's compact form: seven bits a byte, least significant first, at most three bytes."""
        value = 0
        for place in range(3):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << (7 * place)
            if not byte & 0x80:
                return value
        raise _MalformedError("a length is too long")


def _parse(wire: bytes, loaded: list[str]) -> _Transaction:
    """A transaction, legacy or version 0, with the addresses that lookup tables gave."""
    reader = _Reader(wire)
    signatures = [reader.take(SIGNATURE_BYTES) for _ in range(reader.length())]
    message = wire[reader.at :]
    if message[:1] and message[0] & _VERSION_0:
        if reader.take(1)[0] != _VERSION_0:
            raise _MalformedError("an unknown version")
    else:
        loaded = []
    reader.take(3)
    keys = [reader.take(32) for _ in range(reader.length())]
    reader.take(32)
    accounts = (*map(encode_base58, keys), *loaded)
    instructions = []
    for _ in range(reader.length()):
        program = accounts[reader.take(1)[0]]
        named = tuple(accounts[index] for index in reader.take(reader.length()))
        instructions.append(_Instruction(program, named, reader.take(reader.length())))
    if not signatures or not keys:
        raise _MalformedError("nobody signed")
    return _Transaction(signatures[0], keys[0], message, accounts, tuple(instructions))


def encode_base58(data: bytes) -> str:
    """Bytes as Solana writes them."""
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\x00"))) + text


def decode_base58(text: str) -> bytes:
    """The inverse of encode_base58. Raises ValueError."""
    number = 0
    for letter in text:
        number = number * 58 + _ALPHABET.index(letter)
    body = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return b"\x00" * (len(text) - len(text.lstrip("1"))) + body
