"""Accounts as JSON: base58, base64, base64+zstd, jsonParsed, whole or a slice."""

import base64
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import base58
from solders.account import Account
from solders.pubkey import Pubkey

from simulators.solana import errors, params
from simulators.solana.errors import INVALID_REQUEST, RpcError
from simulators.solana.parsed import parsed_account
from simulators.solana.records import decimals_of

ENCODINGS = ("binary", "base58", "base64", "jsonParsed", "base64+zstd")
BASE58_BYTES_MAX = 128
RENT_EPOCH_EXEMPT = 2**64 - 1
ZSTD_MAGIC = 0xFD2FB528
ZSTD_BLOCK_BYTES = 128 * 1024
ZSTD_SINGLE_SEGMENT_8_BYTES = 0xE0

AccountOf = Callable[[Pubkey], Account | None]


@dataclass(frozen=True)
class DataSlice:
    """A part of an account's data."""

    offset: int
    length: int


@dataclass(frozen=True)
class Form:
    """How accounts are wanted."""

    encoding: str
    data_slice: DataSlice | None = None


def form(config: Mapping[str, Any], default: str) -> Form:
    """How a configuration wants accounts. Raises RpcError."""
    encoding = params.one_of(config.get("encoding"), ENCODINGS, default)
    given = config.get("dataSlice")
    if given is None:
        return Form(encoding)
    part = params.mapping(given)
    for name in ("offset", "length"):
        if name not in part:
            raise errors.invalid_params(f"Invalid params: missing field `{name}`.")
    return Form(encoding, DataSlice(params.u64(part["offset"]), params.u64(part["length"])))


def account_json(
    address: Pubkey, account: Account, encoding: str, data_slice: DataSlice | None, account_of: AccountOf
) -> dict[str, Any]:
    """An account as answers have it. Raises RpcError: too long for base58."""
    return {
        "lamports": account.lamports,
        "data": _data(address, account, encoding, data_slice, account_of),
        "owner": str(account.owner),
        "executable": account.executable,
        "rentEpoch": RENT_EPOCH_EXEMPT,
        "space": len(account.data),
    }


def _data(address: Pubkey, account: Account, encoding: str, data_slice: DataSlice | None, account_of: AccountOf) -> Any:
    if encoding == "jsonParsed":
        parsed = parsed_account(address, account.owner, account.data, lambda mint: decimals_of(mint, account_of))
        if parsed is not None:
            return parsed
        encoding = "base64"
    data = account.data
    if data_slice is not None:
        data = data[data_slice.offset : data_slice.offset + data_slice.length]
    if encoding in {"binary", "base58"}:
        if len(data) > BASE58_BYTES_MAX:
            message = (
                f"Encoded binary (base 58) data should be less than {BASE58_BYTES_MAX} bytes, "
                "please use Base64 encoding."
            )
            raise RpcError(INVALID_REQUEST, message)
        encoded = base58.b58encode(data).decode()
        return encoded if encoding == "binary" else [encoded, "base58"]
    if encoding == "base64+zstd":
        data = zstd_frame(data)
    return [base64.b64encode(data).decode(), encoding]


def zstd_frame(data: bytes) -> bytes:
    """The data as a Zstandard frame of raw blocks, which every decoder reads (RFC 8878)."""
    frame = bytearray(struct.pack("<IBQ", ZSTD_MAGIC, ZSTD_SINGLE_SEGMENT_8_BYTES, len(data)))
    blocks = [data[at : at + ZSTD_BLOCK_BYTES] for at in range(0, len(data), ZSTD_BLOCK_BYTES)] or [b""]
    for number, block in enumerate(blocks, start=1):
        header = len(block) << 3 | (number == len(blocks))
        frame += header.to_bytes(3, "little") + block
    return bytes(frame)
