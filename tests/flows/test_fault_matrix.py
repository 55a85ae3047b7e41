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
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path

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

FAULT_S = 1.5
"""How long a line stays bad."""
DISK_BYTES = 1_000_000_000

Befall = Callable[[Street, Household, datetime, random.Random], Awaitable[None]]
Strike = Callable[[Street, random.Random], Awaitable[None]]


async def be_bad(line: Relay, outward: Badness = GOOD, inward: Badness = GOOD) -> None:
    line.outward, line.inward = outward, inward
    try:
        await asyncio.sleep(FAULT_S)
    finally:
        line.outward = line.inward = GOOD


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
    await be_bad(street.hub_broker_line, inward=Badness(slow=0.2, delay_s=0.1))


async def hub_line_repeats(street: Street, rng: random.Random) -> None:
    await be_bad(street.hub_broker_line, inward=Badness(repeated=0.3))


async def hub_line_reorders(street: Street, rng: random.Random) -> None:
    await be_bad(street.hub_broker_line, inward=Badness(reordered=0.3))


async def hub_line_flips_bits(street: Street, rng: random.Random) -> None:
    await be_bad(street.hub_broker_line, inward=Badness(damaged=0.3))


async def database_line_cut(street: Street, rng: random.Random) -> None:
    flapping = Badness(cut=0.02)
    await be_bad(street.database_line, flapping, flapping)


async def disk_full(street: Street, rng: random.Random) -> None:
    """Journals, broker and database are on one disk, and it is full for a while."""
    ballast = street.community.directory / "ballast"
    free_bytes = os.statvfs(ballast.parent).f_bavail * os.statvfs(ballast.parent).f_frsize
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free_bytes - 4_096 * rng.randrange(1, 64)))
        with contextlib.suppress(OSError):
            while True:
                os.write(file.fileno(), bytes(4_096))
    await asyncio.sleep(FAULT_S)
    ballast.unlink()
    await street.kill_database(0)  # it may have ended by itself; an operator starts it again
    for part in ("api", "ingest", "jobs"):
        if street.community.processes[f"hub-{part}"].poll() is not None:
            street.community.start_part(part)
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
    "disk full": disk_full,
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, so that it can be filled."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(directory)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a disk that can be filled needs the right to mount one: {mounted.stderr.decode().strip()}")
    directory.chmod(0o755)
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.mark.timeout(600)
def test_every_fault_of_the_matrix_costs_not_a_watt_hour(disk: Path, mosquitto_installation: Installation) -> None:
    asyncio.run(live_through(disk, mosquitto_installation, seed=1, rounds=len(STRIKES)))


@pytest.mark.long
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("seed", [2, 3])
def test_a_thousand_runs_through_the_matrix_cost_not_a_watt_hour(
    disk: Path, mosquitto_installation: Installation, seed: int
) -> None:
    asyncio.run(live_through(disk, mosquitto_installation, seed=seed, rounds=126))


async def live_through(directory: Path, installation: Installation, *, seed: int, rounds: int) -> None:
    """Every home suffers another fault each round, every shared fault comes equally often, in seeded order."""
    rng = random.Random(seed)
    settings = ("fsync=off", "max_wal_size=64MB", "min_wal_size=32MB")
    with RelayedCommunity(directory / "community", "test-community", installation, database_settings=settings) as made:
        street = Street(made, beginning())
        try:
            await street.set_up()
            strikes = [
                name for _ in range(-(-rounds // len(STRIKES))) for name in rng.sample(list(STRIKES), len(STRIKES))
            ]
            until = street.start
            for strike in strikes[:rounds]:
                until += STRETCH
                await one_round(street, until, strike, rng)
        finally:
            await street.tear_down()
    assert street.faults.total() == rounds * (1 + len(HOMES))
    happened = sum((household.uplink.happened() for household in street.households), street.hub_broker_line.happened())
    assert min(happened[kind] for kind in ("cut", "slow", "repeated", "reordered", "damaged", "swallowed")) > 0, (
        happened
    )


async def one_round(street: Street, until: datetime, strike: str, rng: random.Random) -> None:
    """Half an hour of the street: eight runs, and one thing that they share."""
    befalls = [rng.choice(list(BEFALLS)) for _ in street.households]
    seeds = [rng.random() for _ in street.households]
    story = f"until {until}: {strike}; {', '.join(befalls)}"
    street.faults.update([strike, *befalls])
    try:
        async with asyncio.timeout(ROUND_TIMEOUT_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(STRIKES[strike](street, random.Random(rng.random())))
            for household, name, seed in zip(street.households, befalls, seeds, strict=True):
                tasks.create_task(one_run(street, household, until, name, random.Random(seed)))
    except TimeoutError:
        raise AssertionError(f"{story}: not committed within {ROUND_TIMEOUT_S} s") from None
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
