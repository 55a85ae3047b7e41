"""Who has the wallet gets in, and nobody else; who changes how a member gets in has proven both sides."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from hub.auth import email_store, members_service, wallets_service
from hub.auth.members_store import EMAIL
from hub.auth.passwords import hash_password
from hub.auth.sign_in_message import text_of
from hub.auth.wallets_service import Site, statement_of
from hub.db import transaction
from hub.permissions import Role
from tests.hub.auth.signing_wallet import SigningWallet
from tests.hub.conftest import Server

APP, PUBLIC = "https://app.example:8443", "http://127.0.0.1:8800"
PASSWORD = "a kettle of 2000 watts"  # noqa: S105
CHAINS = ["solana", "dogecoin"]


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "")


@contextlib.contextmanager
def signed_in(server: Server, wallet: SigningWallet) -> Iterator[httpx.Client]:
    """A client with the session that the wallet opens."""
    answer = wallet.sign_in(server.anonymous)
    assert answer.status_code == 200, answer.text
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def wallet(server: Server) -> SigningWallet:
    """The wallet of a member."""
    made = SigningWallet.new()
    assert made.register(server.anonymous).status_code == 201
    return made


def addresses(client: httpx.Client) -> list[str]:
    return [each["address"] for each in client.get("/me/wallets").json()["wallets"]]


def audited(server: Server, action: str) -> list[tuple[str, str, dict[str, object]]]:
    with transaction(server.engine) as connection:
        rows = connection.execute(
            text("SELECT actor, subject, detail FROM audit_log WHERE action = :action ORDER BY audit_id"),
            {"action": action},
        )
        return [(row.actor, row.subject, row.detail) for row in rows]


def count(server: Server, table: str) -> int:
    with transaction(server.engine) as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


# ── register and sign in ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("chain", CHAINS)
def test_a_wallet_registers_once_and_then_signs_in(server, chain):
    wallet = SigningWallet.new(chain)
    registered = wallet.register(server.anonymous, "Ada of the roof", "prosumer")
    assert registered.status_code == 201
    member_id = registered.json()["member_id"]
    again = wallet.sign_in(server.anonymous)
    assert again.status_code == 200
    assert again.json()["member_id"] == member_id
    assert again.json()["session_id"] != registered.json()["session_id"]
    with signed_in(server, wallet) as client:
        (shown,) = client.get("/me/wallets").json()["wallets"]
    assert (shown["chain"], shown["address"]) == (chain, wallet.address)
    with transaction(server.engine) as connection:
        member = members_service.get_member(connection, UUID(member_id))
        assert (member.name, member.type) == ("Ada of the roof", Role.PROSUMER)
        keys = members_service.wallets_of(connection, member.member_id)
    assert keys == ([wallet.public_key] if chain == "solana" else [])
    linked = audited(server, "member.link")[-1]
    assert linked == (f"member:{member_id}", f"member:{member_id}", {"kind": chain, "value": wallet.address})


def test_a_registered_wallet_is_told_so_and_an_unknown_one_too(server, wallet):
    members = count(server, "members")
    assert code_of(wallet.register(server.anonymous)) == (409, "wallet_already_registered")
    assert count(server, "members") == members
    assert code_of(SigningWallet.new().sign_in(server.anonymous)) == (404, "wallet_not_registered")


def test_the_challenge_is_what_a_wallet_of_the_standard_takes(server):
    wallet = SigningWallet.new()
    challenge = wallet.challenge(server.anonymous, "sign_in")
    assert set(challenge) == {"nonce", "message", "sign_in_input", "expires_at"}
    assert challenge["message"].startswith(
        f"127.0.0.1:8800 wants you to sign in with your Solana account:\n{wallet.address}\n\n"
        "Sign in to the energy community test-community.\n\nURI: http://127.0.0.1:8800\n"
    )
    assert challenge["sign_in_input"]["nonce"] == challenge["nonce"]
    assert SigningWallet.new("dogecoin").challenge(server.anonymous, "sign_in")["sign_in_input"] is None


@pytest.mark.parametrize("chain", CHAINS)
def test_an_answer_is_taken_once(server, chain):
    wallet = SigningWallet.new(chain)
    wallet.register(server.anonymous)
    answer = wallet.answer(wallet.challenge(server.anonymous, "sign_in"))
    assert server.anonymous.post("/auth/wallet/sign-in", json=answer).status_code == 200
    assert code_of(server.anonymous.post("/auth/wallet/sign-in", json=answer)) == (409, "challenge_unusable")


@pytest.mark.parametrize("chain", CHAINS)
def test_after_a_wrong_answer_the_right_one_comes_too_late(server, chain):
    wallet, thief = SigningWallet.new(chain), SigningWallet.new(chain)
    wallet.register(server.anonymous)
    challenge = wallet.challenge(server.anonymous, "sign_in")
    stolen = server.anonymous.post("/auth/wallet/sign-in", json=thief.answer(challenge))
    assert code_of(stolen) == (401, "proof_refused")
    honest = server.anonymous.post("/auth/wallet/sign-in", json=wallet.answer(challenge))
    assert code_of(honest) == (409, "challenge_unusable")


def test_an_answer_counts_only_for_what_was_asked(server, wallet):
    answer = wallet.answer(wallet.challenge(server.anonymous, "register"))
    assert code_of(server.anonymous.post("/auth/wallet/sign-in", json=answer)) == (409, "challenge_unusable")
    new = SigningWallet.new()
    body = {**new.answer(new.challenge(server.anonymous, "sign_in")), "type": "consumer", "name": "Bo"}
    assert code_of(server.anonymous.post("/auth/wallet/register", json=body)) == (409, "challenge_unusable")
    assert code_of(new.sign_in(server.anonymous)) == (404, "wallet_not_registered")


def test_an_answer_to_one_challenge_is_none_to_another(server, wallet):
    mine, thiefs = wallet.challenge(server.anonymous, "sign_in"), SigningWallet.new()
    theirs = thiefs.challenge(server.anonymous, "sign_in")
    crossed = {**wallet.answer(mine), "nonce": theirs["nonce"]}
    refused = server.anonymous.post("/auth/wallet/sign-in", json=crossed)
    assert code_of(refused) == (401, "proof_refused")
    assert "address, nonce" in refused.json()["detail"]


def test_an_answer_comes_within_five_minutes(server, wallet):
    site = Site(server.settings.community_id, server.settings.public_url, "")
    for age, expected in ((timedelta(minutes=4), 200), (timedelta(minutes=5, seconds=1), 401)):
        with transaction(server.engine) as connection:
            challenge = wallets_service.issue_challenge(
                connection,
                "sign_in",
                "solana",
                wallet.address,
                statement_of("sign_in", site),
                None,
                site,
                "127.0.0.1",
                datetime.now(UTC) - age,
            )
        message = text_of(wallets_service.message_of(challenge, site))
        answer = wallet.answer({"nonce": challenge.nonce, "message": message})
        late = server.anonymous.post("/auth/wallet/sign-in", json=answer)
        assert late.status_code == expected
    assert late.json()["detail"] == "the message has expired"


def test_a_wallet_signs_for_the_page_it_is_on(settings, engine, running_hub):
    settings = settings.model_copy(update={"cors_origins": [APP]})
    wallet = SigningWallet.new()
    with running_hub(settings, engine) as server:
        wallet.register(server.anonymous)
        challenge = wallet.challenge(server.anonymous, "sign_in", Origin=APP)
        assert challenge["message"].startswith("app.example:8443 wants")
        assert challenge["sign_in_input"]["uri"] == APP
        answer = wallet.answer(challenge)
        at_app = server.anonymous.post("/auth/wallet/sign-in", json=answer, headers={"Origin": APP})
        assert at_app.status_code == 200
        elsewhere = server.anonymous.post(
            "/auth/wallet/sign-in", json=wallet.answer(wallet.challenge(server.anonymous, "sign_in", Origin=APP))
        )
        assert code_of(elsewhere) == (409, "challenge_unusable")
        for stranger in ("https://evil.example", "https://app.example", f"{APP}/", "null"):
            message = wallet.challenge(server.anonymous, "sign_in", Origin=stranger)["message"]
            assert message.startswith("127.0.0.1:8800 wants")


def test_who_is_suspended_has_proven_himself_in_vain(server, wallet):
    with transaction(server.engine) as connection:
        connection.execute(text("UPDATE members SET state = 'suspended'"))
    assert code_of(wallet.sign_in(server.anonymous)) == (403, "member_suspended")


NO_ANSWERS = [
    {"nonce": "short"},
    {"nonce": "x" * 23},
    {"nonce": "-" * 22},
    {"signature": "not base64"},
    {"signature": base64.b64encode(bytes(70)).decode()},
    {"signed_message": "A"},
    {"signed_message": "QUI=\n"},
    {"signed_message": "QUJ="},
    {"signed_message": base64.b64encode(bytes(2_000)).decode()},
    {"signature": None},
    {"more": 1},
]
NO_WALLETS = [
    ({"chain": "solana", "address": "not-an-address", "purpose": "sign_in"}, "address_invalid"),
    ({"chain": "solana", "address": "1" * 32, "purpose": "sign_in"}, "address_invalid"),
    ({"chain": "dogecoin", "address": SigningWallet.new().address, "purpose": "sign_in"}, "address_invalid"),
    ({"chain": "ethereum", "address": "x", "purpose": "sign_in"}, "malformed_input"),
    ({**SigningWallet.new().named, "purpose": "link"}, "malformed_input"),
    ({**SigningWallet.new().named, "purpose": "confirm"}, "malformed_input"),
    ({"chain": "solana", "address": "x" * 45, "purpose": "sign_in"}, "malformed_input"),
    ({"chain": "solana", "address": "\u0000", "purpose": "sign_in"}, "address_invalid"),
]


def test_what_is_no_answer_is_malformed_and_uses_nothing_up(server, wallet):
    answer = wallet.answer(wallet.challenge(server.anonymous, "sign_in"))
    for change in NO_ANSWERS:
        malformed = server.anonymous.post("/auth/wallet/sign-in", json={**answer, **change})
        assert code_of(malformed) == (422, "malformed_input"), change
    assert server.anonymous.post("/auth/wallet/sign-in", json=answer).status_code == 200


def test_no_challenge_is_made_for_what_is_no_wallet(server):
    for body, code in NO_WALLETS:
        assert code_of(server.anonymous.post("/auth/wallet/challenge", json=body)) == (422, code), body
    assert count(server, "challenges") == 0


@pytest.mark.parametrize("text", ["two\nlines", "\u0000", "é", "x sign in as me. I", "x" * 44])
def test_no_wallets_owner_is_asked_about_what_is_no_wallet(server, wallet, text):
    """Nobody puts words of his own into what a wallet shows, and nothing that is no address reaches the database."""
    nobodys = {"chain": "solana", "address": text}
    with signed_in(server, wallet) as client:
        for kind in ("link_wallet", "unlink_wallet"):
            asked = client.post("/me/proofs/challenge", json={**wallet.named, "act": {"kind": kind, **nobodys}})
            assert code_of(asked) == (422, "address_invalid")
        act = {"kind": "link_wallet", **SigningWallet.new().named}
        assert code_of(client.post("/me/proofs/challenge", json={**nobodys, "act": act})) == (422, "address_invalid")
        body = {**nobodys, "existing": {"kind": "password", "password": "none that anybody has"}}
        assert code_of(client.post("/me/wallets/unlink", json=body)) == (422, "address_invalid")
        assert code_of(client.post("/me/wallets/challenge", json=nobodys)) == (422, "address_invalid")


def test_a_new_member_says_what_it_is(server):
    wallet = SigningWallet.new()
    for change in ({"type": "admin"}, {"type": "investor"}, {"name": ""}, {"name": "two\nlines"}, {"name": "x" * 101}):
        answer = wallet.answer(wallet.challenge(server.anonymous, "register"))
        body = {**answer, "type": "consumer", "name": "Bo", **change}
        assert code_of(server.anonymous.post("/auth/wallet/register", json=body)) == (422, "malformed_input")


def test_challenges_and_answers_are_counted(server, wallet):
    answer = server.anonymous.post("/auth/wallet/challenge", json={**wallet.named, "purpose": "sign_in"})
    assert "challenge-client" in answer.headers["RateLimit-Policy"]
    assert "wallet-client" in wallet.sign_in(server.anonymous).headers["RateLimit-Policy"]


# ── link and unlink ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("chain", CHAINS)
def test_a_second_wallet_signs_in_as_the_same_member(server, wallet, chain):
    second = SigningWallet.new(chain)
    with signed_in(server, wallet) as client:
        linked = wallet.link(client, second)
        assert linked.status_code == 201, linked.text
        assert linked.json()["address"] == second.address
        assert addresses(client) == [wallet.address, second.address]
    first, other = wallet.sign_in(server.anonymous).json(), second.sign_in(server.anonymous).json()
    assert first["member_id"] == other["member_id"]
    actor, subject, detail = audited(server, "member.link")[-1]
    assert actor == subject == f"member:{first['member_id']}"
    assert detail == {"kind": chain, "value": second.address}


def test_both_owners_read_what_they_sign(server, wallet):
    new = SigningWallet.new("dogecoin")
    with signed_in(server, wallet) as client:
        member_id = wallet.sign_in(server.anonymous).json()["member_id"]
        link = client.post("/me/wallets/challenge", json=new.named).json()["message"]
        acts = {
            "link_wallet": f"let the Dogecoin account {new.address} sign in as me",
            "unlink_wallet": f"no longer let the Dogecoin account {new.address} sign in as me",
        }
        confirmed = {
            kind: client.post("/me/proofs/challenge", json={**wallet.named, "act": {"kind": kind, **new.named}}).json()[
                "message"
            ]
            for kind in acts
        }
        email = {"kind": "set_email", "email": "Ada@Example.COM"}
        mail = client.post("/me/proofs/challenge", json={**wallet.named, "act": email}).json()["message"]
    community = f"the member {member_id} of the energy community test-community"
    assert f"\n\nLet this account sign in as {community}.\n\n" in link
    for kind, act in acts.items():
        assert f"\n\nAs {community}, I {act}.\n\n" in confirmed[kind]
    assert f"\n\nAs {community}, I let whoever reads the mail of ada@example.com sign in as me.\n\n" in mail


def test_a_wallet_is_linked_only_with_a_proof_of_both_sides(server, wallet):
    stranger, new, another = SigningWallet.new(), SigningWallet.new(), SigningWallet.new()
    stranger.register(server.anonymous, "Eve")
    act = {"kind": "link_wallet", **new.named}
    with signed_in(server, wallet) as client, signed_in(server, stranger) as strangers:

        def linking(answer: dict[str, str], existing: dict[str, str]) -> tuple[int, str]:
            return code_of(client.post("/me/wallets", json={"new": answer, "existing": existing}))

        agreed = new.link_answer
        # the new wallet did not sign, or signed to sign in, or agreed to be a stranger's
        unsigned = {**agreed(client), "signature": base64.b64encode(bytes(64)).decode()}
        assert linking(unsigned, wallet.proof(client, act)) == (401, "proof_refused")
        signing_in = new.answer(new.challenge(server.anonymous, "sign_in"))
        assert linking(signing_in, wallet.proof(client, act)) == (409, "challenge_unusable")
        assert linking(agreed(strangers), wallet.proof(client, act)) == (409, "challenge_unusable")
        # the member did not sign, or signed to sign in, or to link another one, or to unlink this one
        unsigned = {**wallet.proof(client, act), "signature": base64.b64encode(bytes(64)).decode()}
        assert linking(agreed(client), unsigned) == (401, "proof_refused")
        signing_in = {"kind": "wallet", **wallet.answer(wallet.challenge(server.anonymous, "sign_in"))}
        assert linking(agreed(client), signing_in) == (409, "challenge_unusable")
        for other_act in ({"kind": "link_wallet", **another.named}, {"kind": "unlink_wallet", **new.named}):
            assert linking(agreed(client), wallet.proof(client, other_act)) == (409, "challenge_unusable")
        # a stranger confirmed it, for itself
        assert linking(agreed(client), stranger.proof(strangers, act)) == (409, "challenge_unusable")
        # the new wallet confirms itself
        itself = client.post("/me/proofs/challenge", json={**new.named, "act": act})
        assert code_of(itself) == (404, "wallet_not_linked")
        assert linking(agreed(client), {"kind": "wallet", **agreed(client)}) == (409, "challenge_unusable")
        # a proof is good once
        proof = wallet.proof(client, act)
        assert client.post("/me/wallets", json={"new": agreed(client), "existing": proof}).status_code == 201
        assert linking(agreed(client), proof) == (409, "challenge_unusable")
        assert addresses(client) == [wallet.address, new.address]


def test_a_proof_of_a_wallet_that_was_unlinked_meanwhile_is_none(server, wallet):
    lost, new = SigningWallet.new(), SigningWallet.new()
    with signed_in(server, wallet) as client:
        wallet.link(client, lost)
        prepared = lost.proof(client, {"kind": "link_wallet", **new.named})
        assert wallet.unlink(client, lost).status_code == 200
        refused = client.post("/me/wallets", json={"new": new.link_answer(client), "existing": prepared})
        assert code_of(refused) == (401, "proof_refused")
        assert addresses(client) == [wallet.address]


def test_a_wallet_belongs_to_one_member(server, wallet):
    other = SigningWallet.new()
    other.register(server.anonymous, "Bo")
    with signed_in(server, wallet) as client:
        assert code_of(wallet.link(client, other)) == (409, "wallet_already_registered")
        assert code_of(wallet.link(client, wallet)) == (409, "wallet_already_registered")


def test_a_member_has_so_many_wallets_at_most(server, wallet):
    with transaction(server.engine) as connection:
        member_id = members_service.find_member_by_identity(connection, "solana", wallet.address)
        assert member_id is not None
        for each in [SigningWallet.new() for _ in range(wallets_service.WALLETS_MAX - 2)]:
            wallets_service.link_wallet(connection, member_id, each.chain, each.address, "test", datetime.now(UTC))
    with signed_in(server, wallet) as client:
        assert wallet.link(client, SigningWallet.new("dogecoin")).status_code == 201
        assert code_of(wallet.link(client, SigningWallet.new())) == (409, "wallets_too_many")
        assert len(addresses(client)) == wallets_service.WALLETS_MAX


def test_the_password_is_a_proof_too(server, wallet):
    new = SigningWallet.new()
    with signed_in(server, wallet) as client:
        without = client.post(
            "/me/wallets",
            json={"new": new.link_answer(client), "existing": {"kind": "password", "password": PASSWORD}},
        )
        assert code_of(without) == (401, "proof_refused")
        give_password(server, wallet)
        for password, expected in (("another " + PASSWORD, 401), (PASSWORD, 201)):
            proof = {"kind": "password", "password": password}
            answer = client.post("/me/wallets", json={"new": new.link_answer(client), "existing": proof})
            assert answer.status_code == expected, answer.text
        assert "password-member" in answer.headers["RateLimit-Policy"]
        assert addresses(client) == [wallet.address, new.address]


def give_password(server: Server, wallet: SigningWallet) -> None:
    """An e-mail address and a password for the member with this wallet."""
    now = datetime.now(UTC)
    with transaction(server.engine) as connection:
        member_id = members_service.find_member_by_identity(connection, "solana", wallet.address)
        assert member_id is not None
        members_service.add_identity(connection, member_id, EMAIL, "ada@example.com", None, "test", now)
        email_store.put_hash(connection, member_id, hash_password(PASSWORD), now)


def test_a_lost_wallet_is_unlinked_and_its_finder_signed_out(server, wallet):
    lost = SigningWallet.new()
    with signed_in(server, wallet) as client, signed_in(server, wallet) as elsewhere:
        wallet.link(client, lost)
        with signed_in(server, lost) as finder:
            assert finder.get("/me/wallets").status_code == 200
            gone = wallet.unlink(client, lost)
            assert (gone.status_code, gone.json()["sessions_ended"]) == (200, 3)  # the one of registering, too
            assert finder.get("/me/wallets").status_code == 401
        assert elsewhere.get("/me/wallets").status_code == 401
        assert addresses(client) == [wallet.address]
    assert code_of(lost.sign_in(server.anonymous)) == (404, "wallet_not_registered")
    ((_, subject, detail),) = audited(server, "member.unlink")
    assert subject.startswith("member:")
    assert detail == {"kind": "solana", "value": lost.address}
    assert lost.register(server.anonymous, "Somebody").status_code == 201


def test_the_last_way_in_stays(server, wallet):
    with signed_in(server, wallet) as client:
        assert code_of(wallet.unlink(client, wallet)) == (409, "last_way_in")
        assert addresses(client) == [wallet.address]
        give_password(server, wallet)
        assert wallet.unlink(client, wallet).status_code == 200
        assert addresses(client) == []
        back = SigningWallet.new()
        proof = {"kind": "password", "password": PASSWORD}
        linked = client.post("/me/wallets", json={"new": back.link_answer(client), "existing": proof})
        assert linked.status_code == 201
    assert back.sign_in(server.anonymous).status_code == 200


def test_nobody_unlinks_without_a_proof_or_what_is_not_his(server, wallet):
    second, other = SigningWallet.new(), SigningWallet.new()
    other.register(server.anonymous, "Bo")
    with signed_in(server, wallet) as client:
        wallet.link(client, second)
        assert code_of(wallet.unlink(client, other)) == (404, "wallet_not_linked")
        proof = wallet.proof(client, {"kind": "unlink_wallet", **wallet.named})
        crossed = client.post("/me/wallets/unlink", json={**second.named, "existing": proof})
        assert code_of(crossed) == (409, "challenge_unusable")
        wrong = {"kind": "password", "password": PASSWORD}
        assert code_of(client.post("/me/wallets/unlink", json={**second.named, "existing": wrong})) == (
            401,
            "proof_refused",
        )
        assert client.post("/me/wallets/unlink", json=second.named).status_code == 422
        assert addresses(client) == [wallet.address, second.address]
    assert other.sign_in(server.anonymous).status_code == 200


def test_wallets_are_changed_in_a_session_and_never_with_an_api_key(server, wallet):
    for client, expected in ((server.anonymous, 401), (server.client, 403)):
        for path in ("/me/wallets", "/me/wallets/challenge", "/me/wallets/unlink", "/me/proofs/challenge"):
            assert client.post(path, json=wallet.named).status_code == expected
        assert client.get("/me/wallets").status_code == expected


def test_no_secret_and_no_key_of_a_wallet_is_in_the_log(server, wallet, log_lines):
    answer = wallet.answer(wallet.challenge(server.anonymous, "sign_in"))
    server.anonymous.post("/auth/wallet/sign-in", json=answer)
    written = str(log_lines())
    for secret in (answer["nonce"], answer["signature"], answer["signed_message"], wallet.address):
        assert secret not in written
