"""A client of a broker that may be broken or hostile: aiomqtt, and what it leaves open.

It tells that a publish was answered but not how, waits in vain for a broker that hangs up instead of answering, takes
a refused subscription for one, keeps a connection on which something came that it cannot read (and then reads the same
bytes for ever, as fast as it can), and takes packets of up to 256 MB.
"""

import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import aiomqtt
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import DisconnectFlags
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.connection import RECEIVED_BYTES_MAX
from edge.errors import BrokerError

PACKET_BYTES_MAX = 2 * RECEIVED_BYTES_MAX
"""The longest topic that we listen to and its message are far shorter. Of a longer packet nothing is read."""


def _unheard(_reason: str) -> None:
    """For somebody who does not ask for refusals."""


class MqttClient(aiomqtt.Client):
    """As aiomqtt's; `on_refused` hears why the broker refused a publish (in MQTT 5)."""

    on_refused: Callable[[str], None] = staticmethod(_unheard)

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        receive = self._client._sock_recv

        def receive_bounded(size: int) -> bytes:
            if size > PACKET_BYTES_MAX:  # of what is left of a packet, all is asked for at once
                raise ConnectionAbortedError(f"a packet of {size} bytes")
            return receive(size)

        self._client._sock_recv = receive_bounded  # type: ignore[method-assign, assignment]

    async def listen(self, *topics: str) -> None:
        """Subscribe at QoS 1. Raises BrokerError `subscription_refused`: who goes on would be deaf without knowing."""
        answers = await self.subscribe([(topic, 1) for topic in topics])
        refused = [str(answer) for answer in answers if isinstance(answer, ReasonCode) and answer.is_failure]
        if refused or len(answers) != len(topics):
            raise BrokerError("subscription_refused", ", ".join(refused))

    async def __aenter__(self) -> Self:
        """Connect; whatever ends that early closes what is open. Raises BrokerError `broker_not_trusted`: another name,
        an authority that we do not know, or a certificate that is not in force.
        """
        try:
            return await super().__aenter__()
        except BaseException as error:
            self._client._sock_close()
            if isinstance(error.__context__, ssl.SSLCertVerificationError):
                raise BrokerError("broker_not_trusted", error.__context__.verify_message) from None
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say goodbye if that is possible, and close the connection in any case."""
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            self._client._sock_close()
            if self._disconnected.done() and not self._disconnected.cancelled():
                self._disconnected.exception()  # if nobody has asked for it, that is no mistake

    def _on_publish(
        self, client: PahoClient, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        if reason_code.is_failure:
            self.on_refused(str(reason_code))
        super()._on_publish(client, userdata, mid, reason_code, properties)

    def _on_disconnect(
        self,
        client: PahoClient,
        userdata: Any,
        flags: DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if self._connected.done():
            super()._on_disconnect(client, userdata, flags, reason_code, properties)
        else:  # perhaps in the thread that connects
            self._loop.call_soon_threadsafe(self._never_connected, reason_code)

    def _never_connected(self, reason_code: ReasonCode) -> None:
        if not self._connected.done():
            self._connected.set_exception(aiomqtt.MqttCodeError(reason_code))
            self._connected.exception()  # if nobody waits for it any more, that is no mistake
