"""The hub takes a signature over exactly the text that it writes itself, and that text is nothing else."""

from __future__ import annotations

import base64
import string
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import base58
import pytest
from coincurve import PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from solders.message import Message, MessageV0, from_bytes_versioned

from hub.auth import dogecoin_message
from hub.auth.addresses import hash_of_key
from hub.auth.sign_in_message import (
    AHEAD_MAX,
    CHALLENGE_LIFE,
    DOGECOIN_MAIN,
    SignInMessage,
    chain_id_of,
    check_signed,
    domain_of_origin,
    parse_text,
    sign_in_input,
    text_of,
)
from hub.auth.transaction_message import reads_as_transaction
from hub.errors import ProofRefused
from hub.signatures import SigningKey
from protocol.limits import TIME_MAX_UNIX_S, TIME_MIN_UNIX_S

NOW = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
KEY = SigningKey(b"w" * 32)
ADDRESS = base58.b58encode(KEY.public_key).decode()
MESSAGE = SignInMessage(
    chain="solana",
    domain="app.example:8443",
    address=ADDRESS,
    statement="Sign in to the energy community sonnenhof.",
    uri="https://app.example:8443",
    chain_id="solana:mainnet",
    nonce="abcdefghijKLMNOPQRS012",
    issued_at=NOW,
    expires_at=NOW + CHALLENGE_LIFE,
)
TEXT = f"""\
app.example:8443 wants you to sign in with your Solana account:
{ADDRESS}

Sign in to the energy community sonnenhof.

URI: https://app.example:8443
Version: 1
Chain ID: solana:mainnet
Nonce: abcdefghijKLMNOPQRS012
Issued At: 2026-11-20T06:00:00Z
Expiration Time: 2026-11-20T06:05:00Z"""

DOGECOIN_KEY = PrivateKey(b"d" * 32)
DOGECOIN_MESSAGE = replace(
    MESSAGE,
    chain="dogecoin",
    address=base58.b58encode_check(b"\x1e" + hash_of_key(DOGECOIN_KEY.public_key.format())).decode(),
    chain_id=DOGECOIN_MAIN,
)

_label = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=63)
_host = st.one_of(
    st.lists(_label, min_size=1, max_size=4).map(".".join),
    st.sampled_from(["localhost", "127.0.0.1", "[::1]", "a.b", "my_hub", "xn--bcher-kva.example", f"{'a.' * 126}b"]),
)
_domain = st.builds(lambda host, port: f"{host}:{port}" if port else host, _host, st.integers(0, 65_535))
_now = st.integers(TIME_MIN_UNIX_S, TIME_MAX_UNIX_S).map(lambda unix_s: datetime.fromtimestamp(unix_s, UTC))
_seeds = st.binary(min_size=32, max_size=32)


@st.composite
def messages(draw: st.DrawFn) -> tuple[SigningKey, SignInMessage]:
    """A wallet and what it could be asked to sign."""
    key = SigningKey(draw(_seeds))
    domain, now = draw(_domain), draw(_now)
    statement = draw(st.text(string.printable[:95], min_size=1, max_size=480))
    return key, SignInMessage(
        "solana",
        domain,
        base58.b58encode(key.public_key).decode(),
        statement,
        f"https://{domain}",
        draw(st.sampled_from(["solana:mainnet", "solana:devnet", "solana:testnet", "solana:localnet"])),
        draw(st.text(string.ascii_letters + string.digits, min_size=22, max_size=22)),
        now,
        now + CHALLENGE_LIFE,
    )


def refusal(message: SignInMessage, signed: bytes, signature: bytes, now: datetime = NOW) -> str:
    with pytest.raises(ProofRefused) as refused:
        check_signed(message, signed, signature, now)
    return refused.value.detail


def sign_dogecoin(text: bytes, compressed: bool = True) -> bytes:
    signature = DOGECOIN_KEY.sign_recoverable(dogecoin_message.hash_of_message(text), hasher=None)
    return bytes([27 + 4 * compressed + signature[64]]) + signature[:64]


