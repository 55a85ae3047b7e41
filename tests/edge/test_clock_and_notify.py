import asyncio
import os
import socket
import time
from pathlib import Path

from edge.clock import KernelClock, kernel_clock_synchronised
from edge.notify import ALIVE, READY, notify, watchdog_pause_s


def test_the_kernel_is_asked_and_answers() -> None:
    assert kernel_clock_synchronised() in (True, False)
    assert KernelClock("kernel").synchronised() == kernel_clock_synchronised()
    assert KernelClock("trust").synchronised()


def test_a_wait_ends_at_its_instant_and_never_before() -> None:
    clock = KernelClock("trust")
    target = clock.now_unix_s() + 1
    asyncio.run(clock.wait_until(target))
    assert target <= time.time() < target + 1
    asyncio.run(clock.wait_until(target - 100))


def test_systemd_hears_that_we_are_ready_and_alive(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        address = f"\0commonwatt-test-{os.getpid()}"
        supervisor.bind(address)
        notify(READY, {"NOTIFY_SOCKET": "@" + address[1:]})
        assert supervisor.recv(100) == b"READY=1"
        supervisor.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        path = os.path.relpath(tmp_path / "notify")
        supervisor.bind(path)
        notify(ALIVE, {"NOTIFY_SOCKET": path})
        assert supervisor.recv(100) == b"WATCHDOG=1"


def test_without_systemd_nobody_is_told() -> None:
    notify(READY, {})
    assert watchdog_pause_s({}) is None
    assert watchdog_pause_s({"WATCHDOG_USEC": "60000000"}) == 30
