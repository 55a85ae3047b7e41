"""The connection to the broker: MQTT 5 over TLS. It moves bytes; what to send and what to believe is decided
elsewhere.

The session is durable (clean_start=False), so commands sent while we are away arrive later. A broker's
acknowledgement only paces us: a seal is done with when the hub's receipt covers it.
"""

import asyncio
import json
import logging
import ssl
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiomqtt
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.errors import IdentityError
from edge.outbox import WINDOW, Outbox
from edge.settings import Settings
from protocol.topics import topic

KEEPALIVE_S = 30
SESSION_EXPIRY_S = 7 * 86_400
ANSWER_TIMEOUT_S = 20.0
"""A broker that does not acknowledge within this is as good as gone."""
FAREWELL_TIMEOUT_S = 2.0
RECEIPT_GRACE_S = 2.0
"""How long a new connection waits for the retained receipt before it sends: an old journal must not fork the chain."""
BACK_OFF_FIRST_S = 1.0
BACK_OFF_MAX_S = 60.0
BACK_OFF_DOUBLINGS_MAX = 16
STATUS_INTERVAL_S = 60.0
PASSWORD_FILE_MODE = 0o600
RECEIVED_BYTES_MAX = 16_384
RECEIVED_QUEUE_MAX = 256

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hooks:
    """What the connection asks of the agent. None of these raises because of what arrived."""

    find_message: Callable[[int], bytes | None]
    receive_receipt: Callable[[bytes], None]
    receive_command: Callable[[bytes], None]
    status: Callable[[], Mapping[str, object]]
    count: Callable[[str], None]


def back_off_s(failures: int, random: float) -> float:
    """The pause after so many failures in a row: full jitter below a ceiling that doubles. `random` in [0, 1)."""
    return min(BACK_OFF_MAX_S, BACK_OFF_FIRST_S * 2.0 ** min(failures, BACK_OFF_DOUBLINGS_MAX)) * random


