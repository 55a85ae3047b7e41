"""Two homes live through a week, and every figure that anybody can ask for equals a sum over their raw readings.

Real agents read real (simulated) registers over Modbus and seal; the hub mints on a cluster of its own. The sums are
made here, from what the registers showed at each reading, and from nothing else. Behind each token is a file that
proves itself to a program which asks nobody but the cluster.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.local.homes import NET_ONLY, Home, Rhythm, agent_toml, register, simulator_toml
from infra.local.mosquitto_package import Installation
from simulators.meters.configuration import load
from tests.flows.minting import trails
from tests.flows.minting.books import FINAL, different_mirror, minting_of, read_chain
from tests.flows.minting.roofs import QUARTER_S, UNITS_PER_WH
from tests.flows.minting.town import DAY_S, Person, Town, living_town

HOMES = [Home("sunny", "H0-A", "PV1", 8_000), Home("net-only", "H0-B", "PV3", 6_000, NET_ONLY)]
RHYTHM, RHYTHM_LONG = Rhythm(interval_s=300, seal_interval_s=900), Rhythm(interval_s=60, seal_interval_s=900)
BEGAN = timedelta(days=10)
REPLAY_TIMEOUT_S = 600
FLIPS = 12


@dataclass
class Energy:
    """Production, consumption and surplus, in Wh."""

    production_wh: int = 0
    consumption_wh: int = 0
    surplus_wh: int = 0

    def add(self, produced_wh: int, consumed_wh: int) -> None:
        self.production_wh += produced_wh
        self.consumption_wh += consumed_wh
        self.surplus_wh += max(0, produced_wh - consumed_wh)


@dataclass
class House:
    """A home, whose it is, and what its registers showed whenever its agent looked: (time, production, consumption)."""

    home: Home
    owner: Person
    readings: list[tuple[int, int, int]]
    start_wh: tuple[int, int] = (0, 0)
    by_day: dict[date, Energy] = field(default_factory=lambda: defaultdict(Energy))
    total: Energy = field(default_factory=Energy)

    def add_up(self) -> None:
        """Net each quarter of an hour by itself, and put it on the day in which it lies."""
        last_wh = self.start_wh
        for time_unix_s, production_wh, consumption_wh in self.readings:
            if time_unix_s % QUARTER_S:
                continue
            step = production_wh - last_wh[0], consumption_wh - last_wh[1]
            last_wh = production_wh, consumption_wh
            self.by_day[datetime.fromtimestamp(time_unix_s - 1, UTC).date()].add(*step)
            self.total.add(*step)

    @property
    def meter_id(self) -> str:
        return self.home.home_id


@pytest.fixture
def town(tmp_path: Path, mosquitto_installation: Installation) -> Iterator[Town]:
    with living_town(tmp_path, mosquitto_installation) as made:
        yield made


@pytest.mark.timeout(600)
def test_two_days_of_two_homes_end_in_the_sums_of_their_readings(
    town: Town, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replay_and_compare(town, tmp_path, capsys, days=2, rhythm=RHYTHM)


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_seven_days_of_two_homes_end_in_the_sums_of_their_readings(
    town: Town, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replay_and_compare(town, tmp_path, capsys, days=7, rhythm=RHYTHM_LONG)


def replay_and_compare(
    town: Town, directory: Path, capsys: pytest.CaptureFixture[str], days: int, rhythm: Rhythm
) -> None:
    start = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - BEGAN
    houses = live(town, directory, start, days, rhythm)
    town.wait_until("all is minted", lambda: not any(pending(town, house) for house in houses), REPLAY_TIMEOUT_S)
    assert sum(house.total.surplus_wh for house in houses) > days * 5_000, "there is something to count"
    for house in houses:
        raw_readings_are_told(town, house, start, days)
        energy_is_told(town, house, start, days)
        balances_are_told(town, house)
        tokens_are_told(town, house)
    chain_holds_it(town, houses)
    bundles_prove_it(town, houses, directory, capsys)


def live(town: Town, directory: Path, start: datetime, days: int, rhythm: Rhythm) -> list[House]:
    """From nothing to homes that have lived through so many days."""
    end_unix_s = int(start.timestamp()) + days * DAY_S
    ports_file, simulation = directory / "ports.json", directory / "homes.toml"
    installed = (start - timedelta(days=1)).date()
    simulation.write_text(simulator_toml(HOMES, installed, datetime.now(UTC).date(), ports_file))
    town.community.run("simulator", "simulate", "meters", "--config", simulation)
    town.wait_until("the simulator listens", ports_file.exists)
    ports = json.loads(ports_file.read_text())
    profiles = {each.home_id: each.energy for each in load(simulation).homes}
    houses = []
    for home, name in zip(HOMES, ("Ada", "Bo"), strict=True):
        owner = town.join(name)
        assert town.put_on_chain(owner)["state"] == "finalized"
        folder = directory / home.home_id
        folder.mkdir()
        config = folder / "agent.toml"
        config.write_text(agent_toml(home, ports[home.home_id], town.community, rhythm, owner=owner.wallet.address))
        enrol = ("edge", "enrol", "--config", config, "--valid-from", start.isoformat())
        enrolment = town.community.finish(town.community.run(f"enrol-{home.home_id}", *enrol)).strip().splitlines()[-1]
        with town.community.client() as client:
            key = register(client, home, enrolment, folder)
        assert town.put_on_chain(owner, home.home_id)["state"] == "finalized"
        config.write_text(
            agent_toml(home, ports[home.home_id], town.community, rhythm, key, owner=owner.wallet.address)
        )

        def counters(time_unix_s: int, home: Home = home) -> tuple[int, int, int]:
            energy = profiles[home.home_id].at(time_unix_s)
            if home.measurement == NET_ONLY:
                return time_unix_s, energy.export_wh, energy.import_wh
            return time_unix_s, energy.generation_wh, energy.consumption_wh

        start_unix_s = int(start.timestamp())
        times = range(start_unix_s + rhythm.interval_s, end_unix_s + 1, rhythm.interval_s)
        house = House(home, owner, [counters(each) for each in times], counters(start_unix_s)[1:])
        house.add_up()
        houses.append(house)
    first = (start + timedelta(seconds=rhythm.interval_s)).isoformat()
    until = datetime.fromtimestamp(end_unix_s, UTC).isoformat()
    for house in houses:
        town.community.run(
            f"agent-{house.meter_id}", "edge", "replay", "--config", directory / house.meter_id / "agent.toml",
            "--from", first, "--to", until, "--timeout-s", str(REPLAY_TIMEOUT_S),
        )  # fmt: skip
    for house in houses:
        town.community.finish(f"agent-{house.meter_id}", REPLAY_TIMEOUT_S)
    return houses


def pending(town: Town, house: House) -> bool:
    answer = town.get(f"/meters/{house.meter_id}/minting")
    return answer["next_step"]["reason"] != "nothing_new" or answer["total"]["minted_wh"] != house.total.surplus_wh


# --- what the API tells


def pages(town: Town, path: str, name: str) -> Iterator[dict[str, Any]]:
    """All rows of a list, over its pages."""
    cursor = ""
    while True:
        page = town.get(f"{path}{'&' if '?' in path else '?'}limit=500{cursor}")
        yield from page[name]
        if page["next_cursor"] is None:
            return
        cursor = f"&cursor={page['next_cursor']}"


def stretch(start: datetime, days: int) -> str:
    return f"from={start:%Y-%m-%dT%H:%M:%SZ}&to={start + timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"


def raw_readings_are_told(town: Town, house: House, start: datetime, days: int) -> None:
    """One for one, each with the transaction that its quarter was minted by."""
    second = timedelta(seconds=1)  # a reading at midnight belongs to the day that ends there
    until = f"{start + timedelta(days=days) + second:%Y-%m-%dT%H:%M:%SZ}"
    where = f"/meters/{house.meter_id}/readings?bucket=raw&from={start + second:%Y-%m-%dT%H:%M:%SZ}&to={until}"
    told = list(pages(town, where, "readings"))
    found = [
        (int(datetime.fromisoformat(each["time"]).timestamp()), each["production_wh"], each["consumption_wh"])
        for each in told
    ]
    assert found == house.readings
    assert all(each["minted"] for each in told)
    signatures = {each["transaction_signature"] for each in mints_of(town, house)}
    assert {each["transaction_signature"] for each in told} == signatures


def energy_is_told(town: Town, house: House, start: datetime, days: int) -> None:
    """By day, by hour and by quarter."""
    for bucket, count in (("day", days), ("hour", 24 * days), ("15min", 96 * days)):
        told = list(pages(town, f"/meters/{house.meter_id}/readings?bucket={bucket}&{stretch(start, days)}", "buckets"))
        assert len(told) == count
        total = house.total
        for name in ("production_wh", "consumption_wh", "surplus_wh"):
            assert sum(each[name] for each in told) == getattr(total, name), (bucket, name)
        if bucket == "day":
            for each in told:
                day = house.by_day[datetime.fromisoformat(each["from"]).date()]
                assert Energy(each["production_wh"], each["consumption_wh"], each["surplus_wh"]) == day


def balances_are_told(town: Town, house: House) -> None:
    """Of each day and in all: accepted = minted, and nothing is pending, held or written off."""
    total, by_day = minting_of(town, house.meter_id)
    assert by_day.keys() == house.by_day.keys()
    for balance, energy in [(total, house.total), *((by_day[day], house.by_day[day]) for day in by_day)]:
        nothing = {name: 0 for name in balance if name.endswith("_wh")}
        amounts = {"accepted_wh": energy.surplus_wh, "minted_wh": energy.surplus_wh}
        assert {name: balance[name] for name in nothing} == nothing | amounts


def mints_of(town: Town, house: House) -> list[dict[str, Any]]:
    return list(pages(town, f"/meters/{house.meter_id}/mints", "mints"))


def tokens_are_told(town: Town, house: House) -> None:
    """By the steps, by the seals, and by the member's own page."""
    mints = mints_of(town, house)
    assert {each["state"] for each in mints} == {"finalized"}
    assert sum(each["minted_wh"] for each in mints) == house.total.surplus_wh
    assert sum(int(each["amount_units"]) for each in mints) == house.total.surplus_wh * UNITS_PER_WH
    seals = list(pages(town, f"/meters/{house.meter_id}/seals", "seals"))
    covered = sorted(n for each in mints for n in range(each["first_sequence"], each["last_sequence"] + 1))
    assert covered == [each["sequence"] for each in seals]
    by_seal = {
        n: each["transaction_signature"]
        for each in mints
        for n in range(each["first_sequence"], each["last_sequence"] + 1)
    }
    assert all(each["minted"] and each["transaction_signature"] == by_seal[each["sequence"]] for each in seals)
    town.sign_in_again(house.owner)
    mine = town.get("/me/tokens", house.owner.headers)
    assert int(mine["amount_units"]) == house.total.surplus_wh * UNITS_PER_WH
    assert [each["meter_id"] for each in mine["meters"]] == [house.meter_id]


