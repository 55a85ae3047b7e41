"""The master of a bus against slaves that are slow, deaf, damaged, gone, or somebody else. Real sockets and ptys."""

import asyncio
import random
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from edge.bus_budget import meter_blocks
from edge.bus_settings import MeterSettings
from edge.errors import ModbusError
from edge.modbus_bus import STEPS_FAILED_MAX, ModbusBus
from edge.register import Block
from tests.edge.modbus_slave import (
    FRAMINGS,
    GENERATION,
    GRID,
    Asked,
    Pty,
    Slave,
    a_bus,
    a_map,
    answer,
    answer_as,
    cut_short,
    damage,
    echo_and_noise,
    hang_up,
    hold,
    refuse,
    say_nothing,
)

IMPORT, EXPORT = Block(4, 0x10, 2), Block(4, 0x100, 2)
SERIAL = ("rtu", "rtu_over_tcp")


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


def truth(slave: Slave, unit: int, block: Block) -> bytes:
    return struct.pack(f">{block.count}H", *(slave.word(unit, block.address + i) for i in range(block.count)))


def everything(slave: Slave) -> dict[tuple[int, Block], bytes]:
    return {(unit, block): truth(slave, unit, block) for unit, block in ((1, IMPORT), (1, EXPORT), (2, IMPORT))}


async def failure(work: Awaitable[Any]) -> ModbusError:
    with pytest.raises(ModbusError) as caught:
        await work
    return caught.value


@pytest.mark.parametrize("framing", FRAMINGS)
def test_all_meters_of_a_bus_are_read_one_request_after_the_other(framing: str) -> None:
    async def story() -> None:
        async with a_bus(framing) as (slave, settings):
            bus = ModbusBus(settings)
            assert await bus.read() == await bus.read() == everything(slave)
            assert [(asked.unit, asked.address) for asked in slave.asked] == 2 * [(1, 0x10), (1, 0x100), (2, 0x10)]
            assert not bus.counts
            bus.close()

    run(story)


PASSING_FAULTS = [
    (say_nothing, "modbus_no_answer"),
    (cut_short, "modbus_no_answer"),
    (damage, "modbus_damaged_answer"),
    (refuse(6), "modbus_busy"),
    (refuse(10), "modbus_gateway_path"),
    (refuse(11), "modbus_gateway_no_answer"),
]


@pytest.mark.parametrize(
    ("framing", "fault", "code"),
    [
        (framing, fault, code)
        for framing in FRAMINGS
        for fault, code in PASSING_FAULTS
        if framing != "tcp" or fault is not damage  # TCP has a checksum of its own
    ],
)
def test_a_passing_fault_is_retried_and_counted(framing: str, fault: Any, code: str) -> None:
    async def story() -> None:
        async with a_bus(framing) as (slave, settings):
            bus = ModbusBus(settings)
            slave.script.extend([answer, fault])
            assert await bus.read() == everything(slave)
            assert bus.counts == {code: 1}
            bus.close()

    run(story)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize(
    ("exception", "code"),
    [
        (1, "modbus_illegal_function"),
        (2, "modbus_illegal_address"),
        (3, "modbus_illegal_value"),
        (4, "modbus_device_failure"),
        (8, "modbus_exception"),
    ],
)
def test_a_refusal_that_a_retry_cannot_change_is_named_with_its_register(
    framing: str, exception: int, code: str
) -> None:
    async def story() -> None:
        async with a_bus(framing) as (slave, settings):
            bus = ModbusBus(settings)
            slave.script.extend([answer, refuse(exception)])
            error = await failure(bus.read())
            assert error.code == code
            assert "attic: unit 1, 2 registers from 0x0100, function 4 (energy_export)" in error.detail
            assert len(slave.asked) == 2
            assert await bus.read() == everything(slave)
            bus.close()

    run(story)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_dead_meter_costs_its_own_retries_and_the_bus_lives_on(framing: str) -> None:
    async def story() -> None:
        async with a_bus(framing) as (slave, settings):
            bus = ModbusBus(settings)
            slave.units = {1}
            error = await failure(bus.read())
            assert error.code == "modbus_no_answer"
            assert "unit 2" in error.detail
            assert [asked.unit for asked in slave.asked] == [1, 1, 2, 2]
            slave.units = {1, 2}
            assert await bus.read() == everything(slave)
            bus.close()

    run(story)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_late_answer_is_never_taken_for_the_answer_to_a_later_question(framing: str) -> None:
    async def story() -> None:
        async with a_bus(framing, retries=0) as (slave, settings):
            bus = ModbusBus(settings)
            slave.script.append(hold)
            assert (await failure(bus.read())).code == "modbus_no_answer"
            # The answer about the import register would now fit the question about the export register as well.
            slave.generation = 1
            assert await bus.read() == everything(slave)
            bus.close()

    run(story)


