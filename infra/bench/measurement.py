"""One run: a subject takes in a fleet's messages, from the first that is published to the last that is committed."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from infra.bench import subjects
from infra.bench.cpu import child_named, postmaster_of, read_cpu
from infra.bench.site import Site
from infra.local.processes import LaunchError


class Shape(StrEnum):
    """How the messages come.

    live: the subject works while the generator publishes flat out; the clock starts with the first message.
    backlog: the subject is frozen (SIGSTOP) until all is published and then catches up with what waits at the broker;
    the clock starts when it may go on. The generator takes no part, nor does the broker's receiving side.
    """

    LIVE = "live"
    BACKLOG = "backlog"


@dataclass(frozen=True)
class Load:
    """What is published: `seals_per_meter` messages of each meter."""

    readings_per_seal: int
    seals_per_meter: int
    shape: Shape = Shape.LIVE


@dataclass(frozen=True)
class Run:
    """The figures of one run. CPU in microseconds per reading; `foreign_load` in cores, of processes not ours."""

    round_number: int
    subject: str
    readings_per_seal: int
    readings: int
    seconds: float
    readings_per_s: float
    consumer_us: float
    database_us: float
    broker_us: float
    foreign_load: float

    @property
    def cpu_us(self) -> float:
        """All of it but the generator's."""
        return self.consumer_us + self.database_us + self.broker_us


def measure(site: Site, subject_name: str, load: Load, round_number: int, workers: int) -> Run:
    """Run one subject over fresh tables. Raises LaunchError, also if a reading was lost or doubled."""
    messages = site.meters * load.seals_per_meter
    with site.fresh() as database_url:
        subject = subjects.start(subject_name, site, database_url, messages, workers)
        try:
            generator = site.publish(load.readings_per_seal, load.seals_per_meter)
            postmaster, broker = postmaster_of(site.community.postgres.data), child_named("mosquitto")
            begun_s = generator.wait_until_it_publishes()
            if load.shape is Shape.BACKLOG:
                with _frozen(subject.pids):
                    published = generator.finish()
                begun_s = time.monotonic()
            processes = subject.pids, postmaster, broker, None if load.shape is Shape.BACKLOG else generator.pid
            before, ours_before_s = read_cpu(*processes), sum(os.times()[:2])
            seconds = subject.wait_until_committed(messages) - begun_s
            used, ours_s = read_cpu(*processes).since(before), sum(os.times()[:2]) - ours_before_s
            if load.shape is Shape.LIVE:
                published = generator.finish()
        finally:
            subject.stop()
        stored = subject.stored_readings()
    if not stored == published == messages * load.readings_per_seal:
        raise LaunchError(f"{subject_name} stored {stored} of {published} readings")
    known_s = used.consumer_s + used.database_s + used.broker_s + used.generator_s + ours_s
    return Run(
        round_number=round_number,
        subject=subject_name,
        readings_per_seal=load.readings_per_seal,
        readings=stored,
        seconds=seconds,
        readings_per_s=stored / seconds,
        consumer_us=used.consumer_s / stored * 1e6,
        database_us=used.database_s / stored * 1e6,
        broker_us=used.broker_s / stored * 1e6,
        foreign_load=max(0.0, used.machine_s - known_s) / seconds,
    )


@contextmanager
def _frozen(pids: Sequence[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
