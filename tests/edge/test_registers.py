"""Every register map against the golden frames of its meter, which an independent script made."""

import struct
import subprocess
import sys
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pymodbus.framer import FramerRTU

from edge.errors import RegisterError
from edge.register import Register, quantum, scaled_value, swapped_words
from edge.register_map import MAPS_DIRECTORY, Block, RegisterMap, load_register_map, plan_blocks

GOLDEN_DIRECTORY = Path(__file__).parent / "registers"
MAKER = Path(__file__).parents[1] / "vectors" / "make_register_frames.py"
MAP_NAMES = sorted(path.stem for path in MAPS_DIRECTORY.glob("*.toml"))
NAMED_BY_THE_ISSUE = {
    "eastron_sdm120",
    "eastron_sdm220",
    "eastron_sdm230",
    "eastron_sdm72d_m",
    "eastron_sdm630",
    "carlo_gavazzi_em24",
    "carlo_gavazzi_em24_e1",
    "carlo_gavazzi_em340",
    "schneider_iem3000",
    "chint_dtsu666",
    "abb_b23",
    "siemens_pac2200",
    "orno_we516",
    "janitza_umg",
}
every_map = pytest.mark.parametrize("name", MAP_NAMES)


@dataclass(frozen=True)
class Exchange:
    """A read and its answer, as the frames have it; no answer if the meter refuses."""

    block: Block
    answer: bytes | None


@dataclass(frozen=True)
class Golden:
    """What a meter says at one moment."""

    reads: list[Exchange]
    others: list[Exchange]
    expected: dict[str, int]

    def raw(self, register: Register) -> bytes:
        """The bytes of a register, from whichever read has them."""
        parts = []
        for function_code, address, count in register.spans:
            for exchange in [*self.reads, *self.others]:
                block = exchange.block
                first = address - block.address
                inside = first >= 0 and first + count <= block.count
                if exchange.answer is not None and block.function_code == function_code and inside:
                    parts.append(exchange.answer[2 * first : 2 * (first + count)])
                    break
            else:
                pytest.fail(f"no golden frame has {register.quantity} at {address}")
        return b"".join(parts)


def load_golden(name: str) -> Golden:
    document = tomllib.loads((GOLDEN_DIRECTORY / f"{name}.toml").read_text())
    assert document["map"] == name
    unit = document["unit"]
    reads, others = (
        [parse_exchange(unit, number, entry) for number, entry in enumerate(document.get(table, []), 1)]
        for table in ("read", "other")
    )
    return Golden(reads, others, document["expected"])


def parse_exchange(unit: int, number: int, entry: dict[str, Any]) -> Exchange:
    request = message_of(unit, number, entry["rtu_request"], entry["tcp_request"])
    response = message_of(unit, number, entry["rtu_response"], entry["tcp_response"])
    function_code, address, count = struct.unpack(">BHH", request)
    if response[0] & 0x80:
        return Exchange(Block(function_code, address, count), None)
    assert response[:2] == bytes([function_code, 2 * count])
    assert len(response) == 2 + 2 * count
    return Exchange(Block(function_code, address, count), response[2:])


def message_of(unit: int, number: int, rtu_hex: str, tcp_hex: str) -> bytes:
    """The message that both frames carry; their checksum and header are right."""
    rtu, tcp = bytes.fromhex(rtu_hex), bytes.fromhex(tcp_hex)
    assert rtu[0] == unit
    assert int.from_bytes(rtu[-2:], "big") == FramerRTU.compute_CRC(rtu[:-2])
    assert tcp[:7] == struct.pack(">HHHB", number, 0, len(tcp) - 6, unit)
    assert tcp[7:] == rtu[1:-2]
    return tcp[7:]


def planned(register_map: RegisterMap) -> list[Block]:
    return plan_blocks(
        register_map.registers.values(), register_map.registers_per_read_max, register_map.gap_registers_max
    )


def test_every_meter_of_the_issue_has_a_map_and_every_map_its_frames() -> None:
    assert set(MAP_NAMES) >= NAMED_BY_THE_ISSUE
    assert sorted(path.stem for path in GOLDEN_DIRECTORY.glob("*.toml")) == MAP_NAMES


def test_the_frames_are_those_that_the_independent_script_makes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-I", str(MAKER), str(tmp_path)], check=True)
    for name in MAP_NAMES:
        assert (tmp_path / f"{name}.toml").read_bytes() == (GOLDEN_DIRECTORY / f"{name}.toml").read_bytes()


@every_map
def test_a_poll_sends_exactly_the_golden_requests(name: str) -> None:
    assert planned(load_register_map(name)) == [exchange.block for exchange in load_golden(name).reads]


@every_map
def test_the_golden_responses_are_the_watt_hours_that_the_meter_means(name: str) -> None:
    register_map, golden = load_register_map(name), load_golden(name)
    values = {
        quantity: scaled_value(register, golden.raw(register)) for quantity, register in register_map.registers.items()
    }
    assert values == golden.expected


@every_map
def test_the_wrong_word_order_never_reads_the_same_energy(name: str) -> None:
    register_map, golden = load_register_map(name), load_golden(name)
    for quantity, register in register_map.registers.items():
        if register.count > 1:
            wrong = replace(register, word_order={"big": "little", "little": "big"}[register.word_order])
            raw = golden.raw(register)
            assert reading(wrong, raw) != golden.expected[quantity]
            assert reading(register, swapped_words(raw)) != golden.expected[quantity]


def reading(register: Register, raw: bytes) -> int | None:
    try:
        return scaled_value(register, raw)
    except RegisterError:
        return None


