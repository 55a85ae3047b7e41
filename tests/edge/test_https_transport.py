"""What an agent makes of answers that no hub should give. How it fares with the real one is in tests/flows."""

import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from edge.connection import Hooks, encode_status
from edge.errors import IdentityError
from edge.https_transport import ANSWER_BYTES_MAX, POSTS_MAX, HttpsTransport
from edge.outbox import Outbox
from edge.settings import Settings
from edge.transports import create_transport
from edge.uplink_settings import HttpsSettings, HubSettings
from protocol.committed import Committed, encode_committed

WAIT_S = 30
DRIPPING = 1
LONG_STATUS: dict[str, object] = {"counts": {f"event_{number}": number for number in range(400)}}


def receipt(contiguous: int) -> bytes:
    return encode_committed(Committed(1, contiguous, b"h" * 32 if contiguous else None, []))


def report_answer(contiguous: int = 0, commands: object = ()) -> bytes:
    return json.dumps({"receipt": receipt(contiguous).hex(), "commands": commands}).encode()


@dataclass
class Answers:
    """A server that answers what it is told; it remembers the requests as (path, body)."""

    report: Callable[[], tuple[int, bytes]]
    seal: Callable[[bytes], tuple[int, bytes]] = lambda _: (200, b"{}")
    requests: list[tuple[str, bytes]] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                body = await reader.readexactly(length)
                path = head.split(b" ")[1].decode()
                self.requests.append((path, body))
                status, answer = self.report() if path.startswith("/agent/report") else self.seal(body)
                self.heads.append(head.lower())
                if not status:
                    break
                if status == DRIPPING:
                    writer.write(b"HTTP/1.1 200 OK\r\nX-Word: ")
                    while True:  # for ever, and never so slowly that a read would time out
                        writer.write(b"x")
                        await writer.drain()
                        await asyncio.sleep(0.05)
                writer.write(b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n" % (status, len(answer)) + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@dataclass
class Heard:
    """An agent's side: five seals, and what its transport told it."""

    outbox: Outbox = field(default_factory=lambda: Outbox(30, lambda: 0.0))
    counts: list[str] = field(default_factory=list)
    problems: list[tuple[str, bool]] = field(default_factory=list)
    receipts: list[bytes] = field(default_factory=list)
    commands: list[bytes] = field(default_factory=list)
    more: dict[str, object] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def hooks(self, renew: Callable[[], Awaitable[bool]] | None = None) -> Hooks:
        def heard(append: Callable[..., None]) -> Callable[..., None]:
            def hear(*what: object) -> None:
                append(*what) if len(what) == 1 else append(what)
                self.changed.set()

            return hear

        return Hooks(
            lambda sequence: b"seal %d" % sequence,
            heard(self.receipts.append),
            heard(self.commands.append),
            lambda: {"state": "online", **self.more},
            heard(self.counts.append),
            lambda: 7,
            heard(self.problems.append),
            renew,
        )

    async def wait(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not happened():
                self.changed.clear()
                await self.changed.wait()


def https_settings(settings: Settings, port: int) -> Settings:
    password_file = settings.key_file.parent / "mqtt.password"
    hub = HubSettings(f"http://127.0.0.1:{port}", None, settings.command_public_key)
    return replace(settings, transport="https", mqtt=None, https=HttpsSettings(password_file, 30), hub=hub)


def run_against(
    settings: Settings,
    answers: Answers,
    heard: Heard,
    happened: Callable[[], bool],
    renew: Callable[[], Awaitable[bool]] | None = None,
    answer_timeout_s: float = WAIT_S,
) -> None:
    async def run() -> None:
        server = await asyncio.start_server(answers.serve, "127.0.0.1", 0)
        here = https_settings(settings, server.sockets[0].getsockname()[1])
        transport = HttpsTransport(
            here, heard.outbox, heard.hooks(renew), lambda: 0.01, answer_timeout_s=answer_timeout_s
        )
        running = asyncio.create_task(transport.run())
        try:
            await heard.wait(happened)
        finally:
            running.cancel()
            await asyncio.wait([running], timeout=WAIT_S)
            server.close()
            await server.wait_closed()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "body", "named"),
    [
        (200, b"<html>a hotel's page</html>", "hub_answer_malformed"),
        (200, b"[]", "hub_answer_malformed"),
        (200, b"{" * 5_000, "hub_answer_malformed"),
        (200, b'"' + b"x" * ANSWER_BYTES_MAX + b'"', "hub_answer_malformed"),
        (200, report_answer(commands={"a": 1}), "hub_answer_malformed"),
        (200, report_answer(commands=["00"] * 1_000), "hub_answer_malformed"),
        (302, b"{}", "report_refused"),
        (404, b'{"code":"not_found"}', "report_refused"),
        (429, b"", "hub_away"),
        (503, b"", "hub_away"),
        (0, b"", "hub_lost"),
    ],
)
def test_an_answer_that_no_hub_gives_is_named_and_nothing_is_sent(
    settings: Settings, status: int, body: bytes, named: str
) -> None:
    heard = Heard()
    heard.outbox.load([1])
    answers = Answers(lambda: (status, body))
    run_against(settings, answers, heard, lambda: len(heard.counts) >= 3)  # and it goes on trying
    assert set(heard.counts) == {named}
    assert {path.partition("?")[0] for path, _ in answers.requests} == {"/agent/report"}


