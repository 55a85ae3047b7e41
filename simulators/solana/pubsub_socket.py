"""One client's WebSocket: its requests, its subscriptions, and what waits to be sent to it.

A client that does not read what it asked for is cut off, as by a node, rather than let our memory grow.
"""

import asyncio
import contextlib
import json
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from simulators.solana.errors import INTERNAL_ERROR, RpcError, invalid_params, invalid_request, parse_error
from simulators.solana.pubsub import PubSub, Subscription
from simulators.solana.pubsub_requests import UNSUBSCRIBE_METHODS, parse_subscribe

SUBSCRIPTIONS_MAX = 1_000
UNSENT_BYTES_MAX = 8 * 2**20
BATCH_REQUESTS_MAX = 100
TOO_SLOW = 1013  # "try again later"
TEXT_ONLY = 1003
CLOSE_TIMEOUT_S = 1.0


class Socket:
    """A connected client."""

    def __init__(self, websocket: WebSocket, pubsub: PubSub) -> None:
        self._websocket = websocket
        self._pubsub = pubsub
        self._subscriptions: dict[int, Subscription] = {}
        self._unsent: asyncio.Queue[str] = asyncio.Queue()
        self._unsent_bytes = 0
        self._too_slow = asyncio.Event()

    def tell(self, message: Any) -> None:
        """Send this after all that waits; or, if too much waits, nothing any more."""
        if self._too_slow.is_set():
            return
        text = json.dumps(message, separators=(",", ":"))
        self._unsent.put_nowait(text)
        self._unsent_bytes += len(text)
        if self._unsent_bytes > UNSENT_BYTES_MAX:
            self._too_slow.set()

    def forget(self, subscription: Subscription) -> None:
        """It has ended."""
        self._subscriptions.pop(subscription.number, None)

    async def serve(self) -> None:
        """Until the client leaves or is cut off."""
        await self._websocket.accept()
        work = [asyncio.create_task(each) for each in (self._read(), self._write(), self._too_slow.wait())]
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for subscription in self._subscriptions.values():
                self._pubsub.unsubscribe(subscription)
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            if self._too_slow.is_set():
                await self._cut_off()
        for task in done:
            task.result()

    async def _cut_off(self) -> None:
        """Say why, if it will hear it."""
        with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._websocket.close(TOO_SLOW)

    async def _write(self) -> None:
        while True:
            text = await self._unsent.get()
            try:
                await self._websocket.send_text(text)
            except (WebSocketDisconnect, RuntimeError):  # it has left
                return
            self._unsent_bytes -= len(text)

    async def _read(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if text is None:
                await self._websocket.close(TEXT_ONLY)
                return
            await self._take(text)

    async def _take(self, text: str) -> None:
        try:
            requests = json.loads(text)
        except ValueError:
            self.tell({"jsonrpc": "2.0", "error": parse_error().as_json(), "id": None})
            return
        if not isinstance(requests, list):
            await self._answer(requests)
        elif not 0 < len(requests) <= BATCH_REQUESTS_MAX:
            self.tell({"jsonrpc": "2.0", "error": invalid_request().as_json(), "id": None})
        else:
            for request in requests:
                await self._answer(request)

    async def _answer(self, request: Any) -> None:
        """Answer a request; what has no id, as the clients' pings, is not answered."""
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            self.tell({"jsonrpc": "2.0", "error": invalid_request().as_json(), "id": None})
            return
        if "id" not in request:
            return
        head = {"jsonrpc": "2.0", "id": request["id"]}
        try:
            params = request.get("params") or []
            if not isinstance(params, list):
                raise invalid_params("Invalid params: invalid type: map, expected a sequence")
            if request["method"] in UNSUBSCRIBE_METHODS:
                self.tell({**head, "result": self._unsubscribe(params)})
            else:
                await self._subscribe(head, request["method"], params)
        except RpcError as refusal:
            self.tell({**head, "error": refusal.as_json()})

    async def _subscribe(self, head: dict[str, Any], method: str, params: list[Any]) -> None:
        """The client learns its number before anything is told under it."""
        wanted = parse_subscribe(method, params)
        if len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            raise RpcError(INTERNAL_ERROR, "Internal Error: Subscription refused. Node subscription limit reached")
        subscription = self._pubsub.subscribe(wanted, self)
        self._subscriptions[subscription.number] = subscription
        self.tell({**head, "result": subscription.number})
        if wanted.topic.kind == "signature":
            await self._pubsub.catch_up(subscription)

    def _unsubscribe(self, params: list[Any]) -> bool:
        number = params[0] if params else None
        subscription = self._subscriptions.pop(number, None) if isinstance(number, int) else None
        if subscription is None:
            raise invalid_params("Invalid subscription id.")
        return self._pubsub.unsubscribe(subscription)
