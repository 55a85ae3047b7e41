"""A member's own Mosquitto, and somebody who listens there as Home Assistant does."""

import asyncio
import json
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from edge.agent import Agent
from edge.clock import LaboratoryClock
from edge.counters import start_counters
from edge.enrolment import enrol
from edge.home_assistant import HomeAssistant, discovery_message, state_message
from edge.home_reader import HomeReader
from edge.identity import load_or_create_identity
from edge.journal import Journal
from edge.service import _home_assistant
from edge.settings import Settings
from edge.uplink_settings import HomeAssistantSettings
from infra.local.mosquitto_package import Installation
from infra.local.processes import remembered_port, start_child, stop_child
from protocol.enrolment import MEASURES_NET_ONLY
from protocol.readings import Reading

WAIT_S = 30
DISCOVERY = "homeassistant/device/commonwatt_home-17/config"
STATE = "commonwatt/home-17/state"
AVAILABILITY = "commonwatt/home-17/availability"
READING = Reading(1_800_000_000, 12_345_678, 900, -250, 2_305, 49_980)


class HomeBroker:
    """As a member has it: no TLS, no accounts, in the house's own network."""

    def __init__(self, directory: Path, installation: Installation) -> None:
        self._directory = directory
        self._installation = installation
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir()
        self.port = remembered_port(directory / "port")
        self.settings = HomeAssistantSettings("127.0.0.1", self.port, None, "", None, "homeassistant")

    def start(self) -> None:
        conf = self._directory / "mosquitto.conf"
        conf.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        self._process = start_child(
            [self._installation.program, "-c", conf],
            log=self._directory / "broker.log",
            environment=self._installation.environment,
        )
        deadline_s = time.monotonic() + WAIT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except ConnectionRefusedError:
                assert time.monotonic() < deadline_s, (self._directory / "broker.log").read_text()
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        if self._process is not None:
            stop_child(self._process)
            self._process = None


class Listener:
    """Everything that is published from now on, as (topic, payload), and what is retained."""

    def __init__(self, port: int) -> None:
        self.heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="home-assistant")
        self.client.on_message = lambda _client, _data, message: self.heard.put((message.topic, bytes(message.payload)))
        subscribed = threading.Event()
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.connect("127.0.0.1", port)
        self.client.subscribe("#", 1)
        self.client.loop_start()
        assert subscribed.wait(WAIT_S)

    async def wait_for(self, topic: str, wanted: Callable[[Any], bool] = lambda _: True) -> Any:
        """The next message on a topic that is wanted, decoded."""

        def search() -> Any:
            deadline_s = time.monotonic() + WAIT_S
            while True:
                of_topic, payload = self.heard.get(timeout=max(0.1, deadline_s - time.monotonic()))
                if of_topic == topic:
                    message = json.loads(payload) if payload.startswith(b"{") else payload.decode()
                    if wanted(message):
                        return message

        return await asyncio.to_thread(search)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def home_broker(tmp_path: Path, mosquitto_installation: Installation) -> Iterator[HomeBroker]:
    broker = HomeBroker(tmp_path / "home-broker", mosquitto_installation)
    yield broker
    broker.stop()


def link_to(settings: Settings, home: HomeAssistantSettings, status: dict[str, object]) -> HomeAssistant:
    return HomeAssistant(settings, home, lambda: status, lambda: 0.1)


def test_the_meter_appears_with_what_it_measures_in_the_format_of_a_device_discovery(
    settings: Settings, home_broker: HomeBroker
) -> None:
    home_broker.start()
    with closing(Listener(home_broker.port)) as listener:

        async def live() -> None:
            link = link_to(settings, home_broker.settings, {"backlog_seals": 3, "problems": []})
            link.tell(READING)
            running = asyncio.create_task(link.run())
            config = await listener.wait_for(DISCOVERY)
            assert config["device"]["identifiers"] == ["commonwatt_home-17"]
            assert config["origin"]["name"] == "Commonwatt"
            assert config["availability"] == [{"topic": AVAILABILITY}]
            assert config["state_topic"] == STATE
            parts = config["components"]
            assert set(parts) == {
                "production", "consumption", "power", "voltage", "frequency", "backlog", "problem",
            }  # fmt: skip
            for name in ("production", "consumption"):
                assert parts[name]["device_class"] == "energy"
                assert parts[name]["state_class"] == "total_increasing"
                assert parts[name]["unit_of_measurement"] == "kWh"
            assert parts["problem"]["platform"] == "binary_sensor"
            assert len({part["unique_id"] for part in parts.values()}) == len(parts)
            assert await listener.wait_for(AVAILABILITY) == "online"
            assert await listener.wait_for(STATE) == {
                "production_kwh": "12345.678",
                "consumption_kwh": "0.900",
                "power_w": "-250",
                "voltage_v": "230.5",
                "frequency_hz": "49.980",
                "backlog_seals": 3,
                "problem": "OFF",
            }
            for part in parts.values():
                key = part["value_template"].removeprefix("{{ value_json.").removesuffix(" }}")
                assert key in state_message(READING, {})
            running.cancel()
            await asyncio.wait([running])
            assert await listener.wait_for(AVAILABILITY) == "offline"

        asyncio.run(live())


