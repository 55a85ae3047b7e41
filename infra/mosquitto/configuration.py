"""mosquitto.conf with its blanks filled in, and the limits it states."""

from dataclasses import dataclass
from pathlib import Path
from string import Template

from protocol.limits import MESSAGE_BYTES_MAX

PACKET_OVERHEAD_BYTES_MAX = 1_024
CONNECTIONS_MAX = 20_000
INFLIGHT_MESSAGES_MAX = 2_000
QUEUED_MESSAGES_MAX = 100_000
QUEUED_BYTES_MAX = 256 * 1024 * 1024


@dataclass(frozen=True)
class CertificateListener:
    """A second port, for meters that show a certificate instead of a password; `authority` is a ClientAuthority's."""

    port: int
    authority: Path


def render(
    *,
    user: str,
    address: str,
    port: int,
    certificates: Path,
    plugin: Path,
    state: Path,
    certificate_listener: CertificateListener | None = None,
) -> str:
    """The configuration of one broker. `state` must be writable by `user`; `certificates` readable."""
    second = ""
    if certificate_listener is not None:
        second = _template("certificate-listener.conf").substitute(
            address=address,
            port=certificate_listener.port,
            certificates=certificates,
            authority=certificate_listener.authority,
        )
    return _template("mosquitto.conf").substitute(
        certificate_listener=second,
        user=user,
        address=address,
        port=port,
        certificates=certificates,
        plugin=plugin,
        state=state,
        message_bytes_max=MESSAGE_BYTES_MAX,
        packet_bytes_max=MESSAGE_BYTES_MAX + PACKET_OVERHEAD_BYTES_MAX,
        connections_max=CONNECTIONS_MAX,
        inflight_messages_max=INFLIGHT_MESSAGES_MAX,
        queued_messages_max=QUEUED_MESSAGES_MAX,
        queued_bytes_max=QUEUED_BYTES_MAX,
    )


def _template(name: str) -> Template:
    return Template(Path(__file__).with_name(name).read_text())
