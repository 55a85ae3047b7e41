"""A wallet in a file: the Ed25519 key with which a member says who it is, and the address it is known by.

The file is the one of `solana-keygen`: a JSON list of the 32 bytes of the seed and the 32 of the public key. Whoever
reads it is the member, so it is 0600, and nothing here ever shows it or sends it anywhere.
"""

from __future__ import annotations

import json
from pathlib import Path

import base58
from nacl.signing import SigningKey

from commonwatt.hub_client import CommandError, read_private_file
from commonwatt.terminal import new_secret_file

_SEED_BYTES, _FILE_BYTES = 32, 64
_CODE = "wallet_file"


class Wallet:
    """A key that signs, and its address."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key

    @classmethod
    def make(cls, path: Path) -> Wallet:
        """A new key in a new file, mode 0600. Raises CommandError `wallet_file`, also if the file is there already."""
        wallet = cls(SigningKey.generate())
        content = bytes(wallet._key) + bytes(wallet._key.verify_key)
        with new_secret_file(path, _CODE) as file:
            file.write(json.dumps(list(content), separators=(",", ":")))
        return wallet

    @classmethod
    def read(cls, path: Path) -> Wallet:
        """The key in a file. Raises CommandError `wallet_file`, also if others may read it."""
        try:
            numbers = json.loads(read_private_file(path, _CODE))
            content = bytes(numbers) if isinstance(numbers, list) else b""
        except (ValueError, TypeError, RecursionError) as fault:
            raise CommandError(_CODE, f"{path}: not a list of {_FILE_BYTES} bytes") from fault
        if len(content) != _FILE_BYTES:
            raise CommandError(_CODE, f"{path}: not a list of {_FILE_BYTES} bytes")
        key = SigningKey(content[:_SEED_BYTES])
        if bytes(key.verify_key) != content[_SEED_BYTES:]:
            raise CommandError(_CODE, f"{path}: its halves, seed and public key, do not belong together")
        return cls(key)

    @property
    def public_key(self) -> bytes:
        """32 bytes: what an enrolment names as the owner, in hexadecimal."""
        return bytes(self._key.verify_key)

    @property
    def address(self) -> str:
        """The public key in base58, as wallets show it."""
        return base58.b58encode(self.public_key).decode("ascii")

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes."""
        return self._key.sign(message).signature
