"""A certificate authority of this machine's own, and a server certificate for the loopback address.

For local runs and tests only. A real broker gets its certificate from an authority that its meters know.
"""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from infra.local.processes import write_secret
from infra.mosquitto.certificate import as_authority, as_end_entity, common_name, unsigned_certificate

VALIDITY = datetime.timedelta(days=365)
RENEW_BEFORE = datetime.timedelta(days=30)

CA_FILE, SERVER_FILE, KEY_FILE = "ca.crt", "server.crt", "server.key"


def ensure_certificates(directory: Path, now: datetime.datetime) -> None:
    """Make ca.crt, server.crt and server.key (0600) in `directory` unless those there are good for another
    month.

    The authority's key is not kept: nobody can ever issue another certificate under it.
    """
    files = [directory / name for name in (CA_FILE, SERVER_FILE, KEY_FILE)]
    if all(file.exists() for file in files):
        present = x509.load_pem_x509_certificate(files[1].read_bytes())
        if present.not_valid_after_utc - RENEW_BEFORE > now:
            return
    directory.mkdir(parents=True, exist_ok=True)
    for file in files:
        file.unlink(missing_ok=True)

    ca_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name, server_name = common_name("Commonwatt local authority"), common_name("localhost")
    ca = as_authority(unsigned_certificate(ca_name, ca_name, ca_key.public_key(), now, VALIDITY)).sign(
        ca_key, hashes.SHA256()
    )
    addresses = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    unsigned = unsigned_certificate(server_name, ca_name, server_key.public_key(), now, VALIDITY)
    server = (
        as_end_entity(unsigned, ExtendedKeyUsageOID.SERVER_AUTH, ca_key.public_key())
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    key_pem = server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_secret(directory / KEY_FILE, key_pem.decode())
    (directory / CA_FILE).write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (directory / SERVER_FILE).write_bytes(server.public_bytes(serialization.Encoding.PEM))
