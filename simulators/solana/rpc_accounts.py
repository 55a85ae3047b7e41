"""Methods about accounts."""

from typing import Any

from simulators.solana import accounts, errors, filters, params
from simulators.solana.view import View, in_context

MULTIPLE_MAX = 100


def get_account_info(view: View, address: object, config: object = None) -> Any:
    """An account, or null."""
    settings = params.mapping(config)
    wanted, key = accounts.form(settings, "binary"), params.pubkey(address)
    slot = view.slot_for(params.reading(settings))
    return in_context(slot, _account(view, slot, key, wanted))


def get_multiple_accounts(view: View, addresses: object, config: object = None) -> Any:
    """Accounts, null for each that is not there."""
    settings = params.mapping(config)
    given = params.listing(addresses)
    if len(given) > MULTIPLE_MAX:
        raise errors.invalid_params(f"Too many inputs provided; max {MULTIPLE_MAX}")
    keys = [params.pubkey(each) for each in given]
    wanted, slot = accounts.form(settings, "base64"), view.slot_for(params.reading(settings))
    return in_context(slot, [_account(view, slot, key, wanted) for key in keys])


def get_balance(view: View, address: object, config: object = None) -> Any:
    """Lamports; 0 if there is no account."""
    key = params.pubkey(address)
    slot = view.slot_for(params.reading(params.mapping(config)))
    account = view.ledger.account_at(key, slot)
    return in_context(slot, account.lamports if account else 0)


def get_program_accounts(view: View, program: object, config: object = None) -> Any:
    """All accounts of a program that pass the filters."""
    settings = params.mapping(config)
    owner, wanted = params.pubkey(program), accounts.form(settings, "binary")
    tests = filters.parse(settings.get("filters"))
    slot = view.slot_for(params.reading(settings))
    found = [
        {"pubkey": str(address), "account": _json(view, slot, address, account, wanted)}
        for address, account in view.ledger.owned_at(owner, slot)
        if filters.matches(account.data, tests)
    ]
    return in_context(slot, found) if params.boolean(settings, "withContext") else found


def get_minimum_balance_for_rent_exemption(view: View, data_bytes: object, config: object = None) -> Any:
    """What an account of this size must hold, lamports."""
    params.commitment(params.mapping(config).get("commitment"))
    return view.ledger.runtime.rent_exempt_lamports(params.u64(data_bytes, "usize"))


def _account(view: View, slot: int, key: Any, wanted: accounts.Form) -> Any:
    account = view.ledger.account_at(key, slot)
    return None if account is None else _json(view, slot, key, account, wanted)


def _json(view: View, slot: int, address: Any, account: Any, wanted: accounts.Form) -> Any:
    return accounts.account_json(address, account, wanted.encoding, wanted.data_slice, view.accounts_at(slot))
