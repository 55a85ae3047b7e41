"""The connection to the broker: MQTT 5 over TLS, or MQTT 3.1.1 where a broker or a gateway knows nothing newer. It
moves bytes; what to send and what to believe is decided elsewhere.

The session is durable (clean_start=False, in 3.1.1 clean_session=False), so commands sent while we are away arrive
later. A broker's acknowledgement only paces us: a seal is done with when the hub's receipt covers it. MQTT 3.1.1 has
no word for a refused publish, it is acknowledged like any other; the receipt that does not come has it sent again, and
the refusal is seen by nobody. Secrets are read again for every connection: they may have been renewed.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.connection import (
    BACK_OFF_MAX_S,
    RECEIVED_BYTES_MAX,
    STATUS_INTERVAL_S,
    Hooks,
    back_off_s,
    encode_status,
    failure_of,
    load_certificate,
    obey_cancellation,
    read_password,
    tls_context,
)
from edge.errors import BrokerError, EdgeError, IdentityError
from edge.mqtt_client import MqttClient
from edge.outbox import WINDOW, Outbox
from edge.settings import Settings
from edge.uplink_settings import MqttSettings
from protocol.topics import topic

KEEPALIVE_S = 30
SESSION_EXPIRY_S = 7 * 86_400
ANSWER_TIMEOUT_S = 20.0
"""A broker that does not acknowledge within this is as good as gone."""
FAREWELL_TIMEOUT_S = 2.0
RECEIPT_GRACE_S = 2.0
"""How long a new connection waits for the retained receipt before it sends: an old journal must not fork the chain."""
RECEIVED_QUEUE_MAX = 256

REFUSED_CREDENTIALS = (0x86, 0x87)
"""Bad user name or password, not authorised; paho gives the answers 4 and 5 of MQTT 3.1.1 these numbers too."""
TAKEN_OVER = 0x8E
SHORT_LIVED_S = 5.0
SHORT_LIVED_MAX = 5
"""MQTT 3.1.1 does not say why a connection ends, and Mosquitto 2.0 does not in MQTT 5 either. So many in a row that
ended this soon: another client has our name."""
UNDISPUTED_S = 2 * BACK_OFF_MAX_S
"""A connection that outlives every pause of a rival has none."""
NOT_AUTHORISED = "broker_not_authorised"
SESSION_TAKEN_OVER = "session_taken_over"

log = logging.getLogger(__name__)


class MqttTransport:
    """Keeps a connection to the broker for as long as it runs. Raises IdentityError if a secret cannot be read."""

    def __init__(
        self,
        settings: Settings,
        outbox: Outbox,
        hooks: Hooks,
        random: Callable[[], float],
        monotonic_s: Callable[[], float] = time.monotonic,
        undisputed_s: float = UNDISPUTED_S,
    ) -> None:
        assert settings.mqtt is not None, "the settings name the transport and have its table"
        self._mqtt: MqttSettings = settings.mqtt
        self._community_id = settings.community_id
        self._meter_id = settings.meter_id
        self._secrets()
        self._outbox = outbox
        self._hooks = hooks
        self._random = random
        self._monotonic_s = monotonic_s
        self._undisputed_s = undisputed_s
        self._failures = 0
        self._short_lived = 0
        self._disputed = False
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
        expected = (aiomqtt.MqttError, OSError, IdentityError, BrokerError)
        while True:
            await self._failed(await failure_of(self._session(), expected))
            pause_s = back_off_s(self._failures, self._random())
            self._failures += 1
            await asyncio.sleep(pause_s)

    # ── connecting ──────────────────────────────────────────────────────────────────────────────────────

    def _secrets(self) -> tuple[str | None, ssl.SSLContext]:
        """The password, if that is how this meter shows who it is, and whom to trust. Raises IdentityError."""
        mqtt = self._mqtt
        context = tls_context(mqtt.ca_file)
        if mqtt.certificate_file is not None and mqtt.certificate_key_file is not None:
            load_certificate(context, mqtt.certificate_file, mqtt.certificate_key_file)
            return None, context
        assert mqtt.password_file is not None, "the settings have a password or a certificate"
        return read_password(mqtt.password_file), context

    def _topic(self, channel: str) -> str:
        return topic(self._community_id, self._meter_id, channel)

    def _client(self) -> MqttClient:
        password, context = self._secrets()
        versioned: dict[str, Any] = {"protocol": aiomqtt.ProtocolVersion.V311, "clean_session": False}
        if self._mqtt.version == 5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_EXPIRY_S
            properties.MaximumPacketSize = 2 * RECEIVED_BYTES_MAX
            versioned = {"protocol": aiomqtt.ProtocolVersion.V5, "clean_start": False, "properties": properties}
        client = MqttClient(
            self._mqtt.host,
            self._mqtt.port,
            identifier=self._meter_id,
            username=None if password is None else self._meter_id,  # a certificate carries the name
            password=password,
            keepalive=KEEPALIVE_S,
            timeout=ANSWER_TIMEOUT_S,
            tls_context=context,
            max_inflight_messages=WINDOW + 1,  # the status beside the seals
            max_queued_incoming_messages=RECEIVED_QUEUE_MAX,
            will=aiomqtt.Will(self._topic("status"), b'{"state":"offline"}', qos=1, retain=True),
            **versioned,
        )
        client.pending_calls_threshold = WINDOW + 1
        client.on_refused = self._refused
        return client

    def _refused(self, reason: str) -> None:
        self._hooks.count("publish_refused")
        log.warning("publish_refused", extra={"why": reason})

    async def _failed(self, error: BaseException) -> None:
        if isinstance(error.__cause__, aiomqtt.MqttCodeError):
            error = error.__cause__  # why the connection ended, rather than what could not be done without it
        self.last_problem = str(error)
        code = error.rc.value if isinstance(error, aiomqtt.MqttCodeError) and isinstance(error.rc, ReasonCode) else 0
        what = NOT_AUTHORISED if code in REFUSED_CREDENTIALS else "broker_lost"
        if isinstance(error, EdgeError):
            what = error.code
        elif code == TAKEN_OVER or self._short_lived >= SHORT_LIVED_MAX:
            what = SESSION_TAKEN_OVER
            self._disputed = True
            self._hooks.problem(SESSION_TAKEN_OVER, True)
        self._hooks.count(what)
        log.warning(what, extra={"why": self.last_problem, "failures": self._failures})
        if what == NOT_AUTHORISED:
            self._hooks.problem(NOT_AUTHORISED, True)
            if self._hooks.renew_credentials is not None and await self._hooks.renew_credentials():
                self._failures = 0

    # ── one connection ──────────────────────────────────────────────────────────────────────────────────

    async def _session(self) -> None:
        self._receipt_heard.clear()
        async with self._client() as client:
            begun_s = self._monotonic_s()
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._receive(client))  # the one that hears the end of the connection
                    await client.listen(self._topic("committed"), self._topic("commands"))
                    obey_cancellation()
                    self.last_problem = ""
                    self._hooks.problem(NOT_AUTHORISED, False)
                    self._outbox.connected()
                    log.info("broker_connected", extra={"backlog_seals": len(self._outbox)})
                    tasks.create_task(self._report(client))
                    tasks.create_task(self._send(client, tasks))
                    tasks.create_task(self._outlive_rivals())
            except asyncio.CancelledError:
                with suppress(aiomqtt.MqttError):
                    await self._publish_status(client, {"state": "offline"}, FAREWELL_TIMEOUT_S)
                raise
            finally:
                self._lived(self._monotonic_s() - begun_s)

    def _lived(self, lifetime_s: float) -> None:
        self._short_lived = self._short_lived + 1 if lifetime_s < SHORT_LIVED_S else 0

    async def _outlive_rivals(self) -> None:
        """Two that hurry would drive each other out for ever: pauses begin anew only if nobody takes the session."""
        if self._disputed:
            await asyncio.sleep(self._undisputed_s)
            self._disputed = False
            self._hooks.problem(SESSION_TAKEN_OVER, False)
        self._failures = 0

    async def _receive(self, client: MqttClient) -> None:
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

    async def _report(self, client: MqttClient) -> None:
        while True:
            self._status_changed.clear()
            await self._publish_status(client, self._hooks.status(), ANSWER_TIMEOUT_S)
            obey_cancellation()
            await asyncio.sleep(1)  # however often the status changes
            with suppress(TimeoutError):
                async with asyncio.timeout(STATUS_INTERVAL_S - 1):
                    await self._status_changed.wait()

    async def _publish_status(self, client: MqttClient, status: Mapping[str, object], timeout_s: float) -> None:
        await client.publish(self._topic("status"), encode_status(status), qos=1, retain=True, timeout=timeout_s)

    async def _send(self, client: MqttClient, tasks: asyncio.TaskGroup) -> None:
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

    async def _publish_seal(self, client: MqttClient, sequence: int) -> None:
        message = self._hooks.find_message(sequence)
        if message is not None:
            await client.publish(self._topic("seals"), message, qos=1)
        self._outbox.finished(sequence, self._monotonic_s())
        self.wake()
