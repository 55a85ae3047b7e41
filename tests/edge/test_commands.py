import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from edge.commands import verify_command
from edge.errors import CommandError
from protocol.command import RESTART, SET_INTERVAL, Command, encode_command

HUB = SigningKey(b"h" * 32)
DOMAIN = b"domain.."
NOW = 1_800_000_000


def signed(key: SigningKey = HUB, **changes: object) -> bytes:
    fields: dict[str, object] = {
        "domain": DOMAIN, "meter_id": "home-17", "counter": 5, "expires_at_unix_s": NOW + 60,
        "kind": SET_INTERVAL, "first": 10, "last": 60,
    }  # fmt: skip
    data = encode_command(Command(**{**fields, **changes}))  # type: ignore[arg-type]
    return data + key.sign(data).signature


def judge(message: bytes, *, last_counter: int = 4, synchronised: bool = True) -> Command:
    return verify_command(
        message,
        command_public_key=bytes(HUB.verify_key),
        domain=DOMAIN,
        meter_id="home-17",
        last_counter=last_counter,
        now_unix_s=NOW,
        clock_synchronised=synchronised,
    )


def test_a_command_of_the_hub_is_followed() -> None:
    command = judge(signed())
    assert (command.kind, command.first, command.last) == (SET_INTERVAL, 10, 60)
    assert judge(signed(kind=RESTART, first=0, last=0, expires_at_unix_s=NOW)).kind == RESTART


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (signed(SigningKey(b"x" * 32)), "command_signature"),
        (signed(domain=b"another."), "command_domain"),
        (signed(meter_id="home-18"), "command_meter"),
        (signed(counter=4), "command_repeated"),
        (signed(expires_at_unix_s=NOW - 1), "command_expired"),
        (signed()[:-1], "command_malformed"),
        (b"", "command_malformed"),
    ],
)
def test_any_other_command_is_refused_by_name(message: bytes, code: str) -> None:
    with pytest.raises(CommandError) as raised:
        judge(message)
    assert raised.value.code == code


def test_a_meter_that_does_not_know_the_time_cannot_tell_whether_a_command_has_expired() -> None:
    with pytest.raises(CommandError, match="command_clock"):
        judge(signed(), synchronised=False)


@given(st.binary(max_size=200) | st.binary(min_size=144, max_size=144))
def test_no_bytes_make_a_command(message: bytes) -> None:
    with pytest.raises(CommandError):
        judge(message)


@given(st.integers(0, 144 * 8 - 1))
def test_no_bit_of_a_command_may_change(bit: int) -> None:
    message = bytearray(signed())
    message[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CommandError):
        judge(bytes(message))
