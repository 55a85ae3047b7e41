"""The hub's key on the chain, and the operator's keys: JSON files of 64 bytes, as Solana's own tools keep keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from solders.keypair import Keypair

from hub.errors import SettingsInvalid
from hub.settings import read_secret

KEYPAIR_BYTES: Final = 64
"""The seed, then the public key that follows from it."""


def read_keypair(path: Path) -> Keypair:
    """The key in this file. Raises SettingsInvalid if others may read it, or it is no such key."""
    try:
        numbers = json.loads(read_secret(path))
    except (ValueError, RecursionError):
        raise SettingsInvalid(f"{path}: not a JSON array of {KEYPAIR_BYTES} bytes") from None
    if (
        not isinstance(numbers, list)
        or len(numbers) != KEYPAIR_BYTES
        or not all(type(each) is int and 0 <= each <= 255 for each in numbers)
    ):
        raise SettingsInvalid(f"{path}: not a JSON array of {KEYPAIR_BYTES} bytes")
    keypair = Keypair.from_seed(bytes(numbers[:32]))
    if bytes(keypair) != bytes(numbers):
        raise SettingsInvalid(f"{path}: the public key in it is not that of its secret")
    return keypair