# --- what the cluster holds, and what the files prove


def chain_holds_it(town: Town, houses: list[House]) -> None:
    chain = read_chain(town)
    in_all_wh = sum(house.total.surplus_wh for house in houses)
    supply = town.cluster.call("getTokenSupply", chain.grid_mint, FINAL)["value"]["amount"]
    assert int(supply) == in_all_wh * UNITS_PER_WH
    told = town.get("/tokens/supply")
    assert int(told["minted_units"]) == in_all_wh * UNITS_PER_WH
    for house in houses:
        meter = chain.meters[house.meter_id]
        assert (meter.closed_until_unix_s, meter.production_wh, meter.consumption_wh) == house.readings[-1]
        assert meter.settled_wh - meter.base_surplus_wh == house.total.surplus_wh
        assert meter.written_off_surplus_wh == meter.written_off_production_wh == 0
        owned = town.cluster.call(
            "getTokenAccountsByOwner", house.owner.wallet.address, {"mint": chain.grid_mint},
            {"encoding": "jsonParsed", **FINAL},
        )["value"]  # fmt: skip
        amounts = [int(each["account"]["data"]["parsed"]["info"]["tokenAmount"]["amount"]) for each in owned]
        assert amounts == [house.total.surplus_wh * UNITS_PER_WH]
    town.wait_until("the mirrors are the chain", lambda: not different_mirror(town, read_chain(town)))


