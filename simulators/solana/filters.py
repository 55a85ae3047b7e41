"""Filters of getProgramAccounts and programSubscribe."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import base58

from simulators.solana import errors, params
from simulators.solana.parsed_tokens import TOKEN, TOKEN_2022, is_token_account

FILTERS_MAX = 4
MEMCMP_BYTES_MAX = 128


@dataclass(frozen=True)
class DataSize:
    """The data is so long."""

    size_bytes: int


@dataclass(frozen=True)
class Memcmp:
    """The data has these bytes there."""

    offset: int
    expected: bytes


@dataclass(frozen=True)
class TokenAccountState:
    """The data is that of a token account."""


Filter = DataSize | Memcmp | TokenAccountState


def parse(value: Any) -> tuple[Filter, ...]:
    """The filters of a configuration. Raises RpcError."""
    if value is None:
        return ()
    given = params.listing(value)
    if len(given) > FILTERS_MAX:
        raise errors.invalid_params(f"Too many filters provided; max {FILTERS_MAX}")
    return tuple(_one(each) for each in given)


def matches(data: bytes, filters: Sequence[Filter]) -> bool:
    """Whether an account's data passes all of them."""
    for each in filters:
        if isinstance(each, DataSize):
            good = len(data) == each.size_bytes
        elif isinstance(each, Memcmp):
            good = data[each.offset : each.offset + len(each.expected)] == each.expected
        else:
            good = is_token_account(TOKEN, data) or is_token_account(TOKEN_2022, data)
        if not good:
            return False
    return True


def _one(value: Any) -> Filter:
    if value == "tokenAccountState":
        return TokenAccountState()
    if not isinstance(value, dict) or len(value) != 1:
        raise params.wrong_type(value, "enum RpcFilterType")
    ((kind, content),) = value.items()
    if kind == "tokenAccountState":
        return TokenAccountState()
    if kind == "dataSize":
        return DataSize(params.u64(content))
    if kind == "memcmp":
        return _memcmp(params.mapping(content))
    known = "`dataSize`, `memcmp`, `tokenAccountState`"
    raise errors.invalid_params(f"Invalid params: unknown variant `{kind}`, expected one of {known}.")


def _memcmp(content: Any) -> Memcmp:
    if "offset" not in content:
        raise errors.invalid_params("Invalid params: missing field `offset`.")
    if "bytes" not in content:
        raise errors.invalid_params("Invalid params: missing field `bytes`.")
    encoding, given = content.get("encoding", "base58"), content["bytes"]
    try:
        if isinstance(given, list):
            expected = bytes(given)
        elif encoding == "base64":
            expected = base64.b64decode(params.text(given), validate=True)
        else:
            expected = base58.b58decode(params.text(given))
    except (ValueError, TypeError, binascii.Error) as error:
        raise errors.invalid_params(f"Invalid param: unable to decode {encoding}") from error
    if len(expected) > MEMCMP_BYTES_MAX:
        raise errors.invalid_params("Invalid param: encoded binary data should be less than 128 bytes")
    return Memcmp(params.u64(content["offset"]), expected)
