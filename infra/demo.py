"""The demonstration: yesterday in a street of homes, from the registers of simulated meters to GRID in a wallet.

Every part is the real one, started by its own command line; the meters and the Solana cluster are simulated. The state
of a run is made anew each time, because "yesterday" moves on: what a crashed run left behind is deleted, never resumed.
"""

import datetime
import fcntl
import json
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from infra.demo_figures import GOLDEN_HOME, get, story, summarise, what_next
from infra.demo_people import People, people_story
from infra.demo_tokens import Tokens, tokens_story
from infra.local.community import Community
from infra.local.homes import NET_ONLY, OWNER, Home, Meters, Rhythm, agent_toml, register, simulator_toml
from infra.local.mosquitto_package import fetch, find_installed
from infra.local.processes import LaunchError, log_tail, pause_until
from infra.local.solana import SolanaSimulator

COMMUNITY_ID = "demo-street"
STREET = [
    Home(GOLDEN_HOME, "H0-A", is_golden=True),
    Home("home-1", "H0-A", "PV1", 5_000, meters=Meters("carlo_gavazzi_em24_e1", "eastron_sdm220", quantum_wh=100)),
    Home("home-2", "H0-B", "PV3", 8_000, meters=Meters("abb_b23", "schneider_iem3000")),
    Home("home-3", "H0-C", "PV5", 4_000, meters=Meters("chint_dtsu666", "orno_we516")),
    Home("home-4", "H0-G", "PV1", 10_000, meters=Meters("eastron_sdm630", "eastron_sdm630")),
    Home("home-5", "H0-H", "PV3", 6_000, NET_ONLY, meters=Meters("siemens_pac2200")),
    Home("home-6", "H0-L", "PV5", 3_000, meters=Meters("janitza_umg", "carlo_gavazzi_em340", quantum_wh=100)),
    Home(
        "home-7",
        "H0-B",
        measurement=NET_ONLY,
        meters=Meters("carlo_gavazzi_em24", quantum_wh=100),
    ),
]
"""Thirteen models of eight makes; the golden home's count in less than a watt-hour."""
INSTALLED_BEFORE = datetime.timedelta(days=30)
DAY = datetime.timedelta(days=1)
DAY_RHYTHM = Rhythm(interval_s=60, seal_interval_s=900)
LIVE_RHYTHM = Rhythm(interval_s=5, seal_interval_s=15)
SEALS_PER_DAY = 96

MINTING = {"COMMONWATT_MINT_INTERVAL_S": "4"}
SLOT_MS, FINALIZED_AFTER_SLOTS = 100, 8
"""A cluster four times as fast as real ones, on which what happened is final after a second instead of thirteen."""

STEP_TIMEOUT_S = 120.0
DAY_TIMEOUT_S = 600.0
POLL_PAUSE_S = 0.25
LIVE_PAUSE_S = 2.0
TOLD_LINES = 6


class Interrupted(BaseException):
    """SIGTERM: leave through every `finally`, as Ctrl-C does."""


