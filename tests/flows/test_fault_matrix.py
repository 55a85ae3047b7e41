"""The fault matrix: whatever breaks wherever between the register and the database, the sums are exact.

A *run* is one home living half an hour while one seeded fault befalls it: on the line to its meter, on the line to the
broker, or its agent killed. Each round is eight runs at once, and meanwhile one thing that all share breaks too:
broker, hub, database, their disk, or the lines between them. After each round every sum is compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from infra.local.mosquitto_package import Installation
from simulators.network.line import GOOD, Badness
from simulators.network.relay import Relay
from tests.flows.fault_matrix.street import (
    HOMES,
    ROUND_TIMEOUT_S,
    STRETCH,
    Household,
    RelayedCommunity,
    Street,
    beginning,
    pause,
)

FAULT_S = 1.0
"""How long a home's line stays bad."""
SHARED_FAULT_S, SHARED_FAULTS_MAX = 1.0, 8
"""How long the hub's lines do, and how often at most until that was noticed."""
SERVERS_DISK_BYTES, HOMES_DISK_BYTES = 1_000_000_000, 100_000_000


class Disks(NamedTuple):
    """What is not to share one: journals that find no room send nothing that a database might find none for."""

    servers: Path
    homes: Path


Befall = Callable[[Street, Household, datetime, random.Random], Coroutine[None, None, None]]
Strike = Callable[[Street, random.Random], Coroutine[None, None, None]]


async def be_bad(line: Relay, outward: Badness = GOOD, inward: Badness = GOOD, seconds: float = FAULT_S) -> None:
    line.outward, line.inward = outward, inward
    try:
        await asyncio.sleep(seconds)
    finally:
        line.outward = line.inward = GOOD


async def be_bad_for_all(line: Relay, outward: Badness = GOOD, inward: Badness = GOOD) -> None:
    """Until something has come to harm, if anything passes."""
    before = line.happened().total()
    for _ in range(SHARED_FAULTS_MAX):
        await be_bad(line, outward, inward, SHARED_FAULT_S)
        if line.happened().total() > before:
            return


async def be_dead(line: Relay, seconds: float) -> None:
    line.refusing = True
    await line.cut_all()
    await asyncio.sleep(seconds)
    line.refusing = False


async def uplink_cut(street: Street, household: Household, until: datetime, rng: random.Random) -> None:
    for _ in range(3):
        await asyncio.sleep(pause(rng) / 2)
        await household.uplink.cut_all()


async def uplink_dead(street: Street, household: Household, until: datetime, rng: random.Random) -> None:
    await asyncio.sleep(pause(rng) / 3)
    await be_dead(household.uplink, pause(rng))


async def uplink_flapping(street: Street, household: Household, until: datetime, rng: random.Random) -> None:
    await be_bad(household.uplink, Badness(cut=0.1), Badness(cut=0.1))


async def uplink_slow(street: Street, household: Household, until: datetime, rng: random.Random) -> None:
    crawling = Badness(slow=0.5, delay_s=0.2)
    await be_bad(household.uplink, crawling, crawling)


async def uplink_repeats(street: Street, household: Household, until: datetime, rng: random.Random) -> None:
    await be_bad(household.uplink, Badness(repeated=0.5))


async def uplink_reorders(street: Street, household: Household, until: datetime, rng: random.Random) -> None:
    await be_bad(household.uplink, Badness(reordered=0.5))


async def uplink_flips_bits(street: Street, household: Household, until: datetime, rng: random.Random) -> None:
    await be_bad(household.uplink, Badness(damaged=0.5))


async def uplink_swallows(street: Street, household: Household, until: datetime, rng: random.Random) -> None:
    await be_bad(household.uplink, Badness(swallowed=0.5))


async def meter_line_cut(street: Street, household: Household, until: datetime, rng: random.Random) -> None:
    flapping = Badness(cut=0.02)
    await be_bad(household.meter_line, flapping, flapping)


async def meter_line_repeats(street: Street, household: Household, until: datetime, rng: random.Random) -> None:
    await be_bad(household.meter_line, inward=Badness(repeated=0.3))


async def agent_killed(street: Street, household: Household, until: datetime, rng: random.Random) -> None:
    await street.kill_agent(household, until, 0.8 + pause(rng))


BEFALLS: dict[str, Befall] = {
    "uplink cut": uplink_cut,
    "uplink dead": uplink_dead,
    "uplink flapping": uplink_flapping,
    "uplink slow": uplink_slow,
    "uplink repeats": uplink_repeats,
    "uplink re-orders": uplink_reorders,
    "uplink flips bits": uplink_flips_bits,
    "uplink swallows": uplink_swallows,
    "meter line cut": meter_line_cut,
    "meter line repeats": meter_line_repeats,
    "agent killed": agent_killed,
}


