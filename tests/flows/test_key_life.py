"""The life of a meter's key in a real community: rotated, exchanged with its meter, lost, revoked, doubled, stolen.

Real agents read real (simulated) registers over Modbus, and publish through a real broker to a real hub and database.
Whatever becomes of the keys, what counts in the end is what the registers say, to the watt-hour.
"""

import asyncio
import json
import secrets
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as mqtt
import psycopg
import pytest
from nacl.signing import SigningKey
from paho.mqtt.enums import CallbackAPIVersion
from pymodbus.client import AsyncModbusTcpClient

from edge.journal import Journal
from edge.settings import load_settings
from infra.local.community import COMMONWATT, Community
from infra.local.homes import OWNER, Home, Rhythm, agent_toml, register, simulator_toml
from infra.local.mosquitto_package import Installation
from protocol.settlement import Netting, first_closed_until
from protocol.topics import topic
from simulators.meters.configuration import load

OWNER_KEY = SigningKey(b"\x0f" * 32)
RHYTHM, LIVE = Rhythm(interval_s=60, seal_interval_s=300), Rhythm(interval_s=5, seal_interval_s=0)
BEGIN_H = 8.0
EXCHANGED_AT_H = 11.125
"""A grid meter is exchanged in the middle of a minute, after a reading in the middle of an interval."""
NAMES = ("rotated", "exchanged", "lost", "revoked", "renewed", "certified", "doubled", "stolen")
TIMEOUT_S = 120.0


@dataclass
class Street:
    """One community for all tests of this file, with a home for each."""

    community: Community
    directory: Path
    day: datetime
    ports: dict[str, int]

    def at(self, hour: float) -> datetime:
        return self.day + timedelta(hours=hour)

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        with self.community.client() as client:
            return client.post(path, json=body, headers={"Idempotency-Key": secrets.token_hex(8)})

    def get(self, path: str) -> Any:
        with self.community.client() as client:
            return client.get(path).raise_for_status().json()


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory, mosquitto_installation: Installation) -> Iterator[Street]:
    directory = tmp_path_factory.mktemp("key-life")
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
    with Community(
        directory / "community", "test-community", mosquitto_installation, client_certificates=True
    ) as community:
        community.start_servers()
        community.start_hub()
        homes = [Home(name, "H0-A", "PV1", 6_000) for name in NAMES]
        text = simulator_toml(homes, (day - timedelta(days=1)).date(), day.date(), directory / "ports.json")
        exchanged = (day + timedelta(hours=EXCHANGED_AT_H)).isoformat()
        fault = f'[[homes.faults]]\nrole = "grid"\nkind = "replaced"\nstart = "{exchanged}"\nsize = 77\n'
        sections = text.split("[[homes]]")
        number = next(i for i, section in enumerate(sections) if 'id = "exchanged"' in section)
        sections[number] += fault
        (directory / "homes.toml").write_text("[[homes]]".join(sections))
        community.run("simulator", "simulate", "meters", "--config", directory / "homes.toml")
        deadline_s = time.monotonic() + 30
        while not (directory / "ports.json").exists():
            community.check_alive()
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        yield Street(community, directory, day, json.loads((directory / "ports.json").read_text()))


