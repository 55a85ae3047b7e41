"""CPU time of the processes that a measurement is about, as the kernel counts it (to its tick, usually 10 ms)."""

from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Self

import psutil


@dataclass(frozen=True)
class CpuTimes:
    """Seconds of CPU by part. `generator` loads the machine but is no part of the comparison; `machine` is all of
    it, whoever used it.
    """

    consumer_s: float
    database_s: float
    broker_s: float
    generator_s: float
    machine_s: float

    def since(self, earlier: Self) -> "CpuTimes":
        """What was used between two readings."""
        return CpuTimes(*(now - then for now, then in zip(astuple(self), astuple(earlier), strict=True)))


def read_cpu(consumers: list[int], postmaster: int, broker: int, generator: int | None) -> CpuTimes:
    """The times up to now of processes that have not been waited for (a zombie keeps its own).

    PostgreSQL's are those of its main process, of its present children and of those that ended.
    """
    return CpuTimes(
        consumer_s=sum(map(_own_s, consumers)),
        database_s=_family_s(postmaster),
        broker_s=_own_s(broker),
        generator_s=0.0 if generator is None else _own_s(generator),
        machine_s=_busy_s(),
    )


def postmaster_of(data: Path) -> int:
    """The process id of the server over a data directory."""
    return int((data / "postmaster.pid").read_text().split()[0])


def child_named(name: str) -> int:
    """The process id of our own child of this name. Raises LookupError unless there is exactly one."""
    found: list[int] = [child.pid for child in psutil.Process().children() if child.name() == name]
    if len(found) != 1:
        raise LookupError(f"{len(found)} children are called {name}")
    return found[0]


def _own_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _family_s(pid: int) -> float:
    parent = psutil.Process(pid)
    living_s = 0.0
    for child in parent.children():
        try:
            living_s += _own_s(child.pid)
        except psutil.NoSuchProcess:
            continue  # it ended meanwhile: its parent's sum, read below, has it
    times = parent.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system) + living_s


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - times.guest - times.guest_nice)