def test_home_assistant_that_starts_later_is_introduced_again(settings: Settings, home_broker: HomeBroker) -> None:
    home_broker.start()
    with closing(Listener(home_broker.port)) as listener:

        async def live() -> None:
            running = asyncio.create_task(link_to(settings, home_broker.settings, {"problems": ["x"]}).run())
            state = await listener.wait_for(STATE)
            assert (state["production_kwh"], state["problem"]) == (None, "ON")
            listener.client.publish("homeassistant/status", "offline")
            listener.client.publish("homeassistant/status", "online")
            assert (await listener.wait_for(DISCOVERY))["components"]
            assert await listener.wait_for(AVAILABILITY) == "online"
            assert await listener.wait_for(STATE)
            running.cancel()
            await asyncio.wait([running])

        asyncio.run(live())


def test_a_device_that_loses_its_power_becomes_unavailable(settings: Settings, home_broker: HomeBroker) -> None:
    home_broker.start()
    with closing(Listener(home_broker.port)) as listener:

        async def live() -> None:
            link = link_to(settings, home_broker.settings, {})
            async with link._client() as client:
                await link._introduce(client)
                assert await listener.wait_for(AVAILABILITY) == "online"
                sock = client._client.socket()
                assert sock is not None
                sock.shutdown(socket.SHUT_RDWR)  # no farewell
                assert await listener.wait_for(AVAILABILITY) == "offline"
                assert client._disconnected.exception() is not None

        asyncio.run(live())


def test_metering_neither_waits_for_home_assistant_nor_minds_its_absence(
    settings: Settings, meters: Any, home_broker: HomeBroker, quarter: int
) -> None:
    meters.set(1, 0x34, 0.0)  # at rest: registers may stand still
    settings = replace(settings, home_assistant=home_broker.settings)
    journal = Journal(settings.journal.file, settings.journal.bytes_max)
    reader = HomeReader(settings.buses)

    async def tell(_: int) -> None:
        pass

    async def live() -> None:
        identity = load_or_create_identity(settings.key_file)
        clock = LaboratoryClock(quarter, tell)
        registers_wh = {"generation": 100_000, "grid_import": 50_000, "grid_export": 20_000}
        enrol(settings, identity, journal, start_counters(settings.measurement, registers_wh, quarter))
        agent = Agent(settings, identity, journal, clock=clock, reader=reader, random=lambda: 0.1)
        async with _home_assistant(settings, agent):
            for minute in range(1, 4):  # nobody is there
                await clock.wait_until(quarter + 60 * minute)
                assert await agent.sample_once(quarter + 60 * minute)
            home_broker.start()
            with closing(Listener(home_broker.port)) as listener:
                newest = await listener.wait_for(STATE, lambda state: state["production_kwh"] is not None)
                assert newest["production_kwh"] == "100.000"
                await clock.wait_until(quarter + 240)
                assert await agent.sample_once(quarter + 240)
                assert await listener.wait_for(STATE)
        reader.close()

    asyncio.run(live())
    journal.close()


def test_a_meter_at_the_grid_alone_has_the_grids_names_and_only_what_its_map_knows(settings: Settings) -> None:
    bus = settings.buses[0]
    [grid] = [meter for meter in bus.meters if meter.role == "grid"]
    known = {name: register for name, register in grid.register_map.registers.items() if name.startswith("energy")}
    plain = replace(grid, register_map=replace(grid.register_map, registers=known))
    alone = replace(settings, measurement=MEASURES_NET_ONLY, buses=(replace(bus, meters=(plain,)),))
    components = discovery_message(alone)["components"]
    assert isinstance(components, dict)
    assert set(components) == {"production", "consumption", "backlog", "problem"}
    assert components["production"]["name"] == "Energy to the grid"


def test_the_messages_hold_no_secret_and_no_owner(settings: Settings) -> None:
    said = json.dumps([discovery_message(settings), state_message(READING, {"backlog_seals": 1})])
    for private in (settings.owner.hex(), settings.domain.hex(), "not-a-secret", str(settings.key_file)):
        assert private not in said


@given(st.integers(0, 2**53 - 1), st.integers(-(2**31), 2**31 - 1))
def test_energy_is_told_to_the_last_watt_hour(energy_wh: int, power_w: int) -> None:
    state = state_message(Reading(1, energy_wh, 0, power_w), {})
    whole, _, parts = str(state["production_kwh"]).partition(".")
    assert int(whole) * 1000 + int(parts) == energy_wh
    assert len(parts) == 3
    assert state["power_w"] == str(power_w)
