"""The relay over real sockets and real TLS; the party behind it says everything back."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.local.certificates import CA_FILE, KEY_FILE, SERVER_FILE, ensure_certificates
from simulators.network.framing import Mqtt, is_publication
from simulators.network.line import GOOD, Badness
from simulators.network.relay import Relay, Tls
from tests.simulators.network.test_line import publication

WAIT_S = 30
Exchange = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def echo(context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A party on a port; what it heard."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                heard.append(data)
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def through(relay: Relay, context: ssl.SSLContext | None = None) -> AsyncIterator[
    tuple[asyncio.StreamReader, asyncio.StreamWriter]
]:  # fmt: skip
    host = "localhost" if context else "127.0.0.1"
    async with asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection(host, relay.port, ssl=context)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


def run(framing: str, exchange: Callable[[Relay, list[bytes]], Awaitable[None]]) -> Relay:
    """Let a relay stand before the party and something be exchanged through it."""

    async def live() -> Relay:
        async with echo() as (port, heard):
            relay = Relay("127.0.0.1", port, framing=framing, seed=1)
            await relay.start()
            try:
                await exchange(relay, heard)
            finally:
                await relay.stop()
        return relay

    return asyncio.run(live())


def test_a_good_relay_passes_megabytes_both_ways_unchanged() -> None:
    sent = bytes(range(256)) * 8_192

    async def exchange(relay: Relay, heard: list[bytes]) -> None:
        async with through(relay) as (reader, writer):
            writer.write(sent)
            assert await reader.readexactly(len(sent)) == sent
        assert b"".join(heard) == sent

    assert not run("bytes", exchange).happened()


def test_a_cut_ends_the_connection_for_both_and_the_next_one_lives() -> None:
    async def exchange(relay: Relay, heard: list[bytes]) -> None:
        async with through(relay) as (reader, writer):
            writer.write(b"before")
            assert await reader.readexactly(6) == b"before"
            await relay.cut_all()
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
        async with through(relay) as (reader, writer):
            writer.write(b"after")
            assert await reader.readexactly(5) == b"after"

    run("bytes", exchange)


def test_a_relay_that_refuses_lets_nobody_through_until_it_does_not() -> None:
    async def exchange(relay: Relay, heard: list[bytes]) -> None:
        relay.refusing = True
        async with through(relay) as (reader, _):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
        assert heard == []
        relay.refusing = False
        async with through(relay) as (reader, writer):
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"

    run("bytes", exchange)


def test_nobody_behind_the_relay_is_a_connection_that_ends() -> None:
    async def live() -> None:
        async with echo() as (port, _):
            pass
        relay = Relay("127.0.0.1", port, framing="bytes", seed=1)
        await relay.start()
        async with through(relay) as (reader, _):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
        await relay.stop()

    asyncio.run(live())


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (Badness(slow=1, delay_s=0.001), "slow"),
        (Badness(repeated=1), "repeated"),
        (Badness(reordered=0.5), "reordered"),
        (Badness(damaged=1), "damaged"),
        (Badness(swallowed=1), "swallowed"),
    ],
)
def test_each_fault_befalls_publications_on_the_way_out_and_only_while_the_line_is_bad(bad: Badness, kind: str) -> None:
    packets = [publication(bytes([number]) * 20, number) for number in range(1, 41)]

    async def exchange(relay: Relay, heard: list[bytes]) -> None:
        async with through(relay) as (reader, writer):
            relay.outward = bad
            answered = bytearray()
            framing, found = Mqtt(), list[bytes]()
            for packet in packets:
                writer.write(packet)
            expected = {"repeated": 80, "swallowed": 40}.get(kind, 40)
            while len(found) < expected:
                answered = bytearray(await reader.read(65_536))
                assert answered
                found += framing.feed(bytes(answered))
            same = [packet for packet in found if packet in packets]
            if kind == "slow":
                assert found == packets
            elif kind == "repeated":
                assert same == packets
                assert {bytes([packet[0] & ~0x08]) + packet[1:] for packet in found} == set(packets)
            elif kind == "reordered":
                assert sorted(found) == sorted(packets) != found
            elif kind == "damaged":
                assert same == []
            else:
                assert heard == []
                assert [packet[0] for packet in found] == [0x40] * 40
            relay.outward = GOOD
            writer.write(packets[0])
            while not (found := list(framing.feed(await reader.read(65_536)))):
                pass
            assert found == packets[:1]
            assert is_publication(found[0])

    happened = run("mqtt", exchange).happened()
    assert set(happened) == {kind}
    assert happened[kind] >= (10 if kind == "reordered" else 40)


def test_what_was_held_back_is_passed_on_when_nothing_follows() -> None:
    async def exchange(relay: Relay, heard: list[bytes]) -> None:
        relay.outward = Badness(reordered=1)
        async with through(relay) as (reader, writer):
            writer.write(publication(b"alone"))
            assert await reader.readexactly(len(publication(b"alone"))) == publication(b"alone")

    assert run("mqtt", exchange).happened() == {"reordered": 1}


def test_a_line_that_cuts_ends_the_connection_before_the_packet_arrives() -> None:
    async def exchange(relay: Relay, heard: list[bytes]) -> None:
        relay.inward = Badness(cut=1)
        async with through(relay) as (reader, writer):
            writer.write(publication(b"there"))
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
        assert heard == [publication(b"there")]

    assert run("mqtt", exchange).happened() == {"cut": 1}


def test_with_tls_each_side_is_judged_by_its_authority(tmp_path: Path) -> None:
    ensure_certificates(tmp_path / "ours", datetime.now(UTC))
    ensure_certificates(tmp_path / "strangers", datetime.now(UTC))
    ours, strangers = tmp_path / "ours", tmp_path / "strangers"
    party = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    party.load_cert_chain(ours / SERVER_FILE, ours / KEY_FILE)
    caller = ssl.create_default_context(cafile=ours / CA_FILE)

    async def live() -> None:
        async with echo(party) as (port, _):
            for authority in (ours, strangers):
                tls = Tls(ours / SERVER_FILE, ours / KEY_FILE, authority / CA_FILE)
                relay = Relay("127.0.0.1", port, framing="bytes", seed=1, tls=tls)
                await relay.start()
                async with through(relay, caller) as (reader, writer):
                    writer.write(b"seal")
                    if authority is ours:
                        assert await reader.readexactly(4) == b"seal"
                    else:
                        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                            await reader.readexactly(1)
                await relay.stop()

    asyncio.run(live())
