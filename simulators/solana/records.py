"""What is kept of a transaction that landed: the `meta` of getTransaction."""

import base64
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import base58
from solders.account import Account
from solders.pubkey import Pubkey
from solders.transaction_metadata import TransactionMetadata

from simulators.solana.messages import Keys
from simulators.solana.parsed_tokens import is_mint, is_token_account, ui_amount

AMOUNT_AT = 64
DECIMALS_AT = 44

AccountOf = Callable[[Pubkey], Account | None]


def decimals_of(mint: Pubkey, account_of: AccountOf) -> int | None:
    """How many decimals a mint's amounts have; None if it is no mint."""
    account = account_of(mint)
    if account is None or not is_mint(account.owner, account.data):
        return None
    return int(account.data[DECIMALS_AT])


def balances(keys: Sequence[Pubkey], account_of: AccountOf) -> tuple[list[int], list[dict[str, Any]]]:
    """Lamports of all accounts, and the tokens of those that hold tokens."""
    lamports, tokens = [], []
    for index, key in enumerate(keys):
        account = account_of(key)
        lamports.append(account.lamports if account else 0)
        if account is None or not is_token_account(account.owner, account.data):
            continue
        mint = Pubkey.from_bytes(account.data[:32])
        decimals = decimals_of(mint, account_of)
        if decimals is None:
            continue
        (units,) = struct.unpack_from("<Q", account.data, AMOUNT_AT)
        amount = ui_amount(units, decimals)
        tokens.append(
            {
                "accountIndex": index,
                "mint": str(mint),
                "owner": str(Pubkey.from_bytes(account.data[32:64])),
                "programId": str(account.owner),
                "uiTokenAmount": {**amount, "uiAmount": amount["uiAmount"] or None},
            }
        )
    return lamports, tokens


def return_data(meta: TransactionMetadata) -> dict[str, Any] | None:
    """What a program returned, if it did."""
    returned = meta.return_data()
    data = bytes(returned.data)
    if not data:
        return None
    return {"programId": str(returned.program_id), "data": [base64.b64encode(data).decode(), "base64"]}


def inner_instructions(meta: TransactionMetadata) -> list[dict[str, Any]]:
    """What programs called, by the instruction that called."""
    return [
        {
            "index": index,
            "instructions": [
                {
                    "programIdIndex": called.instruction().program_id_index,
                    "accounts": list(called.instruction().accounts),
                    "data": base58.b58encode(bytes(called.instruction().data)).decode(),
                    "stackHeight": called.stack_height(),
                }
                for called in calls
            ],
        }
        for index, calls in enumerate(meta.inner_instructions())
        if calls
    ]


def addresses(keys: Iterable[Pubkey]) -> list[str]:
    """As JSON has them."""
    return [str(key) for key in keys]


def record_of(
    err: Any,
    meta: TransactionMetadata,
    keys: Keys,
    before: tuple[list[int], list[dict[str, Any]]],
    after: tuple[list[int], list[dict[str, Any]]],
) -> dict[str, Any]:
    """The `meta` of getTransaction."""
    record = {
        "err": err,
        "status": {"Ok": None} if err is None else {"Err": err},
        "fee": meta.fee(),
        "preBalances": before[0],
        "postBalances": after[0],
        "preTokenBalances": before[1],
        "postTokenBalances": after[1],
        "innerInstructions": inner_instructions(meta),
        "logMessages": meta.logs(),
        "computeUnitsConsumed": meta.compute_units_consumed(),
        "loadedAddresses": {
            "writable": addresses(keys.loaded_writable),
            "readonly": addresses(keys.loaded_readonly),
        },
        "rewards": [],
    }
    returned = return_data(meta)
    return record if returned is None else {**record, "returnData": returned}