def bundles_prove_it(town: Town, houses: list[House], directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each transaction's file verifies with the cluster; their amounts are all there is; a flipped bit is named."""
    signatures = {each["transaction_signature"] for house in houses for each in mints_of(town, house)}
    minted_units: dict[str, int] = defaultdict(int)
    files = []
    for number, signature in enumerate(sorted(signatures)):
        files.append(trails.fetch(town, signature, directory / f"{number}.provenance.ndjson"))
        status, report = trails.check(files[-1], town, capsys)
        assert (status, trails.faults_of(report), report["transaction"]) == (0, [], signature)
        for mint in report["mints"]:
            minted_units[mint["meter_id"]] += int(mint["amount_units"])
    assert minted_units == {house.meter_id: house.total.surplus_wh * UNITS_PER_WH for house in houses}
    rng = random.Random(1)
    for number in range(FLIPS):
        a_flipped_bit_is_named(rng.choice(files), directory / f"flipped-{number}.ndjson", rng, town, capsys)


def a_flipped_bit_is_named(
    file: Path, flipped: Path, rng: random.Random, town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    """In any seal, signature or reading of any meter in the file."""
    lines = file.read_bytes().splitlines()
    where, meter_id = [], ""
    for number, line in enumerate(lines):
        fields = json.loads(line)
        meter_id = fields.get("meter_id", meter_id)
        if "message" in fields:
            where.append((number, meter_id, fields))
    number, meter_id, fields = rng.choice(where)
    message = bytearray.fromhex(fields["message"])
    message[rng.randrange(len(message))] ^= 1 << rng.randrange(8)
    lines[number] = json.dumps(fields | {"message": message.hex()}).encode()
    flipped.write_bytes(b"\n".join(lines) + b"\n")
    status, report = trails.check(flipped, town, capsys)
    assert (status, report["verified"]) == (1, False)
    [mint] = [each for each in report["mints"] if each["meter_id"] == meter_id]
    assert fields["sequence"] in [each["first_sequence"] for each in mint["evidence"]["false"]], (meter_id, fields)
    assert all(each["evidence"]["verified"] for each in report["mints"] if each["meter_id"] != meter_id)
