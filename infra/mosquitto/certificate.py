"""What every certificate of ours has in common, whoever signs it: for the local broker, and for meters."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CLOCK_TOLERANCE = datetime.timedelta(hours=1)


def common_name(name: str) -> x509.Name:
    """A subject or issuer of one common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def unsigned_certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    validity: datetime.timedelta,
) -> x509.CertificateBuilder:
    """A certificate valid from a little before `now`, with a random serial number; extensions are the caller's."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_TOLERANCE)
        .not_valid_after(now + validity)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def as_authority(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    """It may sign certificates of others, but no authorities."""
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).add_extension(
        _key_usage(signs_certificates=True), critical=True
    )


def as_end_entity(
    builder: x509.CertificateBuilder, purpose: x509.ObjectIdentifier, issuer: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    """It signs nothing but its own connections, for the one purpose."""
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
