"""What a person says of the home's meters, with the agent stopped: a register is right after all, or another one now.

Either way the register's change is not counted as energy. An exchanged meter is recorded as well, with its last and the
new one's first value; the record travels to the hub, signed, with the next rotation (`edge.rotation`).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from edge.clock import KernelClock
from edge.counters import CounterState, accept_registers, judge_registers
from edge.errors import EdgeError, RegisterError, SettingsError
from edge.home_reader import HomeReader
from edge.journal import Exchange, Journal
from edge.poll import moduli_wh
from edge.sampler import read_agreed
from edge.settings import Settings
from protocol.errors import ProtocolError
from protocol.limits import TIME_MIN_UNIX_S
from protocol.replacement import REGISTER_GENERATION, Replacement, encode_replacement
from protocol.rotation import FIRST_ROTATION_EPOCH


@dataclass(frozen=True)
class Serials:
    """The numbers on the plates of the meter that went and of the one that came."""

    old: str
    new: str


async def accept_now(settings: Settings, names: Collection[str]) -> list[str]:
    """Accept the named registers as they are now, by default those that are not believed. Returns which.

    Raises SettingsError `register_unknown`, RegisterError `register_believed` if there is nothing to accept, or
    JournalError, also while an agent runs.
    """
    journal = Journal(settings.journal.file, settings.journal.bytes_max)
    try:
        state = _counters_with(journal, names)
        registers_wh = await _read_registers(settings)
        now_unix_s = KernelClock(settings.sampling.clock_check).now_unix_s()
        accepted = sorted(names)
        if not accepted:
            power_max_w = settings.sampling.power_max_w
            verdicts = judge_registers(state, registers_wh, moduli_wh(settings.meters), now_unix_s, power_max_w)
            accepted = sorted(name for name, verdict in verdicts.items() if verdict.refused)
        if not accepted:
            raise RegisterError("register_believed", "every register is believed; name the one that is another now")
        journal.append_readings([], accept_registers(state, registers_wh, accepted, now_unix_s))
        return accepted
    finally:
        journal.close()


async def exchange_now(
    settings: Settings, journal: Journal, names: Collection[str], serials: Serials
) -> list[Exchange]:
    """The meter with the named registers was exchanged: go on from the new one, and keep what is to be recorded.

    Raises SettingsError `register_unknown`, `serial_invalid`; RegisterError `exchange_waiting` while an earlier
    exchange of the same register has not travelled; EdgeError `clock_unsynchronised`; JournalError.
    """
    _check_serials(settings, serials)
    state = _counters_with(journal, names)
    if waiting := {exchange.register for exchange in journal.exchanges()} & set(names):
        why = f"{sorted(waiting)}: an earlier exchange has not reached the hub: `commonwatt edge rotate` first"
        raise RegisterError("exchange_waiting", why)
    clock = KernelClock(settings.sampling.clock_check)
    if not clock.synchronised():
        raise EdgeError("clock_unsynchronised", "the record of an exchange needs the time")
    registers_wh = await _read_registers(settings)
    now_unix_s = clock.now_unix_s()
    exchanges = exchanges_of(state, registers_wh, names, serials, now_unix_s)
    journal.append_exchanges(exchanges, accept_registers(state, registers_wh, names, now_unix_s))
    return exchanges


def exchanges_of(
    state: CounterState, registers_wh: Mapping[str, int], names: Collection[str], serials: Serials, now_unix_s: int
) -> list[Exchange]:
    """What is to be recorded of an exchanged meter: the last value that was believed, and the first of the new one."""
    return [
        Exchange(name, now_unix_s, state.registers[name].last_wh, registers_wh[name], serials.old, serials.new)
        for name in sorted(set(names))
    ]


def _counters_with(journal: Journal, names: Collection[str]) -> CounterState:
    state = journal.get_counters()
    if unknown := set(names) - set(state.registers):
        raise SettingsError("register_unknown", f"{sorted(unknown)}; there are {sorted(state.registers)}")
    return state


def _check_serials(settings: Settings, serials: Serials) -> None:
    try:  # now, not when the record is made: by then the meter is gone
        record = Replacement(
            settings.domain,
            settings.meter_id,
            FIRST_ROTATION_EPOCH,
            REGISTER_GENERATION,
            TIME_MIN_UNIX_S,
            0,
            0,
            serials.old,
            serials.new,
        )
        encode_replacement(record)
    except ProtocolError as error:
        raise SettingsError("serial_invalid", error.detail) from None


async def _read_registers(settings: Settings) -> Mapping[str, int]:
    reader = HomeReader(settings.buses)
    try:
        poll = await read_agreed(settings.meters, reader, settings.sampling.power_max_w)
        return poll.registers_wh
    finally:
        reader.close()
