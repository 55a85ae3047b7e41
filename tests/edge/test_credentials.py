"""A broker password, renewed by the meter's key."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import VerifyKey

from edge.credentials import credential_renewer, password_file, renew_password
from edge.errors import HubRefusedError, HubUnansweredError, IdentityError, SettingsError
from edge.identity import Identity, load_or_create_identity
from edge.settings import Settings, load_settings
from protocol.credential import split_credential_request

NOW, NONCE = 1_800_000_000, b"n" * 16
ANSWER = {"username": "home-17", "password": "the-next-one"}


@pytest.fixture
def home(tmp_path: Path, config_text: Callable[..., str], hub: Any) -> Settings:
    (tmp_path / "edge.toml").write_text(config_text(1).replace("[hub]", f'[hub]\nurl = "{hub.url}"'))
    (tmp_path / "mqtt.password").touch(mode=0o600)
    (tmp_path / "mqtt.password").write_text("the-old-one")
    return load_settings(tmp_path / "edge.toml")


@pytest.fixture
def identity(home: Settings) -> Identity:
    return load_or_create_identity(home.key_file)


def test_the_key_proves_who_asks_and_the_password_is_the_agents_alone(
    home: Settings, identity: Identity, hub: Any
) -> None:
    hub.answer = lambda _path, _body: (200, ANSWER)
    assert renew_password(home, identity, 3, NOW, NONCE)
    file = password_file(home)
    assert file is not None
    assert (file.read_text().strip(), file.stat().st_mode & 0o777) == ("the-next-one", 0o600)
    [(path, body)] = hub.asked
    request, signed, signature = split_credential_request(bytes.fromhex(body["request"]))
    VerifyKey(identity.public_key).verify(signed, signature)
    assert (path, request.meter_id, request.key_epoch) == ("/agent/credentials", "home-17", 3)
    assert (request.domain, request.at_unix_s, request.nonce) == (home.domain, NOW, NONCE)
    assert not renew_password(home, identity, 3, NOW, NONCE), "it is the one that is here"


def test_a_password_that_others_may_read_is_replaced_by_a_file_that_they_may_not(
    home: Settings, identity: Identity, hub: Any
) -> None:
    hub.answer = lambda _path, _body: (200, ANSWER)
    file = password_file(home)
    assert file is not None
    file.chmod(0o644)
    assert renew_password(home, identity, 1, NOW, NONCE)
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (422, {"code": "credential_request_invalid"}, HubRefusedError),
        (401, {"code": "unauthorized"}, HubUnansweredError),
        (0, {}, HubUnansweredError),
        (200, {"username": "somebody-else", "password": "x"}, HubUnansweredError),
        (200, {"username": "home-17", "password": ""}, HubUnansweredError),
        (200, {"username": "home-17", "password": "two\nlines"}, HubUnansweredError),
        (200, {"username": "home-17", "password": 7}, HubUnansweredError),
        (200, {"username": "home-17", "password": "x" * 1_000}, HubUnansweredError),
    ],
)
def test_anything_but_a_password_leaves_the_old_one(
    home: Settings, identity: Identity, hub: Any, status: int, answer: object, error: type[Exception]
) -> None:
    hub.answer = lambda _path, _body: (status, answer)
    with pytest.raises(error):
        renew_password(home, identity, 1, NOW, NONCE)
    file = password_file(home)
    assert file is not None
    assert file.read_text() == "the-old-one"


def test_a_transport_asks_again_and_again_without_ever_failing(home: Settings, identity: Identity, hub: Any) -> None:
    renew = credential_renewer(home, identity, 1, lambda: NOW, lambda: NONCE)
    assert renew is not None
    hub.answer = lambda _path, _body: (503, {"code": "database_away"})
    assert asyncio.run(_asked(renew)) is False
    hub.answer = lambda _path, _body: (200, ANSWER)
    assert asyncio.run(_asked(renew)) is True
    assert asyncio.run(_asked(renew)) is False, "the same password again is no reason to hurry"


async def _asked(renew: Callable[[], Any]) -> bool:
    return bool(await renew())


def test_without_a_password_or_a_hub_there_is_nothing_to_renew(
    home: Settings, identity: Identity, tmp_path: Path
) -> None:
    text = (tmp_path / "edge.toml").read_text()
    url = next(line for line in text.splitlines() if line.startswith("url = "))
    (tmp_path / "edge.toml").write_text(text.replace(url, ""))
    unreachable = load_settings(tmp_path / "edge.toml")
    assert credential_renewer(unreachable, identity, 1, lambda: NOW, lambda: NONCE) is None
    with pytest.raises(SettingsError, match=r"hub\.url"):
        renew_password(unreachable, identity, 1, NOW, NONCE)
    (tmp_path / "edge.toml").write_text(
        text.replace('password_file = "mqtt.password"', 'certificate_file = "a"\ncertificate_key_file = "b"')
    )
    certified = load_settings(tmp_path / "edge.toml")
    assert credential_renewer(certified, identity, 1, lambda: NOW, lambda: NONCE) is None
    with pytest.raises(SettingsError, match="password_file"):
        renew_password(certified, identity, 1, NOW, NONCE)


def test_a_hub_whose_authority_cannot_be_read_is_not_asked(
    home: Settings, identity: Identity, tmp_path: Path, hub: Any
) -> None:
    text = (tmp_path / "edge.toml").read_text()
    (tmp_path / "edge.toml").write_text(text.replace("[hub]", '[hub]\nca_file = "nothing.crt"'))
    with pytest.raises(IdentityError, match="ca_unreadable"):
        renew_password(load_settings(tmp_path / "edge.toml"), identity, 1, NOW, NONCE)
    assert hub.asked == []
