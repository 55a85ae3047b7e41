"""Members for the sockets of the bench, each with an API key: made through the hub's API, as people make them."""

import base64
from typing import Any

import base58
import httpx
from nacl.signing import SigningKey

from infra.local.processes import LaunchError

KEY_LIFE_S = 86_400
SCOPES = ("live.read",)


def make_members(url: str, count: int) -> list[str]:
    """Register so many members by wallets of their own; an API key of each. Raises LaunchError."""
    with httpx.Client(base_url=url, timeout=60) as client:
        return [_make_member(client, number) for number in range(count)]


def _make_member(client: httpx.Client, number: int) -> str:
    wallet = SigningKey(number.to_bytes(32, "big"))
    address = base58.b58encode(bytes(wallet.verify_key)).decode()
    asked = {"chain": "solana", "address": address, "purpose": "register"}
    challenge = _post(client, "/auth/wallet/challenge", f"challenge-{number}", asked)
    message = str(challenge["message"]).encode()
    proof = {
        "nonce": challenge["nonce"],
        "signed_message": base64.b64encode(message).decode(),
        "signature": base64.b64encode(wallet.sign(message).signature).decode(),
    }
    who = {"type": "consumer", "name": f"Member {number}"}
    tokens = _post(client, "/auth/wallet/register", f"register-{number}", {**proof, **who})
    key = {"name": "bench", "scopes": SCOPES, "expires_in_s": KEY_LIFE_S}
    answer = _post(client, "/me/api-keys", f"key-{number}", key, tokens["access_token"])
    return str(answer["api_key"])


def _post(client: httpx.Client, path: str, key: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
    headers = {"Idempotency-Key": key} | ({"Authorization": f"Bearer {token}"} if token else {})
    response = client.post(path, json=body, headers=headers)
    if not response.is_success:
        raise LaunchError(f"the hub refused {path}: {response.text}")
    return dict(response.json())
