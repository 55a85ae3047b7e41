"""Simulated homes and their agents: the configuration files, and the way of a home from nothing to registered."""

import datetime
import json
from dataclasses import dataclass
from pathlib import Path

import httpx

from infra.local.community import Community
from infra.local.processes import LaunchError, write_secret

OWNER = "11111111111111111111111111111112"
"""The wallet of owners who are nobody's members."""

PRODUCTION_CAPACITY_W = 10_000
CONNECTION_CAPACITY_W = 20_000
CLOCK_UNIT = 247
GENERATION_AND_GRID, NET_ONLY = "generation_and_grid", "net_only"


@dataclass(frozen=True)
class Meters:
    """The makes of a home's meters, by the names of their register maps, and how they are reached.

    `quantum_wh` is what the coarser of them counts in: the hub must know it to tell a step from a spike.
    """

    grid: str = "eastron_sdm230"
    generation: str = "eastron_sdm120"
    framing: str = "tcp"
    quantum_wh: int = 10


@dataclass(frozen=True)
class Home:
    """One home: profiles (columns of simulators/profiles), panels, and how it is metered."""

    home_id: str
    household: str
    solar: str | None = None
    solar_peak_w: int = 0
    measurement: str = GENERATION_AND_GRID
    is_golden: bool = False
    meters: Meters = Meters()


@dataclass(frozen=True)
class Rhythm:
    """How often an agent reads and seals, in seconds."""

    interval_s: int
    seal_interval_s: int


def simulator_toml(homes: list[Home], installed: datetime.date, golden_day: datetime.date, ports_file: Path) -> str:
    """The file of `commonwatt simulate meters`."""
    lines = [f"ports_file = {json.dumps(str(ports_file))}"]
    for seed, home in enumerate(homes, 1):
        lines += ["", "[[homes]]", f"id = {json.dumps(home.home_id)}", f'measurement = "{home.measurement}"']
        lines += [f'household = "{home.household}"', f"seed = {seed}", f'grid_model = "{home.meters.grid}"']
        lines += [f'generation_model = "{home.meters.generation}"', f'framing = "{home.meters.framing}"']
        if home.solar:
            lines += [f'solar = "{home.solar}"', f"solar_peak_w = {home.solar_peak_w}"]
        lines += [f'golden_day = "{golden_day}"' if home.is_golden else f'installed = "{installed}"']
    return "\n".join(lines) + "\n"


def agent_toml(
    home: Home, port: int, community: Community, rhythm: Rhythm, command_public_key: str = "", owner: str = OWNER
) -> str:
    """The configuration of a home's agent; the key is empty until the hub has registered the meter. `owner` is the
    address of a wallet, in base58 or hexadecimal."""
    kind = "solar" if home.solar or home.is_golden else "grid"
    maps = {"grid": home.meters.grid}
    if home.measurement == GENERATION_AND_GRID:
        maps["generation"] = home.meters.generation
    meters = "\n".join(
        f'[[bus.meter]]\nrole = "{role}"\nunit = {unit}\nmap = "{name}"\n'
        for unit, (role, name) in enumerate(maps.items(), 1)
    )
    return f"""\
community_id = "{community.community_id}"
meter_id = "{home.home_id}"
kind = "{kind}"
measurement = "{home.measurement}"
owner = "{owner}"

[[bus]]
type = "{home.meters.framing}"
host = "127.0.0.1"
port = {port}
pause_ms = 2  # a simulated line is quiet at once

{meters}
[sampling]
interval_s = {rhythm.interval_s}
seal_interval_s = {rhythm.seal_interval_s}
clock_check = "trust"  # simulated meters share our clock

{_chain(community)}
[mqtt]
host = "{community.broker.host}"
port = {community.broker.port}
ca_file = {json.dumps(str(community.broker.ca_file))}
password_file = "mqtt.password"
republish_after_s = 5

[hub]
command_public_key = "{command_public_key}"

[laboratory]
clock_unit = {CLOCK_UNIT}
"""


def _chain(community: Community) -> str:
    """The part of the domain that names the chain; nothing without one."""
    if community.chain is None:
        return ""
    chain = community.chain
    return f'[chain]\ngenesis_hash = "{chain.genesis_hash_hex}"\nprogram_id = "{chain.program_id}"\n'


def register(client: httpx.Client, home: Home, enrolment: str, directory: Path) -> str:
    """Register a meter by its enrolment statement, keep its password, and return the hub's command key.

    Raises LaunchError with the hub's own words.
    """
    body = {
        "enrolment": enrolment,
        "production_capacity_w": PRODUCTION_CAPACITY_W,
        "connection_capacity_w": CONNECTION_CAPACITY_W,
        "register_quantum_wh": home.meters.quantum_wh,
    }
    response = client.post("/meters", json=body, headers={"Idempotency-Key": f"register-{home.home_id}"})
    if response.status_code != httpx.codes.CREATED:
        raise LaunchError(f"the hub refused to register {home.home_id}: {response.text}")
    answer = response.json()
    write_secret(directory / "mqtt.password", answer["broker"]["password"])
    return str(answer["command_public_key"])
