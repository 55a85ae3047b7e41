from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge.certificate_request import make_request
from infra.mosquitto.certificate import common_name
from infra.mosquitto.client_authority import AUTHORITY_VALIDITY, AuthorityError, ClientAuthority

NOW = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path: Path) -> ClientAuthority:
    return ClientAuthority(tmp_path / "authority", "test-community", NOW)


def request(directory: Path, meter_id: str) -> bytes:
    return make_request(meter_id, directory / f"{meter_id}.key").encode()


def test_a_meter_gets_a_certificate_for_its_name_and_its_connections_alone(
    authority: ClientAuthority, tmp_path: Path
) -> None:
    certificate = x509.load_pem_x509_certificate(authority.sign(request(tmp_path, "home-17"), "home-17", NOW))
    ca = x509.load_pem_x509_certificate(authority.ca_file.read_bytes())
    certificate.verify_directly_issued_by(ca)
    assert certificate.subject == common_name("home-17")
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_nobody_is_certified_under_a_name_that_is_not_the_meters(authority: ClientAuthority, tmp_path: Path) -> None:
    for pem, meter_id, why in (
        (request(tmp_path, "home-17"), "home-18", "made out to home-17"),
        (request(tmp_path, "hub-3"), "hub-3", "hub's own"),
        (request(tmp_path, "HOME"), "HOME", "only a-z"),
        (b"no request", "home-17", "no certificate request"),
    ):
        with pytest.raises(AuthorityError, match=why):
            authority.sign(pem, meter_id, NOW)


def test_a_forged_request_and_one_with_another_kind_of_key_are_refused(
    authority: ClientAuthority, tmp_path: Path
) -> None:
    der = bytearray(x509.load_pem_x509_csr(request(tmp_path, "home-17")).public_bytes(Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    key = rsa.generate_private_key(65_537, 2_048)
    other = x509.CertificateSigningRequestBuilder().subject_name(common_name("home-17")).sign(key, hashes.SHA256())
    for pem in (forged, other.public_bytes(Encoding.PEM)):
        with pytest.raises(AuthorityError, match="elliptic curve"):
            authority.sign(pem, "home-17", NOW)


def test_no_certificate_outlives_its_authority(authority: ClientAuthority, tmp_path: Path) -> None:
    late = NOW + AUTHORITY_VALIDITY - timedelta(days=10)
    certificate = x509.load_pem_x509_certificate(authority.sign(request(tmp_path, "home-17"), "home-17", late))
    assert certificate.not_valid_after_utc == NOW + AUTHORITY_VALIDITY


def test_revoking_takes_every_certificate_of_one_meter_and_none_of_another_and_survives(
    authority: ClientAuthority, tmp_path: Path
) -> None:
    pems = [authority.sign(request(tmp_path, name), name, NOW) for name in ("home-17", "home-17", "home-18")]
    serials = [x509.load_pem_x509_certificate(pem).serial_number for pem in pems]
    assert authority.revoke("home-17", NOW) == 2
    again = ClientAuthority(authority.directory, "test-community", NOW + timedelta(days=1))
    assert again.revoke("home-17", NOW + timedelta(days=1)) == 0
    listed = x509.load_pem_x509_crl(again.revoked_file.read_bytes())
    assert {entry.serial_number for entry in listed} == set(serials[:2])
    assert listed.next_update_utc == NOW + AUTHORITY_VALIDITY, "a list that runs out would refuse everybody"


def test_a_directory_without_its_key_is_no_authority(authority: ClientAuthority) -> None:
    (authority.directory / "ca.key").write_text("no key")
    with pytest.raises(AuthorityError, match="holds no authority"):
        ClientAuthority(authority.directory, "test-community", NOW)