@every_map
def test_a_map_states_where_everything_comes_from(name: str) -> None:
    register_map = load_register_map(name)
    assert register_map.map_id == name
    assert len(register_map.source) > 20
    assert len(register_map.phases_source) > 20
    for register in register_map.registers.values():
        assert len(register.source) > 10
        assert quantum(register, bytes(2 * register.count)) > 0
    assert register_map.registers.keys() & {"energy_import", "energy_total"}
    for total in ("energy_import", "energy_export", "energy_total"):
        assert total not in register_map.registers or register_map.registers[total].scale > 0


@every_map
def test_the_table_of_maps_says_what_the_map_says(name: str) -> None:
    register_map = load_register_map(name)
    rows = (MAPS_DIRECTORY / "README.md").read_text().splitlines()
    row = next(row for row in rows if row.startswith(f"| `{name}` |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    energy = [register for register in register_map.registers.values() if register.quantity.startswith("energy")]
    assert cells[2] == " ".join(sorted({str(register.function_code) for register in energy}))
    assert cells[3] == ", ".join(f"0x{register.address:04X}" for register in energy)
    assert cells[4] == ", ".join(sorted({f"{register.type} {register.word_order}" for register in energy}))
    assert cells[5] == ", ".join(sorted({step_in_words(register) for register in energy}))
    assert cells[6] == ", ".join(sorted({wrap_in_words(register) for register in energy}))
    assert cells[7] == ("yes" if register_map.phases_netted else "no")


def step_in_words(register: Register) -> str:
    return f"{register.type} in {register.unit}" if register.quantum is None else f"{register.quantum} Wh"


def wrap_in_words(register: Register) -> str:
    return "unknown" if register.modulus is None else f"{register.modulus / 10**9} GWh"


KNOWN_WRONG = [
    ("carlo_gavazzi_em24", "energy_import", 0x3E, 0x42),
    ("carlo_gavazzi_em24_import", "energy_import", 0x3E, 0x42),
    ("carlo_gavazzi_em24_e1", "energy_import", 0x34, 0x42),
    ("carlo_gavazzi_em340", "energy_import", 0x34, 0x42),
    ("huawei_emma", "energy_import", 31_687, 31_679),
    ("huawei_emma", "energy_export", 31_679, 31_687),
    ("schneider_iem3000", "energy_import", 0x0C83, 0x0C84),
    ("chint_dtsu666", "voltage", 0x2006, 0x2000),
    ("eastron_sdm630", "energy_import", 0x48, 0x15A),
    ("eastron_sdm72d_m", "energy_import", 0x48, 0x184),
    ("siemens_pac2200", "energy_import", 801, 805),
]
"""Map, quantity, where it is, and where published maps (or a slip of one line) had it."""


@pytest.mark.parametrize(("name", "quantity", "right", "wrong"), KNOWN_WRONG)
def test_the_known_wrong_register_reads_something_else_and_is_not_ours(
    name: str, quantity: str, right: int, wrong: int
) -> None:
    register, golden = load_register_map(name).registers[quantity], load_golden(name)
    assert register.address == right
    astray = replace(register, address=wrong)
    assert reading(astray, golden.raw(astray)) != golden.expected[quantity]


def test_the_ethernet_em24_reads_all_phases_where_the_known_wrong_map_read_a_third() -> None:
    golden = load_golden("carlo_gavazzi_em24_e1")
    total = load_register_map("carlo_gavazzi_em24_e1").registers["energy_import"]
    phase_2 = replace(total, address=0x42)
    assert scaled_value(phase_2, golden.raw(phase_2)) * 3 == scaled_value(total, golden.raw(total))
    assert load_register_map("carlo_gavazzi_em24_e1").registers["energy_export"].address == 0x4E


def test_an_em24_without_an_export_counter_is_never_asked_for_it() -> None:
    refused = [
        exchange.block for exchange in load_golden("carlo_gavazzi_em24_import").others if exchange.answer is None
    ]
    assert refused == [Block(4, 0x5C, 2)]
    register_map = load_register_map("carlo_gavazzi_em24_import")
    assert "energy_export" not in register_map.registers
    assert all(block.address + block.count <= 0x5C for block in planned(register_map))
    assert load_register_map("carlo_gavazzi_em24").registers["energy_export"].address == 0x5C


ONE_PHASE = {"eastron_sdm120", "eastron_sdm220", "eastron_sdm230"}
NETS_BY_MEASUREMENT = {"carlo_gavazzi_em24", "carlo_gavazzi_em24_import", "carlo_gavazzi_em24_e1"}


@every_map
def test_a_meter_nets_its_phases_only_if_somebody_knows_that_it_does(name: str) -> None:
    assert load_register_map(name).phases_netted == (name in ONE_PHASE | NETS_BY_MEASUREMENT)


def test_a_meter_proves_which_one_it_is() -> None:
    for name in ("carlo_gavazzi_em24_e1", "abb_b23"):
        identity = load_register_map(name).identity
        assert identity is not None
        asked = Block(identity.function_code, identity.address, identity.count)
        answer = next(exchange.answer for exchange in load_golden(name).others if exchange.block == asked)
        assert answer is not None
        assert identity.matches(answer)
        assert not identity.matches(bytes(len(answer)))


def test_the_frames_that_eastron_prints_are_230_volts() -> None:
    request, response = bytes.fromhex("01040000000271cb"), bytes.fromhex("010404436633341b38")
    voltage = load_register_map("eastron_sdm120").registers["voltage"]
    assert struct.unpack(">HH", request[2:6]) == (voltage.address, voltage.count)
    assert scaled_value(voltage, response[3:7]) == 2_302
