"""Wallets that sign what the hub asks them to, as a person with a browser or Dogecoin Core does."""

from __future__ import annotations

import base64
import itertools
from dataclasses import dataclass

import base58
import httpx
from coincurve import PrivateKey

from hub.auth.addresses import hash_of_key
from hub.auth.dogecoin_message import hash_of_message
from hub.signatures import SigningKey

_numbers = itertools.count(1)


@dataclass(frozen=True)
class SigningWallet:
    """A key, its address, and the chain it is used on."""

    seed: bytes
    chain: str = "solana"

    @classmethod
    def new(cls, chain: str = "solana") -> SigningWallet:
        return cls(b"wallet" + next(_numbers).to_bytes(26), chain)

    @property
    def public_key(self) -> bytes:
        return SigningKey(self.seed).public_key

    @property
    def address(self) -> str:
        if self.chain == "solana":
            return base58.b58encode(self.public_key).decode()
        return base58.b58encode_check(b"\x1e" + hash_of_key(PrivateKey(self.seed).public_key.format())).decode()

    @property
    def named(self) -> dict[str, str]:
        return {"chain": self.chain, "address": self.address}

    def sign(self, text: str) -> bytes:
        if self.chain == "solana":
            return SigningKey(self.seed).sign(text.encode())
        signature = PrivateKey(self.seed).sign_recoverable(hash_of_message(text.encode()), hasher=None)
        return bytes([31 + signature[64]]) + signature[:64]

    def answer(self, challenge: dict[str, str]) -> dict[str, str]:
        """What goes back for a challenge."""
        return {
            "nonce": challenge["nonce"],
            "signed_message": base64.b64encode(challenge["message"].encode()).decode(),
            "signature": base64.b64encode(self.sign(challenge["message"])).decode(),
        }

    def challenge(self, client: httpx.Client, purpose: str, **headers: str) -> dict[str, str]:
        asked = client.post("/auth/wallet/challenge", json={**self.named, "purpose": purpose}, headers=headers)
        assert asked.status_code == 201, asked.text
        return dict(asked.json())

    def register(self, client: httpx.Client, name: str = "Ada", member_type: str = "prosumer") -> httpx.Response:
        answer = self.answer(self.challenge(client, "register"))
        return client.post("/auth/wallet/register", json={**answer, "type": member_type, "name": name})

    def sign_in(self, client: httpx.Client) -> httpx.Response:
        return client.post("/auth/wallet/sign-in", json=self.answer(self.challenge(client, "sign_in")))

    def link_answer(self, client: httpx.Client) -> dict[str, str]:
        """This wallet agrees to be linked to the member whose client it is."""
        asked = client.post("/me/wallets/challenge", json=self.named)
        assert asked.status_code == 201, asked.text
        return self.answer(asked.json())

    def proof(self, client: httpx.Client, act: dict[str, str]) -> dict[str, str]:
        """This wallet of the member confirms an act."""
        asked = client.post("/me/proofs/challenge", json={**self.named, "act": act})
        assert asked.status_code == 201, asked.text
        return {"kind": "wallet", **self.answer(asked.json())}

    def link(self, client: httpx.Client, new: SigningWallet) -> httpx.Response:
        """This wallet of the member lets another one in."""
        act = {"kind": "link_wallet", **new.named}
        return client.post("/me/wallets", json={"new": new.link_answer(client), "existing": self.proof(client, act)})

    def unlink(self, client: httpx.Client, gone: SigningWallet) -> httpx.Response:
        """This wallet of the member has another one, or itself, unlinked."""
        act = {"kind": "unlink_wallet", **gone.named}
        return client.post("/me/wallets/unlink", json={**gone.named, "existing": self.proof(client, act)})
