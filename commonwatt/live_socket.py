"""One connection to the hub's `/live`, as docs/live.md describes it: authenticate first, then subscribe, then listen.

Keeps count of every topic: an update that does not follow the one before is an error of the hub's, and what is missed
while the connection is gone is asked for by its sequence when it is back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.sync.client import ClientConnection, connect

from commonwatt.hub_client import CommandError

OPEN_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 20.0
RENEW_BEFORE = timedelta(seconds=60)
FRAME_BYTES_MAX = 1 << 20

Json = dict[str, Any]


class ConnectionLost(Exception):
    """The connection ended, or none was made. Trying again may help."""


class Position:
    """How far each topic has come, over any number of connections."""

    def __init__(self, after: Mapping[str, int]) -> None:
        self.after = dict(after)

    def take(self, frame: Json) -> None:
        """Note an update or a resync. Raises CommandError `live_gap` if something was left out without a word."""
        topic, sequence = frame["topic"], frame["sequence"]
        if frame["type"] == "update" and sequence != self.after[topic] + 1:
            raise CommandError("live_gap", f"{topic}: update {sequence} came after {self.after[topic]}")
        if frame["type"] in ("update", "resync"):
            self.after[topic] = sequence


@contextmanager
def open_live(url: str, token: str, position: Position) -> Iterator[LiveSocket]:
    """A connection that follows the topics of a position. Raises ConnectionLost, or CommandError for a refusal."""
    address = f"ws{url.removeprefix('http').rstrip('/')}/live"
    try:
        connecting = connect(address, open_timeout=OPEN_TIMEOUT_S, max_size=FRAME_BYTES_MAX, compression=None)
    except (OSError, InvalidHandshake, TimeoutError) as fault:
        raise ConnectionLost(str(fault) or type(fault).__name__) from fault
    with connecting as connection:
        socket = LiveSocket(connection, position)
        socket.begin(token)
        yield socket


class LiveSocket:
    """An open connection. Every method raises ConnectionLost, or CommandError for a refusal."""

    def __init__(self, connection: ClientConnection, position: Position) -> None:
        self._connection = connection
        self._position = position
        self._expires_at: datetime | None = None

    def begin(self, token: str) -> None:
        """Say who this is, then what to follow. The answers to the latter come between updates."""
        self._send(type="authenticate", token=token)
        frame = self.next_frame(ANSWER_TIMEOUT_S)
        if frame is None or frame["type"] != "authenticated":
            raise ConnectionLost("no answer to the authentication")
        for topic, after in self._position.after.items():
            self._send(type="subscribe", topic=topic, after=after)

    def is_to_be_renewed(self, now: datetime) -> bool:
        """Whether the hub wants to see the next access token soon."""
        return self._expires_at is not None and self._expires_at - RENEW_BEFORE <= now

    def renew(self, token: str) -> None:
        """Show the next access token; the answer comes between updates."""
        self._expires_at = None
        self._send(type="authenticate", token=token)

    def next_frame(self, wait_s: float) -> Json | None:
        """What comes next, if anything does in that time: updates and resyncs in order, and the answers to us."""
        frame = self._receive(wait_s)
        if frame is not None and frame["type"] == "authenticated":
            self._expires_at = _instant(frame["expires_at"])
        if frame is not None and "sequence" in frame:
            self._position.take(frame)
        return frame

    def _send(self, **message: object) -> None:
        try:
            self._connection.send(json.dumps(message))
        except (OSError, WebSocketException) as fault:
            raise ConnectionLost(str(fault)) from fault

    def _receive(self, timeout_s: float) -> Json | None:
        try:
            frame = json.loads(self._connection.recv(timeout_s))
        except TimeoutError:
            return None
        except (OSError, WebSocketException) as fault:
            raise ConnectionLost(str(fault)) from fault
        except ValueError as fault:
            raise CommandError("unexpected_answer", "a frame that is no JSON; is this a hub?") from fault
        if frame["type"] == "error":
            raise CommandError(frame["code"], ": ".join(part for part in (frame["title"], frame["detail"]) if part))
        return dict(frame)


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
