"""Makes tests/edge/registers/*.toml: what meters say on the wire, and what it means.

Run it with plain Python: it knows nothing of the agent or of the simulated meters. Addresses, formats and numbers are
written down here once more, from the makers' documents, and so are the whole watt-hours that they are; frames are
packed with struct. A map that agrees with these frames has been read twice.
"""

import struct
import sys
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = Path(__file__).parents[1] / "edge" / "registers"
READ_HOLDING, READ_INPUT = 3, 4
ILLEGAL_DATA_ADDRESS = 2
FORMATS = {"i16": "h", "u16": "H", "i32": "i", "u32": "I", "i64": "q", "u64": "Q", "f32": "f", "f64": "d"}


@dataclass(frozen=True)
class Value:
    """A number in the registers from `address`."""

    address: int
    format: str
    number: float
    low_word_first: bool = False

    def words(self) -> list[int]:
        """The registers, lowest address first."""
        data = struct.pack(">" + FORMATS[self.format], self.number)
        words = [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]
        return words[::-1] if self.low_word_first else words


@dataclass(frozen=True)
class Exchange:
    """A request for `count` registers and what comes back; an exception code instead of values, if there is one."""

    what: str
    function: int
    address: int
    count: int
    values: tuple[Value, ...] = ()
    exception: int = 0

    def request(self) -> bytes:
        """The request, without an address or a checksum."""
        return struct.pack(">BHH", self.function, self.address, self.count)

    def response(self) -> bytes:
        """The response, without an address or a checksum. Registers that are not our business hold a pattern."""
        if self.exception:
            return bytes([self.function | 0x80, self.exception])
        words = [0xA500 + index for index in range(self.count)]
        for value in self.values:
            first = value.address - self.address
            for index, word in enumerate(value.words()):
                words[first + index] = word
        return struct.pack(f">BB{self.count}H", self.function, 2 * self.count, *words)


@dataclass(frozen=True)
class Meter:
    """A meter at one moment: what its map should read, in which reads, and other registers worth knowing."""

    name: str
    unit: int
    expected: dict[str, int]
    reads: tuple[Exchange, ...]
    others: tuple[Exchange, ...] = ()


def crc(data: bytes) -> bytes:
    """The checksum of Modbus RTU, low byte first."""
    remainder = 0xFFFF
    for byte in data:
        remainder ^= byte
        for _ in range(8):
            remainder = (remainder >> 1) ^ 0xA001 if remainder & 1 else remainder >> 1
    return struct.pack("<H", remainder)


def rtu(unit: int, message: bytes) -> bytes:
    """A frame of a serial line."""
    frame = bytes([unit]) + message
    return frame + crc(frame)


def tcp(transaction: int, unit: int, message: bytes) -> bytes:
    """A frame of Modbus TCP."""
    return struct.pack(">HHHB", transaction, 0, len(message) + 1, unit) + message


def f32(address: int, number: float) -> Value:
    """A float, high word first: what most meters speak."""
    return Value(address, "f32", number)


def low(address: int, number: int) -> Value:
    """A signed number of two registers, low word first: what Carlo Gavazzi speaks."""
    return Value(address, "i32", number, low_word_first=True)


def read(function: int, address: int, count: int, *values: Value, what: str = "") -> Exchange:
    """A read of the map's own."""
    return Exchange(what, function, address, count, values)


EASTRON_PRINTED = (bytes.fromhex("010400000002 71CB"), bytes.fromhex("010404 43663334 1B38"))
"""The request and response that Eastron's documents print: 230.2 V, or rather the next float above it."""
PRINTED = Exchange("the example in the maker's document", READ_INPUT, 0, 2, (f32(0, 230.20001220703125),))
assert (rtu(1, PRINTED.request()), rtu(1, PRINTED.response())) == EASTRON_PRINTED

