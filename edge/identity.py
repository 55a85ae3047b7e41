"""The device's key: made here, kept here, readable by nobody else. One line of hex in a file of mode 0600."""

import os
import stat
from pathlib import Path

from nacl.signing import SigningKey

from edge.errors import IdentityError

SEED_BYTES = 32
KEY_FILE_MODE = 0o600


class Identity:
    """A meter's signing key."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self.public_key = bytes(self._key.verify_key)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature (RFC 8032)."""
        return self._key.sign(message).signature


def load_identity(path: Path) -> Identity:
    """Read the key. Raises IdentityError if there is none, it is not one, or others may read it."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & ~KEY_FILE_MODE:
            raise IdentityError("key_exposed", f"{path} has mode {mode:04o}; it must be {KEY_FILE_MODE:04o}")
        text = path.read_text("ascii").strip()
        seed = bytes.fromhex(text)
    except FileNotFoundError:
        raise IdentityError("key_missing", f"{path}: run `commonwatt edge enrol` first") from None
    except (OSError, ValueError) as error:
        raise IdentityError("key_unreadable", f"{path}: {type(error).__name__}") from None
    if len(seed) != SEED_BYTES:
        raise IdentityError("key_unreadable", f"{path}: a seed has {SEED_BYTES} bytes")
    return Identity(seed)


def load_or_create_identity(path: Path) -> Identity:
    """Read the key, or make one from the kernel's randomness, on the disk before it is used. Raises IdentityError."""
    if path.exists():
        return load_identity(path)
    draft = path.with_name(path.name + ".new")
    try:
        draft.unlink(missing_ok=True)  # left by a power cut before the key was ever used
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, KEY_FILE_MODE), "w") as file:
            file.write(bytes(SigningKey.generate()).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # refuses to replace a key that appeared meanwhile
        draft.unlink()
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise IdentityError("key_unwritable", f"{path}: {error.strerror}") from None
    return load_identity(path)
