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

from infra.bench.machine import machine_facts
from infra.bench.measurement import Load, Run, Shape, measure
from infra.bench.results import Figures, Spread, as_json, summarise, table_of
from infra.bench.site import INTERVAL_S, Site, empty_directory
from infra.bench.subjects import SCRIPT, SUBJECTS
from infra.local.mosquitto_package import find_or_fetch
from infra.local.processes import LaunchError

MARGIN = datetime.timedelta(minutes=10)
SIZES = (60, 1)


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


QUICK = Volumes(rounds=1, meters=20, seals_of_60=2, seals_of_1=5, script_seals_of_60=1, script_seals_of_1=2)
"""Shows that it works; the figures mean nothing."""


def run_bench(var: Path, volumes: Volumes, workers: int, now: datetime.datetime, console: Console) -> int:
    """Measure, print the table, write var/bench/results.json. The exit status: 1 if anything was lost or failed."""
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
            runs = _all_runs(site, volumes, workers, console)
            facts = {"machine": machine_facts(), "postgresql": site.facts(), "load_before": load_before}
            site.stop()
            shutil.rmtree(directory)  # after a failure it stays: it has the logs
        except LaunchError as error:
            console.print(f"bench: {error}", style="red", markup=False, highlight=False)
            return 1
        except KeyboardInterrupt:
            console.print("Stopped.")
            return 130
    figures = summarise(runs)
    written = {
        "date": now.isoformat(),
        **facts,
        "volumes": asdict(volumes),
        "workers": workers,
        **as_json(runs, figures),
    }
    (bench / "results.json").write_text(json.dumps(written, indent=2) + "\n")
    _show(console, runs, written, figures, bench / "results.json")
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


def _show(console: Console, runs: Sequence[Run], facts: dict[str, Any], figures: Sequence[Figures], file: Path) -> None:
    machine, server, foreign = facts["machine"], facts["postgresql"], Spread.of([run.foreign_load for run in runs])
    console.print(table_of(figures))
    console.print("Median, beneath it least–most over the rounds. hub: commonwatt hub ingest. script: the one most")
    console.print("people write. copy: COPY from a subscriber that verifies nothing. See docs/performance.md.")
    for line in (
        f"{machine['cores']} cores, {machine['processor']}, Python {machine['python']}, PostgreSQL"
        f" {server['server_version']}; {facts['volumes']['shape']}, {facts['workers']} ingest worker(s).",
        f"Processes that are none of ours used {foreign.median:.2f} cores, at most {foreign.most:.2f}.",
        f"No reading was lost. Every run: {file}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
