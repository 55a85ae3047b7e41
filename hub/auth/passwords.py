"""Passwords: how one is written, when it is too easy to guess, and how it is kept (Argon2id).

All of this takes time and memory on purpose, so that never more than HASHES_AT_ONCE_MAX passwords are worked on in a
process, and never while its caller holds a transaction: both would let strangers stop the hub with wrong passwords.
"""

from __future__ import annotations

import base64
import re
import secrets
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Final

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from argon2.low_level import ARGON2_VERSION, Type
from pydantic import AfterValidator, Field
from zxcvbn import zxcvbn
from zxcvbn.matching import L33T_TABLE

from hub import metrics
from hub.errors import PasswordsBusy, PasswordTooWeak

LENGTH_MIN: Final = 8
LENGTH_MAX: Final = 128
"""Characters, counted in the form in which they are hashed."""
TYPED_LENGTH_MAX: Final = 4 * LENGTH_MAX
"""Characters as they are sent: the hashed form may have fewer."""

MEMORY_KIB: Final = 19 * 1_024
PASSES: Final = 2
LANES: Final = 1
SALT_BYTES: Final = 16
HASH_BYTES: Final = 32

SCORE_MIN: Final = 3
"""Of zxcvbn's 0 to 4: at least 10⁸ guesses, the lists of leaked passwords first."""
JUDGED_LENGTH_MAX: Final = 32
JUDGED_SIGNS_MAX: Final = 10
"""zxcvbn tries every reading of the signs that can stand for letters: with all of them in one password, for seconds."""
_SIGNS: Final = frozenset(sign for signs in L33T_TABLE.values() for sign in signs)
KNOWN_WORDS_MAX: Final = 8
KNOWN_WORD_LENGTH_MIN: Final = 3

HASHES_AT_ONCE_MAX: Final = 4
HASHES_WAITING_MAX: Final = 12
HASH_WAIT_MAX_S: Final = 5.0
"""Those that wait hold a thread of the API, which has 40 for all routes."""

_hasher: Final = PasswordHasher(PASSES, MEMORY_KIB, LANES, HASH_BYTES, SALT_BYTES, type=Type.ID)
_judging: Final = threading.Lock()
"""zxcvbn keeps the words of the person it judges for in a global."""


def write_alike(password: str) -> str:
    """The one form in which a password is counted, judged and hashed, whatever keyboard it came from.

    As RFC 8265 has it (OpaqueString): NFC, and every kind of space is a space; nothing is trimmed, case counts. Raises
    ValueError for control characters.
    """
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in password):
        raise ValueError("no control characters")
    spaced = "".join(" " if unicodedata.category(letter) == "Zs" else letter for letter in password)
    return unicodedata.normalize("NFC", spaced)


PasswordText = Annotated[str, Field(min_length=1, max_length=TYPED_LENGTH_MAX), AfterValidator(write_alike)]
"""A password in a request, in its one form from then on."""


def check_strength(password: str, known_of_person: Iterable[str]) -> None:
    """Refuse what somebody who knows the lists and the person would guess. `known_of_person`: name, e-mail, and so on.

    Judged is the beginning or the end, whichever is better, of at most JUDGED_LENGTH_MAX characters: a password is no
    weaker than a part of it. Raises PasswordTooWeak, which says why, or PasswordsBusy.
    """
    if not LENGTH_MIN <= len(password) <= LENGTH_MAX:
        raise PasswordTooWeak(f"a password has {LENGTH_MIN} to {LENGTH_MAX} characters; this one has {len(password)}")
    words = _words_of(known_of_person)
    advice = ""
    with _gate.place(), _judging:
        for part in _judged_parts(password):
            judged = zxcvbn(part, words)
            if judged["score"] >= SCORE_MIN:
                return
            feedback = judged["feedback"]
            advice = " ".join([feedback["warning"], *feedback["suggestions"]]).strip()
    raise PasswordTooWeak(advice or "It would be guessed soon: add a few uncommon words.")


def hash_password(password: str) -> str:
    """Argon2id in its own notation, which names its parameters. Raises PasswordsBusy."""
    with _gate.place():
        metrics.PASSWORD_HASHES.labels("make").inc()
        return _hasher.hash(password)


def is_password(stored: str | None, password: str) -> bool:
    """Whether this is the password. If there is none, the work is the same and the answer no. Raises PasswordsBusy."""
    with _gate.place():
        metrics.PASSWORD_HASHES.labels("verify").inc()
        try:
            _hasher.verify(stored or _NOBODYS, password)
        except VerifyMismatchError:
            return False
        return stored is not None


def should_hash_again(stored: str) -> bool:
    """Whether this was hashed with other parameters than today's."""
    return _hasher.check_needs_rehash(stored)


class Gate:
    """So many at once; so many more wait, for so long; the others are refused at once."""

    def __init__(self, at_once_max: int, waiting_max: int, wait_max_s: float) -> None:
        self._places = threading.Semaphore(at_once_max)
        self._inside = threading.Semaphore(at_once_max + waiting_max)
        self._wait_max_s = wait_max_s

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place. Raises PasswordsBusy."""
        if not self._inside.acquire(blocking=False):
            raise PasswordsBusy
        try:
            if not self._places.acquire(timeout=self._wait_max_s):
                raise PasswordsBusy
            try:
                yield
            finally:
                self._places.release()
        finally:
            self._inside.release()


_gate: Final = Gate(HASHES_AT_ONCE_MAX, HASHES_WAITING_MAX, HASH_WAIT_MAX_S)


def _encode(content: bytes) -> str:
    return base64.b64encode(content).rstrip(b"=").decode()


_NOBODYS: Final = (
    f"$argon2id$v={ARGON2_VERSION}$m={MEMORY_KIB},t={PASSES},p={LANES}"
    f"${_encode(secrets.token_bytes(SALT_BYTES))}${_encode(secrets.token_bytes(HASH_BYTES))}"
)
"""What a password is compared with where there is none. No password has this hash, as far as anybody knows."""


def _judged_parts(password: str) -> list[str]:
    first = _bounded(password)
    return [first] if first == password else [first, _bounded(password[::-1])[::-1]]


def _bounded(password: str) -> str:
    """The longest beginning that zxcvbn judges in a bounded time."""
    signs: set[str] = set()
    for position, letter in enumerate(password[:JUDGED_LENGTH_MAX]):
        signs |= {letter} & _SIGNS
        if len(signs) > JUDGED_SIGNS_MAX:
            return password[:position]
    return password[:JUDGED_LENGTH_MAX]


def _words_of(texts: Iterable[str]) -> list[str]:
    """What zxcvbn looks for: each text's words, and neighbours with and without what stands between them."""
    found: dict[str, None] = {}
    for text in texts:
        lowered = text.lower()
        words = list(re.finditer(r"[^\W_]+", lowered))[:KNOWN_WORDS_MAX]
        for first, word in enumerate(words):
            for last in range(first, len(words)):
                together = [each[0] for each in words[first : last + 1]]
                found[lowered[word.start() : words[last].end()]] = None
                found["".join(together)] = None
                found["".join(reversed(together))] = None
    return [each for each in found if len(each) >= KNOWN_WORD_LENGTH_MIN]
