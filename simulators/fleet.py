"""Publishes for thousands of simulated meters over MQTT 5 and TLS, as fast as the broker takes it or at a
rate.

Messages are sealed and signed before the first one leaves, so that a measurement is of the receiver. One
thread, one selector: a connection per meter with that meter's own account, or a few of one gateway account.
What was not acknowledged when a connection breaks is published again on the next; the hub must make nothing
of repeats.
"""

import json
import os
import selectors
import signal
import sys
import time
from collections import deque
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from simulators.fleet_connection import Account, Connection, FleetError, Report, Target
from simulators.sealing import SealedMessage

MISC_PERIOD_S = 1.0
SELECT_TIMEOUT_S = 0.05
BURST = 16
"""Messages of one connection before the next has its turn."""


def publish(connections: list[Connection], target: Target, report: Report) -> Report:
    """Publish everything that waits, round robin over the connections, and wait for the acknowledgements.

    `leave_after` acknowledgements it disconnects in an orderly way; after `kill_after` it kills its own
    process with SIGKILL. Raises FleetError if an account is refused or `timeout_s` passes.
    """
    try:
        for connection in connections:
            connection.open()
        begun = time.monotonic()
        with selectors.DefaultSelector() as selector:
            _pump(connections, target, report, _Watch(selector), begun)
        report.elapsed_s = time.monotonic() - begun
        report.finished = all(connection.done for connection in connections)
    finally:
        for connection in connections:
            connection.close()
    return report


def _pump(connections: list[Connection], target: Target, report: Report, watch: "_Watch", begun: float) -> None:
    next_misc = begun
    pending = deque(connections)
    while not all(connection.done for connection in connections):
        now = time.monotonic()
        if now - begun > target.timeout_s:
            raise FleetError(f"{report.seals_acknowledged} seals acknowledged within {target.timeout_s:g} s, not all")
        busy = _publish_round(pending, _allowance(target.rate_per_s, now - begun, report.seals_sent))
        periodic = now >= next_misc
        if periodic:
            next_misc = now + MISC_PERIOD_S
        watch.update(connections)
        readable = watch.readable(0.0 if busy else SELECT_TIMEOUT_S)
        for connection in connections:
            connection.serve(connection in readable, periodic)
        if target.kill_after is not None and report.seals_acknowledged >= target.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if target.leave_after is not None and report.seals_acknowledged >= target.leave_after:
            return


class _Watch:
    """Keeps the selector at one registration per open socket."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._sockets: dict[Connection, Any] = {}

    def update(self, connections: list[Connection]) -> None:
        changed = [connection for connection in connections if connection.socket() is not self._sockets.get(connection)]
        for connection in changed:  # first all that are gone: the system gives their numbers out again
            gone = self._sockets.pop(connection, None)
            if gone is not None:
                self._selector.unregister(gone)
        for connection in changed:
            socket = connection.socket()
            if socket is not None:
                self._selector.register(socket, selectors.EVENT_READ, connection)
                self._sockets[connection] = socket

    def readable(self, timeout_s: float) -> set[Connection]:
        return {key.data for key, _ in self._selector.select(timeout_s)}


def _publish_round(pending: deque[Connection], allowance: int) -> bool:
    """A few messages from each connection that may publish; whether there were any."""
    published = 0
    for _ in range(len(pending)):
        connection = pending[0]
        pending.rotate(-1)
        for _ in range(BURST):
            if published >= allowance or not connection.ready:
                break
            connection.publish_one()
            published += 1
    return published > 0


def _allowance(rate_per_s: float, elapsed_s: float, sent: int) -> int:
    return int(rate_per_s * elapsed_s) + 1 - sent if rate_per_s else sys.maxsize


def read_credentials(path: Path) -> dict[str, Account]:
    """Accounts by meter id, from JSON lines {"meter_id", "username", "password"}. Raises ValueError,
    OSError."""
    accounts = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        entry = json.loads(line)
        if not isinstance(entry, dict) or set(entry) != {"meter_id", "username", "password"}:
            raise ValueError(f"{path}, line {number}: expected meter_id, username and password")
        accounts[entry["meter_id"]] = Account(entry["username"], entry["password"], entry["meter_id"])
    return accounts


def connections_of_meters(
    messages: dict[str, list[SealedMessage]], accounts: dict[str, Account], target: Target, report: Report
) -> list[Connection]:
    """One connection per meter, with its own account. Raises FleetError for a meter without one."""
    missing = [meter_id for meter_id in messages if meter_id not in accounts]
    if missing:
        raise FleetError(f"no credentials for {len(missing)} meters, the first is {missing[0]}")
    return [Connection(accounts[meter_id], own, target, report) for meter_id, own in messages.items()]


def connections_of_gateway(
    messages: dict[str, list[SealedMessage]], account: Account, count: int, target: Target, report: Report
) -> list[Connection]:
    """So many connections of one account that may write for all; a meter stays on one of them, in its
    order."""
    shares: list[list[SealedMessage]] = [[] for _ in range(count)]
    queues = [list(messages.values())[number::count] for number in range(count)]
    for share, own in zip(shares, queues, strict=True):
        for at_once in zip_longest(*own):
            share.extend(message for message in at_once if message is not None)
    return [
        Connection(replace(account, client_id=f"{account.client_id}-{number}"), share, target, report)
        for number, share in enumerate(shares)
    ]
