"""One shard's durable MQTT session on the asyncio loop: seals in, acknowledgements and receipts out.

paho does the protocol, this file lends it the event loop. A session lives for one connection: when it is lost, a new
object takes over and the broker delivers again whatever was not acknowledged. Back-pressure is simply not reading: the
broker's own window is no protection (mosquitto 2.0.11 overruns it), TCP is.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from hub.readings.envelope import Arrival
from hub.settings import Settings, read_secret
from protocol.committed import Committed, encode_committed
from protocol.topics import shard_filter, topic

KEEPALIVE_S = 60
CONNECT_TIMEOUT_S = 10
SESSION_EXPIRY_S = 30 * 86_400
RECEIVE_MAXIMUM = 65_535
READ_BURST_MESSAGES = 64
RECEIPTS_IN_FLIGHT_MAX = 1_000


class SessionFailed(Exception):
    """The broker could not be reached, or refused the session or the subscription."""


class ShardSession:
    """The connection for one shard. `on_arrival` gets each message, `on_lost` is called once when it ends."""

    def __init__(
        self,
        settings: Settings,
        shard: int,
        on_arrival: Callable[[ShardSession, Arrival], None],
        on_lost: Callable[[ShardSession, str], None],
    ) -> None:
        self.shard = shard
        self.outstanding = 0
        """Messages handed to `on_arrival` and not yet acknowledged."""
        self._settings = settings
        self._on_arrival = on_arrival
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._reading = self._writing = self._closing = False
        self._received = 0
        self._descriptor = -1
        self._client = self._make_client()

    def _make_client(self) -> paho.Client:
        user = f"hub-{self.shard}"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            user,
            protocol=paho.MQTTv5,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.username_pw_set(user, read_secret(self._settings.mqtt_password_file))
        client.tls_set(str(self._settings.mqtt_ca_file), tls_version=ssl.PROTOCOL_TLS_CLIENT)
        client.max_inflight_messages_set(RECEIPTS_IN_FLIGHT_MAX)
        client.max_queued_messages_set(0)
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed
        client.on_message = self._message
        client.on_disconnect = self._disconnected
        client.on_socket_register_write = self._wants_to_write
        client.on_socket_unregister_write = self._has_written
        return client

    async def open(self) -> None:
        """Connect and subscribe. Raises SessionFailed."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        connect = partial(
            self._client.connect,
            self._settings.mqtt_host,
            self._settings.mqtt_port,
            KEEPALIVE_S,
            clean_start=False,
            properties=properties,
        )
        try:
            await asyncio.to_thread(connect)
            sock = self._client.socket()
            if sock is None:
                raise SessionFailed("the broker closed the connection")
            self._descriptor = sock.fileno()
            self.resume()
            self._start_writing()
            self._loop.create_task(self._keep_alive())
            await asyncio.wait_for(self._ready, CONNECT_TIMEOUT_S)
        except (OSError, TimeoutError, ValueError) as fault:
            self.close()
            raise SessionFailed(f"shard {self.shard}: {fault or 'no answer in time'}") from fault

    def pause(self) -> None:
        """Stop reading; the broker keeps the rest."""
        if self._reading:
            self._loop.remove_reader(self._descriptor)
            self._reading = False

    def resume(self) -> None:
        """Read again."""
        if not self._reading and not self._closing and self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._read)
            self._reading = True
            if self._received:  # TLS may hold decrypted bytes that no selector will announce
                self._loop.call_soon(self._read)

    def close(self) -> None:
        """End the connection, keep the session: what is not acknowledged will be delivered again."""
        if self._closing:
            return
        self._closing = True
        self._detach()
        self._client.disconnect()
        self._client.loop_write()
        if sock := self._client.socket():
            sock.close()

    def publish_receipt(self, meter_id: str, receipt: Committed) -> None:
        """Tell a meter, and whoever asks later, what is stored. Only ever called after the commit."""
        if not self._closing:
            name = topic(self._settings.community_id, meter_id, "committed")
            self._client.publish(name, encode_committed(receipt), qos=1, retain=True)

    # --- what the event loop and paho call -------------------------------------------------------------------

    def _read(self) -> None:
        for _ in range(READ_BURST_MESSAGES):
            before = self._received
            if not self._reading or self._closing:
                return
            self._client.loop_read()
            if self._received == before:
                return
        if self._reading:
            self._loop.call_soon(self._read)

    async def _keep_alive(self) -> None:
        while not self._closing:
            await asyncio.sleep(1)
            if self._reading:  # while paused we would not see the answer to a ping
                self._client.loop_misc()

    def _wants_to_write(self, *_: Any) -> None:
        if not self._writing and self._descriptor >= 0:
            self._loop.call_soon_threadsafe(self._start_writing)

    def _start_writing(self) -> None:
        if not self._writing and not self._closing:
            self._writing = True
            self._loop.add_writer(self._descriptor, self._client.loop_write)

    def _has_written(self, *_: Any) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._descriptor)

    def _connected(self, client: paho.Client, _: Any, __: Any, reason: ReasonCode, ___: Any) -> None:
        if reason.is_failure:
            self._fail(f"the broker refused the session: {reason}")
            return
        client.subscribe(shard_filter(self._settings.community_id, self.shard, "seals"), qos=1)

    def _subscribed(self, _: Any, __: Any, ___: Any, reasons: list[ReasonCode], ____: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._fail(f"the broker refused the subscription: {reasons[0]}")
        elif not self._ready.done():
            self._ready.set_result(None)

    def _message(self, client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        self._received += 1
        self.outstanding += 1
        self._on_arrival(self, Arrival(message.topic, bytes(message.payload), partial(self._acknowledge, message.mid)))

    def _acknowledge(self, mid: int) -> None:
        self.outstanding -= 1
        if not self._closing:
            self._client.ack(mid, 1)

    def _disconnected(self, _: Any, __: Any, ___: Any, reason: ReasonCode, ____: Any) -> None:
        self._fail(f"disconnected: {reason}")

    def _fail(self, why: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(OSError(why))
        elif not self._closing:
            self._closing = True
            self._detach()
            self._on_lost(self, why)

    def _detach(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
            self._descriptor = -1
        self._reading = self._writing = False
