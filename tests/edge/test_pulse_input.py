"""S0 end to end: the kernel's records through a pipe, the count through crashes."""

import asyncio
import json
import os
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.bus_settings import MeterSettings, PulseBus
from edge.errors import ModbusError
from edge.pulse_input import PulseInput, open_pulse_line
from edge.pulses import FALLING, RISING, PulseCounter, pulse_register_map, split_events
from simulators.meters.pulses import PulseOutput, line_events

MS = 1_000_000
LINE = 17


class Contact:
    """The writing end of the pipe: what the kernel would say of the line since it was requested."""

    def __init__(self, chip: Path) -> None:
        self._fd = os.open(chip, os.O_RDWR | os.O_NONBLOCK)
        self._now_ns = 0
        self.again()

    def again(self) -> None:
        """The line is requested anew: its events are numbered from one."""
        self._seqno = 0

    def pulse(self, times: int = 1, lost: bool = False) -> None:
        for _ in range(times):
            for what, after_ms in ((RISING, 100), (FALLING, 40)):
                self._now_ns += after_ms * MS
                self._seqno += 1
                if not lost:
                    os.write(self._fd, struct.pack("=QIIII24x", self._now_ns, what, LINE, self._seqno, self._seqno))


@pytest.fixture
def bus(tmp_path: Path) -> PulseBus:
    chip = tmp_path / "chip"
    os.mkfifo(chip)
    meter = MeterSettings("generation", 0, pulse_register_map(1_000), "total")
    return PulseBus("s0", chip, LINE, 1_000, 30, tmp_path / "pulses.json", 500, (meter,))


@pytest.fixture
def contact(bus: PulseBus) -> Contact:
    return Contact(bus.chip)


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


async def count(pulses: PulseInput) -> int:
    return int.from_bytes(await pulses.read(), "big")


def on_disk(bus: PulseBus) -> Any:
    return json.loads(bus.file.read_text())["pulses"]


async def failure(pulses: PulseInput) -> ModbusError:
    with pytest.raises(ModbusError) as caught:
        await pulses.read()
    return caught.value


def test_pulses_are_counted_from_what_the_meter_showed_and_are_on_the_disk_before_they_are_used(
    bus: PulseBus, contact: Contact
) -> None:
    async def story() -> None:
        pulses = PulseInput(bus)
        assert await count(pulses) == on_disk(bus) == 500
        contact.pulse(7)
        assert await count(pulses) == on_disk(bus) == 507
        assert (pulses.problems, +pulses.counts) == (set(), {})
        pulses.close()

    run(story)


def test_a_count_has_reached_the_disk_and_its_name_too_before_it_is_used(
    bus: PulseBus, contact: Contact, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def spy(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        fsync(fd)

    async def story() -> None:
        monkeypatch.setattr(os, "fsync", spy)
        pulses = PulseInput(bus)
        await count(pulses)
        assert synced == ["pulses.json.part", bus.file.parent.name]
        pulses.close()

    run(story)


def test_who_only_looks_leaves_no_count_behind(bus: PulseBus, contact: Contact) -> None:
    async def story() -> None:
        pulses = PulseInput(bus, keeps_count=False)
        contact.pulse(3)
        assert await count(pulses) == 503
        assert not bus.file.exists()
        pulses.close()

    run(story)


def test_more_pulses_than_the_kernel_keeps_are_taken_between_two_readings(bus: PulseBus, contact: Contact) -> None:
    async def story() -> None:
        pulses = PulseInput(bus)
        assert await count(pulses) == 500
        for _ in range(40):
            contact.pulse(30)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert await count(pulses) == 500 + 1_200
        pulses.close()

    run(story)


def test_after_a_crash_the_count_never_falls_nothing_counts_twice_and_the_gap_is_said(
    bus: PulseBus, contact: Contact
) -> None:
    async def story() -> None:
        pulses = PulseInput(bus)
        contact.pulse(3)
        assert await count(pulses) == 503
        contact.pulse(2)  # never read: the process is killed before the next reading
        pulses.close()
        contact.again()
        again = PulseInput(bus)
        os.read(again._line.fd, 48 * 4)  # type: ignore[union-attr]  # a new request has none of the old events
        assert await count(again) == 503
        assert again.problems == {"pulses_unobserved"}
        assert again.counts["pulses_unobserved"] == 1
        contact.pulse()
        assert await count(again) == 504
        assert again.problems == set()
        again.close()

    run(story)


def test_events_that_the_kernel_lost_are_said_with_the_reading(bus: PulseBus, contact: Contact) -> None:
    async def story() -> None:
        pulses = PulseInput(bus)
        assert await count(pulses) == 500
        contact.pulse(2)
        contact.pulse(5, lost=True)
        contact.pulse(2)
        assert await count(pulses) == 503  # of the last two the first began unseen
        assert pulses.problems == {"pulses_unobserved"}
        assert pulses.counts["pulse_events_lost"] == 10
        contact.pulse()
        assert await count(pulses) == 504
        assert pulses.problems == set()
        pulses.close()

    run(story)


def test_a_line_that_goes_away_is_named_and_counting_goes_on_when_it_is_back(bus: PulseBus) -> None:
    class Pipe:
        def __init__(self, bus: PulseBus) -> None:
            self.fd, self.far = os.pipe()
            os.set_blocking(self.fd, False)
            opened.append(self)

        def release(self) -> None:
            os.close(self.fd)

    opened: list[Pipe] = []

    async def story() -> None:
        pulses = PulseInput(bus, Pipe)
        first = struct.pack("=QIIII24x", 100 * MS, RISING, LINE, 1, 1)
        os.write(opened[0].far, first + struct.pack("=QIIII24x", 140 * MS, FALLING, LINE, 2, 2))
        assert await count(pulses) == 501
        os.close(opened[0].far)
        error = await failure_soon(pulses)
        assert error.code == "pulse_line_lost"
        assert await count(pulses) == 501
        assert len(opened) == 2
        assert pulses.problems == {"pulses_unobserved"}
        pulses.close()
        os.close(opened[1].far)

    async def failure_soon(pulses: PulseInput) -> ModbusError:
        while not pulses._lost:
            await asyncio.sleep(0)
        return await failure(pulses)

    run(story)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '{"pulses": -1, "impulses_per_kwh": 1000}', '{"pulses": 1.5, "impulses_per_kwh": 1000}'],
)
def test_a_count_that_cannot_be_read_is_never_begun_anew(bus: PulseBus, text: str) -> None:
    bus.file.write_text(text)

    async def story() -> None:
        assert (await failure(PulseInput(bus))).code == "pulse_file_unreadable"

    run(story)
    assert bus.file.read_text() == text


