"""The golden day on real processes: a hub's API, its chain process, a cluster with the program compiled from C."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.chain.token_2022 import decode_mint
from hub.permissions import Role
from hub.settings import Settings
from hub.signatures import SigningKey
from tests.flows.test_onboarding import ChainProcess
from tests.hub.chain.cluster import Cluster
from tests.hub.chain.conftest import cluster, new_wallet, shared_cluster
from tests.hub.conftest import Server, TestMeter, engine, log_lines, running, settings_in

__all__ = ["cluster", "engine", "log_lines", "new_wallet", "shared_cluster"]  # fixtures of other rooms

DEADLINE_S = 90.0
DAY_S = 86_400
HOUR_S = 3_600


@pytest.fixture
def settings(cluster: Cluster, database_url: str, tmp_path: Path) -> Settings:
    return cluster.settings(settings_in(tmp_path, database_url)).model_copy(update={"mint_interval_s": 1})


@pytest.fixture
def server(settings: Settings, engine: object, log_lines: object) -> Iterator[Server]:
    with running(settings, engine) as server:
        yield server


@pytest.fixture
def process(settings: Settings, tmp_path: Path) -> Iterator[ChainProcess]:
    made = ChainProcess(settings, tmp_path / "chain.log")
    yield made
    made.stop()
    sys.stderr.write(made.log.read_text()[-20_000:] if made.log.exists() else "")


class Day:
    """A home's counters, hour by hour, sealed each quarter of an hour."""

    def __init__(self, meter: TestMeter) -> None:
        self.meter = meter
        self.at_unix_s = meter.valid_from_unix_s
        self.wh = [0, 0]

    def hour(self, produced_wh: int, consumed_wh: int) -> list[bytes]:
        seals = []
        for _ in range(4):
            self.at_unix_s += 900
            self.wh[0] += produced_wh // 4
            self.wh[1] += consumed_wh // 4
            seals.append(self.meter.seal([(self.at_unix_s, *self.wh)]))
        return seals


def home(cluster: Cluster, server: Server, wallet, name: str) -> Day:
    """A meter of this wallet's, enrolled here and registered there by the same statement."""
    start_unix_s = int(time.time()) // DAY_S * DAY_S - DAY_S
    key = SigningKey(name.encode().ljust(32, b"."))
    meter = TestMeter(name, key, start_unix_s, server.settings.domain)
    owner = bytes(wallet.pubkey())
    server.register(meter, enrolment=meter.enrolment(owner=owner).hex())
    cluster.register_meter(name, key, wallet, capacity_w=20_000, valid_from_unix_s=start_unix_s)
    return Day(meter)


def post(server: Server, day: Day, seals: list[bytes]) -> None:
    for seal in seals:
        assert server.post_seal(day.meter, seal).status_code == 200


def minted(server: Server, meter_id: str, units: int) -> list[dict]:
    """Waits until so much of this meter is finalized in the hub's books."""
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        mints = server.client.get(f"/meters/{meter_id}/mints").json()["mints"]
        done = sum(int(mint["amount_units"]) for mint in mints if mint["state"] == "finalized")
        if done == units:
            return mints
        assert done < units and time.monotonic() < deadline_s, mints
        time.sleep(0.2)


def test_the_golden_day_mints_eleven_grid_and_not_one_unit_more(cluster, server, process, new_wallet):
    wallet, other_wallet = new_wallet(), new_wallet()
    for each in (wallet, other_wallet):
        cluster.register_user(each)
    day, neighbour = home(cluster, server, wallet, "golden"), home(cluster, server, other_wallet, "grey")
    process.start()
    morning, noon = day.hour(5_000, 2_000), day.hour(10_000, 2_000)
    night = [seal for _ in range(3) for seal in neighbour.hour(400, 800)]
    post(server, day, morning)
    post(server, neighbour, night)
    minted(server, "golden", 3_000_000_000)
    assert balance(cluster, wallet) == 3_000_000_000
    post(server, day, [noon[3], noon[1], noon[0], noon[2]])
    minted(server, "golden", 11_000_000_000)
    assert balance(cluster, wallet) == 11_000_000_000
    afternoon = [seal for _ in range(4) for seal in day.hour(1_000, 1_000)]
    post(server, day, afternoon)
    wait_for_nothing_new(server, "golden")
    assert balance(cluster, wallet) == 11_000_000_000
    assert balance(cluster, other_wallet) == 0
    member = server.member(Role.OPERATOR, wallet=bytes(wallet.pubkey()))
    with server.acting(member) as client:
        tokens = client.get("/me/tokens").json()
        assert (tokens["amount"], tokens["amount_units"]) == ("11", "11000000000")
        total = client.get("/meters/golden/minting").json()["total"]
        assert (total["accepted_wh"], total["minted_wh"]) == (11_000, 11_000)
        seals = client.get("/meters/golden/seals").json()["seals"]
        assert all(seal["minted"] for seal in seals)
        alarms = client.get("/alarms").json()["alarms"]
        assert [alarm for alarm in alarms if alarm["kind"].startswith("minting")] == []
    mint = cluster.ask(lambda node: node.find_account(cluster.grid_mint))
    assert decode_mint(cluster.grid_mint, mint.data).supply_units >= 11_000_000_000


def wait_for_nothing_new(server: Server, meter_id: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while server.client.get(f"/meters/{meter_id}/minting").json()["next_step"]["reason"] != "nothing_new":
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


def balance(cluster: Cluster, wallet) -> int:
    return cluster.grid_units(bytes(wallet.pubkey()))
