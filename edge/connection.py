"""What every way to the hub has in common: what it asks of the agent, whom it trusts, and how long it pauses.

What to send and what to believe is decided elsewhere; a transport only moves bytes.
"""

import asyncio
import json
import ssl
import stat
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edge.errors import IdentityError

BACK_OFF_FIRST_S = 1.0
BACK_OFF_MAX_S = 60.0
BACK_OFF_DOUBLINGS_MAX = 16
STATUS_INTERVAL_S = 60.0
STATUS_BYTES_MAX = 4_096
"""Of a longer one the hub reads nothing."""
BARE_STATUS = {"state": "online"}
RECEIVED_BYTES_MAX = 16_384
"""A receipt or a command is far shorter."""
SECRET_FILE_MODE = 0o600


class Transport(Protocol):
    """Keeps a connection for as long as it runs. `last_problem` is empty while it has one."""

    last_problem: str

    async def run(self) -> None:
        """Connect, exchange, reconnect; until cancelled."""

    def wake(self) -> None:
        """Something may be due."""

    def status_changed(self) -> None:
        """Tell the status soon."""


def _unheard(_name: str, _exists: bool) -> None:
    """For an agent that does not ask for problems."""


def _no_command() -> int:
    """For an agent that has never followed a command."""
    return 0


@dataclass(frozen=True)
class Hooks:
    """What a transport asks of the agent. None of these raises because of what arrived.

    `last_command` is the counter of the last command that was followed: over HTTPS the hub is asked for later ones.
    `problem` names a lasting problem of the connection and says when it is over. `renew_credentials` is asked after an
    answer of "not authorised"; it returns whether there are other credentials now.
    """

    find_message: Callable[[int], bytes | None]
    receive_receipt: Callable[[bytes], None]
    receive_command: Callable[[bytes], None]
    status: Callable[[], Mapping[str, object]]
    count: Callable[[str], None]
    last_command: Callable[[], int] = _no_command
    problem: Callable[[str, bool], None] = _unheard
    renew_credentials: Callable[[], Awaitable[bool]] | None = None


def back_off_s(failures: int, random: float) -> float:
    """The pause after so many failures in a row: full jitter below a ceiling that doubles. `random` in [0, 1)."""
    return min(BACK_OFF_MAX_S, BACK_OFF_FIRST_S * 2.0 ** min(failures, BACK_OFF_DOUBLINGS_MAX)) * random


def encode_status(status: Mapping[str, object]) -> bytes:
    """The status as it is sent: one that the hub would find too long goes without its counts, or says no more than
    that the agent is there."""
    for said in (status, {name: value for name, value in status.items() if name != "counts"}, BARE_STATUS):
        encoded = json.dumps(said, separators=(",", ":")).encode()
        if len(encoded) <= STATUS_BYTES_MAX:
            return encoded
    raise AssertionError("the bare status is short")


def first_of(error: BaseException) -> BaseException:
    """The first error in a group of them: where tasks fail together, it is the cause."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def failure_of(session: Coroutine[Any, Any, None], expected: tuple[type[BaseException], ...]) -> BaseException:
    """Run one connection in a task of its own and return the expected error that ended it; any other is raised.

    A task of its own, because a group of tasks that is told to end at the moment in which one of them fails forgets
    that it was told.
    """
    task = asyncio.create_task(session)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    error = first_of(task.exception() or AssertionError("a connection does not end by itself"))
    if not isinstance(error, expected):
        raise error
    return error


def obey_cancellation() -> None:
    """Raise CancelledError if this task was told to end. For tasks that would go on for ever: `asyncio.wait_for`, on
    which the MQTT client waits, forgets in Python 3.11 that it was cancelled if its result came at the same moment.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def read_password(path: Path) -> str:
    """The broker password of this meter. Raises IdentityError, also if others may read it."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & ~SECRET_FILE_MODE:
            raise IdentityError("password_exposed", f"{path} has mode {mode:04o}; it must be {SECRET_FILE_MODE:04o}")
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise IdentityError("password_unreadable", f"{path}: {error}") from None


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Trust the given authority and nobody else; without one, those of the system. Raises IdentityError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if ca_file is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise IdentityError("ca_unreadable", f"{ca_file}: {error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def load_certificate(context: ssl.SSLContext, certificate_file: Path, key_file: Path) -> None:
    """Let the context show a certificate of ours. Raises IdentityError, also if others may read its key."""
    try:
        mode = stat.S_IMODE(key_file.stat().st_mode)
        if mode & ~SECRET_FILE_MODE:
            raise IdentityError(
                "certificate_key_exposed", f"{key_file} has mode {mode:04o}; it must be {SECRET_FILE_MODE:04o}"
            )
        context.load_cert_chain(certificate_file, key_file, password=b"")  # never ask a terminal for one
    except (OSError, ssl.SSLError) as error:
        raise IdentityError("certificate_unreadable", f"{certificate_file}, {key_file}: {error}") from None