ONE_PHASE_READS = (
    read(READ_INPUT, 0x00, 2, f32(0x00, 230.2)),
    read(READ_INPUT, 0x0C, 2, f32(0x0C, -2345.6)),
    read(READ_INPUT, 0x46, 6, f32(0x46, 49.98), f32(0x48, 1234.567), f32(0x4A, 89.01)),
    read(READ_INPUT, 0x156, 2, f32(0x156, 1323.577)),
)
EASTRON_ENERGY = {"energy_import": 1_234_567, "energy_export": 89_010, "energy_total": 1_323_577}
EASTRON_EXPECTED = {**EASTRON_ENERGY, "power": -2_346, "voltage": 2_302, "frequency": 49_980}
EM24_INSTANT = (read(READ_INPUT, 0x00, 2, low(0x00, 2302)), read(READ_INPUT, 0x28, 2, low(0x28, -23_456)))
EM24_EXPECTED = {"energy_import": 1_234_567_800, "power": -2_346, "voltage": 2_302, "frequency": 50_000}
EM24_PARTIAL = Exchange("kWh(+) PAR, since somebody reset it: not the total", READ_INPUT, 0x42, 2, (low(0x42, 4_711),))

METERS = (
    *(
        Meter(name, 1, EASTRON_EXPECTED, ONE_PHASE_READS, (PRINTED,))
        for name in ("eastron_sdm120", "eastron_sdm220", "eastron_sdm230")
    ),
    Meter(
        "eastron_sdm72d_m",
        1,
        {**EASTRON_ENERGY, "power": -2_346},
        (
            read(READ_INPUT, 0x34, 2, f32(0x34, -2345.6)),
            read(READ_INPUT, 0x48, 4, f32(0x48, 1234.567), f32(0x4A, 89.01)),
            read(READ_INPUT, 0x156, 2, f32(0x156, 1323.577)),
        ),
        (Exchange("resettable import, since somebody reset it", READ_INPUT, 0x184, 2, (f32(0x184, 3.25),)),),
    ),
    Meter(
        "eastron_sdm630",
        1,
        EASTRON_EXPECTED,
        (
            read(
                READ_INPUT,
                0x00,
                0x4C,
                *(f32(0x00, 230.2), f32(0x02, 231.5), f32(0x04, 229.25), f32(0x0C, -2400.0), f32(0x34, -2345.6)),
                *(f32(0x46, 49.98), f32(0x48, 1234.567), f32(0x4A, 89.01)),
            ),
            read(READ_INPUT, 0x156, 2, f32(0x156, 1323.577)),
        ),
        (PRINTED, Exchange("import of phase 1", READ_INPUT, 0x15A, 2, (f32(0x15A, 411.5),))),
    ),
    Meter(
        "carlo_gavazzi_em24",
        1,
        {**EM24_EXPECTED, "energy_export": 8_901_200},
        (
            *EM24_INSTANT,
            read(READ_INPUT, 0x37, 1, Value(0x37, "i16", 500)),
            read(READ_INPUT, 0x3E, 2, low(0x3E, 12_345_678)),
            read(READ_INPUT, 0x5C, 2, low(0x5C, 89_012)),
        ),
        (EM24_PARTIAL,),
    ),
    Meter(
        "carlo_gavazzi_em24_import",
        1,
        EM24_EXPECTED,
        (
            *EM24_INSTANT,
            read(READ_INPUT, 0x37, 1, Value(0x37, "i16", 500)),
            read(READ_INPUT, 0x3E, 2, low(0x3E, 12_345_678)),
        ),
        (
            EM24_PARTIAL,
            Exchange("kWh(-) TOT, which this unit has not got", READ_INPUT, 0x5C, 2, exception=ILLEGAL_DATA_ADDRESS),
        ),
    ),
    Meter(
        "carlo_gavazzi_em24_e1",
        1,
        {**EM24_EXPECTED, "energy_export": 8_901_200},
        (
            *EM24_INSTANT,
            read(READ_INPUT, 0x33, 3, Value(0x33, "i16", 500), low(0x34, 12_345_678)),
            read(READ_INPUT, 0x4E, 2, low(0x4E, 89_012)),
        ),
        (
            Exchange("import of phase L2: a third", READ_INPUT, 0x42, 2, (low(0x42, 4_115_226),)),
            Exchange("identification: EM24DINAV53XE1X", READ_INPUT, 0x0B, 1, (Value(0x0B, "u16", 1651),)),
        ),
    ),
    Meter(
        "carlo_gavazzi_em340",
        1,
        {**EM24_EXPECTED, "energy_export": 8_901_200},
        (
            read(READ_INPUT, 0x00, 2, low(0x00, 2302)),
            read(
                READ_INPUT,
                0x28,
                0x28,
                *(low(0x28, -23_456), Value(0x33, "i16", 500), low(0x34, 12_345_678), low(0x4E, 89_012)),
                *(low(0x40, 4_115_226), low(0x42, 4_115_226), low(0x44, 4_115_226)),
            ),
        ),
        (Exchange("import of phase L2: a third", READ_INPUT, 0x42, 2, (low(0x42, 4_115_226),)),),
    ),
    Meter(
        "schneider_iem3000",
        1,
        {
            "energy_import": 123_456_789,
            "energy_export": 4_321,
            "power": -2_346,
            "voltage": 2_302,
            "frequency": 49_980,
        },
        (
            read(READ_HOLDING, 3027, 2, f32(3027, 230.2)),
            read(READ_HOLDING, 3059, 2, f32(3059, -2.3456)),
            read(READ_HOLDING, 3109, 2, f32(3109, 49.98)),
            read(READ_HOLDING, 3203, 8, Value(3203, "i64", 123_456_789), Value(3207, "i64", 4_321)),
        ),
        (Exchange("partial import, since somebody reset it", READ_HOLDING, 3255, 4, (Value(3255, "i64", 17),)),),
    ),
    Meter(
        "chint_dtsu666",
        1,
        {
            "energy_import": 1_234_560,
            "energy_export": 89_010,
            "power": -2_346,
            "voltage": 2_302,
            "frequency": 49_980,
        },
        (
            read(READ_HOLDING, 0x101E, 2, f32(0x101E, 1234.56)),
            read(READ_HOLDING, 0x1028, 2, f32(0x1028, 89.01)),
            read(READ_HOLDING, 0x2006, 2, f32(0x2006, 2302.0)),
            read(READ_HOLDING, 0x2012, 2, f32(0x2012, -23456.0)),
            read(READ_HOLDING, 0x2044, 2, f32(0x2044, 4998.0)),
        ),
        (
            Exchange("voltage between phases A and B", READ_HOLDING, 0x2000, 2, (f32(0x2000, 3987.0),)),
            Exchange("NetImpEp", READ_HOLDING, 0x1026, 2, (f32(0x1026, 1145.55),)),
        ),
    ),
    Meter(
        "abb_b23",
        1,
        {
            "energy_import": 123_456_780,
            "energy_export": 890_120,
            "power": -2_346,
            "voltage": 2_302,
            "frequency": 49_980,
        },
        (
            read(READ_HOLDING, 0x5000, 8, Value(0x5000, "u64", 12_345_678), Value(0x5004, "u64", 89_012)),
            read(
                READ_HOLDING,
                0x5B00,
                0x2D,
                *(Value(0x5B00, "u32", 2_302), Value(0x5B14, "i32", -234_567), Value(0x5B2C, "u16", 4_998)),
            ),
        ),
        (
            Exchange("active net, import less export", READ_HOLDING, 0x5008, 4, (Value(0x5008, "i64", 12_256_666),)),
            Exchange("type designation", READ_HOLDING, 0x8960, 2, (Value(0x8960, "u32", 0x42323320),)),
        ),
    ),
    Meter(
        "siemens_pac2200",
        126,
        {
            "energy_import": 12_345_678,
            "energy_export": 890_124,
            "power": -2_346,
            "voltage": 2_302,
            "frequency": 49_980,
        },
        (
            read(READ_INPUT, 1, 2, f32(1, 230.2)),
            read(READ_INPUT, 55, 2, f32(55, 49.98)),
            read(READ_INPUT, 65, 2, f32(65, -2345.6)),
            read(READ_INPUT, 801, 4, Value(801, "f64", 12_345_678.5)),
            read(READ_INPUT, 809, 4, Value(809, "f64", 890_123.5)),
        ),
        (Exchange("import tariff 2", READ_INPUT, 805, 4, (Value(805, "f64", 31.0),)),),
    ),
    Meter(
        "orno_we516",
        1,
        {
            "energy_import": 1_234_560,
            "energy_export": 89_010,
            "energy_total": 1_323_570,
            "power": -2_346,
            "voltage": 2_302,
            "frequency": 49_980,
        },
        (
            read(READ_HOLDING, 0x0E, 2, f32(0x0E, 230.2)),
            read(READ_HOLDING, 0x14, 2, f32(0x14, 49.98)),
            read(READ_HOLDING, 0x1C, 2, f32(0x1C, -2.3456)),
            read(READ_HOLDING, 0x100, 2, f32(0x100, 1323.57)),
            read(READ_HOLDING, 0x108, 2, f32(0x108, 1234.56)),
            read(READ_HOLDING, 0x110, 2, f32(0x110, 89.01)),
        ),
    ),
    Meter(
        "janitza_umg",
        1,
        {
            "energy_import": 12_345_678,
            "energy_export": 890_122,
            "power": -2_346,
            "voltage": 2_302,
            "frequency": 49_980,
        },
        (
            read(
                READ_HOLDING,
                19_000,
                78,
                *(f32(19_000, 230.2), f32(19_026, -2345.6), f32(19_050, 49.98)),
                *(f32(19_060, 11_455_556.0), f32(19_068, 12_345_678.0), f32(19_076, 890_122.5)),
            ),
        ),
    ),
    Meter(
        "shelly_pro_3em",
        1,
        {"energy_import": 12_345_678, "energy_export": 890_122, "power": -2_346, "voltage": 2_302},
        (
            read(READ_INPUT, 1013, 2, Value(1013, "f32", -2345.6, low_word_first=True)),
            read(READ_INPUT, 1020, 2, Value(1020, "f32", 230.2, low_word_first=True)),
            read(
                READ_INPUT,
                1162,
                4,
                Value(1162, "f32", 12_345_678.0, low_word_first=True),
                Value(1164, "f32", 890_122.25, low_word_first=True),
            ),
        ),
    ),
    Meter(
        "huawei_emma",
        1,
        {"energy_import": 123_456_780, "energy_export": 890_120, "power": -2_346},
        (
            read(READ_HOLDING, 31_657, 2, Value(31_657, "i32", -2_346)),
            read(READ_HOLDING, 31_679, 4, Value(31_679, "i64", 89_012)),
            read(READ_HOLDING, 31_687, 4, Value(31_687, "i64", 12_345_678)),
        ),
    ),
)


def document(meter: Meter) -> str:
    """The file of one meter."""
    lines = ["# Made by tests/vectors/make_register_frames.py.", f'map = "{meter.name}"', f"unit = {meter.unit}", ""]
    lines += ["[expected]", *(f"{quantity} = {number}" for quantity, number in meter.expected.items())]
    for table, exchanges in (("read", meter.reads), ("other", meter.others)):
        for transaction, exchange in enumerate(exchanges, 1):
            request, response = exchange.request(), exchange.response()
            lines += ["", f"[[{table}]]"]
            lines += [f'what = "{exchange.what}"'] if exchange.what else []
            lines += [
                f'rtu_request = "{rtu(meter.unit, request).hex()}"',
                f'rtu_response = "{rtu(meter.unit, response).hex()}"',
                f'tcp_request = "{tcp(transaction, meter.unit, request).hex()}"',
                f'tcp_response = "{tcp(transaction, meter.unit, response).hex()}"',
            ]
    return "\n".join(lines) + "\n"


def main(directory: Path) -> None:
    """Write them all."""
    for meter in METERS:
        (directory / f"{meter.name}.toml").write_text(document(meter))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DIRECTORY)