async def nothing(street: Street, rng: random.Random) -> None:
    """A round in which only homes are struck."""


async def broker_killed(street: Street, rng: random.Random) -> None:
    await street.kill_broker(pause(rng) / 2)


async def broker_wiped(street: Street, rng: random.Random) -> None:
    await street.kill_broker(pause(rng) / 2, wiped=True)


async def broker_accounts_wiped(street: Street, rng: random.Random) -> None:
    await street.kill_broker(pause(rng) / 2, accounts=True)


async def ingest_killed(street: Street, rng: random.Random) -> None:
    await street.kill_hub("ingest")


async def jobs_killed(street: Street, rng: random.Random) -> None:
    await street.kill_hub(rng.choice(["jobs", "api"]))


async def database_killed(street: Street, rng: random.Random) -> None:
    await street.kill_database(pause(rng) / 2)


async def hub_line_cut(street: Street, rng: random.Random) -> None:
    await be_dead(street.hub_broker_line, pause(rng) / 2)


async def hub_line_slow(street: Street, rng: random.Random) -> None:
    await be_bad_for_all(street.hub_broker_line, inward=Badness(slow=0.2, delay_s=0.1))


async def hub_line_repeats(street: Street, rng: random.Random) -> None:
    await be_bad_for_all(street.hub_broker_line, inward=Badness(repeated=0.4))


async def hub_line_reorders(street: Street, rng: random.Random) -> None:
    await be_bad_for_all(street.hub_broker_line, inward=Badness(reordered=0.4))


async def hub_line_flips_bits(street: Street, rng: random.Random) -> None:
    await be_bad_for_all(street.hub_broker_line, inward=Badness(damaged=0.4))


async def database_line_cut(street: Street, rng: random.Random) -> None:
    flapping = Badness(cut=0.02)
    await be_bad_for_all(street.database_line, flapping, flapping)


@contextlib.contextmanager
def full(directory: Path, rng: random.Random) -> Iterator[None]:
    """The disk of a directory, without room for one more page."""
    ballast = directory / "ballast"
    disk = os.statvfs(directory)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, disk.f_bavail * disk.f_frsize - 4_096 * rng.randrange(1, 64)))
        with contextlib.suppress(OSError):
            while True:
                os.write(file.fileno(), bytes(4_096))
    try:
        yield
    finally:
        ballast.unlink()


async def journals_disk_full(street: Street, rng: random.Random) -> None:
    with full(street.homes, rng):
        await asyncio.sleep(FAULT_S)


async def servers_disk_full(street: Street, rng: random.Random) -> None:
    """Database and broker are on one disk, and it is full until the database has noticed."""
    before = street.writes_refused_to_the_database()
    with full(street.community.directory, rng):
        for _ in range(SHARED_FAULTS_MAX):
            await asyncio.sleep(SHARED_FAULT_S)
            if street.writes_refused_to_the_database() > before:
                break
    await street.kill_database(0)  # it may have ended by itself; an operator starts it again
    if not street.community.broker_lives():
        await street.kill_broker(0)


STRIKES: dict[str, Strike] = {
    "nothing": nothing,
    "broker killed": broker_killed,
    "broker's sessions wiped": broker_wiped,
    "broker's accounts wiped": broker_accounts_wiped,
    "ingest killed": ingest_killed,
    "jobs or API killed": jobs_killed,
    "database killed": database_killed,
    "hub's line cut": hub_line_cut,
    "hub's line slow": hub_line_slow,
    "hub's line repeats": hub_line_repeats,
    "hub's line re-orders": hub_line_reorders,
    "hub's line flips bits": hub_line_flips_bits,
    "database's line cut": database_line_cut,
    "journals' disk full": journals_disk_full,
    "servers' disk full": servers_disk_full,
}


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Disks]:
    """Two small disks, so that each can be filled."""
    disks = Disks(tmp_path / "servers", tmp_path / "homes")
    with contextlib.ExitStack() as mounts:
        for directory, size in zip(disks, (SERVERS_DISK_BYTES, HOMES_DISK_BYTES), strict=True):
            directory.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
            mounted = subprocess.run(command, check=False, capture_output=True)
            if mounted.returncode != 0:
                why = mounted.stderr.decode().strip()
                pytest.skip(f"a disk that can be filled needs the right to mount one: {why}")
            mounts.callback(subprocess.run, ["umount", "--lazy", str(directory)], check=True)
            directory.chmod(0o755)
        yield disks


ROUNDS_MORE_MAX = 12
"""So many are added where a fault fell on a moment in which nobody noticed."""


@pytest.mark.timeout(600)
def test_every_fault_of_the_matrix_costs_not_a_watt_hour(disks: Disks, mosquitto_installation: Installation) -> None:
    asyncio.run(live_through(disks, mosquitto_installation, seed=1, rounds=len(STRIKES)))


