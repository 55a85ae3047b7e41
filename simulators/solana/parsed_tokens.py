"""Token accounts and mints as `jsonParsed` shows them: SPL Token and Token-2022 with its extensions.

The shapes are those of a validator; amounts are strings of units. `uiAmount` is the one float: the interface has it,
and nothing of ours reads it.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any

from solders.pubkey import Pubkey

TOKEN = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
TOKEN_2022 = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
PROGRAM_NAMES = {TOKEN: "spl-token", TOKEN_2022: "spl-token-2022"}
STATES = ("uninitialized", "initialized", "frozen")

MINT_BYTES = 82
ACCOUNT_BYTES = 165
MULTISIG_BYTES = 355
MULTISIG_SIGNERS_MAX = 11
KIND_AT = 165  # a Token-2022 account with extensions says here which of the two it is
EXTENSIONS_AT = 166
KIND_MINT, KIND_ACCOUNT = 1, 2
EXTENSION_HEADER_BYTES = 4

Parsed = dict[str, Any]
Decimals = Callable[[Pubkey], int | None]
"""How many decimals a mint has; None if there is no such mint."""


def is_mint(owner: Pubkey, data: bytes) -> bool:
    """Whether this is the data of an initialised mint of one of the two token programs."""
    if owner not in PROGRAM_NAMES or not _is_kind(data, MINT_BYTES, KIND_MINT):
        return False
    return data[45] == 1


def is_token_account(owner: Pubkey, data: bytes) -> bool:
    """Whether this is the data of an initialised token account of one of the two token programs."""
    if owner not in PROGRAM_NAMES or not _is_kind(data, ACCOUNT_BYTES, KIND_ACCOUNT):
        return False
    return data[108] in {1, 2}


def ui_amount(units: int, decimals: int) -> Parsed:
    """An amount as RPC answers say it."""
    text = str(units)
    if decimals:
        digits = text.rjust(decimals + 1, "0")
        text = f"{digits[:-decimals]}.{digits[-decimals:]}".rstrip("0").rstrip(".")
    return {
        "amount": str(units),
        "decimals": decimals,
        "uiAmount": units / 10**decimals,
        "uiAmountString": text,
    }


def parsed_token_data(owner: Pubkey, data: bytes, decimals_of: Decimals) -> Parsed | None:
    """A mint, token account or multisig of a token program; None if it is none of them, or its mint is unknown."""
    if is_mint(owner, data):
        return {"type": "mint", "info": _mint(data)}
    if is_token_account(owner, data):
        decimals = decimals_of(Pubkey.from_bytes(data[:32]))
        return None if decimals is None else {"type": "account", "info": _account(data, decimals)}
    if owner in PROGRAM_NAMES and len(data) == MULTISIG_BYTES and data[2] == 1:
        return {"type": "multisig", "info": _multisig(data)}
    return None


def _is_kind(data: bytes, bare_bytes: int, kind: int) -> bool:
    if len(data) == bare_bytes:
        return True
    return len(data) > KIND_AT and len(data) != MULTISIG_BYTES and data[KIND_AT] == kind


def _mint(data: bytes) -> Parsed:
    return {
        "mintAuthority": _optional_key(data, 0),
        "supply": str(_u64(data, 36)),
        "decimals": data[44],
        "isInitialized": True,
        "freezeAuthority": _optional_key(data, 46),
        **_extensions(data),
    }


def _account(data: bytes, decimals: int) -> Parsed:
    native = _u32(data, 109) == 1
    info: Parsed = {
        "mint": _key(data, 0),
        "owner": _key(data, 32),
        "tokenAmount": ui_amount(_u64(data, 64), decimals),
        "state": STATES[data[108]],
        "isNative": native,
    }
    delegate = _optional_key(data, 72)
    if delegate is not None:
        info["delegate"] = delegate
        info["delegatedAmount"] = ui_amount(_u64(data, 121), decimals)
    if native:
        info["rentExemptReserve"] = ui_amount(_u64(data, 113), decimals)
    closer = _optional_key(data, 129)
    if closer is not None:
        info["closeAuthority"] = closer
    return {**info, **_extensions(data)}


def _multisig(data: bytes) -> Parsed:
    signers = min(data[1], MULTISIG_SIGNERS_MAX)
    return {
        "numRequiredSigners": data[0],
        "numValidSigners": signers,
        "isInitialized": True,
        "signers": [_key(data, 3 + 32 * number) for number in range(signers)],
    }


def _extensions(data: bytes) -> Parsed:
    """The `extensions` of a mint or account, in their order; nothing if there are none."""
    found = []
    at = EXTENSIONS_AT
    while at + EXTENSION_HEADER_BYTES <= len(data):
        kind, length = struct.unpack_from("<HH", data, at)
        value = data[at + EXTENSION_HEADER_BYTES : at + EXTENSION_HEADER_BYTES + length]
        if kind == 0 or len(value) != length:
            break
        found.append(_extension(kind, value))
        at += EXTENSION_HEADER_BYTES + length
    return {"extensions": found} if found else {}


def _extension(kind: int, value: bytes) -> Parsed:
    if kind in MARKERS:
        return {"extension": MARKERS[kind]}
    if kind in EXTENSIONS:
        name, parse = EXTENSIONS[kind]
        return {"extension": name, "state": parse(value)}
    return {"extension": "unparseableExtension"}


def _transfer_fee_config(value: bytes) -> Parsed:
    def fee(at: int) -> Parsed:
        epoch, units_max, basis_points = struct.unpack_from("<QQH", value, at)
        return {"epoch": epoch, "maximumFee": units_max, "transferFeeBasisPoints": basis_points}

    return {
        "transferFeeConfigAuthority": _key_or_none(value, 0),
        "withdrawWithheldAuthority": _key_or_none(value, 32),
        "withheldAmount": _u64(value, 64),
        "olderTransferFee": fee(72),
        "newerTransferFee": fee(90),
    }


def _interest_bearing_config(value: bytes) -> Parsed:
    initialized, average, updated, current = struct.unpack_from("<qhqh", value, 32)
    return {
        "rateAuthority": _key_or_none(value, 0),
        "initializationTimestamp": initialized,
        "preUpdateAverageRate": average,
        "lastUpdateTimestamp": updated,
        "currentRate": current,
    }


def _scaled_ui_amount_config(value: bytes) -> Parsed:
    multiplier, effective, new_multiplier = struct.unpack_from("<dqd", value, 32)
    return {
        "authority": _key_or_none(value, 0),
        "multiplier": _shortest(multiplier),
        "newMultiplierEffectiveTimestamp": effective,
        "newMultiplier": _shortest(new_multiplier),
    }


def _token_metadata(value: bytes) -> Parsed:
    at = 64

    def text() -> str:
        nonlocal at
        begin = at + 4
        at = begin + _u32(value, at)
        if at > len(value):
            raise ValueError("the metadata is cut short")
        return value[begin:at].decode()

    name, symbol, uri = text(), text(), text()
    pairs = _u32(value, at)
    at += 4
    return {
        "updateAuthority": _key_or_none(value, 0),
        "mint": _key(value, 32),
        "name": name,
        "symbol": symbol,
        "uri": uri,
        "additionalMetadata": [[text(), text()] for _ in range(pairs)],
    }


def _keys(*names: str) -> Callable[[bytes], Parsed]:
    """Optional keys, one after another."""
    return lambda value: {name: _key_or_none(value, 32 * number) for number, name in enumerate(names)}


def _flag(name: str) -> Callable[[bytes], Parsed]:
    return lambda value: {name: value[0] == 1}


MARKERS: Mapping[int, str] = {
    7: "immutableOwner",
    9: "nonTransferable",
    13: "nonTransferableAccount",
    27: "pausableAccount",
}
"""Extensions that say all by being there."""

EXTENSIONS: Mapping[int, tuple[str, Callable[[bytes], Parsed]]] = {
    1: ("transferFeeConfig", _transfer_fee_config),
    2: ("transferFeeAmount", lambda value: {"withheldAmount": _u64(value, 0)}),
    3: ("mintCloseAuthority", _keys("closeAuthority")),
    6: ("defaultAccountState", lambda value: {"accountState": STATES[value[0]]}),
    8: ("memoTransfer", _flag("requireIncomingTransferMemos")),
    10: ("interestBearingConfig", _interest_bearing_config),
    11: ("cpiGuard", _flag("lockCpi")),
    12: ("permanentDelegate", _keys("delegate")),
    14: ("transferHook", _keys("authority", "programId")),
    15: ("transferHookAccount", _flag("transferring")),
    18: ("metadataPointer", _keys("authority", "metadataAddress")),
    19: ("tokenMetadata", _token_metadata),
    20: ("groupPointer", _keys("authority", "groupAddress")),
    21: (
        "tokenGroup",
        lambda value: {
            "updateAuthority": _key_or_none(value, 0),
            "mint": _key(value, 32),
            "size": _u64(value, 64),
            "maxSize": _u64(value, 72),
        },
    ),
    22: ("groupMemberPointer", _keys("authority", "memberAddress")),
    23: (
        "tokenGroupMember",
        lambda value: {"mint": _key(value, 0), "group": _key(value, 32), "memberNumber": _u64(value, 64)},
    ),
    25: ("scaledUiAmountConfig", _scaled_ui_amount_config),
    26: ("pausableConfig", lambda value: {"authority": _key_or_none(value, 0), "paused": value[32] == 1}),
}


def _shortest(number: float) -> str:
    """As Rust prints it: `1`, not `1.0`."""
    return str(int(number)) if number.is_integer() else repr(number)


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _key(data: bytes, at: int) -> str:
    return str(Pubkey.from_bytes(data[at : at + 32]))


def _optional_key(data: bytes, at: int) -> str | None:
    """Of the base layout: a u32 says whether there is one."""
    return _key(data, at + 4) if _u32(data, at) == 1 else None


def _key_or_none(data: bytes, at: int) -> str | None:
    """Of extensions: all zeros say that there is none."""
    return _key(data, at) if any(data[at : at + 32]) else None