@pytest.mark.parametrize("framing", SERIAL)
def test_a_serial_unit_that_did_not_answer_is_asked_something_else_first(framing: str) -> None:
    async def story() -> None:
        async with a_bus(framing) as (slave, settings):
            bus = ModbusBus(settings)
            slave.script.extend([answer, hold])
            assert await bus.read() == everything(slave)
            counts = [(asked.unit, asked.count) for asked in slave.asked]
            assert counts == [(1, 2), (1, 2), (1, 4), (1, 2), (2, 2)]
            bus.close()

    run(story)


@pytest.mark.parametrize("framing", SERIAL)
def test_a_unit_that_never_comes_into_step_is_left_alone_and_not_asked_forever(framing: str) -> None:
    async def story() -> None:
        async with a_bus(framing, retries=0, timeout_s=0.05, meters=(GRID,)) as (slave, settings):
            bus = ModbusBus(settings)
            slave.units = set()
            for _ in range(1 + STEPS_FAILED_MAX):
                assert (await failure(bus.read())).code == "modbus_no_answer"
            asked = len(slave.asked)
            assert asked == 1 + STEPS_FAILED_MAX
            assert "unanswered" in (await failure(bus.read())).detail
            assert len(slave.asked) == asked
            bus.close()

    run(story)


@pytest.mark.parametrize("framing", SERIAL)
def test_echo_noise_and_pieces_do_not_matter_on_a_serial_line(framing: str) -> None:
    async def story() -> None:
        async with a_bus(framing) as (slave, settings):
            bus = ModbusBus(settings)
            slave.script.extend([echo_and_noise] * 3)
            assert await bus.read() == everything(slave)
            assert not bus.counts
            bus.close()

    run(story)


@pytest.mark.parametrize("wrong", [{"unit": 2}, {"function": 3}, {"count": 3}], ids=str)
@pytest.mark.parametrize("framing", FRAMINGS)
def test_an_answer_of_another_unit_function_or_length_is_no_answer(framing: str, wrong: dict[str, int]) -> None:
    async def story() -> None:
        async with a_bus(framing, retries=0) as (slave, settings):
            bus = ModbusBus(settings)
            slave.script.append(answer_as(**wrong))
            error = await failure(bus.read())
            assert error.code == ("modbus_stray_answer" if framing == "tcp" else "modbus_no_answer")
            bus.close()

    run(story)


def test_an_answer_to_another_transaction_is_passed_over() -> None:
    def other_transaction_first(slave: Slave, asked: Asked) -> None:
        late = replace(asked, address=0x100, transaction=asked.transaction - 1)
        slave.send(slave.answer_to(late) + slave.answer_to(asked))

    async def story() -> None:
        async with a_bus("tcp", retries=0) as (slave, settings):
            bus = ModbusBus(settings)
            slave.script.append(other_transaction_first)
            assert await bus.read() == everything(slave)
            bus.close()

    run(story)


@pytest.mark.parametrize("framing", ["tcp", "rtu_over_tcp"])
def test_a_gateway_that_hangs_up_is_called_again(framing: str) -> None:
    async def story() -> None:
        async with a_bus(framing) as (slave, settings):
            bus = ModbusBus(settings)
            slave.script.extend([answer, hang_up])
            assert await bus.read() == everything(slave)
            assert (slave.connections, bus.counts) == (2, {"modbus_disconnected": 1})
            bus.close()

    run(story)


def test_a_port_where_nobody_answers_is_named() -> None:
    async def story() -> None:
        async with a_bus("tcp") as (_, settings):
            closed = settings
        error = await failure(ModbusBus(closed).read())
        assert error.code == "modbus_unreachable"
        assert f"127.0.0.1:{closed.port}" in error.detail

    run(story)


