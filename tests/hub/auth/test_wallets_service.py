"""What the hub remembers of challenges is bounded, and nobody makes it forget what somebody else asked for."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine, func, select

from hub.auth import wallets_service
from hub.auth.forgetting import forget_expired_challenges_once
from hub.auth.sign_in_message import AHEAD_MAX, CHALLENGE_LIFE, text_of
from hub.auth.wallets_service import (
    ADDRESS_CHALLENGES_MAX,
    CLIENT_ADDRESS_CHALLENGES_MAX,
    CLIENT_CHALLENGES_MAX,
    Site,
    check_answer,
    issue_challenge,
    message_of,
    statement_of,
    take_challenge,
)
from hub.auth.wallets_store import Challenge, challenges, insert_challenge
from hub.db import transaction
from hub.errors import AddressInvalid, ChallengeUnusable, ProofRefused
from tests.hub.auth.signing_wallet import SigningWallet

NOW = datetime(2026, 11, 20, 6, 0, 0, 123_456, tzinfo=UTC)
SITE = Site("sonnenhof", "https://hub.example", "")


def issue(engine: Engine, wallet: SigningWallet, client: str, now: datetime = NOW) -> Challenge:
    with transaction(engine) as connection:
        return issue_challenge(
            connection, "sign_in", wallet.chain, wallet.address, statement_of("sign_in", SITE), None, SITE, client, now
        )


def kept(engine: Engine) -> set[str]:
    with transaction(engine) as connection:
        return set(connection.execute(select(challenges.c.nonce)).scalars())


def test_every_challenge_has_a_nonce_of_its_own(engine):
    wallet = SigningWallet.new()
    nonces = [issue(engine, wallet, "192.0.2.1").nonce for _ in range(20)]
    assert len(set(nonces)) == len(nonces)
    assert all(re.fullmatch("[A-Za-z0-9]{22}", nonce) for nonce in nonces)


def test_a_client_has_the_newest_five_challenges_for_an_address(engine):
    wallet = SigningWallet.new()
    others = [issue(engine, wallet, "192.0.2.9").nonce, issue(engine, SigningWallet.new(), "192.0.2.1").nonce]
    issued = [issue(engine, wallet, "192.0.2.1", NOW + timedelta(seconds=second)).nonce for second in range(12)]
    assert kept(engine) == {*others, *issued[-CLIENT_ADDRESS_CHALLENGES_MAX:]}


def test_the_one_just_issued_is_kept_also_of_many_in_one_second(engine):
    wallet = SigningWallet.new()
    for _ in range(2 * CLIENT_ADDRESS_CHALLENGES_MAX):
        assert issue(engine, wallet, "192.0.2.1").nonce in kept(engine)


def test_a_client_has_so_many_challenges_at_most(engine):
    waiting = issue(engine, SigningWallet.new(), "192.0.2.9").nonce
    for _ in range(CLIENT_CHALLENGES_MAX + 5):
        newest = issue(engine, SigningWallet.new(), "192.0.2.1").nonce
    left = kept(engine)
    assert len(left) == CLIENT_CHALLENGES_MAX + 1
    assert {waiting, newest} <= left


def test_an_address_has_so_many_challenges_at_most(engine):
    wallet = SigningWallet.new()
    first = issue(engine, wallet, "192.0.2.1")
    with transaction(engine) as connection:
        for number in range(ADDRESS_CHALLENGES_MAX - 1):
            later = first.issued_at + timedelta(milliseconds=number + 1)
            crowd = {"nonce": f"{number:022}", "client": f"2001:db8:{number:x}::/64", "issued_at": later}
            insert_challenge(connection, Challenge(**{**vars(first), **crowd}))
    assert first.nonce in kept(engine)
    newest = issue(engine, wallet, "192.0.2.3", NOW + timedelta(seconds=2))
    left = kept(engine)
    assert len(left) == ADDRESS_CHALLENGES_MAX
    assert first.nonce not in left
    assert newest.nonce in left


def test_what_can_no_longer_be_answered_is_forgotten(engine):
    old, fresh = issue(engine, SigningWallet.new(), "a"), issue(engine, SigningWallet.new(), "a", NOW + CHALLENGE_LIFE)
    assert forget_expired_challenges_once(engine, NOW + CHALLENGE_LIFE) == 1
    assert kept(engine) == {fresh.nonce}
    with pytest.raises(ChallengeUnusable):
        take_challenge(engine, old.nonce)


def test_a_challenge_is_taken_once_and_that_is_committed(engine):
    wallet = SigningWallet.new()
    challenge = issue(engine, wallet, "a")
    assert take_challenge(engine, challenge.nonce) == challenge
    assert kept(engine) == set()
    with pytest.raises(ChallengeUnusable):
        take_challenge(engine, challenge.nonce)


def test_nothing_is_issued_for_what_is_no_address(engine):
    with pytest.raises(AddressInvalid), transaction(engine) as connection:
        issue_challenge(connection, "sign_in", "dogecoin", SigningWallet.new().address, "x", None, SITE, "a", NOW)
    with transaction(engine) as connection:
        assert connection.execute(select(func.count()).select_from(challenges)).scalar_one() == 0


@pytest.mark.parametrize("chain", ["solana", "dogecoin"])
def test_the_longest_texts_are_still_texts(chain):
    site = Site("c" * 32, f"https://{'a.' * 126}b:65535", "")
    email = f"{'a' * 64}@{'b.' * 93}cd"
    wallet = SigningWallet.new(chain)
    for act in (wallets_service.setting_email(email), wallets_service.unlinking("solana", "x" * 44)):
        statement = statement_of("confirm", site, uuid4(), act)
        challenge = Challenge(
            "n" * 22,
            chain,
            "confirm",
            wallet.address,
            site.origin,
            uuid4(),
            statement,
            "a",
            NOW.replace(microsecond=0),
            NOW.replace(microsecond=0) + CHALLENGE_LIFE,
        )
        assert act in text_of(message_of(challenge, site))


def test_an_answer_is_judged_by_purpose_member_act_page_and_time(engine):
    wallet, member_id = SigningWallet.new(), uuid4()
    act = wallets_service.linking("solana", SigningWallet.new().address)
    statement = statement_of("confirm", SITE, member_id, act)
    at = NOW.replace(microsecond=0)
    challenge = Challenge(
        "n" * 22, "solana", "confirm", wallet.address, SITE.origin, member_id, statement, "a", at, at + CHALLENGE_LIFE
    )
    signed = text_of(message_of(challenge, SITE)).encode()
    good = {
        "purpose": "confirm",
        "statement": statement,
        "member_id": member_id,
        "site": SITE,
        "signed_message": signed,
        "signature": wallet.sign(signed.decode()),
        "now": NOW,
    }
    check_answer(challenge, **good)
    for change, error in (
        ({"purpose": "link"}, ChallengeUnusable),
        ({"statement": statement_of("confirm", SITE, member_id, "something else")}, ChallengeUnusable),
        ({"member_id": uuid4()}, ChallengeUnusable),
        ({"member_id": None}, ChallengeUnusable),
        ({"site": Site("sonnenhof", "https://app.example", "")}, ChallengeUnusable),
        ({"site": Site("sonnenhof", "https://hub.example", "ab" * 32)}, None),
        ({"signed_message": signed + b" "}, ProofRefused),
        ({"signature": bytes(64)}, ProofRefused),
        ({"now": at + CHALLENGE_LIFE}, ProofRefused),
        ({"now": at - AHEAD_MAX - timedelta(seconds=1)}, ProofRefused),
    ):
        if error is None:
            check_answer(challenge, **{**good, **change})
        else:
            with pytest.raises(error):
                check_answer(challenge, **{**good, **change})
