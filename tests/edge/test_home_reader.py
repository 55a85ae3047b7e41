import asyncio
import os
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge.bus_settings import MeterSettings, PulseBus
from edge.errors import ModbusError
from edge.home_reader import HomeReader
from edge.pulses import FALLING, RISING, pulse_register_map
from tests.edge.modbus_slave import GENERATION, GRID, Asked, Slave, a_bus, answer, refuse, say_nothing


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


def test_two_buses_are_read_at_the_same_time() -> None:
    """Each slave answers its first question only once the other has been asked."""
    owed: list[tuple[Slave, Asked]] = []

    def wait_for_the_other(slave: Slave, asked: Asked) -> None:
        owed.append((slave, asked))
        if len(owed) == 2:
            for one, question in owed:
                answer(one, question)

    async def story() -> None:
        async with (
            a_bus("rtu", meters=(GRID,), retries=0) as (first, serial),
            a_bus("tcp", meters=(GENERATION,), retries=0) as (second, tcp),
        ):
            for slave in (first, second):
                slave.script.append(wait_for_the_other)
            reader = HomeReader([serial, tcp])
            raw = await reader.read()
            assert {name: data.hex() for name, data in raw.items()} == {
                ("grid", "energy_import"): "20102011",
                ("grid", "energy_export"): "21002101",
                ("generation", "energy_import"): "40104011",
            }
            assert not reader.counts
            assert reader.time_max_s > 2
            reader.close()

    run(story)


def test_two_buses_that_fail_are_both_named_and_none_is_left_in_the_middle_of_an_answer() -> None:
    async def story() -> None:
        async with (
            a_bus("tcp", meters=(GRID,), retries=0, name="cellar") as (first, cellar),
            a_bus("rtu", meters=(GENERATION,), retries=0) as (second, attic),
        ):
            reader = HomeReader([cellar, attic])
            first.script.append(refuse(2))
            second.script.append(say_nothing)
            with pytest.raises(ModbusError) as caught:
                await reader.read()
            assert caught.value.code == "modbus_illegal_address"
            assert "cellar: unit 1" in caught.value.detail
            assert "modbus_no_answer: attic: unit 2" in caught.value.detail
            assert reader.counts == {"modbus_illegal_address": 1, "modbus_no_answer": 1}
            assert len(await reader.read()) == 3
            reader.close()

    run(story)


def test_a_pulse_meter_is_one_more_bus(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "chip")
    meter = MeterSettings("generation", 0, pulse_register_map(1_000), "total")
    s0 = PulseBus("s0", tmp_path / "chip", 17, 1_000, 30, tmp_path / "pulses.json", 7_000, (meter,))

    async def story() -> None:
        async with a_bus("tcp", meters=(GRID,)) as (_, tcp):
            reader = HomeReader([tcp, s0])
            kernel = os.open(s0.chip, os.O_RDWR)
            for number, what in ((1, RISING), (2, FALLING)):
                os.write(kernel, struct.pack("=QIIII24x", number * 100_000_000, what, 17, number, number))
            raw = await reader.read()
            assert raw["generation", "energy_total"] == (7_001).to_bytes(8, "big")
            assert raw["grid", "energy_import"].hex() == "20102011"
            assert reader.problems == set()
            reader.close()
            again = HomeReader([tcp, s0])
            assert (await again.read())["generation", "energy_total"] == (7_001).to_bytes(8, "big")
            assert again.problems == {"pulses_unobserved"}
            again.close()
            os.close(kernel)

    run(story)


def test_registers_longer_than_a_read_allows_are_joined_from_their_spans() -> None:
    """A SunSpec counter and its scale factor lie apart; both are read in one poll and handed over together."""
    factor = replace(
        GENERATION.register_map.registers["energy_import"], quantum=None, scale_factor_address=0x60, function_code=3
    )
    map_ = replace(GENERATION.register_map, registers={"energy_import": factor})

    async def story() -> None:
        async with a_bus("tcp", meters=(replace(GENERATION, register_map=map_),)) as (slave, tcp):
            reader = HomeReader([tcp])
            raw = await reader.read()
            assert raw["generation", "energy_import"].hex() == "40104011" + "4060"
            assert [(asked.address, asked.count) for asked in slave.asked] == [(0x10, 2), (0x60, 1)]
            reader.close()

    run(story)
