"""Taking the place of a device whose key is lost: from what the hub knows of its last seal, to where this one starts.

The file that an operator exports (`commonwatt admin predecessor`) is one JSON object with the fields of `Predecessor`.
It is believed as far as it goes: the hub compares every figure with the seal that it has, and the owner endorses them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edge.believing import JUMP_ALLOWANCE_WH, SECONDS_PER_HOUR
from edge.counters import GENERATION, GRID_EXPORT, GRID_IMPORT, CounterState, start_counters
from edge.errors import EnrolmentError
from edge.sealing import Chain
from protocol.limits import ENERGY_WH_MAX, KEY_EPOCH_MAX, SEQUENCE_MAX, TIME_MAX_UNIX_S, TIME_MIN_UNIX_S
from protocol.seal import HASH_BYTES, NO_PREDECESSOR
from protocol.settlement import first_closed_until

FILE_BYTES_MAX = 65_536
_INTEGERS = {
    "key_epoch": (1, KEY_EPOCH_MAX - 1),
    "sequence": (0, SEQUENCE_MAX),
    "production_wh": (0, ENERGY_WH_MAX),
    "consumption_wh": (0, ENERGY_WH_MAX),
    "surplus_wh": (0, ENERGY_WH_MAX),
    "closed_until_unix_s": (TIME_MIN_UNIX_S, TIME_MAX_UNIX_S),
    "last_reading_unix_s": (TIME_MIN_UNIX_S, TIME_MAX_UNIX_S),
    "last_production_wh": (0, ENERGY_WH_MAX),
    "last_consumption_wh": (0, ENERGY_WH_MAX),
}
_HEXES = ("seal_hash", "public_key")


@dataclass(frozen=True)
class Predecessor:
    """The last seal of a key epoch that counts, and the last reading in it. Energy in watt-hours.

    Without any seal (`sequence` 0) the figures are those of the epoch's statement, and the hash is all zeros.
    """

    key_epoch: int
    sequence: int
    production_wh: int
    consumption_wh: int
    surplus_wh: int
    closed_until_unix_s: int
    last_reading_unix_s: int
    last_production_wh: int
    last_consumption_wh: int
    seal_hash: bytes
    public_key: bytes


def load_predecessor(file: Path) -> Predecessor:
    """Read the exported file; unknown keys are left alone. Raises EnrolmentError `predecessor_unreadable`."""
    try:
        with file.open("rb") as stream:
            document = json.loads(stream.read(FILE_BYTES_MAX))
    except OSError as error:
        raise EnrolmentError("predecessor_unreadable", f"{file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise EnrolmentError("predecessor_unreadable", f"{file}: {error}") from None
    if not isinstance(document, dict):
        raise EnrolmentError("predecessor_unreadable", f"{file}: not a JSON object")
    figures = {name: _integer(document.get(name), name, *bounds, file) for name, bounds in _INTEGERS.items()}
    hashes = {name: _hash(document.get(name), name, file) for name in _HEXES}
    predecessor = Predecessor(seal_hash=hashes["seal_hash"], public_key=hashes["public_key"], **figures)
    fault = _contradiction(predecessor)
    if fault:
        raise EnrolmentError("predecessor_unreadable", f"{file}: {fault}")
    return predecessor


def _integer(value: object, name: str, low: int, high: int, file: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise EnrolmentError("predecessor_unreadable", f"{file}: {name}: an integer from {low} to {high}")
    return value


def _hash(value: object, name: str, file: Path) -> bytes:
    try:
        data = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        data = b""
    if len(data) != HASH_BYTES:
        raise EnrolmentError("predecessor_unreadable", f"{file}: {name}: {HASH_BYTES} bytes in hex")
    return data


def _contradiction(predecessor: Predecessor) -> str:
    if (predecessor.sequence == 0) != (predecessor.seal_hash == NO_PREDECESSOR):
        return "exactly an epoch without a seal has no seal_hash"
    if predecessor.surplus_wh > predecessor.production_wh:
        return "surplus_wh exceeds production_wh"
    if predecessor.last_production_wh < predecessor.production_wh:
        return "last_production_wh is below production_wh"
    if predecessor.last_consumption_wh < predecessor.consumption_wh:
        return "last_consumption_wh is below consumption_wh"
    return ""


def chain_after(predecessor: Predecessor) -> Chain:
    """Where the first seal of the successor starts from: netting goes on from the last reading of the last seal."""
    return Chain(
        key_epoch=predecessor.key_epoch + 1,
        sequence=0,
        last_seal_hash=NO_PREDECESSOR.hex(),
        sealed_at_unix_s=predecessor.last_reading_unix_s,
        last_reading_unix_s=predecessor.last_reading_unix_s,
        closed_until_unix_s=first_closed_until(predecessor.closed_until_unix_s),
        production_wh=predecessor.production_wh,
        consumption_wh=predecessor.consumption_wh,
        surplus_wh=predecessor.surplus_wh,
        last_production_wh=predecessor.last_production_wh,
        last_consumption_wh=predecessor.last_consumption_wh,
    )


def continue_counters(
    measurement: int, registers_wh: Mapping[str, int], now_unix_s: int, predecessor: Predecessor, power_max_w: int
) -> CounterState:
    """The meters are those that the predecessor read: what they counted since its last reading is energy.

    Raises EnrolmentError `registers_do_not_continue` if their sums do not follow from its counters: registers that were
    once reset or wrapped, or another meter after all. Then the counters can only begin anew.
    """
    state = start_counters(measurement, registers_wh, now_unix_s)
    elapsed_s = max(0, now_unix_s - predecessor.last_reading_unix_s)
    possible_wh = power_max_w * elapsed_s // SECONDS_PER_HOUR + JUMP_ALLOWANCE_WH
    produced_wh = state.production_wh - predecessor.last_production_wh
    consumed_wh = state.consumption_wh - predecessor.last_consumption_wh
    # A sum of registers that are not rounded alike may lie below its own maximum.
    if not 0 <= produced_wh <= possible_wh or not -JUMP_ALLOWANCE_WH <= consumed_wh <= possible_wh:
        why = f"{produced_wh} Wh produced and {consumed_wh} Wh consumed in {elapsed_s} s since its last reading"
        raise EnrolmentError("registers_do_not_continue", why)
    return replace(state, consumption_wh=max(state.consumption_wh, predecessor.last_consumption_wh))


def rebase_counters(
    measurement: int, registers_wh: Mapping[str, int], now_unix_s: int, predecessor: Predecessor
) -> CounterState:
    """The counters go on from the predecessor's with the registers as they are: nothing before now counts."""
    state = start_counters(measurement, registers_wh, now_unix_s)
    production_wh, consumption_wh = predecessor.last_production_wh, predecessor.last_consumption_wh
    registers = dict(state.registers)
    if GENERATION in registers:
        base_wh = consumption_wh - (production_wh + registers_wh[GRID_IMPORT] - registers_wh[GRID_EXPORT])
        continued = {GENERATION: production_wh}
    else:
        base_wh = 0
        continued = {GRID_EXPORT: production_wh, GRID_IMPORT: consumption_wh}
    for name, total in continued.items():
        registers[name] = replace(registers[name], offset_wh=total - registers_wh[name])
    return replace(
        state,
        registers=registers,
        consumption_base_wh=base_wh,
        production_wh=production_wh,
        consumption_wh=consumption_wh,
        swapped=True,
    )
