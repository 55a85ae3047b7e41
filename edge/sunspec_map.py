"""From a SunSpec model and its registers to the text of a register map. Pure.

Where each point is and how it is scaled comes from the model definitions that pysunspec2 publishes. What a device
does not implement is left out of its map.
"""

import json
import struct
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from math import isnan
from pathlib import Path

from edge.errors import DiscoveryError
from edge.register import FLOAT_LAYOUTS, SCALE_FACTOR_ABS_MAX, SCALE_FACTOR_ABSENT, UNIT_SCALES
from edge.register_map import parse_register_map

METER_MODELS = (201, 202, 203, 204, 211, 212, 213, 214, 701)
ONE_PHASE_MODELS = (201, 211)
DER_MODEL = 701
ACTYPE_ONE_PHASE = 0
HEADER_REGISTERS = 2
METER_POINTS = {
    "energy_import": ("TotWhImp",),
    "energy_export": ("TotWhExp",),
    "power": ("W",),
    "voltage": ("PhVphA", "PhV"),
    "frequency": ("Hz",),
}
DER_POINTS = {
    "energy_import": ("TotWhAbs",),
    "energy_export": ("TotWhInj",),
    "power": ("W",),
    "voltage": ("LNV",),
    "frequency": ("Hz",),
}
"""A generator's view: what it injects is what a meter calls export, and its power has the other sign."""
TYPES = {
    "int16": ("int16", "8000"),
    "uint16": ("uint16", "ffff"),
    "int32": ("int32", "80000000"),
    "uint32": ("uint32", "ffffffff"),
    "int64": ("int64", "8000000000000000"),
    "uint64": ("uint64", "ffffffffffffffff"),
    "acc32": ("uint32", "00000000"),
    "acc64": ("uint64", "0000000000000000"),
    "float32": ("float32", "7fc00000"),
    "float64": ("float64", "7ff8000000000000"),
}
"""SunSpec's types: ours, and the bytes that mean that there is no value."""
ACCUMULATOR_BITS = {"acc32": 32}
"""Accumulators that a home can fill; a 64-bit one ends after the sun."""


@dataclass(frozen=True)
class Point:
    """One point of a model definition. `scale_factor` names another point, or is the power of ten itself."""

    name: str
    offset: int
    size: int
    type: str
    units: str
    scale_factor: str | int | None


@dataclass(frozen=True)
class Definition:
    """A model as published: its points, and its length with the header."""

    points: tuple[Point, ...]
    length: int

    def named(self, *names: str) -> list[Point]:
        """The points of these names, in this order; those that the model has not got are left out."""
        known = {point.name: point for point in self.points}
        return [known[name] for name in names if name in known]


@dataclass(frozen=True)
class FoundModel:
    """A model in a device: its id, where its header is, and the length that the header states."""

    model_id: int
    address: int
    length: int


@dataclass(frozen=True)
class Device:
    """What a device says about itself."""

    manufacturer: str
    model: str
    serial_number: str


@lru_cache
def definition(model_id: int) -> Definition:
    """The published definition of a model."""
    text = files("sunspec2").joinpath("models", "json", f"model_{model_id}.json").read_text()
    points, offset = [], 0
    for point in json.loads(text)["group"]["points"]:
        units = point.get("units", "")
        points.append(Point(point["name"], offset, point["size"], point["type"], units, point.get("sf")))
        offset += point["size"]
    return Definition(tuple(points), offset)


def write_map(model: FoundModel, device: Device, block: bytes) -> tuple[str, tuple[str, ...]]:
    """The map file for a meter model whose registers, header first, read `block`; and remarks for people.

    Raises DiscoveryError `sunspec_model_too_short` or `sunspec_no_energy`.
    """
    remarks: list[str] = []
    entries = []
    for quantity, names in (DER_POINTS if model.model_id == DER_MODEL else METER_POINTS).items():
        for point in definition(model.model_id).named(*names):
            entry = _register(quantity, point, model, block, remarks.append)
            if entry is not None:
                entries.append(entry)
                break
        else:
            remarks.append(f"no {quantity}: the device does not implement {' or '.join(names)}")
    if not any("energy" in entry for entry in entries):
        raise DiscoveryError("sunspec_no_energy", f"model {model.model_id} at {model.address} counts no energy")
    if not _phases(model.model_id, block)[0]:
        remarks.append("SunSpec does not say whether it nets its phases: taken as not netting until the map says so")
    text = "\n\n".join([*_head(model, device, block), *entries]) + "\n"
    parse_register_map(tomllib.loads(text), Path("discovered.toml"))  # what we write we can read
    return text, tuple(remarks)


