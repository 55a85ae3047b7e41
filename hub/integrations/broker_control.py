"""The hub's own voice on the broker: creates and deletes accounts of meters, and publishes commands to them.

One MQTT 5 connection as `hub-control` (paho's network thread; callers block), under a client id of its own, so that
several processes may have one. What was not acknowledged in time
raises BrokerAway, and the outbox tries again: both operations are harmless to repeat.
"""

from __future__ import annotations

import queue
import ssl
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from hub import logs
from hub.integrations.broker_accounts import (
    CONTROL_TOPIC,
    RESPONSE_TOPIC,
    BrokerAnswerError,
    account_errors,
    create_meter_account_commands,
    delete_meter_account_commands,
)

USER = "hub-control"
ANSWER_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 30
RECONNECT_PAUSE_MAX_S = 30
FAILURE_MIN = 0x80
"""MQTT 5 reason codes from here up are refusals."""

log = logs.get_logger()


class BrokerAway(Exception):
    """The broker did not answer, or refused, in time; it may or may not have done what was asked."""


class BrokerControl:
    """A connection that comes back by itself. Use as a context manager; one caller at a time."""

    def __init__(
        self, host: str, port: int, ca_file: Path, password: str, answer_timeout_s: float = ANSWER_TIMEOUT_S
    ) -> None:
        self._address = (host, port)
        self._answer_timeout_s = answer_timeout_s
        self._ready = threading.Event()
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._acknowledged: dict[int, ReasonCode] = {}
        self._abandoned: set[int] = set()
        self._acknowledgement = threading.Condition()
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"{USER}-{uuid.uuid4().hex}", protocol=mqtt.MQTTv5)
        client.username_pw_set(USER, password)
        client.tls_set_context(ssl.create_default_context(cafile=str(ca_file)))
        client.reconnect_delay_set(1, RECONNECT_PAUSE_MAX_S)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        self._client = client

    def __enter__(self) -> Self:
        """Begin to connect; a broker that is away now is waited for by the first caller."""
        self._client.connect_async(*self._address, keepalive=KEEP_ALIVE_S, clean_start=True)
        self._client.loop_start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say goodbye and end the network thread."""
        self._client.disconnect()
        self._client.loop_stop()

    def create_account(self, meter_id: str, password: str) -> None:
        """Give a meter its account, or put an existing one right. Raises BrokerAway."""
        self._command(meter_id, create_meter_account_commands(meter_id, password))

    def delete_account(self, meter_id: str) -> None:
        """Take a meter's account away and drop its connection. Raises BrokerAway."""
        self._command(meter_id, delete_meter_account_commands(meter_id))

    def _command(self, meter_id: str, command: bytes) -> None:
        deadline_s = time.monotonic() + self._answer_timeout_s
        self._await_connection(deadline_s)
        while not self._answers.empty():
            self._answers.get_nowait()  # late answers to earlier, abandoned questions
        self._publish(CONTROL_TOPIC, command, None, deadline_s)
        while True:
            errors = self._next_answer(deadline_s).get(meter_id)
            if errors:
                raise BrokerAway(f"the broker refused: {'; '.join(errors)}")
            if errors is not None:
                return

    def publish(self, topic: str, payload: bytes, expires_in_s: int) -> None:
        """Publish at QoS 1 a message that the broker drops after so many seconds. Raises BrokerAway."""
        deadline_s = time.monotonic() + self._answer_timeout_s
        self._await_connection(deadline_s)
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = expires_in_s
        self._publish(topic, payload, properties, deadline_s)

    def _await_connection(self, deadline_s: float) -> None:
        if not self._ready.wait(max(0.0, deadline_s - time.monotonic())):
            raise BrokerAway(f"no connection to {self._address[0]}:{self._address[1]} as {USER}")

    def _publish(self, topic: str, payload: bytes, properties: Properties | None, deadline_s: float) -> None:
        message_id = self._client.publish(topic, payload, qos=1, properties=properties).mid
        with self._acknowledgement:
            arrived = self._acknowledgement.wait_for(
                lambda: message_id in self._acknowledged, max(0.0, deadline_s - time.monotonic())
            )
            reason = self._acknowledged.pop(message_id) if arrived else None
            if reason is None:
                self._abandoned.add(message_id)
        if reason is None:
            raise BrokerAway(f"the broker did not acknowledge a message to {topic}")
        if reason.value >= FAILURE_MIN:
            raise BrokerAway(f"the broker refused a message to {topic}: {reason}")

    def _next_answer(self, deadline_s: float) -> dict[str, list[str]]:
        try:
            return account_errors(self._answers.get(timeout=max(0.0, deadline_s - time.monotonic())))
        except queue.Empty:
            raise BrokerAway("the broker's account plugin did not answer") from None
        except BrokerAnswerError as fault:
            raise BrokerAway(f"the broker's account plugin answered something else: {fault}") from fault

    def _on_connect(self, client: mqtt.Client, data: Any, flags: Any, reason: ReasonCode, _: Any) -> None:
        if reason.is_failure:
            log.warning("broker_refused_connection", reason=str(reason))
            return
        client.subscribe(RESPONSE_TOPIC, qos=1)

    def _on_subscribe(self, client: mqtt.Client, data: Any, message_id: int, reasons: list[ReasonCode], _: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            log.error("broker_refused_subscription", topic=RESPONSE_TOPIC)
            return
        self._ready.set()

    def _on_disconnect(self, client: mqtt.Client, data: Any, flags: Any, reason: ReasonCode, _: Any) -> None:
        self._ready.clear()
        log.info("broker_disconnected", reason=str(reason))

    def _on_message(self, client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        self._answers.put(bytes(message.payload))

    def _on_publish(self, client: mqtt.Client, data: Any, message_id: int, reason: ReasonCode, _: Any) -> None:
        with self._acknowledgement:
            if message_id in self._abandoned:
                self._abandoned.remove(message_id)
                return
            self._acknowledged[message_id] = reason
            self._acknowledgement.notify_all()
