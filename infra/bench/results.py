"""From runs to figures: medians with their spread, ratios taken within each round, as a table and as JSON."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from infra.bench.measurement import Run
from infra.bench.subjects import COPY, HUB, SCRIPT, SUBJECTS

TITLES = {HUB: "commonwatt hub ingest", SCRIPT: "(a) script, verifies", COPY: "(b) COPY, no verifying"}


@dataclass(frozen=True)
class Spread:
    """Least, median and most over the rounds."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        return cls(min(values), statistics.median(values), max(values))

    def text(self, form: str) -> str:
        """`least–median–most`; the one value if there was one round."""
        values = (self.median,) if self.least == self.most else (self.least, self.median, self.most)
        return "–".join(format(value, form) for value in values)


@dataclass(frozen=True)
class Figures:
    """A subject at one message size. CPU in microseconds per reading.

    `hub_speed_ratio` is the hub's readings per second over the subject's, `hub_cpu_ratio` the subject's CPU over the
    hub's: above 1 the hub is better.
    """

    readings_per_seal: int
    subject: str
    readings_per_s: Spread
    consumer_us: Spread
    database_us: Spread
    broker_us: Spread
    cpu_us: Spread
    hub_speed_ratio: Spread
    hub_cpu_ratio: Spread


def summarise(runs: Sequence[Run]) -> list[Figures]:
    """Figures by message size and subject; each round has one run of each."""
    return [
        _figures([run for run in runs if run.readings_per_seal == size], size, subject)
        for size in sorted({run.readings_per_seal for run in runs}, reverse=True)
        for subject in SUBJECTS
    ]


def _figures(runs: Sequence[Run], size: int, subject: str) -> Figures:
    hub, own = (
        sorted((run for run in runs if run.subject == name), key=lambda run: run.round_number)
        for name in (HUB, subject)
    )
    pairs = list(zip(hub, own, strict=True))
    return Figures(
        readings_per_seal=size,
        subject=subject,
        readings_per_s=Spread.of([run.readings_per_s for run in own]),
        consumer_us=Spread.of([run.consumer_us for run in own]),
        database_us=Spread.of([run.database_us for run in own]),
        broker_us=Spread.of([run.broker_us for run in own]),
        cpu_us=Spread.of([run.cpu_us for run in own]),
        hub_speed_ratio=Spread.of([ours.readings_per_s / run.readings_per_s for ours, run in pairs]),
        hub_cpu_ratio=Spread.of([run.cpu_us / ours.cpu_us for ours, run in pairs]),
    )


def table_of(figures: Sequence[Figures]) -> Table:
    """What is shown: least–median–most over the rounds."""
    table = Table(title="least–median–most over the rounds; µs of CPU per reading")
    table.add_column("readings\nper seal", justify="right")
    table.add_column("")
    for heading in ("readings/s", "consumer", "database", "broker", "together", "hub is × faster", "hub is × cheaper"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in figures:
        ours = row.subject == HUB
        table.add_row(
            str(row.readings_per_seal) if ours else "",
            TITLES[row.subject],
            row.readings_per_s.text(",.0f"),
            *(each.text(".3g") for each in (row.consumer_us, row.database_us, row.broker_us, row.cpu_us)),
            *("" if ours else each.text(".2f") for each in (row.hub_speed_ratio, row.hub_cpu_ratio)),
            end_section=row.subject == SUBJECTS[-1],
        )
    return table


def as_json(runs: Sequence[Run], figures: Sequence[Figures]) -> dict[str, Any]:
    """Every run and every figure."""
    return {"runs": [asdict(run) for run in runs], "figures": [asdict(row) for row in figures]}