class Device:
    """An agent of one home: a folder with configuration, key, journal and password."""

    def __init__(self, street: Street, name: str, folder: str = "", rhythm: Rhythm = RHYTHM) -> None:
        self.street = street
        self.name = name
        self.folder = street.directory / (folder or name)
        self.config = self.folder / "agent.toml"
        self._home = Home(name, "H0-A", "PV1", 6_000)
        self._rhythm = rhythm
        self.folder.mkdir(exist_ok=True)
        self.configure()

    def configure(self, command_public_key: str = "") -> None:
        community = self.street.community
        text = agent_toml(self._home, self.street.ports[self.name], community, self._rhythm, command_public_key)
        text = text.replace(OWNER, bytes(OWNER_KEY.verify_key).hex())
        if "\nurl = " not in text:
            text = text.replace("[hub]\n", f'[hub]\nurl = "{community.api_url}"\n')
        self.config.write_text(text)

    def edge(self, command: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
        words = [*COMMONWATT, "edge", command, "--config", self.config, *arguments]
        return subprocess.run(list(map(str, words)), check=False, capture_output=True, text=True, timeout=TIMEOUT_S)

    def does(self, command: str, *arguments: object) -> str:
        done = self.edge(command, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def register(self, hour: float | None) -> None:
        when = () if hour is None else ("--valid-from", self.street.at(hour).isoformat())
        enrolment = self.does("enrol", *when)
        with self.street.community.client() as client:
            self.configure(register(client, self._home, enrolment, self.folder))

    def take_over(self, other: "Device") -> None:
        """Know the hub as another device does, but have neither its key nor its journal."""
        [line] = [line for line in other.config.read_text().splitlines() if line.startswith("command_public_key")]
        self.configure(line.split('"')[1])

    def lives(self, first_h: float, last_h: float) -> None:
        self.does("replay", *self.stretch(first_h, last_h))

    def stretch(self, first_h: float, last_h: float) -> Sequence[object]:
        first = self.street.at(first_h) + timedelta(seconds=self._rhythm.interval_s)
        return "--from", first.isoformat(), "--to", self.street.at(last_h).isoformat()

    def counted(self) -> tuple[int, int, int]:
        """Production and consumption as of the last reading that counts, and the surplus sealed."""
        with psycopg.connect(self.street.community.database_url) as database:
            closing = database.execute(
                "SELECT production_wh, consumption_wh FROM interval_closings JOIN meters USING (meter_no)"
                " WHERE meter_id = %s ORDER BY interval_end DESC, interval_closings.key_epoch DESC LIMIT 1",
                [self.name],
            ).fetchone()
            seal = database.execute(
                "SELECT surplus_wh FROM seals JOIN meters USING (meter_no) WHERE meter_id = %s"
                " AND seals.state IN ('accepted', 'released') ORDER BY seals.key_epoch DESC, sequence DESC LIMIT 1",
                [self.name],
            ).fetchone()
        assert closing is not None
        assert seal is not None
        return closing[0], closing[1], seal[0]

    def register_wh(self, hour: float) -> tuple[int, int, int, int]:
        """Generation, consumption, import and export that have really flowed."""
        [home] = [each for each in load(self.street.directory / "homes.toml").homes if each.home_id == self.name]
        energy = home.energy.at(int(self.street.at(hour).timestamp()))
        return energy.generation_wh, energy.consumption_wh, energy.import_wh, energy.export_wh

    def should_count(self, *stretches: tuple[float, float]) -> tuple[int, int, int]:
        """The same three figures from the profile itself, read every minute of these stretches."""
        begin = int(self.street.at(stretches[0][0]).timestamp())
        start = self.register_wh(stretches[0][0])
        netting = Netting(first_closed_until(begin), start[0], start[1], 0, start[0], start[1])
        [home] = [each for each in load(self.street.directory / "homes.toml").homes if each.home_id == self.name]
        for first_h, last_h in stretches:
            first, last = (int(self.street.at(hour).timestamp()) for hour in (first_h, last_h))
            for now in range(first + RHYTHM.interval_s, last + 1, RHYTHM.interval_s):
                energy = home.energy.at(now)
                netting.add(now, energy.generation_wh, energy.consumption_wh)
        return netting.last_production_wh, netting.last_consumption_wh, netting.surplus_wh

    def held(self) -> set[str]:
        entries = self.street.get(f"/quarantine?meter_id={self.name}")["entries"]
        return {entry["reason"] for entry in entries}

    def state(self) -> str:
        return str(self.street.get(f"/meters/{self.name}")["state"])


def hand_in_by_owner(device: Device, enrolment: str) -> httpx.Response:
    wallet = device.folder / "wallet"
    if not wallet.exists():
        wallet.touch(mode=0o600)
        wallet.write_text(bytes(OWNER_KEY).hex())
    words = [*COMMONWATT, "edge", "endorse", "--enrolment", enrolment, "--owner-key-file", str(wallet)]
    rotation = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    return httpx.post(f"{device.street.community.api_url}/meters/{device.name}/keys", json={"rotation": rotation})


def replacement_of(device: Device, folder: str, hour: float) -> Device:
    """A new device for a meter whose key is lost, endorsed by the owner and in possession of the password."""
    new = Device(device.street, device.name, folder)
    new.take_over(device)
    keys = device.street.get(f"/meters/{device.name}/keys")
    (new.folder / "predecessor.json").write_text(json.dumps(keys["next"]))
    last = ("--replaces", new.folder / "predecessor.json", "--registers", "continue")
    enrolment = new.does("enrol", *last, "--valid-from", new.street.at(hour).isoformat())
    answer = hand_in_by_owner(new, enrolment)
    assert (answer.status_code, answer.json()["endorsed_by"]) == (201, "owner")
    assert new.does("renew-password") == "renewed"
    return new


def test_keys_rotated_in_the_middle_of_a_day_and_of_an_interval_change_no_sum(street: Street) -> None:
    device = Device(street, "rotated")
    device.register(BEGIN_H)
    device.lives(BEGIN_H, 11.1)
    assert device.does("rotate") == "key epoch 2"
    device.lives(11.1, 12.3)
    assert device.does("rotate") == "key epoch 3"
    assert device.does("rotate") == "key epoch 4", "a key that has sealed nothing"
    device.lives(12.3, 14)
    assert device.counted() == device.should_count((BEGIN_H, 14))
    assert device.held() == set()
    keys = street.get("/meters/rotated/keys")["keys"]
    assert [(key["key_epoch"], key["endorsed_by"]) for key in keys] == [
        (1, "first"), (2, "old_key"), (3, "old_key"), (4, "old_key"),
    ]  # fmt: skip


def test_an_exchanged_meter_costs_what_flowed_while_it_was_exchanged_and_nothing_else(street: Street) -> None:
    device = Device(street, "exchanged")
    device.register(BEGIN_H)
    before_h, after_h = 11.1, 11.2
    device.lives(BEGIN_H, before_h)
    set_laboratory_clock(street.ports["exchanged"], int(street.at(after_h).timestamp()))
    grid = ("--register", "grid_import", "--register", "grid_export")
    assert device.does("replace-meter", *grid, "--old-serial", "A-1", "--new-serial", "B-2").endswith("key epoch 2")
    device.lives(after_h, 14)

    production_wh, consumption_wh, _ = device.should_count((BEGIN_H, 14))
    (_, _, import_0, export_0), (_, _, import_1, export_1) = device.register_wh(before_h), device.register_wh(after_h)
    unseen_wh = (import_1 - import_0) - (export_1 - export_0)
    counted = device.counted()
    assert counted[:2] == (production_wh, consumption_wh - unseen_wh)
    assert device.held() == set()
    assert len(street.get("/meters/exchanged/keys")["keys"][1]["replacements"]) == 2


def test_a_lost_device_is_replaced_by_the_owners_word_and_what_it_did_not_seal_is_in_the_registers(
    street: Street,
) -> None:
    old = Device(street, "lost")
    old.register(BEGIN_H)
    old.lives(BEGIN_H, 11.1)
    new = replacement_of(old, "lost-2", 11.5)
    new.lives(11.5, 13)
    expected = old.should_count((BEGIN_H, 11.1), (11.5, 13))
    assert new.counted() == expected

    found_again = old.edge("replay", *old.stretch(11.1, 13), "--timeout-s", 5)
    assert found_again.returncode == 1, "it hears that another key has taken over, and falls silent"
    assert "receipt_hub_is_ahead" in found_again.stderr
    assert new.counted() == expected
    new.lives(13, 14)
    assert new.counted() == old.should_count((BEGIN_H, 11.1), (11.5, 14))


def test_what_a_revoked_key_sealed_no_longer_counts_until_the_next_key_reads_the_registers(street: Street) -> None:
    old = Device(street, "revoked")
    old.register(BEGIN_H)
    old.lives(BEGIN_H, 12)
    answer = street.post(
        "/meters/revoked/keys/1/revoke", {"from": street.at(10.01).isoformat(), "reason": "a break-in"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["withdrawn_seals"] > 0
    assert old.counted()[:2] == old.should_count((BEGIN_H, 10))[:2], "it sealed at ten, and again five minutes later"
    assert old.edge("rotate").returncode == 1, "its thief cannot rotate away from that"
    assert old.edge("renew-password").returncode == 1

    new = replacement_of(old, "revoked-2", 12.5)
    new.lives(12.5, 14)
    production_wh, consumption_wh, _ = old.should_count((BEGIN_H, 14))
    assert new.counted()[:2] == (production_wh, consumption_wh)
    assert old.held() == {"key_revoked"}


def test_an_agent_whose_password_is_renewed_comes_back_by_itself(street: Street) -> None:
    device = Device(street, "renewed", rhythm=LIVE)
    device.register(None)
    log = device.folder / "agent.log"
    with log.open("wb") as output, subprocess.Popen(
        [*COMMONWATT, "edge", "run", "--config", str(device.config)], stderr=output
    ) as agent:  # fmt: skip
        try:
            wait_until(lambda: sealed(device) >= 2)
            answer = street.post("/meters/renewed/broker-password", {"reason": "a former tenant knows it"})
            assert answer.status_code == 200, answer.text
            wait_until(lambda: b"credentials_renewed" in log.read_bytes())
            before = sealed(device)
            wait_until(lambda: sealed(device) >= before + 2)
        finally:
            agent.terminate()
    assert agent.returncode == 0
    assert device.held() == set()
    assert (device.folder / "mqtt.password").read_text().strip() == answer.json()["broker"]["password"]


def test_a_certificate_takes_the_place_of_the_password_and_changes_nothing_else(street: Street) -> None:
    device, broker = Device(street, "certified"), street.community.broker
    device.register(BEGIN_H)
    device.lives(BEGIN_H, 10)
    text = device.config.read_text().replace(f"port = {broker.port}", f"port = {broker.certificate_port}")
    files = 'certificate_file = "mqtt.crt"\ncertificate_key_file = "mqtt.key"'
    device.config.write_text(text.replace('password_file = "mqtt.password"', files))
    request = device.does("certificate-request")
    assert broker.client_authority is not None
    signed = broker.client_authority.sign(request.encode(), "certified", datetime.now(UTC))
    (device.folder / "signed").write_bytes(signed)
    device.does("certificate-request", "--install", device.folder / "signed")
    device.lives(10, 12)
    assert device.does("rotate") == "key epoch 2"
    device.lives(12, 13)
    assert device.counted() == device.should_count((BEGIN_H, 13))
    assert device.held() == set()


def sealed(device: Device) -> int:
    return int(device.street.get(f"/meters/{device.name}")["contiguous_sequence"])


def wait_until(condition: Any) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


def test_two_devices_with_one_key_are_found_out_and_no_energy_is_counted_twice(street: Street) -> None:
    device = Device(street, "doubled")
    device.register(BEGIN_H)
    device.lives(BEGIN_H, 10)
    other_rhythm = Rhythm(interval_s=60, seal_interval_s=600)
    copy, offline = (Device(street, "doubled", folder, other_rhythm) for folder in ("doubled-2", "doubled-3"))
    for twin in (copy, offline):
        twin.take_over(device)
        for file in ("meter.key", "journal.sqlite", "mqtt.password"):
            shutil.copy(device.folder / file, twin.folder / file)
    device.lives(10, 12)
    expected = device.should_count((BEGIN_H, 12))
    assert device.counted() == expected

    honest = copy.edge("replay", *copy.stretch(10, 12), "--timeout-s", 5)
    assert honest.returncode == 1, "an agent of ours hears from the hub that it is the older one, and says nothing"
    assert (device.counted(), device.state(), device.held()) == (expected, "active", set())

    forked = sealed_offline(offline, 10, 12)
    api = f"{street.community.api_url}/readings/seals"  # a thief's agent would publish it
    httpx.post(api, params={"meter_id": "doubled"}, content=forked)
    assert device.state() == "suspended"
    assert device.held() == {"equivocation"}
    assert device.counted() == expected


def sealed_offline(device: Device, first_h: float, last_h: float) -> bytes:
    """The next seal that a device makes without hearing anything of the hub."""
    port = device.street.community.broker.port
    device.config.write_text(device.config.read_text().replace(f"port = {port}", "port = 1"))
    assert device.edge("replay", *device.stretch(first_h, last_h), "--timeout-s", 1).returncode == 1
    settings = load_settings(device.config)
    journal = Journal(settings.journal.file, settings.journal.bytes_max)
    try:
        return journal.find_message(journal.unconfirmed_sequences()[0]) or b""
    finally:
        journal.close()


def publish(device: Device, message: bytes) -> None:
    """Over the broker, with the name and password of the device, as no agent of ours would."""
    broker = device.street.community.broker
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=device.name, protocol=mqtt.MQTTv5)
    client.tls_set(ca_certs=str(broker.ca_file))
    client.username_pw_set(device.name, (device.folder / "mqtt.password").read_text().strip())
    client.connect(broker.host, broker.port)
    client.loop_start()
    client.publish(topic("test-community", device.name, "seals"), message, qos=1).wait_for_publish(TIMEOUT_S)
    client.disconnect()
    client.loop_stop()


def test_a_stolen_name_and_password_count_for_nothing_without_the_key(street: Street) -> None:
    device = Device(street, "stolen")
    device.register(BEGIN_H)
    device.lives(BEGIN_H, 10)
    expected = device.should_count((BEGIN_H, 10))
    thief, third = (Device(street, "stolen", folder) for folder in ("stolen-2", "stolen-3"))
    for each in (thief, third):
        each.take_over(device)
        shutil.copy(device.folder / "mqtt.password", each.folder / "mqtt.password")
        each.does("enrol", "--valid-from", street.at(10).isoformat())
    honest = thief.edge("replay", *thief.stretch(10, 11), "--timeout-s", 5)
    assert honest.returncode == 1, "an agent of ours hears that the hub knows more of this meter than it does"
    publish(thief, sealed_offline(third, 10, 11))
    assert thief.edge("renew-password").returncode == 1, "the hub tells nobody else the password"
    wait_until(lambda: bool(device.held()))
    assert device.counted() == expected
    assert device.held() == {"bad_signature"}
    assert device.state() == "active"
    device.lives(10, 12)
    assert device.counted() == device.should_count((BEGIN_H, 12)), "and the meter goes on as if nothing had been"


def set_laboratory_clock(port: int, time_unix_s: int) -> None:
    async def write() -> None:
        client = AsyncModbusTcpClient("127.0.0.1", port=port)
        await client.connect()
        try:
            await client.write_registers(0, list(struct.unpack(">4H", struct.pack(">q", time_unix_s))), device_id=247)
        finally:
            client.close()

    asyncio.run(write())
