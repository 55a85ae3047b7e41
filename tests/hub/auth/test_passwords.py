"""How passwords are written, judged and kept."""

from __future__ import annotations

import threading
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from hub.auth import email_service, email_store, passwords, sessions_store
from hub.auth.email_service import EMAIL
from hub.auth.members_service import add_identity
from hub.auth.passwords import Gate, check_strength, hash_password, is_password, should_hash_again, write_alike
from hub.db import create_database_engine, transaction
from hub.errors import EmailOrPasswordWrong, PasswordsBusy, PasswordTooWeak
from tests.hub.auth.conftest import LAPTOP, a_member
from tests.hub.auth.mailing import BETTER, GOOD
from tests.hub.auth.test_wallets_races import is_anybody_waiting

ADA = ["Ada Byron", "ada.byron@lovelace.example.org", "windmill-lane"]

passwords_typed = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=40)


def refused(password: str) -> str:
    with pytest.raises(PasswordTooWeak) as fault:
        check_strength(password, ADA)
    assert password not in fault.value.detail
    return fault.value.detail


# ── how they are written ─────────────────────────────────────────────────────────────────────────────────────


@given(passwords_typed)
def test_a_password_is_the_same_from_every_keyboard(password):
    alike = write_alike(password)
    for form in ("NFC", "NFD"):
        assert write_alike(unicodedata.normalize(form, password)) == alike
    assert write_alike(alike) == alike


def test_every_kind_of_space_is_a_space_and_none_is_trimmed():
    assert write_alike("two\u00a0words\u3000 ") == "two words  "


@pytest.mark.parametrize("letter", ["\0", "\n", "\t", "\x7f", "\x85", "\ud800"])
def test_a_password_has_no_control_characters(letter):
    with pytest.raises(ValueError, match="control"):
        write_alike(f"windmill{letter}sunflower")


# ── when they are too weak ───────────────────────────────────────────────────────────────────────────────────


def test_a_password_is_neither_too_short_nor_too_long():
    assert "8 to 128" in refused("x9$Kq2!")
    assert "129" in refused("correct windmill " * 7 + "0123456789")
    check_strength(("seven lighthouses at dusk " * 5)[:128], ADA)


@pytest.mark.parametrize(
    "password",
    ["password1", "iloveyou123", "qwertyuiop[]", "P@ssw0rd2026", "aaaaaaaaaaaa", "abcdefghijkl", "19840612", "a" * 128],
)
def test_what_the_lists_and_patterns_know_is_refused_in_words(password):
    assert len(refused(password)) > 20


@pytest.mark.parametrize("password", ["adabyron1815", "ByronAda", "lovelace.example", "windmill-lane26", "ADA.BYRON!"])
def test_what_is_known_of_the_person_and_the_community_is_refused(password):
    refused(password)


@pytest.mark.parametrize("password", [GOOD, BETTER, "x9$Kq2!pzW", "пять тихих маяков", "🌻🌬🏠⚡🔋🌙🐝🚲🎈"])
def test_what_nobody_guesses_is_taken(password):
    check_strength(password, ADA)


def test_a_strong_end_makes_up_for_a_weak_beginning():
    check_strength("a" * 64 + " seven lighthouses at dusk", ADA)


@given(passwords_typed.filter(lambda password: len(password) < 8))
def test_nothing_short_is_taken_whatever_it_is(password):
    with pytest.raises(PasswordTooWeak, match="8 to 128"):
        check_strength(password, ADA)


@given(st.text("4@8({[<3691!|70$5+%2abc ", min_size=40, max_size=128))
@settings(max_examples=25, deadline=None)
def test_what_is_judged_is_bounded_however_a_password_is_made_up(password):
    parts = passwords._judged_parts(password)
    assert 1 <= len(parts) <= 2
    for part in parts:
        assert part in password
        assert len(part) <= passwords.JUDGED_LENGTH_MAX
        assert len(set(part) & passwords._SIGNS) <= passwords.JUDGED_SIGNS_MAX


def test_two_people_who_are_judged_at_once_are_judged_by_their_own_names():
    """zxcvbn keeps the names in a global, which a second judgement would take the first one's place in."""
    together = threading.Barrier(8)

    def judge(number: int) -> bool:
        together.wait()
        name = f"Wolpertinger{number}burg"
        try:
            check_strength(f"wolpertinger{number}burg", [name])
        except PasswordTooWeak:
            return True
        return False

    with ThreadPoolExecutor(8) as people:
        assert all(people.map(judge, range(8)))


# ── how they are kept ────────────────────────────────────────────────────────────────────────────────────────


