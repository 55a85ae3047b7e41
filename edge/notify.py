"""Telling systemd that the agent is ready and alive. Without systemd (no NOTIFY_SOCKET) it tells nobody."""

import logging
import os
import socket
from collections.abc import Mapping

READY = b"READY=1"
STOPPING = b"STOPPING=1"
ALIVE = b"WATCHDOG=1"

log = logging.getLogger(__name__)


def notify(state: bytes, environment: Mapping[str, str] = os.environ) -> None:
    """Send one datagram to the supervisor. One that cannot be told is logged: the work goes on."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect(address)
            sender.send(state)
    except OSError as error:
        log.warning("supervisor_not_told", extra={"why": str(error)})


def watchdog_pause_s(environment: Mapping[str, str] = os.environ) -> float | None:
    """Half of the time within which systemd wants to hear from us; None if it does not ask."""
    limit_us = environment.get("WATCHDOG_USEC", "")
    return int(limit_us) / 2_000_000 if limit_us.isdecimal() and int(limit_us) > 0 else None
