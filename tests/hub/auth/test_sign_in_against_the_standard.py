"""Whatever the hub believes, the wallet standard's own verifier believes; what the hub refuses besides is listed.

Every mutated text is also signed, by the wallet itself as a rule: a wallet signs what its owner was talked into.
"""

from __future__ import annotations

import base64
import json
import random
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import base58
import nacl.bindings
import pytest

from hub.auth.addresses import check_address
from hub.auth.sign_in_message import CHALLENGE_LIFE, SignInMessage, check_signed, sign_in_input, text_of
from hub.errors import HubError
from hub.signatures import SigningKey
from tests.hub.auth.siws.wallet_standard import HERE, Judge, running_judge

ORDER = 2**252 + 27742317777372353535851937790883648493
TORSION = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
"""A point of order 8."""
NEUTRAL = b"\x01" + bytes(31)

OURS_ALONE = {
    "expired",
    "from the future",
    "signed by a key that is not the address",
    "signature that holds only times eight",
    "key of order eight",
    "neutral key",
    "a key with a part of order eight",
}
"""What the standard's verifier takes and the hub does not. Each is a line of docs/decisions/wallet-sign-in.md."""

LOOKALIKES = {
    "a": "\u0430",
    "e": "\u0435",
    "o": "\u043e",
    "i": "\u0456",
    "p": "\u0440",
    "c": "\u0441",
    "1": "l",
    "0": "O",
    ".": "\u3002",
    ":": "\uff1a",
    "-": "\u2010",
}
"""Mostly Cyrillic."""
INSERTED = [
    "URI: https://evil.example",
    "Nonce: 0000000000000000000000",
    "Chain ID: solana:mainnet",
    "Version: 1",
    "Not Before: 2020-01-01T00:00:00Z",
    "Request ID: 1",
    "Resources:",
    "Resources:\n- https://evil.example",
    "- https://evil.example",
    "Expiration Time: 2099-01-01T00:00:00Z",
    "",
    " ",
    "evil.example wants you to sign in with your Solana account:",
    "I also transfer everything I have.",
]


@dataclass(frozen=True)
class Wallet:
    """A key, and what it was asked to sign."""

    key: SigningKey
    seed: bytes
    message: SignInMessage

    @property
    def text(self) -> str:
        return text_of(self.message)


@dataclass(frozen=True)
class Case:
    """What comes back. `public_key` is what the client says the account's key is; the hub does not ask for it."""

    name: str
    message: SignInMessage
    signed: bytes
    signature: bytes
    public_key: bytes
    now: datetime


def new_wallet(chance: random.Random) -> Wallet:
    seed = chance.randbytes(32)
    key = SigningKey(seed)
    host = ".".join("".join(chance.choices(string.ascii_lowercase, k=chance.randrange(1, 12))) for _ in range(3))
    domain = chance.choice([host, f"{host}:{chance.randrange(1, 65_536)}", "localhost:8800", "127.0.0.1:8800"])
    at = datetime.fromtimestamp(chance.randrange(1_600_000_000, 4_000_000_000), UTC)
    message = SignInMessage(
        "solana",
        domain,
        base58.b58encode(key.public_key).decode(),
        "".join(chance.choices(string.printable[:95], k=chance.randrange(1, 120))),
        f"https://{domain}",
        chance.choice(["solana:mainnet", "solana:testnet", "solana:devnet", "solana:localnet"]),
        "".join(chance.choices(string.ascii_letters + string.digits, k=22)),
        at,
        at + CHALLENGE_LIFE,
    )
    return Wallet(key, seed, message)


def honest(wallet: Wallet, _chance: random.Random | None = None) -> Case:
    content = wallet.text.encode()
    signature = wallet.key.sign(content)
    return Case("honest", wallet.message, content, signature, wallet.key.public_key, wallet.message.issued_at)


def resigned(wallet: Wallet, content: bytes) -> Case:
    """The wallet has signed other bytes."""
    return replace(honest(wallet), signed=content, signature=wallet.key.sign(content))


