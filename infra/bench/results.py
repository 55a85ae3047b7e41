"""From runs to figures: medians with their spread, ratios taken within each round, as a table and as JSON."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table

from infra.bench.measurement import Run
from infra.bench.subjects import HUB, SUBJECTS

CPU_HEADING = "CPU, µs per reading:\nown+database+broker"


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

    def line(self) -> str:
        """`= median (least–most)`."""
        return f"= {_three_digits(self.median)} ({_three_digits(self.least)}–{_three_digits(self.most)})"

    def cell(self) -> str:
        """The median, and beneath it `least–most`."""
        return f"{_three_digits(self.median)}\n{_three_digits(self.least)}–{_three_digits(self.most)}"


@dataclass(frozen=True)
class Figures:
    """A subject at one message size. CPU in microseconds per reading.

    `hub_speed_ratio` is the hub's readings per second over the subject's, `hub_cpu_ratio` the subject's CPU over the
    hub's: above 1 the hub is better (0: the run was too short for the kernel to count any CPU).
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
        hub_cpu_ratio=Spread.of([run.cpu_us / ours.cpu_us if ours.cpu_us else 0.0 for ours, run in pairs]),
    )


def table_of(figures: Sequence[Figures]) -> Table:
    """What is shown: medians, and beneath them the least and the most over the rounds."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("per\nseal", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for heading in ("readings/s", CPU_HEADING, "hub is ×\nfaster", "hub is ×\ncheaper"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in figures:
        ours = row.subject == HUB
        parts = "+".join(_three_digits(each.median) for each in (row.consumer_us, row.database_us, row.broker_us))
        table.add_row(
            str(row.readings_per_seal) if ours else "",
            row.subject,
            row.readings_per_s.cell(),
            f"{parts}\n{row.cpu_us.line()}",
            *("" if ours else each.cell() for each in (row.hub_speed_ratio, row.hub_cpu_ratio)),
            end_section=row.subject == SUBJECTS[-1],
        )
    return table


def _three_digits(value: float) -> str:
    if value >= 1_000:
        return f"{value / 1_000:.3g}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def as_json(runs: Sequence[Run], figures: Sequence[Figures]) -> dict[str, Any]:
    """Every run and every figure."""
    return {"runs": [asdict(run) for run in runs], "figures": [asdict(row) for row in figures]}
