"""Methods about tokens, of SPL Token and Token-2022 alike."""

import struct
from typing import Any

from solders.account import Account
from solders.pubkey import Pubkey

from simulators.solana import accounts, errors, params
from simulators.solana.parsed_tokens import PROGRAM_NAMES, is_mint, is_token_account, ui_amount
from simulators.solana.records import AMOUNT_AT, decimals_of
from simulators.solana.view import View, in_context

SUPPLY_AT = 36
OWNER_AT = slice(32, 64)
DELEGATE_AT = slice(72, 108)
DELEGATE_SET = b"\1\0\0\0"
LARGEST = 20


def get_token_account_balance(view: View, address: object, config: object = None) -> Any:
    """What a token account holds."""
    key = params.pubkey(address)
    slot = view.slot_for(params.reading(params.mapping(config)))
    account = view.ledger.account_at(key, slot)
    if account is None:
        raise errors.invalid_params("Invalid param: could not find account")
    if not is_token_account(account.owner, account.data):
        raise errors.invalid_params("Invalid param: not a Token account")
    return in_context(slot, _amount_of(view, slot, account))


def get_token_supply(view: View, mint: object, config: object = None) -> Any:
    """How much of a token there is."""
    key = params.pubkey(mint)
    slot = view.slot_for(params.reading(params.mapping(config)))
    account = _get_mint(view, slot, key)
    (units,) = struct.unpack_from("<Q", account.data, SUPPLY_AT)
    return in_context(slot, ui_amount(units, decimals_of(key, view.accounts_at(slot)) or 0))


def get_token_largest_accounts(view: View, mint: object, config: object = None) -> Any:
    """The accounts that hold most of a token."""
    key = params.pubkey(mint)
    slot = view.slot_for(params.reading(params.mapping(config)))
    program = _get_mint(view, slot, key).owner
    held = [
        {"address": str(address), **_amount_of(view, slot, account)}
        for address, account in _token_accounts(view, slot, program)
        if account.data[:32] == bytes(key)
    ]
    return in_context(slot, sorted(held, key=lambda each: -int(each["amount"]))[:LARGEST])


def get_token_accounts_by_owner(view: View, owner: object, which: object, config: object = None) -> Any:
    """The token accounts of an owner, of one mint or of one program."""
    wanted = bytes(params.pubkey(owner))
    return _by(view, which, config, lambda data: data[OWNER_AT] == wanted)


def get_token_accounts_by_delegate(view: View, delegate: object, which: object, config: object = None) -> Any:
    """The token accounts that somebody may spend from, of one mint or of one program."""
    wanted = DELEGATE_SET + bytes(params.pubkey(delegate))
    return _by(view, which, config, lambda data: data[DELEGATE_AT] == wanted)


def _by(view: View, which: object, config: object, theirs: Any) -> Any:
    settings, choice = params.mapping(config), params.mapping(which)
    form, slot = accounts.form(settings, "binary"), view.slot_for(params.reading(settings))
    mint = None
    if "mint" in choice:
        mint = params.pubkey(choice["mint"])
        program = _get_mint(view, slot, mint).owner
    elif "programId" in choice:
        program = params.pubkey(choice["programId"])
        if program not in PROGRAM_NAMES:
            raise errors.invalid_params("Invalid param: unrecognized Token program id")
    else:
        raise errors.invalid_params("Invalid params: expected `mint` or `programId`.")
    account_of = view.accounts_at(slot)
    return in_context(
        slot,
        [
            {
                "pubkey": str(address),
                "account": accounts.account_json(address, account, form.encoding, form.data_slice, account_of),
            }
            for address, account in _token_accounts(view, slot, program)
            if theirs(account.data) and (mint is None or account.data[:32] == bytes(mint))
        ],
    )


def _token_accounts(view: View, slot: int, program: Pubkey) -> list[tuple[Pubkey, Account]]:
    owned = view.ledger.owned_at(program, slot)
    return [(address, account) for address, account in owned if is_token_account(account.owner, account.data)]


def _get_mint(view: View, slot: int, address: Pubkey) -> Account:
    account = view.ledger.account_at(address, slot)
    if account is None:
        raise errors.invalid_params("Invalid param: could not find mint")
    if not is_mint(account.owner, account.data):
        raise errors.invalid_params("Invalid param: not a Token mint")
    return account


def _amount_of(view: View, slot: int, account: Account) -> dict[str, Any]:
    (units,) = struct.unpack_from("<Q", account.data, AMOUNT_AT)
    decimals = decimals_of(Pubkey.from_bytes(account.data[:32]), view.accounts_at(slot))
    return ui_amount(units, decimals or 0)
