"""The way to the hub where only HTTPS gets out: the same bytes, posted, and the same guarantee.

Each answer brings a receipt, and only a believed receipt lets a seal go. A report of the status comes first, because
its answer brings the receipt that an old journal must hear before it sends anything; later ones bring the hub's
commands, which so wait for up to STATUS_INTERVAL_S. Receipts are handed on once a second, the furthest of them: each
costs the journal a write to the disk.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import httpx

from edge.connection import (
    BARE_STATUS,
    RECEIVED_BYTES_MAX,
    STATUS_INTERVAL_S,
    Hooks,
    back_off_s,
    encode_status,
    failure_of,
    read_password,
    tls_context,
)
from edge.errors import EdgeError, IdentityError
from edge.outbox import Outbox
from edge.settings import Settings
from protocol.committed import decode_committed
from protocol.errors import ProtocolError

POSTS_MAX = 4
"""Seals on their way at once. The hub stores a meter's seals one after the other anyway; this hides the distance."""
ANSWER_TIMEOUT_S = 20.0
ANSWER_BYTES_MAX = 65_536
FAREWELL_TIMEOUT_S = 2.0
RECEIPT_PAUSE_S = 1.0
COMMANDS_MAX = 64
WHY_LENGTH_MAX = 200
NOT_AUTHORISED = "hub_not_authorised"
UNAUTHORIZED, TIMED_OUT, TOO_MANY, UNREADABLE, INTERNAL_ERROR = 401, 408, 429, 422, 500

log = logging.getLogger(__name__)


class _HubFailed(EdgeError):
    """An answer after which to start over: the hub is away, does not know us, or is none."""