def test_the_text_is_written_as_the_standard_has_it():
    assert text_of(MESSAGE) == TEXT
    assert text_of(DOGECOIN_MESSAGE).startswith(
        f"app.example:8443 wants you to sign in with your Dogecoin account:\n{DOGECOIN_MESSAGE.address}\n\n"
    )
    assert sign_in_input(MESSAGE) == {
        "domain": "app.example:8443",
        "address": ADDRESS,
        "statement": "Sign in to the energy community sonnenhof.",
        "uri": "https://app.example:8443",
        "version": "1",
        "chainId": "solana:mainnet",
        "nonce": "abcdefghijKLMNOPQRS012",
        "issuedAt": "2026-11-20T06:00:00Z",
        "expirationTime": "2026-11-20T06:05:00Z",
    }


def test_a_wallet_that_signs_the_text_is_believed():
    check_signed(MESSAGE, TEXT.encode(), KEY.sign(TEXT.encode()), NOW)
    text = text_of(DOGECOIN_MESSAGE).encode()
    check_signed(DOGECOIN_MESSAGE, text, sign_dogecoin(text), NOW)


@given(messages())
def test_every_text_says_what_it_was_made_of_and_is_believed_if_signed(wallet_and_message):
    key, message = wallet_and_message
    text = text_of(message)
    assert parse_text(text) == message
    check_signed(message, text.encode(), key.sign(text.encode()), message.issued_at)


@given(messages())
def test_no_text_could_ever_be_a_transaction(wallet_and_message):
    content = text_of(wallet_and_message[1]).encode()
    assert not reads_as_transaction(content)
    for read in (Message.from_bytes, MessageV0.from_bytes, from_bytes_versioned):
        with pytest.raises(ValueError, match=r"."):
            read(content)


def test_no_text_is_a_statement_of_a_meter_or_an_order_to_one():
    for file in (Path(__file__).parents[3] / "protocol").glob("*.py"):
        for line in file.read_text().splitlines():
            if line.startswith("MAGIC = "):
                magic = line.split('"')[1]
                assert magic != magic.lower()  # the text begins with the name of a host, in lower case


@given(messages(), st.data())
def test_a_byte_changed_anywhere_is_another_message_even_if_signed(wallet_and_message, data):
    key, message = wallet_and_message
    content = bytearray(text_of(message).encode())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    refusal(message, bytes(content), key.sign(bytes(content)), message.issued_at)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("domain", "app.example"),
        ("address", base58.b58encode(SigningKey(bytes(32)).public_key).decode()),
        ("statement", "Sign in to the energy community mondhof."),
        ("uri", "https://evil.example"),
        ("chain_id", "solana:devnet"),
        ("nonce", "0bcdefghijKLMNOPQRS012"),
        ("issued_at", NOW - timedelta(seconds=1)),
        ("expires_at", NOW + timedelta(hours=1)),
    ],
)
def test_a_text_that_says_something_else_is_refused_by_the_name_of_what_differs(name, value):
    other = text_of(replace(MESSAGE, **{name: value})).encode()
    assert refusal(MESSAGE, other, KEY.sign(other)) == f"the wallet signed another message: {name}"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n\nURI", "\nURI: https://evil.example\n\nURI"),
        lambda text: text.replace("Version: 1", "Version: 2"),
        lambda text: text.replace("Version: 1\n", ""),
        lambda text: text + "\n",
        lambda text: text + "\nNot Before: 2026-11-20T06:00:00Z",
        lambda text: text + "\nRequest ID: 7",
        lambda text: text + "\nResources:\n- https://evil.example",
        lambda text: text + "\nResources:",
        lambda text: text.replace("\n", "\r\n"),
        lambda text: " " + text,
        lambda text: text.replace("Solana", "Ethereum"),
        lambda text: text.replace("06:00:00Z", "06:00:00.000Z"),
        lambda text: text.replace("06:00:00Z", "07:00:00+01:00"),
        lambda text: text.replace("11-20T06:00", "02-30T06:00"),
        lambda text: text.replace("Sign", "S\u0456gn"),
    ],
)
def test_a_text_in_any_other_form_is_refused(change):
    other = change(TEXT).encode()
    assert other != TEXT.encode()
    assert refusal(MESSAGE, other, KEY.sign(other)) == "the wallet signed another message: its form differs"


