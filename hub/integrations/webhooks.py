"""Carrying a webhook to its receiver: look the name up, check every address, connect to what was checked, POST, look at
the status, forget the rest.

Between the check and the connection no name is looked up again, so an answer that changes meanwhile changes nothing.
Certificates are checked against the name. No proxy, no redirect, no cookie, no second request on a connection.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Final

import httpcore

from hub.errors import WebhookUrlRefused
from hub.integrations.web_targets import Address, Network, Target, check_addresses, parse_target

TIMEOUT_S: Final = 15.0
"""For everything together: a receiver that answers drop by drop gets no more."""
CONNECT_TIMEOUT_S: Final = 5.0
ADDRESSES_TRIED_MAX: Final = 3
BODY_READ_BYTES_MAX: Final = 16 * 1024
BODY_READ_TIMEOUT_S: Final = 2.0
"""Of the answer's body so much is taken and thrown away, so that an honest receiver can finish its sentence."""
USER_AGENT: Final = "Commonwatt-Webhooks/1"

Resolve = Callable[[str, int], Sequence[Address]]
"""The addresses of a name and port; raises OSError if it has none."""


class Outcome(StrEnum):
    """What became of one try."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    """The receiver answered with another status than 2xx."""
    UNKNOWN = "unknown"
    """The request went out and no status came back: the receiver may have it."""
    NOT_SENT = "not_sent"
    """No connection, or none that may be used: the receiver does not have it."""


@dataclass(frozen=True)
class Answer:
    """How a try ended. `error` is in our words, never the receiver's; empty for 2xx."""

    outcome: Outcome
    status: int | None
    error: str
    duration_s: float


def resolve(host: str, port: int) -> list[Address]:
    """Ask the system for the addresses of a full name. Raises OSError."""
    found = socket.getaddrinfo(f"{host}.", port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [ip_address(str(address[0])) for *_, address in found]


class WebhookPost:
    """Sends webhooks. `networks_allowed` are private ones to which they may go, also without TLS."""

    def __init__(
        self,
        networks_allowed: Sequence[Network] = (),
        resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._networks_allowed = networks_allowed
        self._resolve = resolve
        self._tls = tls or ssl.create_default_context()
        self._timeout_s = timeout_s

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Make one try. Never raises for anything that an address or a receiver does."""
        begun_s = time.monotonic()
        status: int | None = None
        deadline = _Deadline(begun_s + self._timeout_s)
        wire = _Wire(deadline)
        try:
            target = parse_target(url, self._networks_allowed)
            wire.addresses = self._addresses(target, deadline)
            status = self._post(target, wire, deadline, headers, body)
            delivered = 200 <= status <= 299
            outcome = Outcome.DELIVERED if delivered else Outcome.REFUSED
            error = "" if delivered else f"the receiver answered {status}"
        except WebhookUrlRefused as fault:
            outcome, error = Outcome.NOT_SENT, f"the address is refused: {fault.detail}"
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as fault:
            outcome = Outcome.UNKNOWN if wire.sent else Outcome.NOT_SENT
            error = _error_of(fault, sent=wire.sent)
        return Answer(outcome, status, error, time.monotonic() - begun_s)

    def _addresses(self, target: Target, deadline: _Deadline) -> Sequence[Address]:
        """What to connect to, in the resolver's order. Raises WebhookUrlRefused, OSError."""
        if target.literal is None:
            try:
                addresses = _within(deadline.left_s(), lambda: self._resolve(target.host, target.port))
            except socket.gaierror as fault:
                if fault.errno == socket.EAI_AGAIN:
                    raise
                addresses = ()
        else:
            addresses = (target.literal,)
        check_addresses(target, addresses, self._networks_allowed)
        return addresses

    def _post(self, target: Target, wire: _Wire, deadline: _Deadline, headers: Mapping[str, str], body: bytes) -> int:
        given = {"Host": target.authority, "User-Agent": USER_AGENT, "Connection": "close", **headers}
        url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
        with (
            httpcore.ConnectionPool(
                ssl_context=self._tls, max_connections=1, max_keepalive_connections=0, network_backend=wire
            ) as pool,
            pool.stream("POST", url, headers=list(given.items()), content=body) as response,
        ):
            deadline.shorten(BODY_READ_TIMEOUT_S)
            _throw_away(response.iter_stream())
            return int(response.status)


class _Deadline:
    """The instant at which all waiting ends."""

    def __init__(self, at_s: float) -> None:
        self._at_s = at_s

    def left_s(self) -> float:
        """What is left of the time. Raises ReadTimeout if nothing is."""
        left_s = self._at_s - time.monotonic()
        if left_s <= 0:
            raise httpcore.ReadTimeout("the time is over")
        return left_s

    def shorten(self, left_s: float) -> None:
        """Let no more than this be left."""
        self._at_s = min(self._at_s, time.monotonic() + left_s)


class _Wire(httpcore.NetworkBackend):
    """Connects to the checked addresses, whatever name it is given, and ends with the deadline."""

    def __init__(self, deadline: _Deadline) -> None:
        self.addresses: Sequence[Address] = ()
        self.sent = False
        self._deadline = deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """The first of the addresses that takes the connection."""
        fault: Exception = httpcore.ConnectError("no address")
        for address in self.addresses[:ADDRESSES_TRIED_MAX]:
            limit_s = min(CONNECT_TIMEOUT_S, self._deadline.left_s())
            try:
                return _Stream(self._sockets.connect_tcp(str(address), port, limit_s), self, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
                fault = failed
        raise fault


class _Stream(httpcore.NetworkStream):
    """A connection whose every wait ends with the deadline, and that remembers whether anything was said on it."""

    def __init__(self, stream: httpcore.NetworkStream, wire: _Wire, deadline: _Deadline) -> None:
        self._stream = stream
        self._wire = wire
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        left_s = self._deadline.left_s()
        self._wire.sent = True
        self._stream.write(buffer, left_s)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left_s = min(CONNECT_TIMEOUT_S, self._deadline.left_s())
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left_s), self._wire, self._deadline)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def _within(left_s: float, ask: Callable[[], Sequence[Address]]) -> Sequence[Address]:
    """The answer, if it comes in time: the system's resolver knows no time-out of ours. Raises what `ask` does."""
    answers: queue.SimpleQueue[Sequence[Address] | OSError] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(ask())
        except OSError as fault:
            answers.put(fault)
        except UnicodeError:
            answers.put(())  # a name that the resolver cannot even ask for

    threading.Thread(target=run, name="webhook-lookup", daemon=True).start()
    try:
        answer = answers.get(timeout=left_s)
    except queue.Empty:
        raise TimeoutError("the name was not looked up in time") from None
    if isinstance(answer, OSError):
        raise answer
    return answer


def _throw_away(chunks: Iterable[bytes]) -> None:
    """Take some of the body. Its end, its faults and its length change nothing: the status has been said."""
    taken = 0
    try:
        for chunk in chunks:
            taken += len(chunk)
            if taken >= BODY_READ_BYTES_MAX:
                return
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError):
        return


def _error_of(fault: Exception, *, sent: bool) -> str:
    cause: BaseException | None = fault
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "TLS could not be agreed on"
        cause = cause.__cause__ or cause.__context__
    if isinstance(fault, (httpcore.TimeoutException, TimeoutError)):
        return "no answer in time" if sent else "no connection in time"
    if isinstance(fault, socket.gaierror):
        return "the name could not be looked up"
    if isinstance(fault, httpcore.ProtocolError):
        return "the answer is not HTTP"
    return "the connection ended without an answer" if sent else "no connection"