def read_password(path: Path) -> str:
    """The broker password of this meter. Raises IdentityError, also if others may read it."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & ~PASSWORD_FILE_MODE:
            raise IdentityError("password_exposed", f"{path} has mode {mode:04o}; it must be {PASSWORD_FILE_MODE:04o}")
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise IdentityError("password_unreadable", f"{path}: {error}") from None


def tls_context(ca_file: Path) -> ssl.SSLContext:
    """Trust the given authority and nobody else. Raises IdentityError."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise IdentityError("ca_unreadable", f"{ca_file}: {error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class _Client(aiomqtt.Client):
    """aiomqtt tells that a publish was answered but not how; this also hears a refusal."""

    on_refused: Callable[[str], None]

    def _on_publish(
        self, client: PahoClient, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        if reason_code.is_failure:
            self.on_refused(str(reason_code))
        super()._on_publish(client, userdata, mid, reason_code, properties)


class Transport:
    """Keeps a connection for as long as it runs."""

    def __init__(
        self,
        settings: Settings,
        outbox: Outbox,
        hooks: Hooks,
        random: Callable[[], float],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._password = read_password(settings.mqtt.password_file)
        self._tls = tls_context(settings.mqtt.ca_file)
        self._outbox = outbox
        self._hooks = hooks
        self._random = random
        self._monotonic_s = monotonic_s
        self._failures = 0
        self._woken = asyncio.Event()
        self._receipt_heard = asyncio.Event()
        self._status_changed = asyncio.Event()
        self.last_problem = "never connected"

    def wake(self) -> None:
        """Something may be due."""
        self._woken.set()

    def status_changed(self) -> None:
        """Publish the status soon."""
        self._status_changed.set()

    async def run(self) -> None:
        """Connect, exchange, reconnect; until cancelled."""
        while True:
            try:
                await self._session()
            except* (aiomqtt.MqttError, OSError) as group:
                self._failed(group.exceptions[0])
            pause_s = back_off_s(self._failures, self._random())
            self._failures += 1
            await asyncio.sleep(pause_s)

    def _failed(self, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        self.last_problem = str(error)
        self._hooks.count("broker_lost")
        log.warning("broker_lost", extra={"why": self.last_problem, "failures": self._failures})

    def _topic(self, channel: str) -> str:
        return topic(self._settings.community_id, self._settings.meter_id, channel)

    def _client(self) -> _Client:
        settings = self._settings
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.MaximumPacketSize = 2 * RECEIVED_BYTES_MAX
        client = _Client(
            settings.mqtt.host,
            settings.mqtt.port,
            identifier=settings.meter_id,
            username=settings.meter_id,
            password=self._password,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=properties,
            keepalive=KEEPALIVE_S,
            timeout=ANSWER_TIMEOUT_S,
            tls_context=self._tls,
            max_inflight_messages=WINDOW + 1,  # the status beside the seals
            max_queued_incoming_messages=RECEIVED_QUEUE_MAX,
            will=aiomqtt.Will(self._topic("status"), b'{"state":"offline"}', qos=1, retain=True),
        )
        client.pending_calls_threshold = WINDOW + 1
        client.on_refused = self._refused
        return client

    def _refused(self, reason: str) -> None:
        self._hooks.count("publish_refused")
        log.warning("publish_refused", extra={"why": reason})

    async def _session(self) -> None:
        self._receipt_heard.clear()
        async with self._client() as client:
            await client.subscribe([(self._topic("committed"), 1), (self._topic("commands"), 1)])
            self._failures = 0
            self.last_problem = ""
            self._outbox.connected()
            log.info("broker_connected", extra={"backlog_seals": len(self._outbox)})
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._receive(client))
                    tasks.create_task(self._report(client))
                    tasks.create_task(self._send(client, tasks))
            except asyncio.CancelledError:
                with suppress(aiomqtt.MqttError):
                    await self._publish_status(client, {"state": "offline"}, FAREWELL_TIMEOUT_S)
                raise

    async def _receive(self, client: _Client) -> None:
        handlers = {
            self._topic("committed"): self._hooks.receive_receipt,
            self._topic("commands"): self._hooks.receive_command,
        }
        async for message in client.messages:
            handle = handlers.get(message.topic.value)
            payload = message.payload
            if handle is None or not isinstance(payload, bytes) or len(payload) > RECEIVED_BYTES_MAX:
                self._hooks.count("message_unexpected")
                continue
            handle(payload)
            if message.retain and message.topic.value == self._topic("committed"):
                self._receipt_heard.set()

    async def _report(self, client: _Client) -> None:
        while True:
            self._status_changed.clear()
            await self._publish_status(client, self._hooks.status(), ANSWER_TIMEOUT_S)
            await asyncio.sleep(1)  # however often the status changes
            with suppress(TimeoutError):
                async with asyncio.timeout(STATUS_INTERVAL_S - 1):
                    await self._status_changed.wait()

    async def _publish_status(self, client: _Client, status: Mapping[str, object], timeout_s: float) -> None:
        payload = json.dumps(status, separators=(",", ":")).encode()
        await client.publish(self._topic("status"), payload, qos=1, retain=True, timeout=timeout_s)

    async def _send(self, client: _Client, tasks: asyncio.TaskGroup) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(RECEIPT_GRACE_S):
                await self._receipt_heard.wait()
        while True:
            self._woken.clear()
            now_s = self._monotonic_s()
            for sequence in self._outbox.take(now_s):
                tasks.create_task(self._publish_seal(client, sequence))
            due_s = self._outbox.next_due_s()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if due_s is None else due_s - now_s):
                    await self._woken.wait()

    async def _publish_seal(self, client: _Client, sequence: int) -> None:
        message = self._hooks.find_message(sequence)
        if message is not None:
            await client.publish(self._topic("seals"), message, qos=1)
        self._outbox.finished(sequence, self._monotonic_s())
        self.wake()