def test_the_receipt_comes_before_the_first_seal_and_the_furthest_of_many_is_handed_on(settings: Settings) -> None:
    heard = Heard()
    heard.outbox.load([1, 2, 3, 4, 5])
    order = iter([3, 1, 5, 4, 2])
    answers = Answers(
        lambda: (200, report_answer()),
        lambda _: (200, json.dumps({"receipt": receipt(next(order)).hex()}).encode()),
    )
    run_against(settings, answers, heard, lambda: receipt(5) in heard.receipts)
    assert answers.requests[0] == ("/agent/report?meter_id=home-17&last_command=7", b'{"state":"online"}')
    assert sorted(body for path, body in answers.requests if path.startswith("/readings/seals")) == [
        b"seal %d" % sequence for sequence in range(1, 6)
    ]
    assert heard.receipts[0] == receipt(0)
    assert answers.requests[-1][1] == b'{"state":"offline"}'


def test_a_refused_seal_is_counted_kept_and_does_not_hold_up_the_others(settings: Settings) -> None:
    heard = Heard()
    heard.outbox.load(range(1, 21))
    refused = (422, b'{"code":"seal_unverifiable","detail":"why"}')
    taken = (200, json.dumps({"receipt": receipt(20).hex()}).encode())
    answers = Answers(lambda: (200, report_answer()), lambda body: taken if body == b"seal 20" else refused)
    run_against(settings, answers, heard, lambda: receipt(20) in heard.receipts)
    assert heard.counts == ["seal_refused"] * 19
    assert len(heard.outbox) == 20
    assert POSTS_MAX < 20


@pytest.mark.parametrize(
    ("status", "body"), [(403, b"<html>this looks dangerous</html>"), (413, b""), (500, b'{"code":"internal_error"}')]
)
def test_a_seal_that_something_on_the_way_does_not_let_through_holds_up_no_other(
    settings: Settings, status: int, body: bytes
) -> None:
    heard = Heard()
    heard.outbox.load(range(1, 21))
    taken = (200, json.dumps({"receipt": receipt(0).hex()}).encode())
    answers = Answers(lambda: (200, report_answer()), lambda seal: (status, body) if seal == b"seal 1" else taken)
    run_against(settings, answers, heard, lambda: len(answers.requests) >= 21 and bool(heard.counts))
    assert heard.counts == ["seal_refused"]
    assert len({seal for path, seal in answers.requests if path.startswith("/readings/seals")}) == 20
    assert [path for path, _ in answers.requests].count("/agent/report?meter_id=home-17&last_command=7") <= 2


