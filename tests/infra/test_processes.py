import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from infra.local.processes import LOOPBACK, free_port, is_free, log_tail, remembered_port, start_child, stop_child

DEATH_TIMEOUT_S = 30.0

STARTS_A_SERVER_AND_WAITS = """
import signal, sys, time
from pathlib import Path
from infra.local.postgres import NOT_DURABLE, Postgres
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with it ignored
server = Postgres(Path(sys.argv[1]), NOT_DURABLE)
server.start()
print((server.data / "postmaster.pid").read_text().split()[0], flush=True)
time.sleep(600)
"""

STARTS_A_STUBBORN_PROGRAM_AND_WAITS = """
import signal, sys, time
from pathlib import Path
from infra.local.processes import start_child
signal.signal(signal.SIGINT, signal.default_int_handler)
stubborn = "trap '' TERM INT HUP; while :; do sleep 0.1; done"
child = start_child(["sh", "-c", stubborn], log=Path(sys.argv[1]) / "log")
print(child.pid, flush=True)
time.sleep(600)
"""


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("script", [STARTS_A_SERVER_AND_WAITS, STARTS_A_STUBBORN_PROGRAM_AND_WAITS])
@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_the_process_that_started_it(script: str, death: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "child")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        family = [child, *child.children(recursive=True)]
        parent.send_signal(death)
        parent.wait(DEATH_TIMEOUT_S)
    deadline_s = time.monotonic() + DEATH_TIMEOUT_S
    while not is_gone(child) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert is_gone(child)
    _, alive = psutil.wait_procs(family, timeout=DEATH_TIMEOUT_S)
    assert [process for process in alive if not is_gone(process)] == []


def test_a_child_that_ignores_the_request_to_stop_is_killed(tmp_path: Path) -> None:
    child = start_child(["sh", "-c", "trap '' TERM; echo ready; sleep 60"], log=tmp_path / "log")
    while "ready" not in log_tail(tmp_path / "log"):
        time.sleep(0.01)
    assert stop_child(child, timeout_s=0.2) == -signal.SIGKILL


def test_a_child_writes_to_its_log_and_sees_its_environment(tmp_path: Path) -> None:
    child = start_child(["sh", "-c", "echo $ENERGY_WH"], log=tmp_path / "log", environment={"ENERGY_WH": "5000"})
    assert child.wait() == 0
    assert log_tail(tmp_path / "log") == "5000"


def test_a_port_is_remembered_while_it_is_free(tmp_path: Path) -> None:
    port = remembered_port(tmp_path / "port")
    assert is_free(port)
    assert remembered_port(tmp_path / "port") == port


def test_a_port_counts_as_taken_by_a_listening_server_but_not_by_what_its_connections_left() -> None:
    port = free_port()
    with socket.create_server((LOOPBACK, port)) as server, socket.create_connection((LOOPBACK, port)) as client:
        assert not is_free(port)
        connection, _ = server.accept()
        server.close()
        assert is_free(port)  # while its last connection lives on
        connection.close()
        assert client.recv(1) == b""
    assert is_free(port)  # and in the minute for which the kernel remembers it (TIME_WAIT)
