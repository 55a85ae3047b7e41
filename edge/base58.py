"""Base58 as wallets write it: decoding only, for the owner's key in the configuration."""

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
TEXT_MAX = 64


def decode_base58(text: str) -> bytes:
    """The bytes. Raises ValueError for other letters or more than TEXT_MAX of them."""
    if len(text) > TEXT_MAX:
        raise ValueError("too long")
    number = 0
    for letter in text:
        if letter not in ALPHABET:
            raise ValueError(f"{letter!r} is not base58")
        number = number * 58 + ALPHABET.index(letter)
    zeros = len(text) - len(text.lstrip(ALPHABET[0]))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
