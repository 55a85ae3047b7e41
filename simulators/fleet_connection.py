"""One MQTT 5 connection of the fleet: its account, its queue, and what is on the way. For fleet.py alone."""

import ssl
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from protocol.topics import topic
from simulators.sealing import SealedMessage

KEEPALIVE_S = 60
CONNECT_TIMEOUT_S = 10.0
RECONNECT_PAUSE_S = 0.5
REASON_FAILURE_FROM = 0x80
RECEIVE_MAXIMUM_DEFAULT = 65_535
"""MQTT 5: what a broker that names no Receive Maximum accepts."""


@dataclass(frozen=True)
class Account:
    """A user of the broker; `client_id` is what it connects as."""

    username: str
    password: str
    client_id: str


@dataclass(frozen=True)
class Target:
    """Where and how to publish. `rate_per_s` 0 is flat out; `window` is the most unacknowledged messages
    each."""

    host: str
    port: int
    ca_file: Path | None
    community_id: str
    window: int = 100
    rate_per_s: float = 0.0
    timeout_s: float = 300.0
    leave_after: int | None = None
    kill_after: int | None = None


@dataclass
class Report:
    """What the broker said. `refused` counts acknowledgements that were refusals, by reason."""

    seals_sent: int = 0
    readings_sent: int = 0
    seals_acknowledged: int = 0
    reconnects: int = 0
    elapsed_s: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)
    finished: bool = False


class FleetError(RuntimeError):
    """The broker refused an account or could not be reached in time."""


class Connection:
    """One MQTT connection with its queue. Everything happens in the caller's thread."""

    def __init__(self, account: Account, messages: Iterable[SealedMessage], target: Target, report: Report) -> None:
        self.account = account
        self.waiting = deque(messages)
        self._target = target
        self._report = report
        self._client: Client | None = None
        self._connected = False
        self._window = target.window
        self._in_flight: dict[int, SealedMessage] = {}
        self._open_again_at = 0.0

    @property
    def done(self) -> bool:
        """Whether everything is acknowledged."""
        return not self.waiting and not self._in_flight

    @property
    def ready(self) -> bool:
        """Whether the next message may be published now."""
        return self._connected and bool(self.waiting) and len(self._in_flight) < self._window

    def open(self) -> None:
        """Connect and log in. Raises FleetError if the broker refuses the account, OSError if it is away."""
        client = Client(
            CallbackAPIVersion.VERSION2, client_id=self.account.client_id, protocol=MQTTProtocolVersion.MQTTv5
        )
        client.username_pw_set(self.account.username, self.account.password)
        if self._target.ca_file is not None:
            client.tls_set_context(_tls(self._target.ca_file))
        client.max_inflight_messages_set(0)  # paho's own queue would hide what is in flight
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.connect(self._target.host, self._target.port, KEEPALIVE_S, clean_start=True)
        self._client = client

    def publish_one(self) -> SealedMessage:
        """Hand the next message to the socket."""
        message = self.waiting.popleft()
        info = cast(Client, self._client).publish(
            topic(self._target.community_id, message.meter_id, "seals"), message.message, qos=1
        )
        self._track(info, message)
        return message

    def socket(self) -> Any:
        """The open socket, or None."""
        return None if self._client is None else self._client.socket()

    def serve(self, readable: bool, periodic: bool) -> None:
        """Read and write what is possible; connect again if the connection is gone."""
        client = self._client
        if client is None:
            self._open_again()
            return
        if readable or periodic:  # TLS may hold bytes of which the selector knows nothing
            client.loop_read()
        if client.want_write():
            client.loop_write()
        if periodic:
            client.loop_misc()
        if client.socket() is None:
            self._lost()

    def close(self) -> None:
        """Leave in an orderly way."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_write()
            self._client = None

    def _open_again(self) -> None:
        if time.monotonic() < self._open_again_at:
            return
        try:
            self.open()
        except OSError:
            self._open_again_at = time.monotonic() + RECONNECT_PAUSE_S

    def _lost(self) -> None:
        self._report.reconnects += 1
        self.waiting.extendleft(reversed(self._in_flight.values()))
        self._in_flight.clear()
        self._connected = False
        self._client = None
        self._open_again_at = time.monotonic() + RECONNECT_PAUSE_S

    def _track(self, info: MQTTMessageInfo, message: SealedMessage) -> None:
        self._in_flight[info.mid] = message
        self._report.seals_sent += 1
        self._report.readings_sent += message.readings

    def _on_connect(
        self,
        client: Client,
        userdata: Any,
        flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            raise FleetError(f"{self.account.username}: the broker answers {reason}")
        allowed = getattr(properties, "ReceiveMaximum", RECEIVE_MAXIMUM_DEFAULT)
        self._window = min(self._target.window, allowed)
        self._connected = True

    def _on_disconnect(
        self,
        client: Client,
        userdata: Any,
        flags: DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._connected = False

    def _on_publish(self, client: Client, userdata: Any, mid: int, reason: ReasonCode, properties: Properties) -> None:
        if self._in_flight.pop(mid, None) is None:
            return
        if reason.value >= REASON_FAILURE_FROM:
            self._report.refused[str(reason)] += 1
        else:
            self._report.seals_acknowledged += 1


def _tls(ca_file: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca_file))
