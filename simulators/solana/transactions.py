"""Transactions as JSON: json, jsonParsed, base64, base58."""

import base64
from collections.abc import Sequence
from typing import Any

import base58
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from simulators.solana import errors
from simulators.solana.messages import Keys, landed_keys, message_of
from simulators.solana.parsed_instructions import parsed_instruction
from simulators.solana.storage import Landed

ENCODINGS = ("json", "jsonParsed", "base64", "base58", "binary")
MEMO_PROGRAMS = frozenset(
    {"Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo", "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"}
)


def transaction_json(landed: Landed, encoding: str, version_max: int | None) -> dict[str, Any]:
    """`transaction`, `meta` and, if versions are understood, `version`. Raises RpcError: they are not."""
    transaction = VersionedTransaction.from_bytes(landed.wire)
    message = message_of(transaction)
    is_v0 = isinstance(message, MessageV0)
    if is_v0 and version_max is None:
        raise errors.unsupported_version(0)
    shown: Any
    meta = landed.record
    if encoding == "base64":
        shown = [base64.b64encode(landed.wire).decode(), "base64"]
    elif encoding in {"base58", "binary"}:
        encoded = base58.b58encode(landed.wire).decode()
        shown = encoded if encoding == "binary" else [encoded, "base58"]
    else:
        parsed = encoding == "jsonParsed"
        shown = {
            "signatures": [str(each) for each in transaction.signatures],
            "message": _parsed_message(message, meta) if parsed else _message(message),
        }
        if parsed:
            keys = [str(key) for key in landed_keys(message, meta["loadedAddresses"]).all]
            meta = {**meta, "innerInstructions": parsed_inner(meta["innerInstructions"], keys)}
            del meta["loadedAddresses"]
    answer = {"transaction": shown, "meta": meta}
    return answer if version_max is None else {**answer, "version": 0 if is_v0 else "legacy"}


def memo_of(transaction: VersionedTransaction) -> str | None:
    """What its memos say, each with its length, as lists of signatures have it."""
    keys = transaction.message.account_keys
    memos = []
    for instruction in transaction.message.instructions:
        if str(keys[instruction.program_id_index]) in MEMO_PROGRAMS:
            text = bytes(instruction.data)
            memos.append(f"[{len(text)}] {text.decode(errors='replace')}")
    return "; ".join(memos) or None


def parsed_inner(inner: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Inner instructions, parsed."""
    return [
        {
            "index": each["index"],
            "instructions": [
                _parsed(
                    keys[call["programIdIndex"]],
                    [keys[index] for index in call["accounts"]],
                    base58.b58decode(call["data"]),
                    call["stackHeight"],
                )
                for call in each["instructions"]
            ],
        }
        for each in inner
    ]


def account_keys_json(keys: Keys, signers: int) -> list[dict[str, Any]]:
    """Accounts as parsed messages and lists of accounts have them."""
    listed = []
    writable = set(keys.writable)
    for index, key in enumerate(keys.all):
        from_table = index >= len(keys.static)
        listed.append(
            {
                "pubkey": str(key),
                "signer": index < signers,
                "writable": key in writable,
                "source": "lookupTable" if from_table else "transaction",
            }
        )
    return listed


def _message(message: Message | MessageV0) -> dict[str, Any]:
    header = message.header
    shown = {
        "header": {
            "numRequiredSignatures": header.num_required_signatures,
            "numReadonlySignedAccounts": header.num_readonly_signed_accounts,
            "numReadonlyUnsignedAccounts": header.num_readonly_unsigned_accounts,
        },
        "accountKeys": [str(key) for key in message.account_keys],
        "recentBlockhash": str(message.recent_blockhash),
        "instructions": [
            {
                "programIdIndex": each.program_id_index,
                "accounts": list(each.accounts),
                "data": base58.b58encode(bytes(each.data)).decode(),
                "stackHeight": 1,
            }
            for each in message.instructions
        ],
    }
    return {**shown, **_lookups(message)}


def _parsed_message(message: Message | MessageV0, record: dict[str, Any]) -> dict[str, Any]:
    keys = landed_keys(message, record["loadedAddresses"])
    names = [str(key) for key in keys.all]
    return {
        "accountKeys": account_keys_json(keys, message.header.num_required_signatures),
        "recentBlockhash": str(message.recent_blockhash),
        "instructions": [
            _parsed(names[each.program_id_index], [names[index] for index in each.accounts], bytes(each.data), 1)
            for each in message.instructions
        ],
        **_lookups(message),
    }


def _lookups(message: Message | MessageV0) -> dict[str, Any]:
    if not isinstance(message, MessageV0):
        return {}
    return {
        "addressTableLookups": [
            {
                "accountKey": str(each.account_key),
                "writableIndexes": list(each.writable_indexes),
                "readonlyIndexes": list(each.readonly_indexes),
            }
            for each in message.address_table_lookups
        ]
    }


def _parsed(program: str, accounts: Sequence[str], data: bytes, stack_height: int | None) -> dict[str, Any]:
    parsed = parsed_instruction(Pubkey.from_string(program), accounts, data)
    if parsed is not None:
        return {**parsed, "programId": program, "stackHeight": stack_height}
    return {
        "accounts": list(accounts),
        "data": base58.b58encode(data).decode(),
        "programId": program,
        "stackHeight": stack_height,
    }