def test_bytes_that_are_no_text_or_a_transaction_are_refused_as_such():
    off_chain = b"\xffsolana offchain\x00\x00" + TEXT.encode()
    assert refusal(MESSAGE, off_chain, KEY.sign(off_chain)) == "the bytes signed could be a Solana transaction"
    marked = b"\xef\xbb\xbf" + TEXT.encode()
    assert refusal(MESSAGE, marked, KEY.sign(marked)) == "the bytes signed could be a Solana transaction"
    broken = TEXT.encode().replace(b"Sign", b"\xc3\x28", 1)
    assert refusal(MESSAGE, broken, KEY.sign(broken)) == "the wallet signed another message: not UTF-8"


def test_only_the_wallet_of_the_text_can_have_signed_it():
    not_its = "the signature is not this wallet's over this message"
    content = TEXT.encode()
    signature = KEY.sign(content)
    order = 2**252 + 27742317777372353535851937790883648493
    second_form = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    for wrong in (
        SigningKey(bytes(32)).sign(content),
        second_form,
        signature[:-1],
        signature + b"\x00",
        b"",
        bytes(64),
        base64.b64encode(signature),
        KEY.sign(content + b"\n"),
    ):
        assert refusal(MESSAGE, content, wrong) == not_its
    content = text_of(DOGECOIN_MESSAGE).encode()
    for wrong in (sign_dogecoin(content, compressed=False), sign_dogecoin(TEXT.encode()), KEY.sign(content), b""):
        assert refusal(DOGECOIN_MESSAGE, content, wrong) == not_its


def test_a_signature_counts_from_when_it_was_asked_for_until_it_expires():
    signature = KEY.sign(TEXT.encode())
    for at in (NOW - AHEAD_MAX, NOW, NOW + CHALLENGE_LIFE - timedelta(microseconds=1)):
        check_signed(MESSAGE, TEXT.encode(), signature, at)
    early = NOW - AHEAD_MAX - timedelta(microseconds=1)
    assert refusal(MESSAGE, TEXT.encode(), signature, early) == "the message is from the future"
    assert refusal(MESSAGE, TEXT.encode(), signature, NOW + CHALLENGE_LIFE) == "the message has expired"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("statement", "two\nlines"),
        ("statement", "two\rlines"),
        ("statement", ""),
        ("statement", "caf\u00e9"),
        ("statement", "x" * 2_000),
        ("domain", ""),
        ("domain", "App.example"),
        ("domain", "evil.example wants you"),
        ("domain", "\u0430pp.example"),
        ("uri", "https://app.example\nNonce: 1"),
        ("uri", "javascript:alert(1)"),
        ("nonce", "short"),
        ("nonce", "abcdefghijKLMNOPQRS01-"),
        ("chain_id", "solana"),
        ("address", f"{ADDRESS}\n"),
        ("address", "0OIl"),
        ("issued_at", NOW.replace(microsecond=1)),
    ],
)
def test_the_hub_writes_no_text_that_could_be_read_in_two_ways(name, value):
    with pytest.raises(AssertionError):
        text_of(replace(MESSAGE, **{name: value}))


def test_the_chain_is_named_by_its_genesis():
    def hexadecimal(text: str) -> str:
        return base58.b58decode(text).hex()

    assert chain_id_of("solana", hexadecimal("5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d")) == "solana:mainnet"
    assert chain_id_of("solana", hexadecimal("EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG")) == "solana:devnet"
    assert chain_id_of("solana", hexadecimal("4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY")) == "solana:testnet"
    assert chain_id_of("solana", "ab" * 32) == "solana:localnet"
    assert chain_id_of("solana", "") == "solana:localnet"
    assert chain_id_of("dogecoin", "") == "bip122:1a91e3dace36e2be3bf030a65679fe82"


def test_the_domain_is_the_host_of_the_page_with_its_port():
    assert domain_of_origin("https://app.example") == "app.example"
    assert domain_of_origin("http://127.0.0.1:8800") == "127.0.0.1:8800"
    assert domain_of_origin("https://[::1]:8443") == "[::1]:8443"
