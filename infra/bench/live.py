"""Live updates: from the commit to a thousand sockets, for the hub and for a bare broadcast fed by the same LISTEN."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich import box
from rich.table import Table

from infra.bench.cpu import postmaster_of, read_cpu
from infra.bench.live_members import make_members
from infra.bench.results import Spread
from infra.bench.site import Site
from infra.local.processes import LOOPBACK, LaunchError, free_port, log_tail, pause_until, start_child, stop_child

HUB, BARE = "hub", "bare"
LIVE_SUBJECTS = (HUB, BARE)
SOCKETS_PER_MEMBER = 20
"""As many as a member may have."""
START_TIMEOUT_S = 60.0
POLL_PAUSE_S = 0.02
BUSY_DELIVERIES_PER_S = 20_000
"""A run may take as long as at this pace, and START_TIMEOUT_S more."""


@dataclass(frozen=True)
class LiveLoad:
    """Sockets that follow one topic, and how many updates it gets at what pace."""

    sockets: int = 1_000
    updates: int = 60
    per_s: float = 6.0


@dataclass(frozen=True)
class LiveRun:
    """The figures of one run over all deliveries: milliseconds from the sending of the COMMIT to the client.

    CPU in microseconds per delivery; the server's alone, and PostgreSQL's. `opening_s` is for all sockets together.
    `foreign_load` in cores, of processes not ours.
    """

    round_number: int
    subject: str
    deliveries: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    most_ms: float
    server_us: float
    database_us: float
    opening_s: float
    server_rss_mb: float
    foreign_load: float


def prepare(site: Site, load: LiveLoad) -> Path:
    """Make the members whose sockets these are, before databases are copied; the file with their API keys."""
    site.community.start_part("api")
    site.community.wait_until_ready("api")
    keys = make_members(site.community.api_url, -(-load.sockets // SOCKETS_PER_MEMBER))
    stop_child(site.community.processes.pop("hub-api"))
    file = site.community.secrets / "live-keys.json"
    file.touch(0o600)
    file.write_text(json.dumps(keys))
    return file


def measure_live(site: Site, subject: str, keys: Path, load: LiveLoad, round_number: int) -> LiveRun:
    """Run one subject over a fresh database. Raises LaunchError, also if a delivery is missing."""
    with site.fresh() as database_url, _serving(site, subject, database_url) as (server, port):
        bench = _Bench(site, f"{subject}-{round_number}")
        deliveries = load.sockets * load.updates
        timeout_s = load.updates / load.per_s + deliveries / BUSY_DELIVERIES_PER_S + START_TIMEOUT_S
        sockets = ("--sockets", load.sockets, "--updates", load.updates, "--timeout-s", timeout_s)
        whose = ("--keys", keys) if subject == HUB else ()
        clients = bench.start("live_clients", "--host", LOOPBACK, "--port", port, *sockets, *whose)
        opening_s = bench.wait_for(clients, "ready", START_TIMEOUT_S)
        postmaster = postmaster_of(site.community.postgres.data)
        parts = [server.pid], postmaster, server.pid, clients.pid
        before, ours_before_s, begun_s = read_cpu(*parts), sum(os.times()[:2]), time.monotonic()
        pace = ("--updates", load.updates, "--per-s", load.per_s)
        publisher = bench.start("live_publisher", "--database-url", database_url, *pace)
        bench.wait_for(clients, "done", timeout_s)
        used, seconds = read_cpu(*parts).since(before), time.monotonic() - begun_s
        ours_s = sum(os.times()[:2]) - ours_before_s
        rss_bytes = int(psutil.Process(server.pid).memory_info().rss)
        publisher_s = bench.finish(publisher) + bench.finish(clients) * 0
    committed = {int(key): at_ns for key, at_ns in bench.result(publisher).items()}
    delays_ms = sorted(
        (at_ns - committed[int(sequence)]) / 1e6
        for sequence, arrivals in bench.result(clients).items()
        for at_ns in arrivals
    )
    if len(delays_ms) != deliveries:
        raise LaunchError(f"{subject}: {len(delays_ms)} of {deliveries} deliveries")
    cuts = statistics.quantiles(delays_ms, n=100)
    known_s = used.consumer_s + used.database_s + used.generator_s + ours_s + publisher_s
    return LiveRun(
        round_number=round_number,
        subject=subject,
        deliveries=deliveries,
        p50_ms=cuts[49],
        p95_ms=cuts[94],
        p99_ms=cuts[98],
        most_ms=delays_ms[-1],
        server_us=used.consumer_s / deliveries * 1e6,
        database_us=used.database_s / deliveries * 1e6,
        opening_s=opening_s,
        server_rss_mb=rss_bytes / 1e6,
        foreign_load=max(0.0, used.machine_s - known_s) / seconds,
    )


@contextmanager
def _serving(site: Site, subject: str, database_url: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The server under test, ready, and its port."""
    community, port = site.community, free_port()
    name = f"live-{subject}"
    if subject == HUB:
        environment = {
            **community.environment(),
            "COMMONWATT_DATABASE_URL": database_url,
            "COMMONWATT_API_PORT": str(port),
            "COMMONWATT_LOG_LEVEL": "warning",
        }
        community.run(name, "hub", "api", environment=environment)
    else:
        arguments = ("--database-url", database_url, "--port", str(port))
        log = community.log / f"{name}.log"
        command = [sys.executable, "-m", "infra.bench.live_broadcast", *arguments]
        community.processes[name] = start_child(command, log=log)
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not _answers(port, subject):
        community.check_alive()
        if not pause_until(deadline_s, POLL_PAUSE_S):
            raise LaunchError(f"{name} does not answer; see {community.log}/{name}.log")
    try:
        yield community.processes[name], port
    finally:
        stop_child(community.processes.pop(name), stop_signal=signal.SIGTERM)