def test_a_cable_that_was_pulled_and_plugged_in_again_goes_on(tmp_path: Any) -> None:
    async def story() -> None:
        async with a_bus("rtu", retries=0) as (slave, settings):
            device = tmp_path / "ttyUSB0"
            cable = Pty(slave)
            device.symlink_to(cable.device)
            bus = ModbusBus(replace(settings, device=device))
            assert await bus.read() == everything(slave)
            cable.pull_out()
            device.unlink()
            assert (await failure(bus.read())).code in ("modbus_disconnected", "modbus_unreachable")
            assert (await failure(bus.read())).code == "modbus_unreachable"
            cable.plug_in()
            device.symlink_to(cable.device)
            assert await bus.read() == everything(slave)
            bus.close()
            cable.pull_out()

    run(story)


def test_a_serial_device_that_is_in_use_is_named() -> None:
    async def story() -> None:
        async with a_bus("rtu") as (slave, settings):
            bus, second = ModbusBus(settings), ModbusBus(settings)
            assert await bus.read() == everything(slave)
            error = await failure(second.read())
            assert error.code == "modbus_unreachable"
            assert str(settings.device) in error.detail
            bus.close()

    run(story)


def known(role: str, unit: int) -> MeterSettings:
    return MeterSettings(role, unit, a_map(identity=(0x700, 0x4D31), energy_import=0x10, energy_export=0x12), "import")


@pytest.mark.parametrize("framing", FRAMINGS)
def test_another_meter_at_the_unit_is_found_out_before_anything_is_read(framing: str) -> None:
    async def story() -> None:
        async with a_bus(framing, meters=(known("grid", 1), known("generation", 2))) as (slave, settings):
            bus = ModbusBus(settings)
            error = await failure(bus.read())
            assert error.code == "meter_is_another"
            assert "unit 1 (grid) is configured as Hand Made, which says 4d31 at 0x0700; it says 2700" in error.detail
            assert len(slave.asked) == 1
            slave.script.append(refuse(2))
            assert (await failure(bus.check_identities())).code == "meter_is_another"
            slave.identity[0x700] = 0x4D31
            await bus.read()
            await bus.read()
            assert [asked.unit for asked in slave.asked if asked.address == 0x700] == [1, 1, 1, 2]
            slave.identity[0x700] = 0x4D32
            assert (await failure(bus.check_identities())).code == "meter_is_another"
            bus.close()

    run(story)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_meter_that_was_exchanged_while_it_was_silent_is_found_out(framing: str) -> None:
    async def story() -> None:
        async with a_bus(framing, retries=0, timeout_s=0.3, meters=(known("grid", 1),)) as (slave, settings):
            bus = ModbusBus(settings)
            slave.identity[0x700] = 0x4D31
            await bus.read()
            slave.units = set()
            assert (await failure(bus.read())).code == "modbus_no_answer"
            slave.units, slave.identity[0x700] = {1}, 0x4D32
            assert (await failure(bus.read())).code == "meter_is_another"
            bus.close()

    run(story)


@pytest.mark.parametrize("framing", ["tcp", "rtu_over_tcp"])
def test_a_meter_that_was_exchanged_in_the_middle_of_a_poll_is_found_out(framing: str) -> None:
    def exchange(slave: Slave, asked: Asked) -> None:
        slave.identity[0x700] = 0x4D32
        slave.hang_up()

    async def story() -> None:
        async with a_bus(framing, meters=(known("grid", 1),)) as (slave, settings):
            bus = ModbusBus(settings)
            slave.identity[0x700] = 0x4D31
            slave.script.extend([answer, exchange])
            assert (await failure(bus.read())).code == "meter_is_another"
            bus.close()

    run(story)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_gateway_that_gives_the_late_answer_of_a_meter_to_the_next_who_asks_is_not_believed(framing: str) -> None:
    """It says that the meter did not answer; what the meter then says it takes for the answer to the next question."""
    late: list[bytes] = []

    def give_up(slave: Slave, asked: Asked) -> None:
        late.append(slave.answer_to(asked))
        refuse(11)(slave, asked)

    def mistake(slave: Slave, asked: Asked) -> None:
        frame = late.pop()
        late.append(slave.answer_to(asked))
        slave.say(frame if slave.rtu else struct.pack(">H", asked.transaction) + frame[2:])

    async def story() -> None:
        async with a_bus(framing, retries=3) as (slave, settings):
            bus = ModbusBus(settings)
            slave.script.extend([give_up, mistake, mistake, answer])
            assert await bus.read() == everything(slave)
            bus.close()

    run(story)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_device_that_never_stops_talking_is_not_listened_to_for_long(framing: str) -> None:
    def babble(slave: Slave, asked: Asked) -> None:
        slave.send(slave.frame(replace(asked, transaction=0), bytes(200)) * 15)

    async def story() -> None:
        async with a_bus(framing, retries=0) as (slave, settings):
            bus = ModbusBus(settings)
            slave.script.append(babble)
            assert (await failure(bus.read())).code == "modbus_damaged_answer"
            assert await bus.read() == everything(slave)
            bus.close()

    run(story)


