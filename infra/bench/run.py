"""`commonwatt bench`: all subjects and message sizes, round by round, and the results on the screen and in a file."""

import contextlib
import datetime
import fcntl
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from infra.bench.live import (
    LIVE_SUBJECTS,
    LiveFigures,
    LiveLoad,
    LiveRun,
    live_as_json,
    live_table_of,
    measure_live,
    opening_line,
    prepare,
    summarise_live,
)
from infra.bench.machine import machine_facts
from infra.bench.measurement import Load, Run, Shape, measure
from infra.bench.results import Figures, Spread, as_json, summarise, table_of
from infra.bench.site import INTERVAL_S, Site, empty_directory
from infra.bench.subjects import SCRIPT, SUBJECTS
from infra.local.mosquitto_package import find_or_fetch
from infra.local.processes import LaunchError

MARGIN = datetime.timedelta(minutes=10)
SIZES = (60, 1)
LIVE_LOAD = LiveLoad()


@dataclass(frozen=True)
class Volumes:
    """How much is measured. `seals_…` are messages per meter, by readings per seal; the slow script gets fewer."""

    rounds: int = 3
    meters: int = 200
    seals_of_60: int = 60
    seals_of_1: int = 100
    script_seals_of_60: int = 5
    script_seals_of_1: int = 10
    shape: Shape = Shape.LIVE
    live: LiveLoad = LIVE_LOAD

    def times(self, factor: float) -> "Volumes":
        """So much more or less of everything, but at least one message per meter."""
        names = ("seals_of_60", "seals_of_1", "script_seals_of_60", "script_seals_of_1")
        return replace(self, **{name: max(1, round(getattr(self, name) * factor)) for name in names})

    def load(self, subject: str, readings_per_seal: int) -> Load:
        """What a subject is given."""
        ordinary, script = {
            60: (self.seals_of_60, self.script_seals_of_60),
            1: (self.seals_of_1, self.script_seals_of_1),
        }[readings_per_seal]
        return Load(readings_per_seal, script if subject == SCRIPT else ordinary, self.shape)

    def span(self) -> datetime.timedelta:
        """How far the readings of one meter reach."""
        return datetime.timedelta(
            seconds=INTERVAL_S
            * max(
                load.readings_per_seal * load.seals_per_meter
                for load in (self.load(subject, size) for subject in SUBJECTS for size in SIZES)
            )
        )


QUICK = Volumes(
    rounds=1,
    meters=20,
    seals_of_60=2,
    seals_of_1=5,
    script_seals_of_60=1,
    script_seals_of_1=2,
    live=LiveLoad(sockets=20, updates=5, per_s=20.0),
)
"""Shows that it works; the figures mean nothing."""


INGEST, LIVE = "ingest", "live"
PARTS = (INGEST, LIVE)