def _answers(port: int, subject: str) -> bool:
    try:
        answer = httpx.get(f"http://{LOOPBACK}:{port}/ready")
    except httpx.TransportError:
        return False
    return answer.is_success or subject == BARE  # which knows no request but the upgrade


class _Bench:
    """The helping processes of one run, with their logs and results."""

    def __init__(self, site: Site, name: str) -> None:
        self._directory = site.community.directory / "live" / name
        self._directory.mkdir(parents=True)
        self._names: dict[int, str] = {}

    def start(self, module: str, *arguments: object) -> subprocess.Popen[bytes]:
        """Start `infra.bench.<module>`."""
        out = ("--out", self._directory / f"{module}.json")
        command = [sys.executable, "-m", f"infra.bench.{module}", *map(str, (*arguments, *out))]
        process = start_child(command, log=self._directory / f"{module}.log")
        self._names[process.pid] = module
        return process

    def wait_for(self, process: subprocess.Popen[bytes], word: str, timeout_s: float) -> float:
        """The number that it says under this word. Raises LaunchError."""
        log = self._directory / f"{self._names[process.pid]}.log"
        deadline_s = time.monotonic() + timeout_s
        while True:
            for line in log.read_text().splitlines() if log.exists() else ():
                if line.startswith("{") and line.endswith("}") and word in (said := json.loads(line)):
                    return float(said[word])
            if process.poll() not in (None, 0) or not pause_until(deadline_s, POLL_PAUSE_S):
                raise LaunchError(f"{self._names[process.pid]} does not say {word}: {log_tail(log)}")

    def finish(self, process: subprocess.Popen[bytes]) -> float:
        """Wait until it has ended well; the CPU that it used, in seconds. Raises LaunchError."""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log = self._directory / f"{self._names[process.pid]}.log"
            raise LaunchError(f"{self._names[process.pid]} failed: {log_tail(log)}")
        return usage.ru_utime + usage.ru_stime

    def result(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        """What it wrote."""
        return dict(json.loads((self._directory / f"{self._names[process.pid]}.json").read_text()))


@dataclass(frozen=True)
class LiveFigures:
    """A subject over all rounds. `delay_ratio` is the hub's p95 over the subject's, `cpu_ratio` its CPU.

    Below 1 the hub is better.
    """

    subject: str
    p50_ms: Spread
    p95_ms: Spread
    p99_ms: Spread
    most_ms: Spread
    server_us: Spread
    database_us: Spread
    opening_s: Spread
    server_rss_mb: Spread
    delay_ratio: Spread
    cpu_ratio: Spread


def summarise_live(runs: Sequence[LiveRun]) -> list[LiveFigures]:
    """Figures by subject; ratios are taken within each round."""
    by_subject = {
        name: sorted((run for run in runs if run.subject == name), key=lambda run: run.round_number)
        for name in LIVE_SUBJECTS
    }
    return [_figures(by_subject[HUB], by_subject[name]) for name in LIVE_SUBJECTS]


def _figures(hub: Sequence[LiveRun], own: Sequence[LiveRun]) -> LiveFigures:
    pairs = list(zip(hub, own, strict=True))
    names = ("p50_ms", "p95_ms", "p99_ms", "most_ms", "server_us", "database_us", "opening_s", "server_rss_mb")
    return LiveFigures(
        subject=own[0].subject,
        **{name: Spread.of([getattr(run, name) for run in own]) for name in names},
        delay_ratio=Spread.of([ours.p95_ms / run.p95_ms for ours, run in pairs]),
        cpu_ratio=Spread.of([ours.server_us / run.server_us if run.server_us else 0.0 for ours, run in pairs]),
    )


def live_table_of(figures: Sequence[LiveFigures]) -> Table:
    """What is shown: medians, and beneath them the least and the most over the rounds."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("live", no_wrap=True)
    headings = ("p50, ms", "p95, ms", "p99, ms", "CPU, µs\neach", "hub's\np95 is ×", "hub's\nCPU is ×")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in figures:
        cells = (row.p50_ms, row.p95_ms, row.p99_ms, row.server_us)
        ratios = ("", "") if row.subject == HUB else (row.delay_ratio.cell(), row.cpu_ratio.cell())
        table.add_row(row.subject, *(each.cell() for each in cells), *ratios)
    return table


def opening_line(figures: Sequence[LiveFigures]) -> str:
    """What it took to open the sockets, and what they weigh."""
    told = [
        f"{row.subject} {row.opening_s.median:.1f} s, and then {row.server_rss_mb.median:.0f} MB" for row in figures
    ]
    return f"To open them all: {'; '.join(told)}."


def live_as_json(load: LiveLoad, runs: Sequence[LiveRun], figures: Sequence[LiveFigures]) -> dict[str, Any]:
    """Every run and every figure."""
    return {
        "load": asdict(load),
        "runs": [asdict(run) for run in runs],
        "figures": [asdict(row) for row in figures],
    }
