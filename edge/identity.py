"""The device's key: made here, kept here, readable by nobody else. One line of hex in a file of mode 0600."""

from pathlib import Path

from nacl.signing import SigningKey

from edge.errors import IdentityError
from edge.secret_file import SECRET_FILE_MODE, create_secret_file, exposed_mode, sync_directory

SEED_BYTES = 32


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
        mode = exposed_mode(path)
        if mode is not None:
            raise IdentityError("key_exposed", f"{path} has mode {mode:04o}; it must be {SECRET_FILE_MODE:04o}")
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
    try:
        create_secret_file(path, bytes(SigningKey.generate()).hex() + "\n")
    except OSError as error:
        raise IdentityError("key_unwritable", f"{path}: {error.strerror}") from None
    return load_identity(path)


def next_key_file(path: Path) -> Path:
    """Where a key waits that is not the meter's yet."""
    return path.with_name(path.name + ".next")


def install_next_key(path: Path) -> None:
    """Put the waiting key in the place of the present one, which is gone from then on. Raises IdentityError."""
    try:
        next_key_file(path).replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise IdentityError("key_unwritable", f"{path}: {error.strerror}") from None


def discard_next_key(path: Path) -> None:
    """Forget a waiting key that the hub did not take. Raises IdentityError."""
    try:
        next_key_file(path).unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise IdentityError("key_unwritable", f"{path}: {error.strerror}") from None
