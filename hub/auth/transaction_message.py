"""Whether bytes could be taken for a Solana transaction: a wallet that signs such has signed a payment.

Read generously, so that whatever any node would read as a message of a transaction is one here too: trailing bytes,
numbers of more bytes than they need, and every version that exists or may come count as well.
"""

from __future__ import annotations

from typing import Final

_VERSIONED: Final = 0x80
"""Set in the first byte of messages with a version; in those without it is the number of signatures."""
_HEADER_BYTES, _KEY_BYTES, _HASH_BYTES = 3, 32, 32
_NUMBER_BYTES_MAX: Final = 3


def reads_as_transaction(content: bytes) -> bool:
    """Whether the bytes begin with the message of a transaction."""
    if content[:1] and content[0] & _VERSIONED:
        return True
    try:
        keys, at = _number(content, _HEADER_BYTES)
        instructions, at = _number(content, at + keys * _KEY_BYTES + _HASH_BYTES)
        for _ in range(instructions):
            accounts, at = _number(content, at + 1)
            data, at = _number(content, at + accounts)
            at += data
    except IndexError:
        return False
    return at <= len(content)


def _number(content: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, 7 bits a byte, low ones first, and where it ends. Raises IndexError."""
    value = 0
    for place in range(_NUMBER_BYTES_MAX):
        byte = content[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            break
    return value, at + place + 1
