"""Of two who come at once with one challenge, one wallet or one last way in, exactly one is first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Connection, Engine, text

from hub.auth import members_service, wallets_service
from hub.auth.wallets_service import CLIENT_ADDRESS_CHALLENGES_MAX
from hub.db import transaction
from hub.errors import LastWayIn, WalletNotRegistered, WalletsTooMany
from hub.permissions import Role
from tests.hub.auth.signing_wallet import SigningWallet
from tests.hub.conftest import Server

AT_ONCE = 6


def at_once(calls: Sequence[Callable[[], httpx.Response]]) -> list[httpx.Response]:
    """Their answers; all begin together."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], httpx.Response]) -> httpx.Response:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def codes(answers: Sequence[httpx.Response]) -> list[tuple[int, str]]:
    return sorted((answer.status_code, answer.json().get("code", "")) for answer in answers)


def session_of(server: Server, answer: httpx.Response) -> httpx.Client:
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=60)


@pytest.mark.parametrize("chain", ["solana", "dogecoin"])
def test_one_challenge_opens_one_session(server, chain):
    wallet = SigningWallet.new(chain)
    wallet.register(server.anonymous)
    for _ in range(5):
        answer = wallet.answer(wallet.challenge(server.anonymous, "sign_in"))
        answers = at_once([partial(server.anonymous.post, "/auth/wallet/sign-in", json=answer)] * AT_ONCE)
        assert codes(answers) == [(200, ""), *[(409, "challenge_unusable")] * (AT_ONCE - 1)]


def test_one_wallet_becomes_one_member(server):
    wallet = SigningWallet.new()
    bodies = [
        {**wallet.answer(wallet.challenge(server.anonymous, "register")), "type": "consumer", "name": f"Ada {number}"}
        for number in range(CLIENT_ADDRESS_CHALLENGES_MAX)
    ]
    answers = at_once([partial(server.anonymous.post, "/auth/wallet/register", json=body) for body in bodies])
    assert codes(answers) == [(201, ""), *[(409, "wallet_already_registered")] * (len(bodies) - 1)]
    (registered,) = (answer for answer in answers if answer.status_code == 201)
    assert wallet.sign_in(server.anonymous).json()["member_id"] == registered.json()["member_id"]
    with transaction(server.engine) as connection:
        members = connection.execute(text("SELECT count(*) FROM members WHERE name LIKE 'Ada %'")).scalar_one()
    assert members == 1


def test_one_wallet_is_linked_to_one_member(server):
    owners = [SigningWallet.new() for _ in range(CLIENT_ADDRESS_CHALLENGES_MAX)]
    new = SigningWallet.new()
    act = {"kind": "link_wallet", **new.named}
    with ExitStack() as stack:
        calls = []
        for owner in owners:
            client = stack.enter_context(session_of(server, owner.register(server.anonymous)))
            body = {"existing": owner.proof(client, act), "new": new.link_answer(client)}
            calls.append(partial(client.post, "/me/wallets", json=body))
        answers = at_once(calls)
    assert codes(answers) == [(201, ""), *[(409, "wallet_already_registered")] * (len(owners) - 1)]


def test_the_last_way_in_stays_whoever_unlinks_at_once(server):
    one, other = SigningWallet.new(), SigningWallet.new()
    with session_of(server, one.register(server.anonymous)) as client:
        assert one.link(client, other).status_code == 201
        bodies = [
            {**gone.named, "existing": gone.proof(client, {"kind": "unlink_wallet", **gone.named})}
            for gone in (one, other)
        ]
        answers = at_once([partial(client.post, "/me/wallets/unlink", json=body) for body in bodies])
        assert codes(answers) == [(200, ""), (409, "last_way_in")]
        assert len(client.get("/me/wallets").json()["wallets"]) == 1


def test_no_session_of_a_wallet_outlives_its_link(server):
    owner = SigningWallet.new()
    with session_of(server, owner.register(server.anonymous)) as client:
        for _ in range(8):
            lost = SigningWallet.new()
            owner.link(client, lost)
            existing = owner.proof(client, {"kind": "unlink_wallet", **lost.named})
            answer = lost.answer(lost.challenge(server.anonymous, "sign_in"))
            unlinked, opened = at_once(
                [
                    partial(client.post, "/me/wallets/unlink", json={**lost.named, "existing": existing}),
                    partial(server.anonymous.post, "/auth/wallet/sign-in", json=answer),
                ]
            )
            assert unlinked.status_code == 200
            if opened.status_code == 200:
                with session_of(server, opened) as finder:
                    assert finder.get("/me/wallets").status_code == 401
            else:
                assert codes([opened]) == [(404, "wallet_not_registered")]


# ── one transaction in the middle of another ─────────────────────────────────────────────────────────────────


def while_uncommitted(
    engine: Engine, first: Callable[[Connection], object], then: Callable[[Connection], object]
) -> Future[object]:
    """`then`, begun when `first` is done and not committed; it has waited for the commit."""

    def run() -> object:
        with transaction(engine) as connection:
            return then(connection)

    with ThreadPoolExecutor(1) as pool, transaction(engine) as connection:
        first(connection)
        waiting = pool.submit(run)
        while not waiting.done() and not is_anybody_waiting(engine):
            time.sleep(0.01)
        assert not waiting.done(), "it did not wait"
        connection.commit()
    return waiting


def is_anybody_waiting(engine: Engine) -> bool:
    with transaction(engine) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return bool(connection.execute(text(query)).scalar_one())


def a_member_with(engine: Engine, *wallets: SigningWallet) -> UUID:
    now = datetime.now(UTC)
    with transaction(engine) as connection:
        member_id = members_service.create_member(connection, Role.CONSUMER, "Ada", "", now)
        for wallet in wallets:
            wallets_service.link_wallet(connection, member_id, wallet.chain, wallet.address, "test", now)
    return member_id


def unlinking(member_id: UUID, wallet: SigningWallet) -> Callable[[Connection], object]:
    return lambda connection: wallets_service.unlink_wallet(
        connection, member_id, wallet.chain, wallet.address, None, "test", datetime.now(UTC)
    )


def test_who_unlinks_the_other_wallet_meanwhile_is_told_that_it_is_the_last(engine):
    one, other = SigningWallet.new(), SigningWallet.new("dogecoin")
    member_id = a_member_with(engine, one, other)
    second = while_uncommitted(engine, unlinking(member_id, one), unlinking(member_id, other))
    with pytest.raises(LastWayIn):
        second.result()


def test_a_wallet_that_is_being_unlinked_signs_nobody_in(engine):
    one, other = SigningWallet.new(), SigningWallet.new()
    member_id = a_member_with(engine, one, other)
    second = while_uncommitted(
        engine,
        unlinking(member_id, one),
        lambda connection: wallets_service.lock_member_of_wallet(connection, one.chain, one.address),
    )
    with pytest.raises(WalletNotRegistered):
        second.result()
    with transaction(engine) as connection:
        assert wallets_service.lock_member_of_wallet(connection, other.chain, other.address) == member_id


def test_two_wallets_linked_at_once_are_counted_both(engine):
    wallets = [SigningWallet.new() for _ in range(wallets_service.WALLETS_MAX + 1)]
    member_id = a_member_with(engine, *wallets[:-2])

    def linking(wallet: SigningWallet) -> Callable[[Connection], object]:
        return lambda connection: wallets_service.link_wallet(
            connection, member_id, wallet.chain, wallet.address, "test", datetime.now(UTC)
        )

    second = while_uncommitted(engine, linking(wallets[-2]), linking(wallets[-1]))
    with pytest.raises(WalletsTooMany):
        second.result()
