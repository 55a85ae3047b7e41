"""SunSpec discovery: walks the models of a device and writes the register map of each meter that is found.

It runs once, at installation; polling is always from the map that it wrote, like any other map. What a device says
about itself is not trusted: the walk is bounded, and what does not fit the published model is a named error.
"""

import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from edge.errors import DiscoveryError, ModbusError
from edge.sunspec_map import HEADER_REGISTERS, METER_MODELS, Device, FoundModel, definition, write_map

BASE_ADDRESSES = (40_000, 50_000, 0)
MARKER = b"SunS"
MARKER_REGISTERS = len(MARKER) // 2
COMMON_MODEL = 1
END_MODEL = 0xFFFF
MODELS_MAX = 64
"""Models that are walked past at most: real devices have a dozen."""
REGISTERS_PER_READ_MAX = 125
ADDRESSES = 0x10000

Read = Callable[[int, int], Awaitable[bytes]]
"""So many holding registers from this address. Raises ModbusError."""


@dataclass(frozen=True)
class SunspecMeter:
    """A meter model of a device, and the text of the map file for it. `remarks` are for whoever installs it."""

    model_id: int
    address: int
    device: Device
    map_toml: str
    remarks: tuple[str, ...]


async def discover(read: Read) -> list[SunspecMeter]:
    """Every meter model of the device, in the order in which it has them.

    Raises DiscoveryError `sunspec_…`, or ModbusError if the device stops answering in the middle.
    """
    models = await walk(read, await find_base(read))
    device = await _read_device(read, models)
    meters = []
    for model in models:
        if model.model_id in METER_MODELS:
            words = min(HEADER_REGISTERS + model.length, definition(model.model_id).length)
            text, remarks = write_map(model, device, await _read_long(read, model.address, words))
            meters.append(SunspecMeter(model.model_id, model.address, device, text, remarks))
    if not meters:
        found = ", ".join(str(model.model_id) for model in models) or "none"
        raise DiscoveryError("sunspec_no_meter", f"no model of {METER_MODELS}; its models: {found}")
    return meters


async def find_base(read: Read) -> int:
    """Where the device's models begin. Raises DiscoveryError `sunspec_not_found`."""
    reasons = []
    for base in BASE_ADDRESSES:
        try:
            marker = await _read_exactly(read, base, MARKER_REGISTERS)
        except ModbusError as error:  # an illegal address at one base says nothing about the next
            reasons.append(f"{base}: {error}")
            continue
        if marker == MARKER:
            return base
        reasons.append(f"{base}: {marker.hex()}")
    raise DiscoveryError("sunspec_not_found", f"no SunSpec marker; {'; '.join(reasons)}")


async def walk(read: Read, base: int) -> list[FoundModel]:
    """The device's models up to its end marker. Raises DiscoveryError `sunspec_endless`."""
    models: list[FoundModel] = []
    address = base + MARKER_REGISTERS
    while len(models) < MODELS_MAX and address + HEADER_REGISTERS <= ADDRESSES:
        model_id, length = struct.unpack(">2H", await _read_exactly(read, address, HEADER_REGISTERS))
        if model_id == END_MODEL:
            return models
        models.append(FoundModel(model_id, address, length))
        address += HEADER_REGISTERS + length
    raise DiscoveryError("sunspec_endless", f"no end after {len(models)} models, at address {address}")


async def _read_device(read: Read, models: list[FoundModel]) -> Device:
    common = next((model for model in models if model.model_id == COMMON_MODEL), None)
    if common is None:
        return Device("unknown", "SunSpec device", "unknown")
    points = definition(COMMON_MODEL)
    words = min(HEADER_REGISTERS + common.length, points.length)
    block = await _read_long(read, common.address, words)
    texts = [
        _text(block[2 * point.offset : 2 * (point.offset + point.size)]) for point in points.named("Mn", "Md", "SN")
    ]
    return Device(*texts)


def _text(raw: bytes) -> str:
    """A string of SunSpec: ASCII up to the first zero; anything else in it is left out."""
    text = raw.split(b"\0", maxsplit=1)[0].decode("ascii", "ignore")
    return "".join(character for character in text if character.isprintable()).strip() or "unknown"


async def _read_long(read: Read, address: int, count: int) -> bytes:
    """As many registers as one wants, in as many reads as it takes."""
    parts = []
    for first in range(address, address + count, REGISTERS_PER_READ_MAX):
        parts.append(await _read_exactly(read, first, min(REGISTERS_PER_READ_MAX, address + count - first)))
    return b"".join(parts)


async def _read_exactly(read: Read, address: int, count: int) -> bytes:
    if address + count > ADDRESSES:
        raise DiscoveryError("sunspec_endless", f"a model goes on beyond the last register, at {address}")
    data = await read(address, count)
    if len(data) != 2 * count:
        raise DiscoveryError("sunspec_short_answer", f"{len(data)} bytes for {count} registers from {address}")
    return data