# ── other bytes ──────────────────────────────────────────────────────────────────────────────────────────────


def a_flipped_bit(wallet: Wallet, chance: random.Random) -> Case:
    content = bytearray(wallet.text.encode())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return resigned(wallet, bytes(content))


def a_flipped_bit_not_signed_again(wallet: Wallet, chance: random.Random) -> Case:
    return replace(a_flipped_bit(wallet, chance), signature=honest(wallet).signature)


def an_inserted_line(wallet: Wallet, chance: random.Random) -> Case:
    lines = wallet.text.split("\n")
    lines.insert(chance.randrange(len(lines) + 1), chance.choice(INSERTED))
    return resigned(wallet, "\n".join(lines).encode())


def a_line_twice(wallet: Wallet, chance: random.Random) -> Case:
    lines = wallet.text.split("\n")
    at = chance.randrange(len(lines))
    return resigned(wallet, "\n".join([*lines[: at + 1], *lines[at:]]).encode())


def a_line_less(wallet: Wallet, chance: random.Random) -> Case:
    lines = wallet.text.split("\n")
    del lines[chance.randrange(len(lines))]
    return resigned(wallet, "\n".join(lines).encode())


def swapped_lines(wallet: Wallet, chance: random.Random) -> Case:
    lines = wallet.text.split("\n")
    one, other = chance.sample(range(len(lines)), 2)
    lines[one], lines[other] = lines[other], lines[one]
    return resigned(wallet, "\n".join(lines).encode())


def other_line_ends(wallet: Wallet, chance: random.Random) -> Case:
    end = chance.choice(["\r\n", "\r", "\n\n", "\x0b", "\x85", "\u2028", " \n", "\n ", "\\n"])
    count = chance.choice([1, -1])
    return resigned(wallet, wallet.text.replace("\n", end, count).encode())


def something_at_an_end(wallet: Wallet, chance: random.Random) -> Case:
    more = chance.choice(["\n", "\n\n", " ", "\r\n", "\x00", "\t", ".", "\ufeff", "\u200b"])
    text = wallet.text + more if chance.random() < 0.6 else more + wallet.text
    return resigned(wallet, text.encode())


def a_lookalike(wallet: Wallet, chance: random.Random) -> Case:
    text = wallet.text
    at = chance.choice([place for place, letter in enumerate(text) if letter in LOOKALIKES])
    return resigned(wallet, f"{text[:at]}{LOOKALIKES[text[at]]}{text[at + 1 :]}".encode())


def an_invisible_letter(wallet: Wallet, chance: random.Random) -> Case:
    text, at = wallet.text, chance.randrange(len(wallet.text))
    letter = chance.choice(["\x00", "\u200b", "\u200d", "\u202e", "\ufeff", "\u00ad", "\u0301", "\x1b[2K", "\x08"])
    return resigned(wallet, f"{text[:at]}{letter}{text[at:]}".encode())


def another_unicode_form(wallet: Wallet, chance: random.Random) -> Case:
    text, at = wallet.text, chance.randrange(len(wallet.text))
    wide = "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text[at : at + 3])
    changed = f"{text[:at]}{wide}{text[at + 3 :]}" if wide != text[at : at + 3] else text + "\u3000"
    assert unicodedata.normalize("NFKC", changed)[:at] == text[:at]
    return resigned(wallet, changed.encode())