def _head(model: FoundModel, device: Device, block: bytes) -> list[str]:
    netted, why = _phases(model.model_id, block)
    source = f"SunSpec model {model.model_id} at {model.address}, discovered on the device with serial number"
    return [
        "# Discovered on the device; the keys are explained in the map eastron_sdm630.",
        "\n".join(
            [
                "[meter]",
                f'id = "sunspec_{model.model_id}"',
                f"manufacturer = {_quoted(device.manufacturer)}",
                f"model = {_quoted(device.model)}",
                f"source = {_quoted(f'{source} {device.serial_number}')}",
                f"phases_netted = {str(netted).lower()}",
                f"phases_source = {_quoted(why)}",
                "registers_per_read_max = 125",
                "gap_registers_max = 125   # a model has no holes, and a number and its scale factor belong together",
            ]
        ),
        "\n".join(
            [
                "[identity]",
                "function_code = 3",
                f"address = {model.address}",
                f"allowed = [[{model.model_id}, {model.length}]]",
                'source = "the header of the model: it is where it was, and what it was"',
            ]
        ),
    ]


def _phases(model_id: int, block: bytes) -> tuple[bool, str]:
    ac_type = definition(model_id).named("ACType")
    one_phase = model_id in ONE_PHASE_MODELS
    if ac_type:
        one_phase = _number(block, ac_type[0]) == ACTYPE_ONE_PHASE
    if one_phase:
        return True, "one phase: there is nothing to net"
    return False, "SunSpec does not say: taken as not netting until somebody has measured it"


def _register(
    quantity: str, point: Point, model: FoundModel, block: bytes, remark: Callable[[str], None]
) -> str | None:
    """One entry of the map; None if the device has no value there."""
    kind, unavailable = TYPES[point.type]
    raw = _bytes(block, point)
    is_accumulator = point.type.startswith("acc")
    if not is_accumulator and (raw.hex() == unavailable or (kind in FLOAT_LAYOUTS and isnan(_float(raw)))):
        return None
    if is_accumulator and raw.hex() == unavailable:
        remark(f"{quantity} reads zero: nothing counted yet, or not counted at all")
        unavailable = ""
    scale = UNIT_SCALES[point.units] * (-1 if quantity == "power" and model.model_id == DER_MODEL else 1)
    lines = [f"address = {model.address + point.offset}", f'type = "{kind}"', 'word_order = "big"']
    lines += [f'unit = "{point.units}"', f"scale = {scale}"]
    modulus = "unknown"
    if kind in FLOAT_LAYOUTS:
        lines.append(f'quantum = "{kind}"')
    else:
        exponent = _exponent(point, model.model_id, block)
        if exponent is None:
            return None
        factor = definition(model.model_id).named(str(point.scale_factor))
        lines.append('quantum = "scale_factor"')
        lines.append(f"scale_factor_address = {model.address + factor[0].offset}")
        if point.type in ACCUMULATOR_BITS:
            modulus = _decimal(2 ** ACCUMULATOR_BITS[point.type] * scale, exponent)
    if quantity.startswith("energy"):
        lines.append(f'modulus = "{modulus}"')
    if unavailable:
        lines.append(f'unavailable = ["{unavailable}"]')
    source = f"SunSpec model {model.model_id}, point {point.name}, {point.type}"
    return "\n".join([f"[registers.{quantity}]", "function_code = 3", *lines, f'source = "{source}"'])


def _exponent(point: Point, model_id: int, block: bytes) -> int | None:
    """The point's power of ten; None if the device has not got it."""
    factor = definition(model_id).named(str(point.scale_factor))
    assert factor, f"{point.name} of model {model_id} is not scaled by a register"
    exponent = int.from_bytes(_bytes(block, factor[0]), "big", signed=True)
    if exponent == SCALE_FACTOR_ABSENT:
        return None
    if abs(exponent) > SCALE_FACTOR_ABS_MAX:
        raise DiscoveryError("sunspec_scale_factor", f"{factor[0].name} of model {model_id} reads {exponent}")
    return exponent


def _bytes(block: bytes, point: Point) -> bytes:
    data = block[2 * point.offset : 2 * (point.offset + point.size)]
    if len(data) != 2 * point.size:
        why = f"{point.name} would be at {point.offset} of {len(block) // 2} registers"
        raise DiscoveryError("sunspec_model_too_short", why)
    return data


def _float(raw: bytes) -> float:
    value: float = struct.unpack(">f" if len(raw) == 4 else ">d", raw)[0]
    return value


def _number(block: bytes, point: Point) -> int:
    return int.from_bytes(_bytes(block, point), "big")


def _decimal(number: int, exponent: int) -> str:
    """number × 10^exponent without an exponent: what a map file says."""
    if exponent >= 0:
        return str(number * 10**exponent)
    digits = str(number).zfill(1 - exponent)
    return f"{digits[:exponent]}.{digits[exponent:]}"


def _quoted(text: str) -> str:
    """A TOML string: JSON's escapes are a subset of its own."""
    return json.dumps(text)
