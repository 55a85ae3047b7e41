"""Keys as people write them into a configuration: 32 bytes, in hex or base58."""

from edge.base58 import decode_base58
from edge.toml_table import text_value
from protocol.enrolment import KEY_BYTES


def key(value: object) -> bytes:
    """The 32 bytes. Raises ValueError."""
    text = text_value(value)
    try:
        found = bytes.fromhex(text) if len(text) == 2 * KEY_BYTES else decode_base58(text)
    except ValueError:
        found = b""
    if len(found) != KEY_BYTES:
        raise ValueError(f"must be {KEY_BYTES} bytes in hex or base58")
    return found


def key_or_empty(value: object) -> bytes:
    """The 32 bytes, or none."""
    return b"" if value == "" else key(value)