def run_bench(
    var: Path,
    volumes: Volumes,
    workers: int,
    now: datetime.datetime,
    console: Console,
    parts: Sequence[str] = PARTS,
) -> int:
    """Measure, print the tables, write var/bench/results.json. The exit status: 1 if anything was lost or failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bench = var / "bench"
    bench.mkdir(parents=True, exist_ok=True)
    with (bench / "lock").open("w") as lock, contextlib.ExitStack() as at_end:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("bench: one is already running in this directory", style="red")
            return 1
        directory = empty_directory(bench / "work")
        load_before = os.getloadavg()[0]
        try:
            installation = find_or_fetch(var / "cache" / "mosquitto")
            site = Site(directory, installation, volumes.meters, now - volumes.span() - MARGIN)
            at_end.callback(site.stop)
            with console.status("PostgreSQL, Mosquitto, registering meters"):
                site.start()
            runs = _all_runs(site, volumes, workers, console) if INGEST in parts else []
            live_runs = _all_live_runs(site, volumes, console) if LIVE in parts else []
            facts = {"machine": machine_facts(), "postgresql": site.facts(), "load_before": load_before}
            site.stop()
            shutil.rmtree(directory)  # after a failure it stays: it has the logs
        except LaunchError as error:
            console.print(f"bench: {error}", style="red", markup=False, highlight=False)
            return 1
        except KeyboardInterrupt:
            console.print("Stopped.")
            return 130
    figures = summarise(runs) if runs else []
    live_figures = summarise_live(live_runs) if live_runs else []
    written = {
        "date": now.isoformat(),
        **facts,
        "volumes": asdict(volumes),
        "workers": workers,
        **as_json(runs, figures),
        "live": live_as_json(volumes.live, live_runs, live_figures),
    }
    (bench / "results.json").write_text(json.dumps(written, indent=2) + "\n")
    if runs:
        _show(console, runs, figures, written)
    if live_runs:
        _show_live(console, live_runs, live_figures, volumes.live)
    foreign_loads = [run.foreign_load for run in runs] + [run.foreign_load for run in live_runs]
    _show_machine(console, foreign_loads, written, bench / "results.json")
    return 0


def _all_runs(site: Site, volumes: Volumes, workers: int, console: Console) -> list[Run]:
    """Interleaved: a round has every subject once per size, each round begins with another one."""
    runs: list[Run] = []
    with console.status("") as status:
        for round_number in range(volumes.rounds):
            first = round_number % len(SUBJECTS)
            for size in SIZES:
                for subject in (*SUBJECTS[first:], *SUBJECTS[:first]):
                    status.update(f"round {round_number + 1} of {volumes.rounds}, {size} per seal: {subject}")
                    runs.append(measure(site, subject, volumes.load(subject, size), round_number, workers))
    return runs


def _all_live_runs(site: Site, volumes: Volumes, console: Console) -> list[LiveRun]:
    """Interleaved, each round beginning with the other one."""
    runs: list[LiveRun] = []
    with console.status("members for the live updates") as status:
        keys = prepare(site, volumes.live)
        for round_number in range(volumes.rounds):
            first = round_number % len(LIVE_SUBJECTS)
            for subject in (*LIVE_SUBJECTS[first:], *LIVE_SUBJECTS[:first]):
                status.update(f"round {round_number + 1} of {volumes.rounds}, live updates: {subject}")
                runs.append(measure_live(site, subject, keys, volumes.live, round_number))
    return runs


def _show(console: Console, runs: Sequence[Run], figures: Sequence[Figures], facts: dict[str, Any]) -> None:
    console.print(table_of(figures))
    console.print("Median, beneath it least–most over the rounds. hub: commonwatt hub ingest. script: the one most")
    console.print("people write. copy: COPY from a subscriber that verifies nothing. See docs/performance.md.")
    console.print(f"{facts['volumes']['shape']}, {facts['workers']} ingest worker(s). No reading was lost.")


def _show_live(console: Console, runs: Sequence[LiveRun], figures: Sequence[LiveFigures], load: LiveLoad) -> None:
    console.print(live_table_of(figures))
    console.print("From the COMMIT to the client. hub: commonwatt hub api. bare: websockets and its")
    console.print(f"broadcast, fed by the same LISTEN. {load.sockets} sockets, {load.per_s:g} updates a second.")
    console.print(opening_line(figures))
    console.print(f"No delivery was lost: {sum(run.deliveries for run in runs)} came.")


def _show_machine(console: Console, foreign_loads: Sequence[float], facts: dict[str, Any], file: Path) -> None:
    machine, server, foreign = facts["machine"], facts["postgresql"], Spread.of(foreign_loads)
    for line in (
        f"{machine['cores']} cores, {machine['processor']}, Python {machine['python']}, PostgreSQL"
        f" {server['server_version']}.",
        f"Processes that are none of ours used {foreign.median:.2f} cores, at most {foreign.most:.2f}.",
        f"Every run: {file}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
