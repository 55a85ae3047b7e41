"""What a wallet signs to say who it is: Sign-In-With-Solana (CAIP-122), and the same text for Dogecoin.

The hub writes the text, a wallet shows it to its owner and signs it. What comes back is compared byte for byte with the
text as the hub writes it again from what it remembers; nothing that a client sends is ever interpreted, except to tell
an honest one what differs. That the nonce is still unused is the caller's part (`wallets_service.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Final

import base58

from hub.auth import dogecoin_message
from hub.auth.addresses import Chain, parse_dogecoin_address, parse_solana_address
from hub.auth.transaction_message import reads_as_transaction
from hub.errors import ProofRefused
from hub.signatures import verify

NONCE_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
NONCE_LENGTH: Final = 22
CHALLENGE_LIFE: Final = timedelta(minutes=5)
AHEAD_MAX: Final = timedelta(seconds=60)
"""A text from further ahead of this clock is not taken: two processes of the hub may differ by so much."""
TEXT_BYTES_MAX: Final = 1_400
"""The longest names of hosts, members and addresses leave some room."""
SIGNATURE_BYTES_MAX: Final = 65

MAINNET: Final = "solana:mainnet"
_CLUSTERS: Final = {
    "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d": MAINNET,
    "4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY": "solana:testnet",
    "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG": "solana:devnet",
}
"""By genesis hash; the names are those of the wallet standard."""
OTHER_CLUSTER: Final = "solana:localnet"
DOGECOIN_MAIN: Final = "bip122:1a91e3dace36e2be3bf030a65679fe82"
"""The CAIP-2 name: half of the hash of the first block."""
VERSION: Final = "1"

_NAMES: Final = {"solana": "Solana", "dogecoin": "Dogecoin"}
_TEXT: Final = re.compile(
    r"(?P<domain>[a-z0-9._:\[\]-]+) wants you to sign in with your (?P<chain>Solana|Dogecoin) account:\n"
    r"(?P<address>[1-9A-HJ-NP-Za-km-z]+)\n"
    r"\n"
    r"(?P<statement>[ -~]+)\n"
    r"\n"
    r"URI: (?P<uri>https?://[a-z0-9._:\[\]-]+)\n"
    r"Version: (?P<version>1)\n"
    r"Chain ID: (?P<chain_id>[a-z0-9]+:[a-z0-9]+)\n"
    rf"Nonce: (?P<nonce>[A-Za-z0-9]{{{NONCE_LENGTH}}})\n"
    r"Issued At: (?P<issued_at>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)\n"
    r"Expiration Time: (?P<expires_at>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)"
)


@dataclass(frozen=True)
class SignInMessage:
    """What one text says. Times are UTC in whole seconds; `statement` is one line of printable ASCII."""

    chain: Chain
    domain: str
    address: str
    statement: str
    uri: str
    chain_id: str
    nonce: str
    issued_at: datetime
    expires_at: datetime


def chain_id_of(chain: Chain, genesis_hash_hex: str) -> str:
    """How a text names the chain: for Solana the cluster with this genesis hash."""
    if chain == "dogecoin":
        return DOGECOIN_MAIN
    return _CLUSTERS.get(base58.b58encode(bytes.fromhex(genesis_hash_hex)).decode(), OTHER_CLUSTER)


def domain_of_origin(origin: str) -> str:
    """Host, and port if it is not the scheme's own: what a wallet compares with the page it is on."""
    return origin.partition("://")[2]


def text_of(message: SignInMessage) -> str:
    """The text, to the letter. What cannot be read back from it, or could be a transaction, is our mistake."""
    text = (
        f"{message.domain} wants you to sign in with your {_NAMES[message.chain]} account:\n"
        f"{message.address}\n"
        "\n"
        f"{message.statement}\n"
        "\n"
        f"URI: {message.uri}\n"
        f"Version: {VERSION}\n"
        f"Chain ID: {message.chain_id}\n"
        f"Nonce: {message.nonce}\n"
        f"Issued At: {_iso(message.issued_at)}\n"
        f"Expiration Time: {_iso(message.expires_at)}"
    )
    assert parse_text(text) == message, "a text that says something else"
    assert len(text) <= TEXT_BYTES_MAX, "a text that is too long"
    assert not reads_as_transaction(text.encode()), "a text that is a transaction"
    return text


def parse_text(text: str) -> SignInMessage | None:
    """What a text of ours says; None for any other."""
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    said = match.groupdict()
    try:
        return SignInMessage(
            chain="solana" if said["chain"] == _NAMES["solana"] else "dogecoin",
            domain=said["domain"],
            address=said["address"],
            statement=said["statement"],
            uri=said["uri"],
            chain_id=said["chain_id"],
            nonce=said["nonce"],
            issued_at=datetime.fromisoformat(said["issued_at"]),
            expires_at=datetime.fromisoformat(said["expires_at"]),
        )
    except ValueError:  # the 30th of February
        return None


def sign_in_input(message: SignInMessage) -> dict[str, str]:
    """The input of `solana:signIn`, from which a wallet writes the same text."""
    return {
        "domain": message.domain,
        "address": message.address,
        "statement": message.statement,
        "uri": message.uri,
        "version": VERSION,
        "chainId": message.chain_id,
        "nonce": message.nonce,
        "issuedAt": _iso(message.issued_at),
        "expirationTime": _iso(message.expires_at),
    }


def check_signed(message: SignInMessage, signed: bytes, signature: bytes, now: datetime) -> None:
    """Whether the wallet of `message` signed it, and in time.

    `signed` is what the wallet says it signed, `signature` the 64 bytes of Ed25519 or the 65 of a Dogecoin wallet.
    Raises ProofRefused, saying why.
    """
    if message.issued_at > now + AHEAD_MAX:
        raise ProofRefused("the message is from the future")
    if now >= message.expires_at:
        raise ProofRefused("the message has expired")
    if reads_as_transaction(signed):
        raise ProofRefused("the bytes signed could be a Solana transaction")
    ours = text_of(message).encode()
    if signed != ours:
        raise ProofRefused(f"the wallet signed another message: {_difference(message, signed)}")
    if message.chain == "solana":
        by_this_wallet = verify(parse_solana_address(message.address), ours, signature)
    else:
        by_this_wallet = dogecoin_message.verify(parse_dogecoin_address(message.address), ours, signature)
    if not by_this_wallet:
        raise ProofRefused("the signature is not this wallet's over this message")


def _difference(message: SignInMessage, signed: bytes) -> str:
    """Where another text differs, in a word for whoever is connecting a wallet."""
    try:
        said = parse_text(signed.decode())
    except UnicodeDecodeError:
        return "not UTF-8"
    if said is None:
        return "its form differs"
    differing = [each.name for each in fields(SignInMessage) if getattr(said, each.name) != getattr(message, each.name)]
    return ", ".join(differing)


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
