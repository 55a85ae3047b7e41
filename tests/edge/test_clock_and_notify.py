import asyncio
import os
import socket
import struct
import time
from pathlib import Path

import pytest

from edge.clock import STA_UNSYNC, TIME_ERROR, TIMEX_BYTES, Instant, KernelClock, step_s, timex_synchronised
from edge.notify import ALIVE, READY, notify, watchdog_pause_s


def timex(status: int) -> bytes:
    """Linux's struct timex: modes, offset, freq, maxerror, esterror, status, and what nobody asks for."""
    return struct.pack("@i4li", 0, -1, -1, -1, -1, status).ljust(TIMEX_BYTES, b"\xff")


def test_the_kernel_vouches_for_its_clock_unless_it_says_otherwise() -> None:
    time_ok, leap_second_to_come, pll = 0, 1, 0x1
    assert timex_synchronised(time_ok, timex(pll))
    assert timex_synchronised(leap_second_to_come, timex(0))
    assert not timex_synchronised(time_ok, timex(pll | STA_UNSYNC))
    assert not timex_synchronised(TIME_ERROR, timex(pll))
    assert not timex_synchronised(-1, timex(pll))
    assert KernelClock("trust").synchronised()


@pytest.mark.parametrize("step_s", [-86_400.0, -1.5, 1.5, 86_400.0])
def test_a_wait_over_a_clock_that_is_stepped_is_never_longer_than_it_looked(step_s: float) -> None:
    started = time.monotonic()

    def stepped() -> float:
        passed = time.monotonic() - started
        return 1_900_000_000 + passed + (step_s if passed > 0.3 else 0)

    asyncio.run(KernelClock("trust", stepped).wait_until(1_900_000_002))
    assert time.monotonic() - started < 2.5


def test_a_step_is_told_from_a_leap_second_and_from_a_clock_that_is_corrected_gently() -> None:
    before = Instant(1_900_000_000.7, 50.0)
    assert step_s(before, Instant(1_900_000_060.7, 110.0)) == 0
    assert step_s(before, Instant(1_900_000_059.7, 110.0)) == 0  # the second before midnight came twice
    assert step_s(before, Instant(1_900_000_061.7, 110.0)) == 0
    assert step_s(before, Instant(1_900_003_602.5, 3_650.0)) == 0  # 500 millionths faster for an hour
    assert step_s(before, Instant(1_900_000_063.7, 110.0)) == 3
    assert step_s(before, Instant(1_899_996_460.7, 110.0)) == -3_600


def test_a_smeared_leap_second_is_no_step_and_costs_no_reading() -> None:
    smear_s, seen = 86_400, []
    before = Instant(0.0, 0.0)
    for monotonic_s in range(60, smear_s + 1, 60):
        now = Instant(monotonic_s - monotonic_s / smear_s, monotonic_s)
        assert step_s(before, now) == 0
        seen.append(before := now)
    assert seen[-1].unix_s == smear_s - 1


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
