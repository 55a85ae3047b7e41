"""What the demonstration must find: the golden home's energy to the watt-hour, and one truth in API and evidence."""

import datetime
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import httpx
import psycopg

from infra.local.community import Community
from infra.local.homes import Home
from infra.local.processes import LaunchError
from protocol.seal import split_message


@dataclass(frozen=True)
class Energy:
    """What a home produced and consumed in some hours, and the surplus over its settlement intervals."""

    production_wh: int
    consumption_wh: int
    surplus_wh: int


NAMES = tuple(field.name for field in fields(Energy))
GOLDEN_HOME = "golden-home"
COMMAND = Path(sys.executable).parent / "commonwatt"
GOLDEN = {
    "06:00 to 08:00": (6, 8, Energy(5_000, 2_000, 3_000)),
    "08:00 to 10:00": (8, 10, Energy(10_000, 2_000, 8_000)),
    "12:00 to 18:00": (12, 18, Energy(5_000, 5_000, 0)),
    "the whole day": (0, 24, Energy(20_000, 9_000, 11_000)),
}
"""What the golden home must have done, by hours of the day in UTC."""


def summarise(community: Community, client: httpx.Client, homes: list[Home], day: datetime.datetime) -> dict[str, Any]:
    """What the API answers and what the database holds, and every way in which they are not as they must be."""
    faults = []
    golden = {}
    for name, (first_hour, last_hour, expected) in GOLDEN.items():
        measured = _energy(client, GOLDEN_HOME, day, first_hour, last_hour)
        golden[name] = {"expected": asdict(expected), "measured": asdict(measured)}
        if measured != expected:
            faults.append(f"golden home, {name}: {measured} instead of {expected}")
    energies = {}
    for home in homes:
        energy = _energy(client, home.home_id, day, 0, 24)
        signed = _signed_energy(community.database_url, home.home_id)
        energies[home.home_id] = asdict(energy)
        if energy != signed:
            faults.append(f"{home.home_id}: the API says {energy}, the meter signed {signed}")
        if get(client, f"/meters/{home.home_id}/gaps")["gaps"]:
            faults.append(f"{home.home_id}: seals are missing")
    with psycopg.connect(community.database_url) as connection:
        counts = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - our own names
            for table in ("seals", "readings", "quarantine", "alarms")
        }
    stored = {table: row[0] for table, row in counts.items() if row is not None}
    faults += [f"{stored[table]} rows in {table}" for table in ("quarantine", "alarms") if stored[table]]
    return {
        "day": f"{day:%Y-%m-%d}",
        "faults": faults,
        "golden_home": golden,
        "homes": energies,
        "stored": stored,
        "api_url": community.api_url,
        "directory": str(community.directory),
    }


def _energy(client: httpx.Client, home_id: str, day: datetime.datetime, first_hour: int, last_hour: int) -> Energy:
    start, end = (day + datetime.timedelta(hours=hour) for hour in (first_hour, last_hour))
    query = {"from": start.isoformat(), "to": end.isoformat(), "bucket": "hour"}
    buckets = get(client, f"/meters/{home_id}/readings", query)["buckets"]
    return Energy(*(sum(bucket[key] for bucket in buckets) for key in NAMES))


def _signed_energy(database_url: str, home_id: str) -> Energy:
    """From the stored evidence alone: the counters of the last signed seal, less those of the enrolment."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT e.message, k.production_wh, k.consumption_wh, k.surplus_wh"
            " FROM meters m JOIN meter_keys k USING (meter_no, key_epoch) JOIN evidence e USING (meter_no, key_epoch)"
            " WHERE m.meter_id = %s ORDER BY e.sequence DESC LIMIT 1",
            (home_id,),
        ).fetchone()
    if row is None:
        return Energy(0, 0, 0)
    message, production_wh, consumption_wh, surplus_wh = row
    seal = split_message(bytes(message)).seal
    return Energy(
        seal.production_wh - production_wh, seal.consumption_wh - consumption_wh, seal.surplus_wh - surplus_wh
    )


def get(client: httpx.Client, path: str, query: dict[str, str] | None = None) -> Any:
    """The JSON that the hub answers. Raises LaunchError with its words if it refuses."""
    response = client.get(path, params=query)
    if response.status_code != httpx.codes.OK:
        raise LaunchError(f"the hub answered {response.status_code} to {path}: {response.text}")
    return response.json()


def story(summary: dict[str, Any]) -> list[str]:
    """What was measured and stored, in eight lines."""
    stored, homes = summary["stored"], summary["homes"]
    street = {name: sum(energy[name] for energy in homes.values()) for name in NAMES}
    lines = [
        f"{summary['day']} (UTC) in {len(homes)} homes, sealed by their meters, stored {summary['duration_s']} s later"
    ]
    lines += [
        f"  golden home, {hours:15}{_kwh(figures['measured'])}" for hours, figures in summary["golden_home"].items()
    ]
    lines += [
        f"  {'all homes together':28}{_kwh(street)}",
        f"Stored   {stored['seals']} signed seals, {stored['readings']} readings, {stored['quarantine']} quarantined",
        f"         in PostgreSQL, {_near(Path(summary['directory']))}/postgres; mail/, people/ and log/ are beside it",
    ]
    return lines


def what_next(community: Community, *, once: bool) -> list[str]:
    """Where everything is, and what to type now."""
    if once:
        return ["Next     make demo: the same, and then the homes live on"]
    session = community.directory / "people" / "ada" / "session.json"
    return [
        f"API      {community.api_url}, MQTT over TLS {community.broker.host}:{community.broker.port}",
        f"Next     export COMMONWATT_API_URL={community.api_url}",
        f"         {_near(COMMAND)} member --session-file {_near(session)} watch",
        f"         export COMMONWATT_API_KEY_FILE={_near(community.admin_key_file)}",
        f"         {_near(COMMAND)} admin export {GOLDEN_HOME} golden.ndjson",
        f"         {_near(COMMAND)} verify golden.ndjson",
    ]


def _near(path: Path) -> str:
    """The path as it is typed from where we are, if it lies below."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _kwh(energy: dict[str, int]) -> str:
    produced, consumed, surplus = (f"{energy[name] // 1000:3}.{energy[name] % 1000:03}" for name in NAMES)
    return f"{produced} kWh produced, {consumed} consumed, {surplus} surplus"
