"""Reading parameters, and refusing them in the words of a node (jsonrpc-core over serde)."""

import json
from collections.abc import Mapping
from typing import Any

import base58
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature

from simulators.solana import errors
from simulators.solana.errors import RpcError
from simulators.solana.view import Reading

COMMITMENTS = ("processed", "confirmed", "finalized")
KEY_BYTES, SIGNATURE_BYTES = 32, 64
U64_MAX = 2**64 - 1


def wrong_type(value: object, expected: str) -> RpcError:
    """What serde says of a value of another type."""
    return errors.invalid_params(f"Invalid params: invalid type: {_described(value)}, expected {expected}.")


def _described(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"boolean `{json.dumps(value)}`"
    if isinstance(value, int):
        return f"integer `{value}`"
    if isinstance(value, float):
        return f"floating point `{value}`"
    if isinstance(value, str):
        return f"string {json.dumps(value)}"
    return "sequence" if isinstance(value, list) else "map"


def text(value: object) -> str:
    """A string. Raises RpcError, as all of these do."""
    if not isinstance(value, str):
        raise wrong_type(value, "a string")
    return value


def u64(value: object, expected: str = "u64") -> int:
    """A number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(value, expected)
    if not 0 <= value <= U64_MAX:
        raise errors.invalid_params(f"Invalid params: invalid value: integer `{value}`, expected {expected}.")
    return value


def boolean(config: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    """A switch in a configuration."""
    value = config.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise wrong_type(value, "a boolean")
    return value


def find_u64(config: Mapping[str, Any], name: str) -> int | None:
    """A number in a configuration, or None."""
    return None if config.get(name) is None else u64(config[name], "u64")


def mapping(value: object, expected: str = "a map") -> Mapping[str, Any]:
    """A configuration; nothing is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong_type(value, expected)
    return value


def listing(value: object) -> list[Any]:
    """A list."""
    if not isinstance(value, list):
        raise wrong_type(value, "a sequence")
    return value


def pubkey(value: object) -> Pubkey:
    """An address."""
    return Pubkey.from_bytes(_base58_bytes(value, KEY_BYTES))


def signature(value: object) -> Signature:
    """A transaction's signature."""
    return Signature.from_bytes(_base58_bytes(value, SIGNATURE_BYTES))


def blockhash(value: object) -> Hash:
    """A blockhash."""
    return Hash(_base58_bytes(value, KEY_BYTES))


def _base58_bytes(value: object, length: int) -> bytes:
    try:
        raw = base58.b58decode(text(value))
    except ValueError as error:
        raise errors.invalid_params("Invalid param: Invalid") from error
    if len(raw) != length:
        raise errors.invalid_params("Invalid param: WrongSize")
    return raw


def commitment(value: object, default: str = "finalized") -> str:
    """How sure an answer must be."""
    if value is None:
        return default
    if text(value) not in COMMITMENTS:
        known = ", ".join(f"`{each}`" for each in COMMITMENTS)
        raise errors.invalid_params(f"Invalid params: unknown variant `{value}`, expected one of {known}.")
    return str(value)


def reading(config: Mapping[str, Any]) -> Reading:
    """What accounts are read at."""
    return Reading(commitment(config.get("commitment")), find_u64(config, "minContextSlot"))


def confirmed(config: Mapping[str, Any]) -> str:
    """A commitment at which blocks can be had."""
    wanted = commitment(config.get("commitment"))
    if wanted == "processed":
        raise errors.invalid_params("Method does not support commitment below `confirmed`")
    return wanted


def one_of(value: object, known: tuple[str, ...], default: str) -> str:
    """A word of a few."""
    if value is None:
        return default
    if text(value) not in known:
        words = ", ".join(f"`{each}`" for each in known)
        raise errors.invalid_params(f"Invalid params: unknown variant `{value}`, expected one of {words}.")
    return str(value)