def test_an_answer_that_drips_for_ever_is_given_up(settings: Settings) -> None:
    heard = Heard()
    run_against(settings, Answers(lambda: (DRIPPING, b"")), heard, lambda: len(heard.counts) >= 2, answer_timeout_s=0.3)
    assert set(heard.counts) == {"hub_lost"}


def test_a_packed_answer_is_not_unpacked(settings: Settings) -> None:
    heard = Heard()
    answers = Answers(lambda: (200, zlib.compress(b" " * 50_000_000)))  # 49 kB on the line
    run_against(settings, answers, heard, lambda: len(heard.counts) >= 1)
    assert heard.counts[0] == "hub_answer_malformed"
    assert b"accept-encoding: identity" in answers.heads[0]


def test_a_hub_that_takes_reports_but_no_seals_is_not_hurried(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()
    heard.outbox.load([1])
    answers = Answers(lambda: (200, report_answer()), lambda _: (503, b""))
    run_against(settings, answers, heard, lambda: len(heard.counts) >= 4)
    failures = [vars(record)["failures"] for record in caplog.records if record.message == "hub_away"]
    assert failures[:4] == [0, 1, 2, 3]


def test_a_status_that_is_too_long_goes_without_its_counts(settings: Settings) -> None:
    heard = Heard(more=LONG_STATUS)
    answers = Answers(lambda: (200, report_answer()))
    run_against(settings, answers, heard, lambda: bool(heard.receipts))
    assert answers.requests[0][1] == b'{"state":"online"}'
    assert encode_status({"state": "x" * 5_000}) == b'{"state":"online"}'


def test_seals_and_commands_do_not_wait_until_the_hub_understands_the_status(settings: Settings) -> None:
    heard = Heard(more={"of_a_later_version": 1})
    answers = Answers(
        lambda: (
            (200, report_answer(commands=["0102"]))
            if answers.requests[-1][1] == b'{"state":"online"}'
            else (422, b'{"code":"malformed_input"}')
        )
    )
    run_against(settings, answers, heard, lambda: bool(heard.commands))
    assert heard.counts == ["report_refused"]


def test_the_settings_choose_the_transport(settings: Settings) -> None:
    async def create() -> None:
        transport = create_transport(https_settings(settings, 1), Outbox(1, lambda: 0.0), Heard().hooks(), lambda: 0.0)
        assert isinstance(transport, HttpsTransport)

    asyncio.run(create())


def test_a_refused_password_is_named_renewed_and_read_again(settings: Settings) -> None:
    heard = Heard()
    answer = [(401, b"{}"), (200, report_answer())]

    async def renew() -> bool:
        del answer[0]
        return True

    run_against(settings, Answers(lambda: answer[0]), heard, lambda: len(heard.problems) == 2, renew)
    assert heard.counts == ["hub_not_authorised"]
    assert heard.problems == [("hub_not_authorised", True), ("hub_not_authorised", False)]


def test_a_receipt_that_is_none_goes_where_it_is_judged(settings: Settings) -> None:
    heard = Heard()
    answers = Answers(lambda: (200, b'{"receipt":"c1ff","commands":["zz", "0102"]}'))
    run_against(settings, answers, heard, lambda: len(heard.commands) == 2)
    assert heard.receipts == [b"\xc1\xff"]
    assert heard.commands == [b"", b"\x01\x02"]


def test_a_password_that_others_may_read_is_a_named_error(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "mqtt.password").chmod(0o644)

    async def create() -> None:
        with pytest.raises(IdentityError, match="password_exposed"):
            HttpsTransport(https_settings(settings, 1), Outbox(1, lambda: 0.0), Heard().hooks(), lambda: 0.0)

    asyncio.run(create())