def test_meters_that_answer_each_in_the_last_moment_do_not_hold_up_the_next_reading() -> None:
    def at_leisure(slave: Slave, asked: Asked) -> None:
        asyncio.get_running_loop().call_later(0.25, answer, slave, asked)

    async def story() -> None:
        many = tuple(replace(GENERATION, unit=unit) for unit in range(1, 10))
        async with a_bus("rtu", timeout_s=0.3, meters=many) as (slave, settings):
            bus = ModbusBus(settings)
            slave.units = set(range(1, 10))
            slave.script.extend([at_leisure] * 20)
            assert "too slow: they have had 2 s for one poll" in (await failure(bus.read())).detail
            bus.close()

    run(story)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_an_answer_that_comes_twice_answers_one_question(framing: str) -> None:
    def twice(slave: Slave, asked: Asked) -> None:
        answer(slave, asked)
        asyncio.get_running_loop().call_later(0.001, answer, slave, asked)

    async def story() -> None:
        async with a_bus(framing, pause_ms=100, retries=0) as (slave, settings):
            bus = ModbusBus(settings)
            slave.script.append(twice)
            assert await bus.read() == everything(slave)
            bus.close()

    run(story)


def test_retries_stop_when_the_poll_has_taken_its_time() -> None:
    """Each meter answers, but only when it is asked again; one poll has the time for one such meter."""

    async def story() -> None:
        many = tuple(replace(GENERATION, unit=unit) for unit in range(1, 10))
        async with a_bus("rtu", timeout_s=0.1, meters=many) as (slave, settings):
            bus = ModbusBus(settings)
            slave.units = set(range(1, 10))
            slave.script.extend([say_nothing, answer, answer] * 9)
            assert (await failure(bus.read())).code == "modbus_no_answer"
            bus.close()

    run(story)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_line_does_no_register_is_ever_taken_for_another(seed: int) -> None:
    """Polls of a serial line on which everything happens; patience so short that many of them fail."""
    chance = random.Random(seed)
    faults = [hold, hold, say_nothing, damage, cut_short, echo_and_noise, refuse(6), refuse(2)]
    behaviours = [answer] * 10 + [*faults, answer_as(unit=2), answer_as(function=3), answer_as(count=3)]

    async def story() -> None:
        async with a_bus("rtu", timeout_s=0.02, retries=2, pause_ms=0) as (slave, settings):
            bus = ModbusBus(settings)
            for poll in range(20):
                slave.generation = poll % 8
                slave.script.extend(chance.choice(behaviours) for _ in range(4))
                try:
                    raw = await bus.read()
                except ModbusError:
                    continue
                finally:
                    slave.script.clear()
                assert raw == everything(slave), poll
            bus.close()

    run(story)


def test_the_registers_that_count_energy_come_first_of_all_meters() -> None:
    map_ = a_map(per_read=4, energy_import=0x40, energy_export=0x80)
    power = replace(map_.registers["energy_import"], quantity="power", address=0x00)
    registers = {**map_.registers, "power": power}
    meter = MeterSettings("grid", 1, replace(map_, registers=registers), "import")
    assert meter_blocks(meter)[0].address == 0

    async def story() -> None:
        async with a_bus("tcp", meters=(meter, GENERATION)) as (slave, settings):
            bus = ModbusBus(settings)
            await bus.read()
            assert [asked.address for asked in slave.asked] == [0x40, 0x80, 0x10, 0x00]
            bus.close()

    run(story)


def test_a_device_can_be_asked_before_any_meter_is_configured() -> None:
    async def story() -> None:
        async with a_bus("tcp", meters=()) as (slave, settings):
            bus = ModbusBus(settings)
            assert await bus.read_block(1, EXPORT) == truth(slave, 1, EXPORT)
            assert await bus.read() == {}
            bus.close()

    run(story)
