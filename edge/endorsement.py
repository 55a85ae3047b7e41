"""The owner's word for a new key: an Ed25519 signature, by the owner's wallet, over the statement of a device that
takes the place of one whose key is lost. Made wherever the wallet is, offline, without anything of the device's."""

import json
from pathlib import Path

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from edge.errors import EnrolmentError, IdentityError
from edge.identity import SEED_BYTES
from edge.secret_file import SECRET_FILE_MODE, exposed_mode
from protocol.enrolment import KEY_BYTES, split_enrolment
from protocol.errors import ProtocolError
from protocol.rotation import join_rotation
from protocol.seal import SIGNATURE_BYTES

KEYPAIR_BYTES = SEED_BYTES + KEY_BYTES


def load_owner_key(file: Path) -> SigningKey:
    """A wallet's key: a line of hex, or a JSON array of 64 bytes as Solana's tools write it. Raises IdentityError."""
    try:
        mode = exposed_mode(file)
        if mode is not None:
            raise IdentityError("key_exposed", f"{file} has mode {mode:04o}; it must be {SECRET_FILE_MODE:04o}")
        text = file.read_text("ascii").strip()
        data = bytes(json.loads(text)) if text.startswith("[") else bytes.fromhex(text)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise IdentityError("key_unreadable", f"{file}: {type(error).__name__}") from None
    if len(data) not in (SEED_BYTES, KEYPAIR_BYTES):
        raise IdentityError("key_unreadable", f"{file}: neither {SEED_BYTES} nor {KEYPAIR_BYTES} bytes")
    key = SigningKey(data[:SEED_BYTES])
    if len(data) == KEYPAIR_BYTES and bytes(key.verify_key) != data[SEED_BYTES:]:
        raise IdentityError("key_unreadable", f"{file}: its two halves do not belong together")
    return key


def endorse(enrolment: bytes, owner_key: SigningKey | None, signature: bytes = b"") -> bytes:
    """The 308 bytes to hand in, from `statement ‖ signature` and the owner's key, or a signature made by its wallet.

    Raises EnrolmentError `enrolment_unreadable`, `statement_not_signed`, or `endorsement_invalid` if it is not by the
    owner whom the statement names.
    """
    try:
        statement, signed, own_signature = split_enrolment(enrolment)
    except ProtocolError as error:
        raise EnrolmentError("enrolment_unreadable", str(error)) from None
    if not _signed_by(statement.public_key, signed, own_signature):
        raise EnrolmentError("statement_not_signed", "its signature is not by the key that it names")
    if owner_key is not None:
        signature = owner_key.sign(signed).signature
    if len(signature) != SIGNATURE_BYTES or not _signed_by(statement.owner, signed, signature):
        raise EnrolmentError("endorsement_invalid", f"not a signature by the owner, {statement.owner.hex()}")
    try:
        return join_rotation(signed, own_signature, signature)
    except ProtocolError as error:
        raise EnrolmentError("enrolment_unreadable", str(error)) from None


def _signed_by(public_key: bytes, signed: bytes, signature: bytes) -> bool:
    try:
        VerifyKey(public_key).verify(signed, signature)
    except (BadSignatureError, ValueError):
        return False
    return True