def test_a_password_is_kept_as_argon2id_with_at_least_the_parameters_of_owasp():
    kept = extract_parameters(hash_password(GOOD))
    assert kept.type is Type.ID
    assert kept.memory_cost >= 19 * 1024
    assert kept.time_cost >= 2
    assert (kept.parallelism, kept.salt_len >= 16, kept.hash_len >= 32) == (1, True, True)


def test_the_same_password_is_kept_differently_each_time():
    assert hash_password(GOOD) != hash_password(GOOD)


@given(passwords_typed, passwords_typed)
@settings(max_examples=10, deadline=None)
def test_a_password_opens_what_it_closed_and_no_other_does(password, other):
    password, other = write_alike(password), write_alike(other)
    kept = hash_password(password)
    assert is_password(kept, password)
    assert is_password(kept, other) == (other == password)


def test_nobodys_password_is_compared_with_the_parameters_of_everybodys():
    assert extract_parameters(passwords._NOBODYS) == extract_parameters(hash_password(GOOD))
    assert not should_hash_again(passwords._NOBODYS)
    assert not is_password(None, GOOD)


def with_email(engine, token_keys, password_hash: str):
    member_id = a_member(engine)
    now = datetime.now(UTC)
    with transaction(engine) as connection:
        add_identity(connection, member_id, EMAIL, "ada@example.org", None, "test", now)
        email_store.put_hash(connection, member_id, password_hash, now)
    return member_id, lambda password: email_service.sign_in(
        engine, "ada@example.org", password, LAPTOP, token_keys, now
    )


def kept_hash(engine, member_id) -> str:
    with transaction(engine) as connection:
        kept = email_store.find_hash(connection, member_id)
    assert kept is not None
    return kept


def test_a_password_kept_with_weaker_parameters_is_kept_anew_when_it_is_next_used(engine, token_keys):
    weaker = PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1).hash(GOOD)
    member_id, sign_in = with_email(engine, token_keys, weaker)
    with pytest.raises(EmailOrPasswordWrong):
        sign_in(BETTER)
    assert kept_hash(engine, member_id) == weaker
    assert sign_in(GOOD).member_id == member_id
    assert not should_hash_again(kept_hash(engine, member_id))
    assert sign_in(GOOD).member_id == member_id


def test_of_two_devices_that_come_at_once_when_a_password_is_kept_anew_both_are_signed_in(engine, token_keys):
    weaker = PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1).hash(GOOD)
    member_id, sign_in = with_email(engine, token_keys, weaker)
    with ThreadPoolExecutor(1) as pool, transaction(engine) as connection:
        sessions_store.lock_member(connection, member_id)
        second = pool.submit(sign_in, GOOD)
        while not second.done() and not is_anybody_waiting(engine):
            time.sleep(0.01)
        email_store.rewrite_hash(connection, member_id, hash_password(GOOD))
        connection.commit()
    assert second.result().member_id == member_id


# ── how many at once ─────────────────────────────────────────────────────────────────────────────────────────


def test_no_more_are_worked_on_at_once_than_there_are_places_and_whoever_waits_too_long_is_told():
    gate = Gate(at_once_max=2, waiting_max=1, wait_max_s=0.05)
    with gate.place(), gate.place(), pytest.raises(PasswordsBusy), gate.place():
        pass
    with gate.place():
        pass


def test_when_enough_are_waiting_the_next_is_told_at_once():
    gate = Gate(at_once_max=1, waiting_max=1, wait_max_s=60)

    def wait() -> None:
        with gate.place():
            pass

    with ThreadPoolExecutor(1) as pool, gate.place():
        waiting = pool.submit(wait)
        while gate._inside._value:  # until the other one does wait
            time.sleep(0.001)
        with pytest.raises(PasswordsBusy), gate.place():
            pass
        assert not waiting.done()
    assert waiting.result() is None


def test_a_password_is_worked_on_while_no_transaction_is_open(database_url, token_keys, engine):
    """With a single connection to the database, another piece of work gets it while the hash is waited for."""
    _, _ = with_email(engine, token_keys, hash_password(GOOD))
    single = create_database_engine(database_url, "tests", pool_size=1)
    try:
        with ThreadPoolExecutor(1) as other, ExitStack() as full:
            for _ in range(passwords.HASHES_AT_ONCE_MAX):
                full.enter_context(passwords._gate.place())
            signing_in = other.submit(
                email_service.sign_in, single, "ada@example.org", GOOD, LAPTOP, token_keys, datetime.now(UTC)
            )
            asked = 0
            while asked < 20:
                with single.connect() as connection:
                    asked += connection.execute(text("SELECT 1")).scalar_one()
            assert not signing_in.done()
            full.close()
            assert signing_in.result().session_id
    finally:
        single.dispose()
