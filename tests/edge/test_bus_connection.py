"""Connections by themselves: what a device does to them that nobody is listening to, or that does not listen."""

import asyncio
import os
import termios
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from edge.bus_connection import UNREAD_BYTES_MAX, SerialConnection, TcpConnection
from edge.errors import ModbusError
from tests.edge.modbus_slave import a_bus


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


def test_a_serial_line_that_takes_nothing_more_is_lost_and_nobody_waits_for_it() -> None:
    """A hung USB adapter: what is written to it stays in the kernel until there is no room left."""

    async def story() -> None:
        far, near = os.openpty()
        async with a_bus("rtu") as (_, settings):
            connection = await SerialConnection.open(replace(settings, device=os.ttyname(near)))
            for _ in range(100_000):
                connection.send(b"requests")
                if connection.lost:
                    break
            connection.send(b"requests")
            assert connection.lost == "the serial line takes no more bytes"
            with pytest.raises(ModbusError, match="modbus_disconnected"):
                await connection.receive()
            connection.close()
        os.close(near)
        os.close(far)

    run(story)


def test_a_device_that_disappears_while_it_is_opened_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(fd: int, queue: int) -> None:
        raise termios.error(5, "Input/output error")

    async def story() -> None:
        async with a_bus("rtu") as (_, settings):
            monkeypatch.setattr(termios, "tcflush", gone)
            with pytest.raises(ModbusError, match="modbus_unreachable"):
                await SerialConnection.open(settings)

    run(story)


def test_what_a_device_says_without_being_asked_is_not_kept_without_end() -> None:
    async def story() -> None:
        async with a_bus("tcp") as (slave, settings):
            connection = await TcpConnection.open(settings)
            while not slave.connections:
                await asyncio.sleep(0)
            for _ in range(20):
                slave.send(bytes(UNREAD_BYTES_MAX))
                await asyncio.sleep(0.001)
            slave.hang_up()
            while not connection.lost:
                await asyncio.sleep(0)
            assert len(await connection.receive()) <= UNREAD_BYTES_MAX
            connection.close()

    run(story)
