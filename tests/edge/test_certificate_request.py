"""A client certificate, from the device's side. What a broker makes of it: tests/infra/test_certificate_listener.py."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from edge.certificate_request import (
    EXPIRED,
    EXPIRES_SOON,
    certificate_problem,
    expiry_problem,
    install_certificate,
    make_request,
)
from edge.certificate_watch import LOOK_AGAIN_AFTER_S, UNREADABLE, CertificateWatch
from edge.errors import CertificateError
from edge.settings import load_settings
from edge.status import Standing
from infra.mosquitto.client_authority import ClientAuthority

NOW = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path: Path) -> ClientAuthority:
    return ClientAuthority(tmp_path / "authority", "sunny-street", NOW)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "mqtt.crt", tmp_path / "mqtt.key"


def test_the_key_is_made_once_and_stays_here(files: tuple[Path, Path]) -> None:
    _, key_file = files
    first, second = make_request("home-17", key_file), make_request("home-17", key_file)
    assert key_file.stat().st_mode & 0o777 == 0o600
    requests = [x509.load_pem_x509_csr(pem.encode()) for pem in (first, second)]
    assert requests[0].public_key() == requests[1].public_key()
    assert requests[0].subject.rfc4514_string() == "CN=home-17"
    assert "PRIVATE" not in first


def test_a_signed_certificate_is_put_where_the_agent_reads_it(
    authority: ClientAuthority, files: tuple[Path, Path]
) -> None:
    file, key_file = files
    pem = authority.sign(make_request("home-17", key_file).encode(), "home-17", NOW, timedelta(days=90))
    end = install_certificate(pem, "home-17", file, key_file, NOW)
    assert end == NOW + timedelta(days=90)
    for day, problem in ((0, ""), (59, ""), (60, EXPIRES_SOON), (89, EXPIRES_SOON), (90, EXPIRED)):
        assert certificate_problem(file, int((NOW + timedelta(days=day)).timestamp())) == problem


def test_a_certificate_of_another_name_or_key_or_of_yesterday_is_not_installed(
    authority: ClientAuthority, files: tuple[Path, Path], tmp_path: Path
) -> None:
    file, key_file = files
    mine = authority.sign(make_request("home-17", key_file).encode(), "home-17", NOW, timedelta(days=1))
    others = authority.sign(make_request("home-18", key_file).encode(), "home-18", NOW)
    stranger = authority.sign(make_request("home-17", tmp_path / "other.key").encode(), "home-17", NOW)
    for pem, now, code in (
        (others, NOW, "certificate_differs"),
        (stranger, NOW, "certificate_differs"),
        (mine, NOW + timedelta(days=2), EXPIRED),
        (b"none", NOW, "certificate_unreadable"),
    ):
        with pytest.raises(CertificateError, match=code):
            install_certificate(pem, "home-17", file, key_file, now)
    assert not file.exists()


def test_a_key_that_others_may_read_or_that_is_none_is_not_used(files: tuple[Path, Path]) -> None:
    _, key_file = files
    make_request("home-17", key_file)
    key_file.chmod(0o640)
    with pytest.raises(CertificateError, match="certificate_key_exposed"):
        make_request("home-17", key_file)
    key_file.chmod(0o600)
    key_file.write_text("no key")
    with pytest.raises(CertificateError, match="certificate_key_unreadable"):
        make_request("home-17", key_file)
    with pytest.raises(CertificateError, match="certificate_unreadable"):
        certificate_problem(files[0], 1_800_000_000)
    with pytest.raises(CertificateError, match="certificate_key_unwritable"):
        make_request("home-17", key_file.parent / "nowhere" / "mqtt.key")


def test_the_end_of_a_certificate_is_announced_thirty_days_ahead() -> None:
    end = datetime(2027, 1, 1, tzinfo=UTC)
    assert expiry_problem(end, int(end.timestamp()) - 30 * 86_400 - 1) == ""
    assert expiry_problem(end, int(end.timestamp()) - 30 * 86_400) == EXPIRES_SOON
    assert expiry_problem(end, int(end.timestamp())) == EXPIRED


def test_the_agent_says_hourly_what_is_to_be_said_of_its_certificate(
    authority: ClientAuthority, files: tuple[Path, Path], tmp_path: Path, config_text: Callable[..., str]
) -> None:
    file, key_file = files
    names = f'certificate_file = "{file.name}"\ncertificate_key_file = "{key_file.name}"'
    (tmp_path / "edge.toml").write_text(config_text(1).replace('password_file = "mqtt.password"', names))
    standing = Standing()
    watch = CertificateWatch(load_settings(tmp_path / "edge.toml"), standing)
    day_s, now = 86_400, int(NOW.timestamp())
    watch.look(now)
    assert standing.problems == {UNREADABLE}
    file.write_bytes(authority.sign(make_request("home-17", key_file).encode(), "home-17", NOW, timedelta(days=90)))
    watch.look(now + LOOK_AGAIN_AFTER_S - 1)
    assert standing.problems == {UNREADABLE}, "not every minute"
    for days, problems in ((1, set()), (61, {EXPIRES_SOON}), (91, {EXPIRED}), (2, set())):
        watch.look(now + days * day_s)
        assert standing.problems == problems
    (tmp_path / "edge.toml").write_text(config_text(1))
    nothing = Standing()
    CertificateWatch(load_settings(tmp_path / "edge.toml"), nothing).look(now)
    assert nothing.problems == set()