def test_a_count_of_another_meter_constant_is_not_taken_for_ours(bus: PulseBus, contact: Contact) -> None:
    async def story() -> None:
        pulses = PulseInput(bus)
        await count(pulses)
        pulses.close()
        other = PulseInput(replace(bus, impulses_per_kwh=2_000))
        error = await failure(other)
        assert error.code == "pulse_file_differs"
        assert "counts 1000 impulses per kWh, the configuration 2000" in error.detail

    run(story)


def test_a_count_that_cannot_be_written_is_not_used_and_not_lost(bus: PulseBus, contact: Contact) -> None:
    async def story() -> None:
        pulses = PulseInput(bus)
        contact.pulse(3)
        part = bus.file.with_name("pulses.json.part")
        part.mkdir()
        assert (await failure(pulses)).code == "pulse_file_unwritable"
        part.rmdir()
        contact.pulse()
        assert await count(pulses) == 504
        pulses.close()

    run(story)


def test_each_way_in_which_a_line_cannot_be_had_has_its_name(bus: PulseBus, tmp_path: Path) -> None:
    def code(chip: Path) -> str:
        with pytest.raises(ModbusError) as caught:
            open_pulse_line(replace(bus, chip=chip))
        assert f"line {LINE} of {chip}" in caught.value.detail
        return caught.value.code

    assert code(tmp_path / "gpiochip9") == "pulse_chip_missing"
    plain = tmp_path / "plain"
    plain.touch()
    assert code(plain) == "pulse_chip_unusable"
    assert code(Path("/dev/null")) == "pulse_chip_unusable"

    async def story() -> None:
        assert (await failure(PulseInput(replace(bus, chip=tmp_path / "gpiochip9")))).code == "pulse_chip_missing"

    run(story)


def energy_wh(time_unix_s: int) -> int:
    return 100_000 + 3 * time_unix_s


@pytest.mark.parametrize("bounces", [0, 3])
def test_a_simulated_meter_with_a_bouncing_contact_is_counted_to_the_pulse(bus: PulseBus, bounces: int) -> None:
    output = PulseOutput(1_000, LINE, bounces=bounces)
    counter = PulseCounter(bus.pulse_min_ms)
    events, rest = split_events(b"".join(line_events(output, energy_wh, 0, 600)), LINE)
    assert rest == b""
    for event in events:
        counter.take(event)
    assert counter.counted == energy_wh(600) - energy_wh(0)
    assert (counter.bounces > 0, counter.events_lost) == (bounces > 0, 0)


@pytest.mark.parametrize("seed", range(10))
def test_a_kernel_that_drops_events_never_makes_energy(bus: PulseBus, seed: int) -> None:
    output = PulseOutput(1_000, LINE, bounces=2, lost_share=0.05, seed=seed)
    counter = PulseCounter(bus.pulse_min_ms)
    for event in split_events(b"".join(line_events(output, energy_wh, 0, 300)), LINE)[0]:
        counter.take(event)
    true = energy_wh(300) - energy_wh(0)
    assert counter.counted <= true
    assert counter.events_lost > 0
    assert true - counter.counted <= 2 * counter.events_lost
