"""A member's own Home Assistant, told of the meter by MQTT discovery so that it appears there by itself. Optional.

It is a connection of its own to the member's own broker, beside the one to the community and without any part in
metering: whatever fails here is logged and tried again, the newest reading replaces one that could not be told, and
nothing waits for it. The messages hold measurements and the meter's id: no owner, no key, no password.

Discovery messages are retained, so they outlive this configuration: whoever removes `[home_assistant]` also deletes
the device in Home Assistant, or empties the topic:

    mosquitto_pub -r -n -t homeassistant/device/commonwatt_METER-ID/config
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import aiomqtt

from edge import __version__
from edge.connection import (
    BACK_OFF_MAX_S,
    STATUS_INTERVAL_S,
    back_off_s,
    failure_of,
    obey_cancellation,
    read_password,
    tls_context,
)
from edge.errors import EdgeError
from edge.mqtt_client import MqttClient
from edge.settings import Settings
from edge.uplink_settings import HomeAssistantSettings
from protocol.enrolment import KIND_NAMES, MEASURES_GENERATION_AND_GRID
from protocol.readings import Reading

KEEPALIVE_S = 30
ANSWER_TIMEOUT_S = 20.0
FAREWELL_TIMEOUT_S = 2.0
RECEIVED_QUEUE_MAX = 16
INTRODUCTION_PAUSE_S = 1.0
"""However often somebody says that Home Assistant has started."""
ONLINE, OFFLINE = "online", "offline"

log = logging.getLogger(__name__)

_INSTANTANEOUS = {
    "power": ("Grid power", "W", "power_w"),
    "voltage": ("Grid voltage", "V", "voltage_v"),
    "frequency": ("Grid frequency", "Hz", "frequency_hz"),
}


def device_id(meter_id: str) -> str:
    """What Home Assistant knows the meter by."""
    return f"commonwatt_{meter_id}"


def state_topic(meter_id: str) -> str:
    """Where the measurements go."""
    return f"commonwatt/{meter_id}/state"


def availability_topic(meter_id: str) -> str:
    """Where it says whether the agent is connected."""
    return f"commonwatt/{meter_id}/availability"


def discovery_topic(home: HomeAssistantSettings, meter_id: str) -> str:
    """Where Home Assistant looks for devices."""
    return f"{home.discovery_prefix}/device/{device_id(meter_id)}/config"


def discovery_message(settings: Settings) -> dict[str, object]:
    """The meter as a device with its entities, in the format of a device discovery message."""
    meter_id = settings.meter_id
    return {
        "device": {
            "identifiers": [device_id(meter_id)],
            "name": f"Meter {meter_id}",
            "manufacturer": "Commonwatt",
            "model": f"{KIND_NAMES[settings.kind]} meter",
            "sw_version": __version__,
        },
        "origin": {"name": "Commonwatt", "sw_version": __version__},
        "availability": [{"topic": availability_topic(meter_id)}],
        "state_topic": state_topic(meter_id),
        "qos": 1,
        "components": {
            name: {**component, "unique_id": f"{device_id(meter_id)}_{name}"}
            for name, component in _components(settings).items()
        },
    }


def _components(settings: Settings) -> dict[str, dict[str, str]]:
    netted = settings.measurement != MEASURES_GENERATION_AND_GRID
    components = {
        "production": _energy("Energy to the grid" if netted else "Production", "production_kwh"),
        "consumption": _energy("Energy from the grid" if netted else "Consumption", "consumption_kwh"),
    }
    at_the_grid = {name for meter in settings.meters if meter.role == "grid" for name in meter.register_map.registers}
    for quantity, (name, unit, key) in _INSTANTANEOUS.items():
        if quantity in at_the_grid:
            components[quantity] = {
                "platform": "sensor",
                "name": name,
                "device_class": quantity,
                "state_class": "measurement",
                "unit_of_measurement": unit,
                "value_template": f"{{{{ value_json.{key} }}}}",
            }
    components["backlog"] = {
        "platform": "sensor",
        "name": "Seals waiting for a receipt",
        "state_class": "measurement",
        "entity_category": "diagnostic",
        "value_template": "{{ value_json.backlog_seals }}",
    }
    components["problem"] = {
        "platform": "binary_sensor",
        "name": "Problem",
        "device_class": "problem",
        "entity_category": "diagnostic",
        "value_template": "{{ value_json.problem }}",
    }
    return components


def _energy(name: str, key: str) -> dict[str, str]:
    return {
        "platform": "sensor",
        "name": name,
        "device_class": "energy",
        "state_class": "total_increasing",
        "unit_of_measurement": "kWh",
        "value_template": f"{{{{ value_json.{key} }}}}",
    }


def state_message(reading: Reading | None, status: Mapping[str, object]) -> dict[str, object]:
    """The measurements as exact decimal text; None is "unknown" to Home Assistant."""
    measured: dict[str, str | None] = dict.fromkeys(
        ("production_kwh", "consumption_kwh", "power_w", "voltage_v", "frequency_hz")
    )
    if reading is not None:
        measured = {
            "production_kwh": _decimal(reading.production_wh, 3),
            "consumption_kwh": _decimal(reading.consumption_wh, 3),
            "power_w": _decimal(reading.power_w, 0),
            "voltage_v": _decimal(reading.voltage_dv, 1),
            "frequency_hz": _decimal(reading.frequency_mhz, 3),
        }
    return {
        **measured,
        "backlog_seals": status.get("backlog_seals"),
        "problem": "ON" if status.get("problems") else "OFF",
    }


def _decimal(value: int | None, places: int) -> str | None:
    """`value` / 10 ** `places`, without a detour over floating point."""
    if value is None:
        return None
    digits = f"{abs(value):0{places + 1}}"
    point = len(digits) - places
    return ("-" if value < 0 else "") + digits[:point] + ("." + digits[point:] if places else "")


class HomeAssistant:
    """Tells the member's broker for as long as it runs. `status` is the agent's; `random` gives numbers in [0, 1)."""

    def __init__(
        self,
        settings: Settings,
        home: HomeAssistantSettings,
        status: Callable[[], Mapping[str, object]],
        random: Callable[[], float],
    ) -> None:
        self._home = home
        self._meter_id = settings.meter_id
        self._discovery = json.dumps(discovery_message(settings), separators=(",", ":")).encode()
        self._status = status
        self._random = random
        self._reading: Reading | None = None
        self._changed = asyncio.Event()
        self._failures = 0

    def tell(self, reading: Reading) -> None:
        """A reading was taken. Returns at once."""
        self._reading = reading
        self._changed.set()

    async def run(self) -> None:
        """Connect, tell, reconnect; until cancelled."""
        while True:
            begun_s = time.monotonic()
            error = await failure_of(self._session(), (aiomqtt.MqttError, OSError, EdgeError))
            if time.monotonic() - begun_s >= BACK_OFF_MAX_S:
                self._failures = 0  # a broker that soon hangs up again is not hurried
            log.warning("home_assistant_lost", extra={"why": str(error), "failures": self._failures})
            pause_s = back_off_s(self._failures, self._random())
            self._failures += 1
            await asyncio.sleep(pause_s)

    def _client(self) -> MqttClient:
        home = self._home
        return MqttClient(
            home.host,
            home.port,
            identifier=device_id(self._meter_id),
            username=home.username or None,
            password=read_password(home.password_file) if home.password_file is not None else None,
            protocol=aiomqtt.ProtocolVersion.V311,  # every broker speaks it, and nothing newer is needed
            clean_session=True,
            keepalive=KEEPALIVE_S,
            timeout=ANSWER_TIMEOUT_S,
            tls_context=tls_context(home.ca_file) if home.ca_file is not None else None,
            max_queued_incoming_messages=RECEIVED_QUEUE_MAX,
            will=aiomqtt.Will(availability_topic(self._meter_id), OFFLINE.encode(), qos=1, retain=True),
        )

    async def _session(self) -> None:
        async with self._client() as client:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._greet(client))  # the one that hears the end of the connection
                    await client.listen(f"{self._home.discovery_prefix}/status")
                    await self._introduce(client)
                    log.info("home_assistant_connected")
                    tasks.create_task(self._tell(client))
            except asyncio.CancelledError:
                with suppress(aiomqtt.MqttError):
                    await self._say(client, OFFLINE, FAREWELL_TIMEOUT_S)
                raise

    async def _introduce(self, client: MqttClient) -> None:
        await self._publish(client, discovery_topic(self._home, self._meter_id), self._discovery)
        await self._say(client, ONLINE)
        obey_cancellation()
        self._changed.set()

    async def _greet(self, client: MqttClient) -> None:
        """Home Assistant says when it has started: introduce the meter again, it may not have been kept for it."""
        async for message in client.messages:
            if message.payload == ONLINE.encode():
                await self._introduce(client)
                await asyncio.sleep(INTRODUCTION_PAUSE_S)

    async def _tell(self, client: MqttClient) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(STATUS_INTERVAL_S):
                    await self._changed.wait()
            self._changed.clear()
            state = json.dumps(state_message(self._reading, self._status()), separators=(",", ":"))
            await self._publish(client, state_topic(self._meter_id), state.encode())
            obey_cancellation()

    async def _say(self, client: MqttClient, availability: str, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        await self._publish(client, availability_topic(self._meter_id), availability.encode(), timeout_s)

    async def _publish(
        self, client: MqttClient, topic: str, payload: bytes, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> None:
        await client.publish(topic, payload, qos=1, retain=True, timeout=timeout_s)
