"""The owner's word for a device that takes the place of another."""

import json
from pathlib import Path

import pytest
from nacl.signing import SigningKey, VerifyKey

from edge.endorsement import endorse, load_owner_key
from edge.errors import EnrolmentError, IdentityError
from protocol.enrolment import Enrolment, encode_enrolment
from protocol.rotation import split_rotation

OWNER, METER, STRANGER = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3))


def statement(key_epoch: int = 2, signed_by: SigningKey = METER) -> bytes:
    signed = encode_enrolment(
        Enrolment(
            b"domain..",
            "home-17",
            1,
            1,
            key_epoch,
            bytes(OWNER.verify_key),
            bytes(METER.verify_key),
            10,
            20,
            3,
            1_800_000_000,
            b"\x07" * 32,
        )
    )
    return signed + signed_by.sign(signed).signature


def test_owner_and_new_key_have_both_signed_what_is_handed_in() -> None:
    rotation = endorse(statement(), OWNER)
    said, signed, signature, endorsement = split_rotation(rotation)
    assert len(rotation) == 308
    VerifyKey(said.public_key).verify(signed, signature)
    VerifyKey(said.owner).verify(signed, endorsement)
    assert endorse(statement(), None, OWNER.sign(signed).signature) == rotation


def test_nobody_but_the_owner_can_endorse() -> None:
    signed = statement()[:180]
    for key, signature in ((STRANGER, b""), (METER, b""), (None, STRANGER.sign(signed).signature), (None, b"short")):
        with pytest.raises(EnrolmentError, match="endorsement_invalid"):
            endorse(statement(), key, signature)


def test_nothing_else_can_be_endorsed() -> None:
    with pytest.raises(EnrolmentError, match="statement_not_signed"):
        endorse(statement(signed_by=STRANGER), OWNER)
    with pytest.raises(EnrolmentError, match="enrolment_unreadable"):
        endorse(statement(key_epoch=1), OWNER)
    with pytest.raises(EnrolmentError, match="enrolment_unreadable"):
        endorse(b"no statement", OWNER)


def test_a_wallet_may_be_a_line_of_hex_or_what_solana_tools_write(tmp_path: Path) -> None:
    for name, text in (
        ("hex", bytes(OWNER).hex() + "\n"),
        ("json", json.dumps(list(bytes(OWNER) + bytes(OWNER.verify_key)))),
    ):
        file = tmp_path / name
        file.touch(mode=0o600)
        file.write_text(text)
        assert load_owner_key(file) == OWNER
        file.chmod(0o644)
        with pytest.raises(IdentityError, match="key_exposed"):
            load_owner_key(file)


@pytest.mark.parametrize("text", ["", "abcd", "[1, 2]", "[256]", '["a"]', "[" * 50_000, json.dumps([1] * 64), "ä"])
def test_a_file_that_is_no_wallet_is_a_named_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "wallet").touch(mode=0o600)
    (tmp_path / "wallet").write_text(text)
    with pytest.raises(IdentityError, match="key_unreadable"):
        load_owner_key(tmp_path / "wallet")
