"""The Ed25519 keys of access tokens: the one that signs, and those whose tokens are good until they are taken away.

Who issues the tokens, and for whom, belongs to the keys: a token of another hub is signed by another key, or is not for
us. What a token says is in `hub/auth/tokens.py`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hub.settings import Settings, read_secret_bytes
from hub.signatures import SEED_BYTES

ALGORITHM: Final = "EdDSA"
"""RFC 8037; over this curve the same as `Ed25519` of RFC 9864, which not every library knows yet."""


class TokenKeys:
    """One key that signs and the others that verify, for the tokens of one issuer and one audience."""

    def __init__(self, issuer: str, audience: str, seed: bytes, other_seeds: Iterable[bytes] = ()) -> None:
        self.issuer = issuer
        self.audience = audience
        self.signing_key = Ed25519PrivateKey.from_private_bytes(seed)
        others = [Ed25519PrivateKey.from_private_bytes(other).public_key() for other in other_seeds]
        self._by_key_id = {thumbprint_of(key): key for key in (self.signing_key.public_key(), *others)}

    @cached_property
    def key_id(self) -> str:
        """The signing key's."""
        return thumbprint_of(self.signing_key.public_key())

    def find(self, key_id: str) -> Ed25519PublicKey | None:
        """The key with this id, if tokens signed by it are good."""
        return self._by_key_id.get(key_id)

    @property
    def key_ids(self) -> list[str]:
        """Of all keys whose tokens are good; the signing key's is the first."""
        return list(self._by_key_id)

    @cached_property
    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public keys as RFC 7517 and RFC 8037 write them, for whoever verifies tokens of ours."""
        return {
            "keys": [
                {**_jwk(key), "kid": key_id, "alg": ALGORITHM, "use": "sig"} for key_id, key in self._by_key_id.items()
            ]
        }


def read_token_keys(settings: Settings) -> TokenKeys:
    """The keys that the settings name. Raises SettingsInvalid."""
    return TokenKeys(
        settings.public_url,
        f"urn:commonwatt:{settings.community_id}:hub",
        read_secret_bytes(settings.token_key_file, SEED_BYTES),
        [read_secret_bytes(file, SEED_BYTES) for file in settings.retired_token_key_files],
    )


def thumbprint_of(key: Ed25519PublicKey) -> str:
    """The id of a key: its RFC 7638 thumbprint, so that nobody has to invent or remember one."""
    canonical = json.dumps(_jwk(key), sort_keys=True, separators=(",", ":"))
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def _jwk(key: Ed25519PublicKey) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.public_bytes_raw())}


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