def no_utf_8(wallet: Wallet, chance: random.Random) -> Case:
    content = wallet.text.encode()
    at = chance.randrange(len(content) + 1)
    broken = chance.choice([b"\xff", b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"])
    return resigned(wallet, content[:at] + broken + content[at + chance.randrange(2) :])


def another_encoding(wallet: Wallet, chance: random.Random) -> Case:
    return resigned(wallet, wallet.text.encode(chance.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7"])))


def cut_short(wallet: Wallet, chance: random.Random) -> Case:
    content = wallet.text.encode()
    at = chance.randrange(len(content))
    return resigned(wallet, chance.choice([content[:at], content[at + 1 :], content[:at] + content[at + 1 :]]))


def wrapped(wallet: Wallet, chance: random.Random) -> Case:
    content = wallet.text.encode()
    return resigned(
        wallet,
        chance.choice(
            [
                b"\xffsolana offchain\x00\x00" + len(content).to_bytes(2, "little") + content,
                b"\xffsolana offchain\x01\x01" + wallet.key.public_key + content,
                b"\x19Dogecoin Signed Message:\n" + content,
                base64.b64encode(content),
                base58.b58encode(content),
                content.hex().encode(),
                content + content,
                content + b"\n\n" + content,
                b'"' + content + b'"',
            ]
        ),
    )


# ── another meaning ──────────────────────────────────────────────────────────────────────────────────────────


def another_value(wallet: Wallet, chance: random.Random) -> Case:
    message = wallet.message
    name = chance.choice(
        ["domain", "address", "statement", "uri", "chain_id", "nonce", "issued_at", "expires_at", "several"]
    )
    other = new_wallet(chance).message
    if name == "several":
        changed = replace(message, nonce=other.nonce, issued_at=other.issued_at, expires_at=other.expires_at)
    else:
        changed = replace(message, **{name: getattr(other, name)})
    if changed == message:
        changed = replace(message, nonce=other.nonce)
    return resigned(wallet, text_of(changed).encode())


def a_wallet_of_another_chain(wallet: Wallet, _chance: random.Random) -> Case:
    return resigned(wallet, wallet.text.replace("Solana", "Dogecoin", 1).encode())


def another_version(wallet: Wallet, chance: random.Random) -> Case:
    version = chance.choice(["2", "01", "1.0", "", " 1", "1 ", "\u0661"])
    return resigned(wallet, wallet.text.replace("Version: 1", f"Version: {version}", 1).encode())


def another_way_to_write_it(wallet: Wallet, chance: random.Random) -> Case:
    message = wallet.message
    issued = message.issued_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    was, becomes = chance.choice(
        [
            (issued, issued.replace("Z", ".000Z")),
            (issued, issued.replace("Z", "+00:00")),
            (issued, issued.replace("T", " ")),
            (message.domain, message.domain.upper()),
            (message.domain, f"{message.domain}."),
            (message.domain, f"https://{message.domain}"),
            (message.address, f"1{message.address}"),
            (message.address, f"{message.address} "),
            (f"URI: {message.uri}", f"URI: {message.uri}/"),
            (f"URI: {message.uri}", f"URI: {message.uri.upper()}"),
            (message.nonce, message.nonce.swapcase() + "0"),
            ("Chain ID: solana:", "Chain ID: "),
            (" wants you to sign in with your Solana account:", " wants you to sign in with your solana account:"),
            ("Nonce: ", "nonce: "),
            ("Nonce: ", "Nonce:"),
        ]
    )
    changed = wallet.text.replace(was, becomes)
    return resigned(wallet, (changed if changed != wallet.text else wallet.text + "x").encode())


# ── another signature ────────────────────────────────────────────────────────────────────────────────────────


def another_signature(wallet: Wallet, chance: random.Random) -> Case:
    signature = wallet.key.sign(wallet.text.encode())
    flipped = bytearray(signature)
    flipped[chance.randrange(64)] ^= 1 << chance.randrange(8)
    number = int.from_bytes(signature[32:], "little")
    second_form = signature[:32] + (number + ORDER).to_bytes(32, "little")
    negative = signature[:32] + (ORDER - number).to_bytes(32, "little")
    wrong = [
        bytes(flipped),
        second_form,
        negative,
        signature[:63],
        signature + b"\x00",
        signature[::-1],
        signature[32:] + signature[:32],
        bytes(64),
        NEUTRAL + bytes(32),
        b"",
        chance.randbytes(64),
        wallet.key.sign(b""),
        wallet.key.sign(wallet.text.encode() + b"\n"),
    ]
    return replace(honest(wallet), signature=chance.choice(wrong))


def signed_by_a_key_that_is_not_the_address(wallet: Wallet, chance: random.Random) -> Case:
    other = SigningKey(chance.randbytes(32))
    return replace(honest(wallet), signature=other.sign(wallet.text.encode()), public_key=other.public_key)


def signed_by_a_stranger(wallet: Wallet, chance: random.Random) -> Case:
    return replace(honest(wallet), signature=SigningKey(chance.randbytes(32)).sign(wallet.text.encode()))


def signature_that_holds_only_times_eight(wallet: Wallet, chance: random.Random) -> Case:
    """R with a part of order 8: right in the equation with the cofactor, wrong in the one without."""
    content = wallet.text.encode()
    nonce = chance.randrange(1, ORDER)
    point = nacl.bindings.crypto_core_ed25519_add(
        nacl.bindings.crypto_scalarmult_ed25519_base_noclamp(nonce.to_bytes(32, "little")), TORSION
    )
    return replace(
        honest(wallet), signature=_signature(point, nonce, wallet.key.public_key, _scalar(wallet.seed), content)
    )


def key_of_order_eight(wallet: Wallet, _chance: random.Random) -> Case:
    return _of_a_key_without_secret(wallet, TORSION)


def neutral_key(wallet: Wallet, _chance: random.Random) -> Case:
    return _of_a_key_without_secret(wallet, NEUTRAL)


def a_key_with_a_part_of_order_eight(wallet: Wallet, chance: random.Random) -> Case:
    mixed = nacl.bindings.crypto_core_ed25519_add(wallet.key.public_key, TORSION)
    message = replace(wallet.message, address=base58.b58encode(mixed).decode())
    content, nonce = text_of(message).encode(), chance.randrange(1, ORDER)
    point = nacl.bindings.crypto_scalarmult_ed25519_base_noclamp(nonce.to_bytes(32, "little"))
    signature = _signature(point, nonce, mixed, _scalar(wallet.seed), content)
    return Case("", message, content, signature, mixed, message.issued_at)


def _of_a_key_without_secret(wallet: Wallet, key: bytes) -> Case:
    """Everybody can sign for a key of small order: R neutral and S nothing, over any text."""
    message = replace(wallet.message, address=base58.b58encode(key).decode())
    return Case("", message, text_of(message).encode(), NEUTRAL + bytes(32), key, message.issued_at)


def _signature(point: bytes, nonce: int, key: bytes, scalar: int, content: bytes) -> bytes:
    digest = nacl.bindings.crypto_hash_sha512(point + key + content)
    challenge = int.from_bytes(digest, "little") % ORDER
    return point + ((nonce + challenge * scalar) % ORDER).to_bytes(32, "little")


def _scalar(seed: bytes) -> int:
    digest = bytearray(nacl.bindings.crypto_hash_sha512(seed)[:32])
    digest[0] &= 248
    digest[31] = digest[31] & 127 | 64
    return int.from_bytes(digest, "little")


# ── another time ─────────────────────────────────────────────────────────────────────────────────────────────


def expired(wallet: Wallet, chance: random.Random) -> Case:
    return replace(honest(wallet), now=wallet.message.expires_at + timedelta(seconds=chance.randrange(10_000)))


def from_the_future(wallet: Wallet, chance: random.Random) -> Case:
    return replace(honest(wallet), now=wallet.message.issued_at - timedelta(seconds=chance.randrange(61, 10_000)))


MUTATIONS: list[Callable[[Wallet, random.Random], Case]] = [
    a_flipped_bit,
    a_flipped_bit_not_signed_again,
    an_inserted_line,
    a_line_twice,
    a_line_less,
    swapped_lines,
    other_line_ends,
    something_at_an_end,
    a_lookalike,
    an_invisible_letter,
    another_unicode_form,
    no_utf_8,
    another_encoding,
    cut_short,
    wrapped,
    another_value,
    a_wallet_of_another_chain,
    another_version,
    another_way_to_write_it,
    another_signature,
    signed_by_a_key_that_is_not_the_address,
    signed_by_a_stranger,
    signature_that_holds_only_times_eight,
    key_of_order_eight,
    neutral_key,
    a_key_with_a_part_of_order_eight,
    expired,
    from_the_future,
]


def test_the_lock_file_pins_every_package_and_names_no_registry():
    content = (HERE / "package-lock.json").read_text()
    assert "://" not in content
    packages = json.loads(content)["packages"]
    assert packages.pop("")["dependencies"] == {"@solana/wallet-standard-util": "1.1.4"}
    assert packages
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with running_judge() as running:
        yield running


def hub_believes(case: Case) -> bool:
    """As the hub does it: the address when the challenge is issued, the signature when it comes back."""
    try:
        check_address("solana", case.message.address)
        check_signed(case.message, case.signed, case.signature, case.now)
    except HubError:
        return False
    return True


def standard_believes(judge: Judge, cases: list[Case]) -> list[bool]:
    questions = [
        {
            "input": sign_in_input(case.message),
            "signed_message": base64.b64encode(case.signed).decode(),
            "signature": base64.b64encode(case.signature).decode(),
            "public_key": base64.b64encode(case.public_key).decode(),
        }
        for case in cases
    ]
    return [answer["accepted"] for answer in judge.ask("verify", questions)]


def mutated(seed: int, count: int) -> list[Case]:
    """So many cases, of every mutation equally often, each different from what the honest wallet sends."""
    chance = random.Random(seed)
    cases: list[Case] = []
    while len(cases) < count:
        mutate = MUTATIONS[len(cases) % len(MUTATIONS)]
        wallet = new_wallet(chance)
        case = mutate(wallet, chance)
        if case != honest(wallet):  # a line may be like the one beside it
            cases.append(replace(case, name=mutate.__name__.replace("_", " ")))
    return cases


def assert_none_is_believed(judge: Judge, seed: int, count: int) -> None:
    cases = mutated(seed, count)
    believed = [case for case in cases if hub_believes(case)]
    assert believed == []
    by_the_standard = standard_believes(judge, cases)
    ours_alone = {case.name for case, taken in zip(cases, by_the_standard, strict=True) if taken}
    assert ours_alone == OURS_ALONE
    assert min(Counter(case.name for case in cases).values()) >= count // len(MUTATIONS)


def test_of_a_thousand_mutated_messages_none_is_believed(judge):
    assert_none_is_believed(judge, 4, 1_008)


@pytest.mark.long
def test_of_ten_thousand_mutated_messages_none_is_believed(judge):
    assert_none_is_believed(judge, 44, 10_000)


def test_what_an_honest_wallet_signs_both_believe(judge):
    chance = random.Random(5)
    cases = [honest(new_wallet(chance)) for _ in range(200)]
    assert all(hub_believes(case) for case in cases)
    assert all(standard_believes(judge, cases))


def test_a_wallet_writes_the_very_text_that_the_hub_writes(judge):
    chance = random.Random(6)
    messages = [new_wallet(chance).message for _ in range(200)]
    written = judge.ask("write", [{"input": sign_in_input(message)} for message in messages])
    assert [answer["text"] for answer in written] == [text_of(message) for message in messages]


def test_nothing_that_the_standard_refuses_is_believed_whatever_the_input(judge):
    """Also judged by another challenge than the one it was made for."""
    chance = random.Random(7)
    wallets = [new_wallet(chance) for _ in range(40)]
    cases = [
        replace(honest(wallet), message=replace(wallet.message, **{name: getattr(other.message, name)}))
        for wallet, other in zip(wallets, reversed(wallets), strict=True)
        for name in ("domain", "address", "statement", "uri", "nonce", "issued_at", "expires_at")
        if getattr(wallet.message, name) != getattr(other.message, name)
    ]
    assert len(cases) > 200
    believed = [hub_believes(case) for case in cases]
    for ours, theirs in zip(believed, standard_believes(judge, cases), strict=True):
        assert theirs or not ours
    assert not any(believed)