class HttpsTransport:
    """Keeps exchanging with the hub for as long as it runs. Raises IdentityError if a secret cannot be read."""

    def __init__(
        self,
        settings: Settings,
        outbox: Outbox,
        hooks: Hooks,
        random: Callable[[], float],
        monotonic_s: Callable[[], float] = time.monotonic,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        assert settings.https is not None and settings.hub.url, "the settings name the transport and have its tables"
        self._password_file = settings.https.password_file
        self._hub = settings.hub
        self._meter_id = settings.meter_id
        read_password(self._password_file)
        tls_context(self._hub.ca_file)
        self._outbox = outbox
        self._hooks = hooks
        self._random = random
        self._monotonic_s = monotonic_s
        self._answer_timeout_s = answer_timeout_s
        self._failures = 0
        self._receipts: dict[int, tuple[tuple[int, int], bytes]] = {}  # by key epoch: how far it goes, and the bytes
        self._receipt_heard = asyncio.Event()
        self._woken = asyncio.Event()
        self._status_changed = asyncio.Event()
        self.last_problem = "never connected"

    def wake(self) -> None:
        """Something may be due."""
        self._woken.set()

    def status_changed(self) -> None:
        """Report the status soon."""
        self._status_changed.set()

    async def run(self) -> None:
        """Report, post, start over; until cancelled."""
        while True:
            await self._failed(await failure_of(self._session(), (httpx.HTTPError, OSError, IdentityError, _HubFailed)))
            pause_s = back_off_s(self._failures, self._random())
            self._failures += 1
            await asyncio.sleep(pause_s)

    async def _failed(self, error: BaseException) -> None:
        what = error.code if isinstance(error, EdgeError) else "hub_lost"
        self.last_problem = str(error) or type(error).__name__
        self._hooks.count(what)
        log.warning(what, extra={"why": self.last_problem, "failures": self._failures})
        if what == NOT_AUTHORISED:
            self._hooks.problem(NOT_AUTHORISED, True)
            if self._hooks.renew_credentials is not None and await self._hooks.renew_credentials():
                self._failures = 0

    # ── one stretch without failures ────────────────────────────────────────────────────────────────────

    def _client(self) -> httpx.AsyncClient:
        """A client that follows nobody elsewhere and takes nothing from the environment: the settings say it all."""
        return httpx.AsyncClient(
            base_url=self._hub.url,
            params={"meter_id": self._meter_id},
            verify=tls_context(self._hub.ca_file),
            headers={"Accept-Encoding": "identity"},
            timeout=self._answer_timeout_s,
            limits=httpx.Limits(max_connections=POSTS_MAX + 1),  # the report beside the seals
            follow_redirects=False,
            trust_env=False,
        )

    async def _session(self) -> None:
        self._receipts.clear()
        login = httpx.BasicAuth(self._meter_id, read_password(self._password_file))
        async with self._client() as client:
            await self._report_once(client, login, self._hooks.status())
            self._hand_on_receipts()
            self.last_problem = ""
            self._hooks.problem(NOT_AUTHORISED, False)
            self._outbox.connected()
            log.info("hub_connected", extra={"backlog_seals": len(self._outbox)})
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._report(client, login))
                    tasks.create_task(self._hear())
                    tasks.create_task(self._send(client, tasks))
            except asyncio.CancelledError:
                self._hand_on_receipts()
                with suppress(httpx.HTTPError, OSError, _HubFailed, TimeoutError):
                    async with asyncio.timeout(FAREWELL_TIMEOUT_S):
                        parameters = {"last_command": self._hooks.last_command()}
                        await self._post(client, "/agent/report", parameters, b'{"state":"offline"}', login)
                raise

    async def _post(
        self,
        client: httpx.AsyncClient,
        path: str,
        parameters: Mapping[str, int],
        body: bytes,
        login: httpx.BasicAuth | None = None,
    ) -> tuple[int, dict[str, object]]:
        """The status and the JSON object that the hub answers, empty if it is none.

        Raises _HubFailed, httpx.HTTPError, or TimeoutError: however slowly an answer drips, it has ANSWER_TIMEOUT_S.
        """
        answer = b""
        async with (
            asyncio.timeout(self._answer_timeout_s),
            client.stream("POST", path, params=parameters, content=body, auth=login) as response,
        ):
            async for part in response.aiter_raw():  # a few packed bytes could be gigabytes
                answer += part
                if len(answer) > ANSWER_BYTES_MAX:
                    raise _HubFailed("hub_answer_malformed", f"{path}: more than {ANSWER_BYTES_MAX} bytes")
        status = response.status_code
        if status == UNAUTHORIZED:
            raise _HubFailed(NOT_AUTHORISED, f"{path}: the hub does not know this password")
        if status > INTERNAL_ERROR or status in (TIMED_OUT, TOO_MANY):
            raise _HubFailed("hub_away", f"{path}: {status}")
        try:
            document = json.loads(answer)
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict):
            return status, document
        if status == httpx.codes.OK:
            raise _HubFailed("hub_answer_malformed", f"{path}: {status}, not a JSON object")
        return status, {}

    # ── reports ─────────────────────────────────────────────────────────────────────────────────────────

    async def _report(self, client: httpx.AsyncClient, login: httpx.BasicAuth) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(STATUS_INTERVAL_S - 1):
                    await self._status_changed.wait()
            await asyncio.sleep(1)  # however often the status changes
            self._status_changed.clear()
            await self._report_once(client, login, self._hooks.status())
            self._failures = 0

    async def _report_once(
        self, client: httpx.AsyncClient, login: httpx.BasicAuth, status: Mapping[str, object]
    ) -> None:
        parameters = {"last_command": self._hooks.last_command()}
        code, document = await self._post(client, "/agent/report", parameters, encode_status(status), login)
        if code == UNREADABLE:  # receipts and commands are not to wait until the hub understands what we say of us
            self._hooks.count("report_refused")
            log.warning("report_refused", extra={"why": _why(code, document)})
            code, document = await self._post(client, "/agent/report", parameters, encode_status(BARE_STATUS), login)
        if code != httpx.codes.OK:
            raise _HubFailed("report_refused", _why(code, document))
        self._keep_receipt(document)
        commands = document.get("commands")
        if not isinstance(commands, list) or len(commands) > COMMANDS_MAX:
            raise _HubFailed("hub_answer_malformed", "/agent/report: commands")
        for command in commands:
            self._hooks.receive_command(_bytes_of(command))

    # ── receipts ────────────────────────────────────────────────────────────────────────────────────────

    def _keep_receipt(self, document: Mapping[str, object]) -> None:
        """Keep the furthest: answers overtake each other."""
        payload = _bytes_of(document.get("receipt"))
        try:
            receipt = decode_committed(payload)
        except ProtocolError:
            self._hooks.receive_receipt(payload)  # which names and counts what it is
            return
        extent = receipt.contiguous_sequence, sum(last - first + 1 for first, last in receipt.ranges)
        kept = self._receipts.get(receipt.key_epoch)
        if kept is None or kept[0] <= extent:
            self._receipts[receipt.key_epoch] = extent, payload
        self._receipt_heard.set()

    def _hand_on_receipts(self) -> None:
        self._receipt_heard.clear()
        for _, payload in self._receipts.values():
            self._hooks.receive_receipt(payload)
        self._receipts.clear()

    async def _hear(self) -> None:
        while True:
            await self._receipt_heard.wait()
            self._hand_on_receipts()
            self.wake()
            await asyncio.sleep(RECEIPT_PAUSE_S)

    # ── seals ───────────────────────────────────────────────────────────────────────────────────────────

    async def _send(self, client: httpx.AsyncClient, tasks: asyncio.TaskGroup) -> None:
        while True:
            self._woken.clear()
            now_s = self._monotonic_s()
            for sequence in self._outbox.take(now_s, POSTS_MAX):
                tasks.create_task(self._post_seal(client, sequence))
            due_s = self._outbox.next_due_s(POSTS_MAX)
            with suppress(TimeoutError):
                async with asyncio.timeout(None if due_s is None else due_s - now_s):
                    await self._woken.wait()

    async def _post_seal(self, client: httpx.AsyncClient, sequence: int) -> None:
        message = self._hooks.find_message(sequence)
        if message is not None:
            code, document = await self._post(client, "/readings/seals", {}, message)
            if code == httpx.codes.OK:
                self._failures = 0
                self._keep_receipt(document)
            else:  # of this seal: the others are not to wait for it
                self._hooks.count("seal_refused")
                log.warning("seal_refused", extra={"sequence": sequence, "why": _why(code, document)})
        self._outbox.finished(sequence, self._monotonic_s())
        self.wake()


def _why(code: int, document: Mapping[str, object]) -> str:
    """What the hub says of a refusal, in a line."""
    said = [text[:WHY_LENGTH_MAX] for name in ("code", "detail") if isinstance(text := document.get(name), str)]
    return ": ".join([str(code), *said])


def _bytes_of(value: object) -> bytes:
    """What a field in hex says; empty if it is none."""
    if not isinstance(value, str) or len(value) > 2 * RECEIVED_BYTES_MAX:
        return b""
    try:
        return bytes.fromhex(value)
    except ValueError:
        return b""
