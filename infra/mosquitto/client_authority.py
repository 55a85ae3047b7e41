"""The authority whose certificates open the broker to meters instead of passwords: one per community, kept in a
directory.

    ca.crt         for the broker
    ca.key         0600; whoever has it can be any meter on the broker (its seals still need the meter's own key)
    revoked.crl    for the broker, which reads it at start and at SIGHUP
    issued/        every certificate ever signed, by its serial number

The common name is the meter id: the broker takes it for user name and client id, and applies the same access list.
Time is an argument.
"""

import datetime
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra.local.processes import write_secret
from infra.mosquitto.certificate import as_authority, as_end_entity, common_name, unsigned_certificate
from protocol.errors import ProtocolError
from protocol.topics import check_meter_id

AUTHORITY_VALIDITY = datetime.timedelta(days=3_652)
CERTIFICATE_VALIDITY = datetime.timedelta(days=365)
CA_FILE, KEY_FILE, REVOKED_FILE, ISSUED = "ca.crt", "ca.key", "revoked.crl", "issued"


class AuthorityError(Exception):
    """A request that is not signed. The message is a sentence for an operator."""


class ClientAuthority:
    """An authority in its directory, made at first use. Raises AuthorityError if what is there cannot be read."""

    def __init__(self, directory: Path, community_id: str, now: datetime.datetime) -> None:
        self.directory = directory
        self.ca_file = directory / CA_FILE
        self.revoked_file = directory / REVOKED_FILE
        self._issued = directory / ISSUED
        if not self.ca_file.exists():
            self._create(community_id, now)
        try:
            key = load_pem_private_key((directory / KEY_FILE).read_bytes(), password=None)
            self._ca = x509.load_pem_x509_certificate(self.ca_file.read_bytes())
        except (OSError, ValueError, TypeError) as error:
            raise AuthorityError(f"{directory} holds no authority: {error}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise AuthorityError(f"{directory / KEY_FILE} is not the key of an authority of ours")
        self._key = key
        if not self.revoked_file.exists():
            self._write_revoked([], now)

    def sign(
        self,
        request_pem: bytes,
        meter_id: str,
        now: datetime.datetime,
        validity: datetime.timedelta = CERTIFICATE_VALIDITY,
    ) -> bytes:
        """The certificate, in PEM, for a meter's own request. Raises AuthorityError saying what is wrong with it."""
        try:
            check_meter_id(meter_id)  # the names of the hub's own accounts are none
            request = x509.load_pem_x509_csr(request_pem)
        except ProtocolError as error:
            raise AuthorityError(f"{meter_id}: {error}") from None
        except ValueError as error:
            raise AuthorityError(f"this is no certificate request: {error}") from None
        key = request.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not request.is_signature_valid:
            raise AuthorityError("the request is not signed by a key on an elliptic curve that it names")
        names = [str(name.value) for name in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        if names != [meter_id]:
            raise AuthorityError(f"the request is made out to {', '.join(names) or 'nobody'}, not to {meter_id}")
        validity = min(validity, self._ca.not_valid_after_utc - now)
        unsigned = unsigned_certificate(common_name(meter_id), self._ca.subject, key, now, validity)
        certificate = as_end_entity(unsigned, ExtendedKeyUsageOID.CLIENT_AUTH, self._key.public_key()).sign(
            self._key, hashes.SHA256()
        )
        pem = certificate.public_bytes(Encoding.PEM)
        (self._issued / f"{certificate.serial_number:x}.crt").write_bytes(pem)
        return pem

    def revoke(self, meter_id: str, now: datetime.datetime) -> int:
        """Revoke every certificate that the meter has; returns how many are newly revoked.

        The broker knows it after SIGHUP, and then still lets an open connection be.
        """
        revoked = list(x509.load_pem_x509_crl(self.revoked_file.read_bytes()))
        known = {entry.serial_number for entry in revoked}
        fresh = [
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            for serial in self._serials_of(meter_id)
            if serial not in known
        ]
        self._write_revoked([*revoked, *fresh], now)
        return len(fresh)

    def _serials_of(self, meter_id: str) -> list[int]:
        certificates = [x509.load_pem_x509_certificate(file.read_bytes()) for file in sorted(self._issued.iterdir())]
        return [each.serial_number for each in certificates if each.subject == common_name(meter_id)]

    def _create(self, community_id: str, now: datetime.datetime) -> None:
        self._issued.mkdir(parents=True, exist_ok=True)
        key, name = ec.generate_private_key(ec.SECP256R1()), common_name(f"Commonwatt meters of {community_id}")
        unsigned = unsigned_certificate(name, name, key.public_key(), now, AUTHORITY_VALIDITY)
        ca = as_authority(unsigned).sign(key, hashes.SHA256())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")
        (self.directory / KEY_FILE).unlink(missing_ok=True)  # without its certificate it has signed nothing
        write_secret(self.directory / KEY_FILE, pem)
        self.ca_file.write_bytes(ca.public_bytes(Encoding.PEM))

    def _write_revoked(self, revoked: Iterable[x509.RevokedCertificate], now: datetime.datetime) -> None:
        """A list that has run out refuses everybody, so this one runs as long as the authority."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._ca.subject).last_update(now)
        builder = builder.next_update(self._ca.not_valid_after_utc)
        for entry in revoked:
            builder = builder.add_revoked_certificate(entry)
        draft = self.revoked_file.with_name(REVOKED_FILE + ".new")
        draft.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        draft.replace(self.revoked_file)
