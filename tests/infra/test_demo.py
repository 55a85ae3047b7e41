"""The demonstration as a stranger types it, and as it is cut short."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from infra.local.mosquitto_package import Installation

ROOT = Path(__file__).parent.parent.parent
STEP_TIMEOUT_S = 120.0


@pytest.fixture
def var(tmp_path: Path, mosquitto_installation: Installation) -> Path:
    """A directory for the demo alone, with the broker that is already downloaded."""
    (tmp_path / "cache").symlink_to(ROOT / "var" / "cache")
    return tmp_path


@contextmanager
def demo(var: Path, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "commonwatt", "demo", "--var", str(var), *options]
    with (var / "output").open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(process: "subprocess.Popen[bytes]", var: Path, pattern: str) -> None:
    deadline_s = time.monotonic() + STEP_TIMEOUT_S
    while not any(file.stat().st_size for file in var.glob(pattern)):
        assert process.poll() is None, (var / "output").read_text()
        assert time.monotonic() < deadline_s, (var / "output").read_text()
        time.sleep(0.1)


def processes_of(var: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(var / "demo") in word for word in process.info["cmdline"] or ())
    ]


def wait_until_nobody_is_left(var: Path) -> None:
    deadline_s = time.monotonic() + STEP_TIMEOUT_S
    while processes_of(var) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert processes_of(var) == []


def test_a_demo_after_a_killed_one_finds_the_golden_day_exact(var: Path) -> None:
    with demo(var) as killed:
        wait_for(killed, var, "demo/run-*/log/golden-home-day.log")
        assert processes_of(var)
        killed.kill()
        killed.wait()
    with demo(var, "--once") as process:
        assert process.wait(2 * STEP_TIMEOUT_S) == 0, (var / "output").read_text()
    summary = json.loads((var / "demo/summary.json").read_text())
    assert summary["faults"] == []
    assert summary["golden_home"]["the whole day"]["measured"] == {
        "production_wh": 20_000,
        "consumption_wh": 9_000,
        "surplus_wh": 11_000,
    }
    assert summary["stored"]["seals"] == 8 * 96
    assert summary["people"]["seals_seen"] == 96
    assert len(list((var / "demo").glob("run-*"))) == 1
    assert "golden home" in (var / "output").read_text()
    wait_until_nobody_is_left(var)


@pytest.mark.parametrize("interruption", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_stops_everything_and_says_so(var: Path, interruption: signal.Signals) -> None:
    with demo(var) as process:
        wait_for(process, var, "demo/run-*/log/hub-api.log")
        process.send_signal(interruption)
        assert process.wait(STEP_TIMEOUT_S) == 130
    assert (var / "output").read_text().endswith("Stopped.\n")
    assert not (var / "demo/summary.json").exists()
    wait_until_nobody_is_left(var)


def test_a_second_demo_in_the_same_place_is_refused(var: Path) -> None:
    with demo(var) as first:
        wait_for(first, var, "demo/run-*/postgres/server.log")
        with demo(var, "--once") as second:
            assert second.wait(STEP_TIMEOUT_S) == 1
        assert "already running" in (var / "output").read_text()
        assert first.poll() is None
    wait_until_nobody_is_left(var)
