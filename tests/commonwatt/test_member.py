"""What a member does at the command line: be somebody by a wallet, stay signed in, see what is its own, be told."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from uuid import UUID

import base58
import httpx
import pytest
from nacl.signing import SigningKey, VerifyKey

from commonwatt.hub_client import CommandError
from commonwatt.member_proofs import check_message
from commonwatt.member_wallet import Wallet
from hub.auth.tokens import issue_access_token
from hub.permissions import Role
from hub.settings import Settings
from hub.token_keys import read_token_keys
from tests.commonwatt.conftest import Member, refusal_of


@pytest.fixture
def ada(newcomer):
    return newcomer("Ada")


@pytest.fixture
def nobody(tmp_path):
    """Somebody at a command line without a hub."""
    return Member("http://127.0.0.1:1", tmp_path)


def test_a_wallet_file_is_private_and_never_overwritten(nobody):
    address = nobody.do("key", "new", nobody.wallet)
    assert stat.S_IMODE(nobody.wallet.stat().st_mode) == 0o600
    assert nobody.do("key", "show", nobody.wallet) == address
    assert len(base58.b58decode(address.strip())) == 32
    before = nobody.wallet.read_text()
    assert refusal_of(nobody.run("key", "new", nobody.wallet)) == "wallet_file"
    assert nobody.wallet.read_text() == before
    nobody.wallet.chmod(0o644)
    assert refusal_of(nobody.run("key", "show", nobody.wallet)) == "wallet_file"


@pytest.mark.parametrize(
    "content", ["", "[1,2,3]", "64", '"x"', "[" * 10_000, str([0] * 64).replace(" ", ""), "[256" + ",1" * 63 + "]"]
)
def test_what_is_no_wallet_is_refused_with_one_line(nobody, content):
    nobody.wallet.touch(0o600)
    nobody.wallet.write_text(content)
    assert refusal_of(nobody.run("key", "show", nobody.wallet)) == "wallet_file"


def test_the_file_is_the_one_of_solana_keygen(tmp_path):
    wallet = Wallet.make(tmp_path / "wallet.json")
    numbers = json.loads((tmp_path / "wallet.json").read_text())
    assert bytes(SigningKey(bytes(numbers[:32])).verify_key) == bytes(numbers[32:]) == base58.b58decode(wallet.address)
    VerifyKey(wallet.public_key).verify(b"hello", wallet.sign(b"hello"))


def test_registering_shows_what_is_signed_and_signs_in(ada):
    result = ada.run("sign-in", "--wallet", ada.wallet)
    assert result.exit_code == 0, result.output
    address = Wallet.read(ada.wallet).address
    site = ada.url.removeprefix("http://")
    assert f"{site} wants you to sign in with your Solana account:\n  {address}\n" in result.stderr
    assert "Sign in to the energy community test-community." in result.stderr
    assert stat.S_IMODE(ada.session.stat().st_mode) == 0o600
    said = ada.do("me")
    assert address in said
    assert "Ada" in said
    assert "prosumer" in said


def test_a_wallet_that_nobody_registered_signs_nobody_in(ada, tmp_path):
    ada.do("key", "new", tmp_path / "other.json")
    assert refusal_of(ada.run("sign-in", "--wallet", tmp_path / "other.json")) == "wallet_not_registered"


def test_nothing_is_signed_for_a_site_that_passes_on_the_challenge_of_another(ada):
    other = ada.url.replace("127.0.0.1", "localhost")
    ada.session.unlink()
    result = ada.run("sign-in", "--wallet", ada.wallet, url=other)
    assert refusal_of(result) == "message_refused"
    assert "Signing:" not in result.stderr
    assert not ada.session.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hub.example wants you to sign in with your Solana account:",
        "evil.example wants you to sign in with your Solana account:\nME\n\nhub.example",
        "hub.example.evil.example wants you to sign in with your Solana account:\nME\n\nx",
        "hub.example wants you to sign in with your Solana account:\nSOMEBODY\n\nx",
        "hub.example wants you to sign in with your Dogecoin account:\nME\n\nx",
        "hub.example wants you to sign in with your Solana account:\nME\n\nx\x1b[2Jy",
        "hub.example wants you to sign in with your Solana account:\nME\n\nx\u202ey",
    ],
)
def test_a_text_that_is_not_for_this_hub_and_this_account_is_not_signed(text):
    with pytest.raises(CommandError, match="message_refused"):
        check_message(text, httpx.URL("https://hub.example"), "ME")


def test_who_signs_out_is_out_and_may_come_again(ada):
    tokens = ada.tokens
    assert "Signed out." in ada.do("sign-out")
    assert refusal_of(ada.run("me")) == "not_signed_in"
    answer = httpx.get(f"{ada.url}/me", headers={"Authorization": f"Bearer {tokens['access_token']}"})
    assert answer.status_code == 401
    ada.do("sign-in", "--wallet", ada.wallet)
    ada.do("me")


def _expire(member, operator):
    """Put an access token in place that was good a minute ago."""
    settings = Settings(
        database_url="postgresql://nobody/nothing", community_id="test-community", public_url=operator.url,
        mqtt_host="", mqtt_port=1, mqtt_ca_file="", mqtt_password_file="", command_key_file="", broker_secret_file="",
        member_secret_file="", token_key_file=operator.key_file.with_name("token-key"),
    )  # fmt: skip
    now, tokens = datetime.now(UTC), member.tokens
    expired = issue_access_token(
        read_token_keys(settings), UUID(tokens["member_id"]), UUID(tokens["session_id"]), frozenset({Role.PROSUMER}),
        now - timedelta(minutes=11), now - timedelta(minutes=1),
    )  # fmt: skip
    member.session.write_text(json.dumps(tokens | {"access_token": expired}, separators=(",", ":")))


def test_an_access_token_that_has_expired_is_renewed_without_a_word(ada, operator):
    _expire(ada, operator)
    before = ada.tokens
    assert "Ada" in ada.do("me")
    after = ada.tokens
    assert after["refresh_token"] != before["refresh_token"]
    assert after["session_id"] == before["session_id"]
    assert stat.S_IMODE(ada.session.stat().st_mode) == 0o600


def test_of_several_commands_at_once_one_renews_and_all_go_on(ada, operator):
    _expire(ada, operator)
    command = [sys.executable, "-m", "commonwatt", "member", *ada.words("me")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert "this one" in ada.do("sessions", "list")


def test_a_stolen_refresh_token_ends_the_session_as_soon_as_both_have_used_it(ada, operator, tmp_path):
    thief = type(ada)(ada.url, tmp_path / "thief")
    thief.directory.mkdir()
    shutil.copy(ada.session, thief.session)
    for _ in range(2):
        _expire(ada, operator)
        ada.do("me")
    _expire(thief, operator)
    assert refusal_of(thief.run("me")) == "refresh_token_invalid"
    assert refusal_of(ada.run("me")) == "unauthorized"


def test_whose_session_is_over_is_told_to_sign_in_again(ada):
    kept = ada.session.read_text()
    ada.do("sign-out")
    ada.session.touch(0o600)
    ada.session.write_text(kept)
    result = ada.run("me")
    assert refusal_of(result) == "unauthorized"
    assert "sign in again: commonwatt member sign-in" in result.stderr


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_damaged_session_file_is_in_nobodys_way_who_signs_in(ada, operator, mode):
    ada.session.write_text("{")
    ada.session.chmod(mode)
    (ada.directory / "password").touch(0o600)
    (ada.directory / "password").write_text("a quite long pass phrase")
    result = ada.run("sign-in", "--email", "ada@example.org", "--password-file", ada.directory / "password")
    assert refusal_of(result) == "email_or_password_wrong"


def test_a_session_that_cannot_be_locked_is_one_clear_line(ada, operator):
    _expire(ada, operator)
    ada.session.with_name(f"{ada.session.name}.lock").mkdir()
    assert refusal_of(ada.run("me")) == "session_file"


def test_members_see_which_of_their_sessions_are_of_this_program(ada):
    assert "commonwatt" in ada.do("sessions", "list")
    assert "httpx" not in ada.do("sessions", "list")


@pytest.mark.parametrize("words", [("profile", "--name", "A\udcff"), ("sessions", "end", "A\udcff")])
def test_an_argument_that_is_no_text_is_one_clear_line(ada, words):
    assert refusal_of(ada.run(*words)) in ("not_text", "malformed_input")


def test_a_terminal_without_our_letters_shows_the_others(ada):
    ada.do("profile", "--name", "Ada Kov\u00e1cs \u2603")
    command = [sys.executable, "-m", "commonwatt", "member", *ada.words("me")]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    shown = subprocess.run(command, check=False, capture_output=True, timeout=60, env=environment)
    assert shown.returncode == 0, shown.stderr
    assert "Ada Kov\u00e1cs ?" in shown.stdout.decode("latin-1")


def test_a_secret_that_could_not_be_written_is_had_by_repeating(ada, tmp_path):
    """A limit on the size of files stands for a full disk."""
    create = ("api-keys", "create", "script", "--scope", "meters.read", "--file", tmp_path / "key")
    words = [*ada.words()[:4], "--idempotency-key", "once", *map(str, create)]
    full = subprocess.run(
        [sys.executable, "-m", "commonwatt", "member", *words], check=False, capture_output=True, text=True, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )  # fmt: skip
    assert full.returncode == 1
    assert full.stderr.startswith("commonwatt member: key_file: ")
    assert "--idempotency-key once" in full.stderr
    assert len(full.stderr.splitlines()) == 1
    assert not (tmp_path / "key").exists()
    ada.do("--idempotency-key", "once", *create)
    assert ada.do("api-keys", "list").count("script") == 1
    headers = {"Authorization": f"Bearer {(tmp_path / 'key').read_text()}"}
    assert httpx.get(f"{ada.url}/meters", headers=headers).status_code == 200


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"url":1}'])
def test_a_session_file_that_is_none_is_one_clear_line(nobody, content):
    nobody.session.touch(0o600)
    nobody.session.write_text(content)
    assert refusal_of(nobody.run("me")) == "session_file"


def test_who_is_not_signed_in_is_told_how(nobody):
    assert refusal_of(nobody.run("me")) == "not_signed_in"
    assert refusal_of(nobody.run("sign-in", "--wallet", nobody.wallet)) == "wallet_file"
    assert refusal_of(nobody.run("sign-in")) == "no_proof"


def test_other_sessions_are_seen_and_ended(ada):
    first = ada.tokens["session_id"]
    ada.do("sign-in", "--wallet", ada.wallet)
    second = ada.tokens["session_id"]
    listed = ada.do("sessions", "list")
    assert first in listed
    assert second in listed
    assert f"Session {first} is over." in ada.do("sessions", "end", first)
    assert first not in ada.do("sessions", "list")
    ada.do("sign-in", "--wallet", ada.wallet)
    assert "Sessions ended: 1." in ada.do("sessions", "end-others")


def test_a_member_sees_its_own_meters_and_no_other(operator, simulated, newcomer, tmp_path):
    roof, barn = simulated("roof"), simulated("barn")
    ada = newcomer("Ada", roof.owner_key)
    operator.register(roof, tmp_path)
    operator.register(barn, tmp_path)
    said = ada.do("meters")
    assert "roof" in said
    assert "barn" not in said
    assert refusal_of(ada.admin("gaps", "barn"), "commonwatt admin") == "meter_not_found"
    assert refusal_of(ada.admin("meters"), "commonwatt admin") == "forbidden"
    assert ada.admin("gaps", "roof").exit_code == 0
    assert "Unread: 0." in ada.do("notifications", "read", _newest_notification(ada), "--and-older")
    assert "roof" not in ada.do("notifications", "list", "--unread")


def _newest_notification(member):
    headers = {"Authorization": f"Bearer {member.tokens['access_token']}"}
    [told] = httpx.get(f"{member.url}/me/notifications", headers=headers).json()["notifications"]
    assert told["kind"] == "meter.registered"
    assert "Meter roof is registered" in member.do("notifications", "list")
    return told["notification_id"]


def test_a_member_says_who_it_is(ada):
    said = ada.do("profile", "--phone", "+43 1 58858", "--postal-address", "Sonnenweg 1")
    assert "+43 1 58858" in said
    said = ada.do("profile", "--name", "Ada L.", "--phone", "")
    assert "Ada L." in said
    assert "+43" not in said
    assert "Sonnenweg 1" in said


def test_preferences_are_kept_but_for_what_is_about_security(ada):
    assert "meters by email: off." in ada.do("notifications", "prefer", "meters", "email", "--off")
    assert "email (always)" in ada.do("notifications", "preferences")
    result = ada.run("notifications", "prefer", "meter_keys", "email", "--off")
    assert refusal_of(result) == "preference_fixed"


def test_an_api_key_lands_in_a_private_file_and_ends_when_revoked(ada, tmp_path):
    file = tmp_path / "key"
    said = ada.do("api-keys", "create", "a script", "--scope", "meters.read", "--file", file, "--days", 1)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() not in said
    key_id = file.read_text().split("_")[1]
    assert key_id in ada.do("api-keys", "list")
    headers = {"Authorization": f"Bearer {file.read_text()}"}
    assert httpx.get(f"{ada.url}/meters", headers=headers).status_code == 200
    assert httpx.get(f"{ada.url}/me", headers=headers).status_code == 403
    assert f"API key {key_id} is revoked." in ada.do("api-keys", "revoke", key_id)
    assert httpx.get(f"{ada.url}/meters", headers=headers).status_code == 401
    assert refusal_of(ada.run("api-keys", "create", "x", "--scope", "account", "--file", tmp_path / "no")) == (
        "malformed_input"
    )
    assert not (tmp_path / "no").exists()


def test_an_endpoint_is_made_with_a_secret_of_its_own(ada, tmp_path):
    file = tmp_path / "webhook-secret"
    said = ada.do("webhooks", "create", "http://127.0.0.1:9/hook", "--secret-file", file, "--description", "my house")
    assert file.read_text().startswith("whsec_")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    endpoint_id = re.search("Endpoint ([0-9a-f-]+);", said)[1]
    assert "my house" in ada.do("webhooks", "list")
    assert "webhook.test" in ada.do("webhooks", "deliveries", endpoint_id)
    ada.do("webhooks", "rotate-secret", endpoint_id, "--secret-file", tmp_path / "next-secret")
    assert (tmp_path / "next-secret").read_text().startswith("whsec_")
    assert (tmp_path / "next-secret").read_text() != file.read_text()
    assert stat.S_IMODE((tmp_path / "next-secret").stat().st_mode) == 0o600
    assert "disabled" in ada.do("webhooks", "disable", endpoint_id)
    assert "active" in ada.do("webhooks", "enable", endpoint_id)
    inside = ("webhooks", "create", "http://10.0.0.1/hook", "--description", "x", "--secret-file", tmp_path / "none")
    assert refusal_of(ada.run(*inside)) == "webhook_url_refused"
    assert not (tmp_path / "none").exists()


def test_a_hub_without_mail_says_so_before_a_password_is_worked_on(ada, tmp_path):
    (tmp_path / "password").write_text("a quite long pass phrase\n")
    (tmp_path / "password").chmod(0o600)
    result = ada.run("email", "set", "ada@example.org", "--wallet", ada.wallet, "--new-password-file",
                     tmp_path / "password")  # fmt: skip
    assert refusal_of(result) == "mail_not_configured"
    (tmp_path / "password").chmod(0o644)
    result = ada.run("sign-in", "--email", "ada@example.org", "--password-file", tmp_path / "password")
    assert refusal_of(result) == "password_file"


def test_watching_goes_on_where_it_was_and_misses_nothing(operator, simulated, newcomer, tmp_path):
    roof = simulated("roof")
    ada = newcomer("Ada", roof.owner_key)
    operator.register(roof, tmp_path)
    first, second, third = roof.messages(3)
    operator.post(first)
    operator.post(second)
    command = [sys.executable, "-m", "commonwatt", "member", *ada.words("watch", "meters", "--json", "--after")]
    environment = os.environ | {"COLUMNS": "200"}
    seen = subprocess.run(
        [*command, "meters=0", "--count", "3"], check=False, capture_output=True, timeout=60, env=environment
    )
    assert seen.returncode == 0, seen.stderr
    updates = [frame for frame in map(json.loads, seen.stdout.splitlines()) if frame["type"] == "update"]
    assert [update["sequence"] for update in updates] == [1, 2, 3]
    with subprocess.Popen([*command, "meters=3", "--count", "1"], stdout=subprocess.PIPE, env=environment) as watching:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["type"] == "subscribed"
        operator.post(third)
        update = json.loads(watching.stdout.readline())
        assert (update["type"], update["sequence"]) == ("update", 4)
        assert watching.wait(60) == 0


def test_a_watcher_whose_session_ends_is_told_and_leaves(ada):
    command = [sys.executable, "-m", "commonwatt", "member", *ada.words("watch", "--json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        assert json.loads(watching.stdout.readline())["type"] == "subscribed"
        ada.do("sign-out")
        assert watching.wait(60) == 1
        assert b"commonwatt member: " in watching.stderr.read()


def test_a_topic_that_is_not_ones_own_is_refused(ada):
    assert refusal_of(ada.run("watch", "alerts")) == "forbidden"
    assert refusal_of(ada.run("watch", "gossip")) == "topic_not_found"
