"""mosquitto.conf with its blanks filled in, and the limits it states."""

from pathlib import Path
from string import Template

from protocol.limits import MESSAGE_BYTES_MAX

PACKET_OVERHEAD_BYTES_MAX = 1_024
CONNECTIONS_MAX = 20_000
INFLIGHT_MESSAGES_MAX = 2_000
QUEUED_MESSAGES_MAX = 100_000
QUEUED_BYTES_MAX = 256 * 1024 * 1024


def render(*, user: str, address: str, port: int, certificates: Path, plugin: Path, state: Path) -> str:
    """The configuration of one broker. `state` must be writable by `user`; `certificates` readable."""
    template = Template(Path(__file__).with_name("mosquitto.conf").read_text())
    return template.substitute(
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