def run_demo(var: Path, *, once: bool, console: Console) -> int:
    """Play the day; then, unless `once`, let the homes live on until Ctrl-C. The exit status: 0 if all is exact."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with it ignored
    demo = var / "demo"
    demo.mkdir(parents=True, exist_ok=True)
    played = False
    try:
        with _only_one(demo) as run, Progress(*_columns(), console=console, transient=True) as progress:
            cache = var / "cache" / "mosquitto"
            if find_installed() is None and not cache.exists():
                console.print("Mosquitto is not installed: downloading a private copy, about 2 MB, a few seconds.")
            installation = find_installed() or fetch(cache)
            with (
                Community(
                    run, COMMUNITY_ID, installation, mail=True, cluster=_cluster(run), settings=MINTING
                ) as community,
                People(community) as people,
            ):
                summary = _play_day(community, people, progress)
                (demo / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
                progress.stop()
                played = not summary["faults"]
                lines = story(summary)
                if played:
                    lines += tokens_story(summary["tokens"])
                    lines += people_story(summary["people"], SEALS_PER_DAY, len(STREET))
                    lines += what_next(community, once=once)
                for line in lines:
                    console.print(line, markup=False, highlight=False, soft_wrap=True)
                for fault in summary["faults"]:
                    console.print(f"WRONG    {fault}", style="red", markup=False, soft_wrap=True)
                if played and not once:
                    _live_on(community, people, console)
    except LaunchError as error:
        console.print(f"demo: {error}", style="red", markup=False, highlight=False)
        return 1
    except (KeyboardInterrupt, Interrupted):
        console.print("Stopped.")
        return 0 if played else 130
    return 0 if played else 1


def _interrupt(*_: object) -> None:
    raise Interrupted


@contextmanager
def _only_one(demo: Path) -> Iterator[Path]:
    """A new directory for this run, once those of earlier runs are gone. Raises LaunchError if one is going on."""
    with (demo / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LaunchError("a demo is already running in this directory") from error
        for earlier in demo.glob("run-*"):
            shutil.rmtree(earlier, ignore_errors=True)  # a server that is still dying may hold on to a file
        (demo / "summary.json").unlink(missing_ok=True)
        run = demo / f"run-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}"
        run.mkdir()
        yield run


def _cluster(run: Path) -> SolanaSimulator:
    return SolanaSimulator(run / "solana", SLOT_MS, FINALIZED_AFTER_SLOTS)


def _columns() -> tuple[TextColumn, BarColumn, TaskProgressColumn, TimeElapsedColumn]:
    return TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()


def _play_day(community: Community, people: People, progress: Progress) -> dict[str, Any]:
    begun_s = time.monotonic()
    today = datetime.datetime.now(datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    day = today - DAY
    steps = progress.add_task("PostgreSQL, Mosquitto, a mail server, a Solana cluster", total=7)
    community.start_servers()
    progress.update(steps, advance=1, description="simulated meters, the energy program, hub")
    ports_file = _start_meters(community, day.date())
    community.start_hub()
    ports = json.loads(_wait_for_file(community, ports_file))
    progress.update(steps, advance=1, description="enrolling the meters")
    owners = {home.home_id: people.address if home.is_golden else OWNER for home in STREET}
    enrolments = _enrol(community, ports, owners, day)
    progress.update(steps, advance=1, description="an owner, an operator and an auditor become members")
    people.join()
    progress.update(steps, advance=1, description="registering the meters")
    with people.operator_client() as client:
        _register(community, client, ports, owners, enrolments)
        people.watch()
        tokens = Tokens(community, people.ada, people.address)
        progress.update(steps, advance=1, description="an owner and her meter on the chain")
        tokens.register()
        progress.update(steps, advance=1, description="their accounts on the broker")
        _wait_for_accounts(community, client)
        progress.remove_task(steps)
        _live_through(community, client, tokens, day, progress)
        summary = summarise(community, client, STREET, day)
    minted, token_faults = tokens.report()
    found, faults = people.report(SEALS_PER_DAY)
    summary |= {"people": found, "tokens": minted, "faults": summary["faults"] + faults + token_faults}
    return {**summary, "duration_s": round(time.monotonic() - begun_s, 1)}


def _start_meters(community: Community, golden_day: datetime.date) -> Path:
    ports_file = community.directory / "ports.json"
    file = community.directory / "meters.toml"
    file.write_text(simulator_toml(STREET, golden_day - INSTALLED_BEFORE, golden_day, ports_file))
    community.run("simulate-meters", "simulate", "meters", "--config", file)
    return ports_file


def _wait_for_file(community: Community, file: Path) -> str:
    deadline_s = time.monotonic() + STEP_TIMEOUT_S
    while not file.exists():
        community.check_alive()
        if not pause_until(deadline_s):
            raise LaunchError(f"{file} did not appear; see {community.log}")
    return file.read_text()


def _home_directory(community: Community, home: Home) -> Path:
    return community.directory / "homes" / home.home_id


def _enrol(
    community: Community, ports: dict[str, int], owners: dict[str, str], day: datetime.datetime
) -> dict[str, str]:
    """Let every agent make its key and state its starting counters as of midnight, all at once."""
    running = {}
    for home in STREET:
        directory = _home_directory(community, home)
        directory.mkdir(parents=True)
        config = directory / "agent.toml"
        config.write_text(agent_toml(home, ports[home.home_id], community, DAY_RHYTHM, owner=owners[home.home_id]))
        running[home.home_id] = community.run(
            f"{home.home_id}-enrol", "edge", "enrol", "--config", config, "--valid-from", day.isoformat()
        )
    return {home_id: community.finish(name).split()[-1] for home_id, name in running.items()}


def _register(
    community: Community,
    client: httpx.Client,
    ports: dict[str, int],
    owners: dict[str, str],
    enrolments: dict[str, str],
) -> None:
    for home in STREET:
        directory = _home_directory(community, home)
        key = register(client, home, enrolments[home.home_id], directory)
        for name, rhythm in (("agent.toml", DAY_RHYTHM), ("live.toml", LIVE_RHYTHM)):
            text = agent_toml(home, ports[home.home_id], community, rhythm, key, owners[home.home_id])
            (directory / name).write_text(text)


def _wait_for_accounts(community: Community, client: httpx.Client) -> None:
    deadline_s = time.monotonic() + STEP_TIMEOUT_S
    while not all(meter["broker_ready"] for meter in get(client, "/meters")["meters"]):
        community.check_alive()
        if not pause_until(deadline_s, POLL_PAUSE_S):
            raise LaunchError(f"the meters have no broker accounts; see {community.log}/hub-jobs.log")


def _live_through(
    community: Community, client: httpx.Client, tokens: Tokens, day: datetime.datetime, progress: Progress
) -> None:
    """Every agent lives through the day as fast as it can; the bar counts seals stored in the database.

    The golden home stops at noon until its morning is minted.
    """
    noon = day + DAY / 2
    golden, *others = STREET
    bar = progress.add_task(f"{day:%d %B} in {len(STREET)} homes, seals stored", total=len(STREET) * SEALS_PER_DAY)
    neighbours = _begin_replay(community, others, day, day + DAY)
    _follow(community, client, _begin_replay(community, [golden], day, noon), progress, bar)
    tokens.wait_until_noon_is_minted()
    _follow(community, client, neighbours + _begin_replay(community, [golden], noon, day + DAY), progress, bar)


def _begin_replay(
    community: Community, homes: Sequence[Home], start: datetime.datetime, end: datetime.datetime
) -> list[str]:
    return [
        community.run(
            f"{home.home_id}-day",
            *("edge", "replay", "--config", _home_directory(community, home) / "agent.toml"),
            *("--from", (start + datetime.timedelta(minutes=1)).isoformat(), "--to", end.isoformat()),
        )
        for home in homes
    ]


def _follow(community: Community, client: httpx.Client, running: list[str], progress: Progress, bar: TaskID) -> None:
    deadline_s = time.monotonic() + DAY_TIMEOUT_S
    while any(community.processes[name].poll() is None for name in running):
        community.check_alive()
        stored = [get(client, f"/meters/{home.home_id}")["contiguous_sequence"] for home in STREET]
        progress.update(bar, completed=sum(stored))
        if not pause_until(deadline_s, POLL_PAUSE_S):
            raise LaunchError(f"the day did not end within {DAY_TIMEOUT_S:.0f} s; see {community.log}")
    for name in running:
        community.finish(name)


def _live_on(community: Community, people: People, console: Console) -> None:
    """Start the agents for good; show what the hub stores, and what the golden home's owner is told, until Ctrl-C."""
    for home in STREET:
        config = _home_directory(community, home) / "live.toml"
        community.run(f"{home.home_id}-live", "edge", "run", "--config", config)
    watched = people.watch_on()
    console.print("The homes live on. Ctrl-C ends the demo.")
    with people.operator_client() as client, Live(console=console, transient=True, auto_refresh=False) as live:
        while True:
            told = Text(log_tail(watched, TOLD_LINES), no_wrap=True, overflow="ellipsis")
            live.update(Group(_live_table(client), "commonwatt member watch, as Ada sees it:", told), refresh=True)
            pause_until(0, LIVE_PAUSE_S)
            community.check_alive()


def _live_table(client: httpx.Client) -> Table:
    table = Table("home", "last stored reading", "power", "seals", "state")
    for home in STREET:
        meter = get(client, f"/meters/{home.home_id}")
        reading = get(client, f"/meters/{home.home_id}/latest")["reading"]
        power = "–" if reading is None or reading["power_w"] is None else f"{reading['power_w']} W"
        at = "–" if reading is None else reading["time"]
        table.add_row(home.home_id, at, power, str(meter["contiguous_sequence"]), meter["state"])
    return table
