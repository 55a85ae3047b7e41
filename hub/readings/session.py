"""One shard's durable MQTT session on the asyncio loop: seals in, acknowledgements and receipts out.

Statuses of the shard's meters are heard on the side, at QoS 0: the broker neither keeps them for a hub that is away
(what is heard is said now) nor waits for an acknowledgement, so that they can delay or re-order nothing about seals.

A session lives for one connection: when it is lost, a new object takes over and the broker delivers again whatever was
not acknowledged. Back-pressure is simply not reading: the broker's own window is no protection (mosquitto 2.0.11
overruns it), TCP is.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from typing import Final

from hub.logs import get_logger
from hub.readings import mqtt
from hub.readings.envelope import Arrival
from hub.settings import Settings, read_secret
from protocol.committed import Committed, encode_committed
from protocol.limits import MESSAGE_BYTES_MAX
from protocol.topics import shard_filter, topic

KEEP_ALIVE_S: Final = 60
SILENCE_MAX_S: Final = 1.5 * KEEP_ALIVE_S
OPEN_TIMEOUT_S: Final = 10.0
SESSION_EXPIRY_S: Final = 30 * 86_400
PACKET_BYTES_MAX: Final = MESSAGE_BYTES_MAX + 1_024
SEALS_SUBSCRIPTION: Final = 1
STATUS_SUBSCRIPTION: Final = 2
STATUS_CHANNEL: Final = "/status"

OnStatus = Callable[[str, bytes, bool], None]
"""Told the topic and the bytes of a status, and whether the broker had kept it; on the event loop, so be quick."""

log = get_logger()


class SessionFailed(Exception):
    """The broker could not be reached, or refused the session or the subscription."""


def trust(settings: Settings) -> ssl.SSLContext:
    """Believe the configured authority and nobody else. Raises SessionFailed."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(settings.mqtt_ca_file)
    except (OSError, ssl.SSLError) as fault:
        raise SessionFailed(f"{settings.mqtt_ca_file}: {fault}") from fault
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class ShardSession(asyncio.Protocol):
    """The connection for one shard. `on_arrival` gets each seal, `on_lost` is called once if it ends by itself.

    `on_status` gets each status; without it none is asked for.
    """

    def __init__(
        self,
        settings: Settings,
        shard: int,
        on_arrival: Callable[[ShardSession, Arrival, int | None], None],
        on_lost: Callable[[ShardSession, str], None],
        on_status: OnStatus | None = None,
    ) -> None:
        self.shard = shard
        self.outstanding = 0
        """Messages handed to `on_arrival` and not yet acknowledged."""
        self._settings = settings
        self._on_arrival = on_arrival
        self._on_lost = on_lost
        self._on_status = on_status
        self._decoder = mqtt.Decoder(PACKET_BYTES_MAX)
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._keep_alive_s = float(KEEP_ALIVE_S)
        self._heard_s = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._paused = self._closing = False

    async def open(self) -> None:
        """Connect and subscribe. Raises SessionFailed."""
        settings = self._settings
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await self._loop.create_connection(
                    lambda: self, settings.mqtt_host, settings.mqtt_port, ssl=trust(settings)
                )
                await self._ready
        except (OSError, TimeoutError, SessionFailed) as fault:
            self.close()
            raise SessionFailed(f"shard {self.shard}: {fault or 'no answer in time'}") from fault

    def pause(self) -> None:
        """Stop reading; the broker keeps the rest."""
        if self._transport and not self._paused and not self._closing:
            self._transport.pause_reading()
            self._paused = True

    def resume(self) -> None:
        """Read again."""
        if self._transport and self._paused and not self._closing:
            self._heard_s = self._loop.time()
            self._transport.resume_reading()
            self._paused = False

    def close(self) -> None:
        """End the connection, keep the session: what is not acknowledged will be delivered again."""
        if not self._closing:
            self._closing = True
            self._write(mqtt.DISCONNECT_PACKET)
            self._leave()

    def acknowledge(self, packet_ids: Iterable[int | None], count: int) -> None:
        """Acknowledge messages in the order in which they came; None is one that asked for no acknowledgement."""
        self.outstanding -= count
        if not self._closing:
            self._write(mqtt.puback_packets(packet_id for packet_id in packet_ids if packet_id is not None))

    def publish_receipt(self, meter_id: str, receipt: Committed) -> None:
        """Tell a meter, and whoever asks later, what is stored. Only ever called after the commit.

        QoS 0: a receipt that gets lost is sent again when the meter repeats a seal, or with the next one.
        """
        if not self._closing:
            name = topic(self._settings.community_id, meter_id, "committed")
            self._write(mqtt.retained_packet(name, encode_committed(receipt)))

    # --- what asyncio calls ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who we are."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        user = f"hub-{self.shard}"
        password = read_secret(self._settings.mqtt_password_file)
        self._write(mqtt.connect_packet(user, user, password, KEEP_ALIVE_S, SESSION_EXPIRY_S, PACKET_BYTES_MAX))
        self._tick()

    def data_received(self, data: bytes) -> None:
        """Hand on every message that is complete."""
        self._heard_s = self._loop.time()
        try:
            for packet in self._decoder.feed(data):
                if not isinstance(packet, mqtt.Publication):
                    self._answered(packet)
                elif packet.packet_id is None and packet.topic.endswith(STATUS_CHANNEL):
                    if self._on_status:
                        self._on_status(packet.topic, packet.payload, packet.retained)
                else:
                    self.outstanding += 1
                    self._on_arrival(self, Arrival(packet.topic, packet.payload), packet.packet_id)
        except mqtt.ProtocolViolation as fault:
            self._fail(f"the broker broke the protocol: {fault}")

    def connection_lost(self, fault: Exception | None) -> None:
        """The broker or the network ended it."""
        self._fail(str(fault) if fault else "the broker closed the connection")

    def _answered(self, answer: mqtt.Answer) -> None:
        if answer.kind == mqtt.SUBACK and answer.packet_id == STATUS_SUBSCRIPTION:
            if answer.reason >= mqtt.FAILURE_FROM:
                log.warning("statuses_refused", shard=self.shard, reason=answer.reason)
        elif answer.kind == mqtt.DISCONNECT or answer.reason >= mqtt.FAILURE_FROM:
            self._fail(f"the broker refused: packet type {answer.kind}, reason 0x{answer.reason:02x}")
        elif answer.kind == mqtt.CONNACK:
            self._keep_alive_s = float(answer.properties.get(mqtt.SERVER_KEEP_ALIVE, KEEP_ALIVE_S) or KEEP_ALIVE_S)
            seals = shard_filter(self._settings.community_id, self.shard, "seals")
            self._write(mqtt.subscribe_packet(SEALS_SUBSCRIPTION, seals, qos=1))
            if self._on_status:
                statuses = shard_filter(self._settings.community_id, self.shard, "status")
                self._write(mqtt.subscribe_packet(STATUS_SUBSCRIPTION, statuses, qos=0))
        elif not self._ready.done():
            self._ready.set_result(None)

    def _tick(self) -> None:
        """Keep the connection known to be alive; while paused we would not hear the answer."""
        silence_s = self._loop.time() - self._heard_s
        if not self._paused and silence_s > SILENCE_MAX_S:
            self._fail(f"nothing heard for {silence_s:.0f} s")
        elif not self._closing:
            if self._ready.done():
                self._write(mqtt.PINGREQ_PACKET)
            self._timer = self._loop.call_later(self._keep_alive_s / 2, self._tick)

    def _write(self, data: bytes) -> None:
        if self._transport and data:
            self._transport.write(data)

    def _fail(self, why: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(SessionFailed(why))
            self._ready.exception()  # whoever opens hears it; nobody else needs to
        elif not self._closing:
            self._on_lost(self, why)
        self._closing = True
        self._leave()

    def _leave(self) -> None:
        if self._timer:
            self._timer.cancel()
        if self._transport:
            self._transport.close()