@pytest.mark.long
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("seed", [2, 3])
def test_a_thousand_runs_through_the_matrix_cost_not_a_watt_hour(
    disks: Disks, mosquitto_installation: Installation, seed: int
) -> None:
    asyncio.run(live_through(disks, mosquitto_installation, seed=seed, rounds=126))


async def live_through(disks: Disks, installation: Installation, *, seed: int, rounds: int) -> None:
    """Every home suffers another fault each round, every shared fault comes equally often, in seeded order."""
    rng = random.Random(seed)
    settings = ("fsync=off", "max_wal_size=64MB", "min_wal_size=32MB")
    with RelayedCommunity(
        disks.servers / "community", "test-community", installation, database_settings=settings
    ) as made:
        street = Street(made, disks.homes, beginning())
        try:
            await street.set_up()
            strikes = in_turn(STRIKES, rng)
            befalls = [in_turn(befalls_of(household), rng) for household in street.households]
            for number in range(1, rounds + ROUNDS_MORE_MAX + 1):
                if number > rounds and not what_did_not_happen(street):
                    break
                of_this_round = [next(turns) for turns in befalls]
                await one_round(street, street.start + number * STRETCH, next(strikes), of_this_round, rng)
            assert street.faults.total() >= rounds * (1 + len(HOMES))
            assert what_did_not_happen(street) == []
        finally:
            await street.tear_down()


def what_did_not_happen(street: Street) -> list[str]:
    """A fault that nobody notices proves nothing: a line may be cut when there is nothing left to be said."""
    uplinks: dict[str, Counter[str]] = {"mqtt": Counter(), "bytes": Counter()}
    for household in street.households:
        uplinks[household.uplink.framing] += household.uplink.happened()
    meter_lines = sum((household.meter_line.happened() for household in street.households), Counter[str]())
    lines = {
        "agents and broker": (uplinks["mqtt"], ("cut", "slow", "repeated", "reordered", "damaged", "swallowed")),
        "agents and API": (uplinks["bytes"], ("cut", "slow", "repeated", "reordered")),
        "meters and agents": (meter_lines, ("cut", "repeated")),
        "broker and hub": (street.hub_broker_line.happened(), ("slow", "repeated", "reordered", "damaged")),
        "hub and database": (street.database_line.happened(), ("cut",)),
    }
    missing = [
        f"{kind} between {between}"
        for between, (happened, kinds) in lines.items()
        for kind in kinds
        if not happened[kind]
    ]
    counts = {
        "flipped bits were seen by the hub": street.refused_messages(),
        "the disk was full for journals": street.writes_refused_to_agents(),
        "the disk was full for the database": street.writes_refused_to_the_database(),
    }
    return missing + [what for what, count in counts.items() if not count]


def befalls_of(household: Household) -> list[str]:
    """What can befall a home. Only a broker says that it has a message and then has not; and what TLS makes of flipped
    bits is a cut, while an HTTP head without it would only show how long 20 s of waiting for its end are.
    """
    of_brokers = ("uplink swallows", "uplink flips bits")
    return [name for name in BEFALLS if name not in of_brokers or household.uplink.framing == "mqtt"]


def in_turn(names: Iterable[str], rng: random.Random) -> Iterator[str]:
    """Each of these equally often, in seeded order, for ever."""
    names = list(names)
    while True:
        yield from rng.sample(names, len(names))


async def one_round(street: Street, until: datetime, strike: str, befalls: list[str], rng: random.Random) -> None:
    """Half an hour of the street: eight runs, and one thing that they share."""
    seeds = [rng.random() for _ in street.households]
    story = f"until {until}: {strike}; {', '.join(befalls)}"
    street.faults.update([strike, *befalls])
    try:
        async with asyncio.timeout(ROUND_TIMEOUT_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(STRIKES[strike](street, random.Random(rng.random())))
            for household, name, seed in zip(street.households, befalls, seeds, strict=True):
                tasks.create_task(one_run(street, household, until, name, random.Random(seed)))
    except TimeoutError:
        why = {household.home.home_id: household.errors.most_common(2) for household in street.households}
        raise AssertionError(f"{story}: not committed within {ROUND_TIMEOUT_S} s: {why}") from None
    try:
        street.compare(until)
    except AssertionError as fault:
        raise AssertionError(f"{story}: {fault}") from fault


async def one_run(street: Street, household: Household, until: datetime, name: str, rng: random.Random) -> None:
    """One home's half hour, with its fault."""
    if name == "agent killed":
        await BEFALLS[name](street, household, until, rng)
        await household.live_until(until)
        return
    befalling = asyncio.create_task(BEFALLS[name](street, household, until, rng))
    await household.live_until(until)
    await befalling
