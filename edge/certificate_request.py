"""A client certificate in place of the broker password: its key is made here and never leaves, a request for it does.

The certificate's common name is the meter id, which the broker takes for the user name. This key is the connection's
alone: seals are signed by the meter's own.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from edge.errors import CertificateError
from edge.secret_file import SECRET_FILE_MODE, create_secret_file, exposed_mode, replace_secret_file

RENEW_BEFORE = timedelta(days=30)
EXPIRES_SOON = "certificate_expires_soon"
EXPIRED = "certificate_expired"


def make_request(meter_id: str, key_file: Path) -> str:
    """The certificate request in PEM, signed by the key in `key_file`, which is made if it is not there.

    Raises CertificateError.
    """
    if not key_file.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")
        try:
            create_secret_file(key_file, pem)
        except OSError as error:
            raise CertificateError("certificate_key_unwritable", f"{key_file}: {error.strerror}") from None
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, meter_id)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(_load_key(key_file), hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode("ascii")


def install_certificate(pem: bytes, meter_id: str, certificate_file: Path, key_file: Path, now: datetime) -> datetime:
    """Put a signed certificate where the agent reads it, if it is this meter's and for this key. Returns its end.

    Raises CertificateError.
    """
    certificate = _parse(pem, "the certificate")
    names = [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [meter_id]:
        raise CertificateError("certificate_differs", f"it is made out to {names}, not to {meter_id}")
    public = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public != _load_key(key_file).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        raise CertificateError("certificate_differs", f"it is not for the key in {key_file}")
    if certificate.not_valid_after_utc <= now:
        raise CertificateError(EXPIRED, f"on {certificate.not_valid_after_utc:%Y-%m-%d}")
    try:
        replace_secret_file(certificate_file, certificate.public_bytes(Encoding.PEM).decode("ascii"))
    except OSError as error:
        raise CertificateError("certificate_unwritable", f"{certificate_file}: {error.strerror}") from None
    return certificate.not_valid_after_utc


def certificate_problem(certificate_file: Path, now_unix_s: int) -> str:
    """What the status is to say of a client certificate: its end is near, it is past, or nothing (empty).

    Raises CertificateError if there is none.
    """
    try:
        pem = certificate_file.read_bytes()
    except OSError as error:
        raise CertificateError("certificate_unreadable", f"{certificate_file}: {error.strerror}") from None
    return expiry_problem(_parse(pem, str(certificate_file)).not_valid_after_utc, now_unix_s)


def expiry_problem(not_valid_after: datetime, now_unix_s: int) -> str:
    """`certificate_expires_soon` in the last 30 days, `certificate_expired` afterwards, otherwise empty. Pure."""
    left = not_valid_after - datetime.fromtimestamp(now_unix_s, UTC)
    if left <= timedelta(0):
        return EXPIRED
    return EXPIRES_SOON if left <= RENEW_BEFORE else ""


def _parse(pem: bytes, what: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise CertificateError("certificate_unreadable", f"{what}: {error}") from None


def _load_key(key_file: Path) -> ec.EllipticCurvePrivateKey:
    try:
        mode = exposed_mode(key_file)
        if mode is not None:
            why = f"{key_file} has mode {mode:04o}; it must be {SECRET_FILE_MODE:04o}"
            raise CertificateError("certificate_key_exposed", why)
        key = load_pem_private_key(key_file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise CertificateError("certificate_key_unreadable", f"{key_file}: {type(error).__name__}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError("certificate_key_unreadable", f"{key_file}: not a key on an elliptic curve")
    return key
