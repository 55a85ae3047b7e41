"""Makes the golden vectors of protocol v1: python tests/vectors/make_vectors.py

The bytes are laid down here by hand, from the specification alone: nothing of `protocol/` is imported, so a mistake
there cannot repeat itself. Every case names an operation of tests/protocol/check_vectors_micropython.py, what goes in,
and either what comes out or the code of the error. Bytes are hexadecimal; see `plain`.
"""

import hashlib
import itertools
import json
import struct
import sys
from pathlib import Path
from typing import Any

Case = dict[str, Any]
Fields = dict[str, Any]

COMMUNITY = "sonnenhof"
METER = "roof-7"
DOMAIN = hashlib.sha256(COMMUNITY.encode()).digest()[:8]
NOON = 1_795_089_600
"""2026-11-19T12:00:00Z."""
YEAR_2020, YEAR_2100 = 1_577_836_800, 4_102_444_800
MAX_53 = 2**53 - 1
ZEROS = bytes(32)
HASH = hashlib.sha256(b"a predecessor").digest()
ZEROS_MIN = 100
SIGNATURE = hashlib.sha512(b"stands for a signature").digest()


# --- MessagePack, by the specification's table --------------------------------------------------------------------


def mp(value: Any) -> bytes:
    """The shortest encoding of nil, an integer, bytes or a list of those."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bytes):
        return mp_sized(len(value), {0xC4: 1, 0xC5: 2, 0xC6: 4}) + value
    if isinstance(value, list):
        body = b"".join(mp(item) for item in value)
        head = bytes([0x90 + len(value)]) if len(value) < 16 else mp_sized(len(value), {0xDC: 2, 0xDD: 4})
        return head + body
    return mp_integer(value)


def mp_integer(value: int) -> bytes:
    """The shortest encoding of an integer."""
    if -32 <= value <= 127:
        return bytes([value % 256])
    tags = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8} if value >= 0 else {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
    for tag, size in tags.items():
        try:
            return bytes([tag]) + value.to_bytes(size, "big", signed=value < 0)
        except OverflowError:
            continue
    raise ValueError(value)


def mp_sized(length: int, tags: dict[int, int]) -> bytes:
    """A tag and a length in the shortest form that holds it."""
    tag, size = next((tag, size) for tag, size in tags.items() if length < 256**size)
    return bytes([tag]) + length.to_bytes(size, "big")


# --- cases --------------------------------------------------------------------------------------------------------


def ok(name: str, operation: str, given: Any, result: Any) -> Case:
    """What goes in and what must come out."""
    return {"name": name, "operation": operation, "given": plain(given), "result": plain(result)}


def bad(name: str, operation: str, given: Any, error: str) -> Case:
    """What goes in and the code of the error."""
    return {"name": name, "operation": operation, "given": plain(given), "error": error}


def both(name: str, what: str, fields: Any, data: bytes) -> list[Case]:
    """Fields and bytes that turn into each other."""
    return [ok(name, f"encode_{what}", fields, data), ok(name, f"decode_{what}", data, fields)]


def plain(value: Any) -> Any:
    """Bytes as hexadecimal, `+n` for many zero bytes at the end; all else as JSON has it."""
    if isinstance(value, bytes):
        zeros = len(value) - len(value.rstrip(b"\0"))
        return value.hex() if zeros < ZEROS_MIN else f"{value[:-zeros].hex()}+{zeros}"
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


# --- msgpack ------------------------------------------------------------------------------------------------------


def msgpack_cases() -> list[Case]:
    """Every width at its limits, in both directions; then what is not in the sliver."""
    edges = [0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, MAX_53, 2**63, 2**64 - 1]
    edges += [-1, -32, -33, -128, -129, -32_768, -32_769, -(2**31), -(2**31) - 1, -(2**63)]
    values: list[Any] = [*edges, None, [], [None], [1, [2, [3, []]]], list(range(15)), list(range(16)), [0] * 300]
    cases = []
    for value in values:
        name = f"{value}" if len(str(value)) < 30 else f"a list of {len(value)}"
        cases += both(name, "msgpack", value, mp(value))
    for size in (0, 1, 31, 255, 256, 65_535, 65_536):
        data = bytes(size)
        cases.append(ok(f"{size} bytes", "decode_msgpack_bytes", mp(data), data))
    cases.append(ok("a byte with a long length", "decode_msgpack_bytes", bytes.fromhex("c600000001aa"), b"\xaa"))
    for name, data in {
        "a one in 9 bytes": "cf0000000000000001",
        "a one as int8": "d001",
        "minus one as int64": "d3ffffffffffffffff",
    }.items():
        cases.append(ok(name, "decode_msgpack", bytes.fromhex(data), -1 if "minus" in name else 1))
    cases.append(ok("an array with a long length", "decode_msgpack", bytes.fromhex("dd0000000101"), [1]))
    for name, data, error in (
        ("nothing", "", "msgpack_truncated"),
        ("half an integer", "cd01", "msgpack_truncated"),
        ("bytes cut off", "c40500", "msgpack_truncated"),
        ("a length cut off", "dd0000", "msgpack_truncated"),
        ("an array cut off", "9301", "msgpack_truncated"),
        ("an array that lies about four billion elements", "ddffffffff01", "msgpack_truncated"),
        ("bytes that lie about four gigabytes", "c6ffffffff01", "msgpack_truncated"),
        ("a second value", "0101", "msgpack_trailing_bytes"),
        ("five arrays in each other", "9191919190", "msgpack_too_deep"),
        ("many arrays in each other", "91" * 5_000, "msgpack_too_deep"),
        ("float 32", "ca3f800000", "msgpack_unsupported"),
        ("float 64", "cb3ff0000000000000", "msgpack_unsupported"),
        ("text", "a161", "msgpack_unsupported"),
        ("text 8", "d90161", "msgpack_unsupported"),
        ("a map", "8101c0", "msgpack_unsupported"),
        ("a map 16", "de0000", "msgpack_unsupported"),
        ("false", "c2", "msgpack_unsupported"),
        ("true", "c3", "msgpack_unsupported"),
        ("an extension", "d40100", "msgpack_unsupported"),
        ("a time stamp", "d6ff00000000", "msgpack_unsupported"),
        ("the tag that is never used", "c1", "msgpack_unsupported"),
    ):
        cases.append(bad(name, "decode_msgpack", bytes.fromhex(data), error))
    for name, value in {
        "beyond 64 bits": 2**64,
        "below 64 bits": -(2**63) - 1,
        "a truth": True,
        "a fraction": 0.5,
    }.items():
        cases.append(bad(name, "encode_msgpack", value, "msgpack_unsupported"))
    cases.append(bad("too deep", "encode_msgpack", [[[[[]]]]], "msgpack_unsupported"))
    return cases


# --- seals and messages -------------------------------------------------------------------------------------------

FIRST_SEAL: Fields = {
    "domain": DOMAIN,
    "sequence": 1,
    "sealed_at_unix_s": NOON + 60,
    "closed_until_unix_s": NOON,
    "production_wh": 15_000,
    "consumption_wh": 4_000,
    "surplus_wh": 11_000,
    "previous_seal_hash": ZEROS,
    "readings_hash": hashlib.sha256(b"a section").digest(),
}
LATER_SEAL = {**FIRST_SEAL, "sequence": 2, "previous_seal_hash": HASH}


def seal_bytes(fields: Fields, magic: bytes = b"CWS1") -> bytes:
    """124 bytes, little-endian, field after field."""
    out = magic + fields["domain"]
    out += fields["sequence"].to_bytes(8, "little")
    for name in ("sealed_at_unix_s", "closed_until_unix_s"):
        out += fields[name].to_bytes(8, "little", signed=True)
    for name in ("production_wh", "consumption_wh", "surplus_wh"):
        out += fields[name].to_bytes(8, "little")
    return bytes(out + fields["previous_seal_hash"] + fields["readings_hash"])


BAD_SEALS: list[tuple[str, Fields, str]] = [
    ("sequence zero", {"sequence": 0}, "seal_sequence"),
    ("sequence beyond 2^53 - 1", {"sequence": MAX_53 + 1}, "seal_sequence"),
    ("sequence of all ones", {"sequence": 2**64 - 1}, "seal_sequence"),
    ("a first seal with a predecessor", {"sequence": 1}, "seal_predecessor"),
    ("a later seal without one", {"previous_seal_hash": ZEROS}, "seal_predecessor"),
    ("sealed before 2020", {"sealed_at_unix_s": YEAR_2020 - 1, "closed_until_unix_s": YEAR_2020}, "seal_time"),
    ("sealed in 1969", {"sealed_at_unix_s": -1}, "seal_time"),
    ("sealed after 2100", {"sealed_at_unix_s": YEAR_2100 + 1}, "seal_time"),
    ("closed after it was sealed", {"closed_until_unix_s": NOON + 900}, "seal_time"),
    ("closed before 2020", {"closed_until_unix_s": YEAR_2020 - 900}, "seal_time"),
    ("closed within an interval", {"closed_until_unix_s": NOON - 1}, "seal_time"),
    ("production beyond 2^53 - 1", {"production_wh": MAX_53 + 1}, "seal_counter"),
    ("consumption beyond 2^53 - 1", {"consumption_wh": MAX_53 + 1}, "seal_counter"),
    ("surplus beyond production", {"surplus_wh": 15_001}, "seal_counter"),
]


def seal_cases() -> list[Case]:
    """Valid seals at every limit, and each field out of its range."""
    cases = []
    for name, fields in {
        "the first seal": FIRST_SEAL,
        "a later seal": LATER_SEAL,
        "everything least": {**FIRST_SEAL, "sealed_at_unix_s": YEAR_2020, "closed_until_unix_s": YEAR_2020}
        | {"production_wh": 0, "consumption_wh": 0, "surplus_wh": 0},
        "everything greatest": {**LATER_SEAL, "sequence": MAX_53, "sealed_at_unix_s": YEAR_2100}
        | {"closed_until_unix_s": YEAR_2100}
        | {"production_wh": MAX_53, "consumption_wh": MAX_53, "surplus_wh": MAX_53},
        "sealed on the boundary": {**LATER_SEAL, "sealed_at_unix_s": NOON},
    }.items():
        cases += both(name, "seal", fields, seal_bytes(fields))
        cases.append(ok(name, "seal_hash", seal_bytes(fields), hashlib.sha256(seal_bytes(fields)).digest()))
    for name, changes, error in BAD_SEALS:
        fields = {**LATER_SEAL, **changes}
        cases.append(bad(name, "encode_seal", fields, error))
        cases.append(bad(name, "decode_seal", seal_bytes(fields), error))
    good = seal_bytes(LATER_SEAL)
    cases.append(bad("a byte short", "decode_seal", good[:-1], "seal_length"))
    cases.append(bad("a byte long", "decode_seal", good + b"\0", "seal_length"))
    cases.append(bad("nothing", "decode_seal", b"", "seal_length"))
    cases.append(bad("another version", "decode_seal", seal_bytes(LATER_SEAL, b"CWS2"), "seal_magic"))
    cases.append(bad("an enrolment's magic", "decode_seal", seal_bytes(LATER_SEAL, b"CWE1"), "seal_magic"))
    for name, changes, error in (
        ("a domain of 7 bytes", {"domain": bytes(7)}, "seal_domain"),
        ("a predecessor of 31 bytes", {"previous_seal_hash": bytes(31)}, "seal_hash"),
        ("a readings hash of 33 bytes", {"readings_hash": bytes(33)}, "seal_hash"),
        ("a negative counter", {"production_wh": -1}, "seal_counter"),
    ):
        cases.append(bad(name, "encode_seal", {**LATER_SEAL, **changes}, error))
    return cases


def message_bytes(section: bytes, seal: Fields | None = None) -> bytes:
    """A message whose seal binds the section."""
    fields = {**(seal or FIRST_SEAL), "readings_hash": hashlib.sha256(section).digest()}
    return seal_bytes(fields) + SIGNATURE + section


def message_cases() -> list[Case]:
    """Messages taken apart and put together."""
    section = section_bytes(READINGS)
    message = message_bytes(section)
    parts = {"seal": message[:124], "signature": SIGNATURE, "section": section}
    cases = both("an ordinary message", "message", parts, message)
    longest = bytes(32_768 - 188)
    longest_parts = {**parts, "seal": message_bytes(longest)[:124], "section": longest}
    cases += both("as long as may be", "message", longest_parts, message_bytes(longest))
    too_long = message_bytes(longest + b"\0")
    flipped = message[:-1] + bytes([message[-1] ^ 1])
    other = bytes([message[0], message[1], message[2], ord("9")]) + message[4:]
    for name, data, error in (
        ("a byte too long", too_long, "message_too_long"),
        ("nothing", b"", "message_truncated"),
        ("a seal without its signature", message[:124], "message_truncated"),
        ("no readings section", message[:188], "message_truncated"),
        ("a section cut off", message[:-1], "readings_hash"),
        ("a section changed", flipped, "readings_hash"),
        ("a section with a byte more", message + b"\0", "readings_hash"),
        ("a seal that is none", other, "seal_magic"),
        ("an impossible seal", message_bytes(section, {**FIRST_SEAL, "surplus_wh": 15_001}), "seal_counter"),
    ):
        cases.append(bad(name, "decode_message", data, error))
    for name, changes, error in (
        ("a seal cut off", {"seal": message[:123]}, "message_length"),
        ("a long signature", {"signature": bytes(65)}, "message_length"),
        ("too many readings", {"section": bytes(32_768 - 187)}, "message_too_long"),
    ):
        cases.append(bad(name, "encode_message", {**parts, **changes}, error))
    return cases


# --- readings -----------------------------------------------------------------------------------------------------


def reading(second: int, production: int, consumption: int, *rest: int | None) -> list[Any]:
    """Time, two counters in Wh, then power W, voltage dV, frequency mHz, flags."""
    power, voltage, frequency, flags = rest or (None, None, None, 0)
    return [NOON + second, production, consumption, power, voltage, frequency, flags]


READINGS = [
    reading(60, 15_000, 4_000, -1_200, 2_301, 50_010, 0),
    reading(120, 15_020, 4_000, -1_180, 2_299, 49_990, 0),
    reading(180, 15_020, 4_007, 420, 2_300, 50_000, 8),
]


def section_columns(readings: list[list[Any]]) -> list[Any]:
    """The ten columns of a section."""
    columns = [list(column) for column in zip(*readings, strict=True)]
    starts = [column[0] for column in columns[:3]]
    deltas = [[b - a for a, b in itertools.pairwise(column)] for column in columns[:3]]
    optional: list[Any] = []
    for column in columns[3:6]:
        if None in column:
            optional.append(None)
        else:
            optional.append([column[0]] + [b - a for a, b in itertools.pairwise(column)])
    return [*starts, *deltas, *optional, columns[6] if any(columns[6]) else None]


def section_bytes(readings: list[list[Any]]) -> bytes:
    """A readings section."""
    return mp(section_columns(readings))


def changed(columns: list[Any], at: int, value: Any) -> bytes:
    """A section with one column replaced."""
    return mp([*columns[:at], value, *columns[at + 1 :]])


def readings_cases() -> list[Case]:
    """Sections at every limit, and each column wrong in each way."""
    cases = []
    for name, readings in {
        "three readings with everything": READINGS,
        "one reading": READINGS[:1],
        "one bare reading": [reading(0, 0, 0)],
        "power alone": [reading(0, 1, 2, -5, None, None, 0), reading(1, 1, 2, 5, None, None, 0)],
        "a meter swap": [reading(0, 1, 2, None, None, None, 0), reading(1, 1, 2, None, None, None, 4)],
        "all flags": [reading(0, 1, 2, None, None, None, 15)],
        "the longest gap": [[YEAR_2020, 0, 0, None, None, None, 0], [YEAR_2100, MAX_53, MAX_53, None, None, None, 0]],
        "extreme columns": [
            reading(0, 1, 2, 2**31 - 1, 0, 0, 0),
            reading(1, 1, 2, -(2**31) + 1, 100_000, 1_000_000, 0),
        ],
        "900 readings": [
            reading(second, 3 * second, second // 7, -second, 2_300, 50_000, 0) for second in range(1, 901)
        ],
    }.items():
        cases += both(name, "readings", readings, section_bytes(readings))
    plain_columns = section_columns(READINGS)
    for at, (what, value) in enumerate([("time", None), ("production", None), ("consumption", b"")]):
        cases.append(
            bad(f"{what} does not start", "decode_readings", changed(plain_columns, at, value), "readings_shape")
        )
    for at, what in enumerate(("time", "production", "consumption", "power", "voltage", "frequency", "flags"), 3):
        column = plain_columns[at]
        for how, value, error in (
            ("one too few", column[:-1], "readings_shape"),
            ("one too many", [*column, 1], "readings_shape"),
            ("no array", 7, "readings_shape"),
            ("a nil inside", [*column[:-1], None], "readings_shape"),
            ("bytes inside", [*column[:-1], b"\1"], "readings_shape"),
            ("an array inside", [*column[:-1], [1]], "readings_shape"),
        ):
            cases.append(bad(f"{what}: {how}", "decode_readings", changed(plain_columns, at, value), error))
    for name, at, value, error in (
        ("time stands still", 3, [60, 0], "readings_order"),
        ("time runs back", 3, [60, -1], "readings_order"),
        ("production falls", 4, [20, -1], "readings_order"),
        ("consumption falls", 5, [-1, 8], "readings_order"),
        ("before 2020", 0, YEAR_2020 - 1, "readings_range"),
        ("after 2100", 0, YEAR_2100 + 1, "readings_range"),
        ("past 2100 within", 3, [60, YEAR_2100], "readings_range"),
        ("a time of 2^64 - 1", 0, 2**64 - 1, "readings_range"),
        ("negative production", 1, -1, "readings_range"),
        ("negative consumption", 2, -1, "readings_range"),
        ("production beyond 2^53 - 1", 4, [20, MAX_53], "readings_range"),
        ("consumption beyond 2^53 - 1", 2, MAX_53, "readings_range"),
        ("power beyond 31 bits", 6, [2**31, 0, 0], "readings_range"),
        ("power that adds up beyond", 6, [2**31 - 1, 1, 0], "readings_range"),
        ("negative voltage", 7, [-1, 0, 0], "readings_range"),
        ("10,000.1 volts", 7, [100_001, 0, 0], "readings_range"),
        ("negative frequency", 8, [-1, 0, 0], "readings_range"),
        ("a thousand hertz and more", 8, [1_000_001, 0, 0], "readings_range"),
        ("a flag that is not", 9, [0, 0, 16], "readings_range"),
        ("negative flags", 9, [0, 0, -1], "readings_range"),
    ):
        cases.append(bad(name, "decode_readings", changed(plain_columns, at, value), error))
    for name, data, error in (
        ("nine columns", mp(plain_columns[:-1]), "readings_shape"),
        ("eleven columns", mp([*plain_columns, None]), "readings_shape"),
        ("a number", mp(1), "readings_shape"),
        ("nil", mp(None), "readings_shape"),
        ("901 readings", mp([NOON, 0, 0, [1] * 900, [0] * 900, [0] * 900, None, None, None, None]), "readings_count"),
        ("nothing", b"", "msgpack_truncated"),
        ("a float", b"\x9a\xca\0\0\0\0" + b"\xc0" * 9, "msgpack_unsupported"),
        ("a byte more", section_bytes(READINGS) + b"\xc0", "msgpack_trailing_bytes"),
        ("a column of columns", changed(plain_columns, 4, [[[[]]], 0]), "msgpack_too_deep"),
    ):
        cases.append(bad(name, "decode_readings", data, error))
    for name, readings, error in (
        ("no readings", [], "readings_count"),
        ("901 readings", [reading(second, 0, 0) for second in range(901)], "readings_count"),
        ("time stands still", [reading(1, 0, 0), reading(1, 0, 0)], "readings_order"),
        ("a counter falls", [reading(1, 1, 0), reading(2, 0, 0)], "readings_order"),
        ("an impossible flag", [reading(1, 1, 0, None, None, None, 16)], "readings_range"),
        ("an impossible power", [reading(1, 1, 0, 2**31, None, None, 0)], "readings_range"),
    ):
        cases.append(bad(name, "encode_readings", readings, error))
    return cases


# --- enrolment, commands, receipts --------------------------------------------------------------------------------

STATEMENT: Fields = {
    "domain": DOMAIN,
    "meter_id": METER,
    "kind": 1,
    "measurement": 1,
    "key_epoch": 1,
    "owner": hashlib.sha256(b"an owner").digest(),
    "public_key": hashlib.sha256(b"stands for a key").digest(),
    "production_wh": 15_000,
    "consumption_wh": 4_000,
    "surplus_wh": 11_000,
    "valid_from_unix_s": NOON + 7,
    "last_seal_hash": ZEROS,
    "flags": 0,
}


def statement_bytes(fields: Fields, magic: bytes = b"CWE1") -> bytes:
    """180 bytes, little-endian; the name is filled up with zero bytes. `meter_id` may be bytes."""
    name = fields["meter_id"]
    name = name if isinstance(name, bytes) else name.encode()
    out = magic + fields["domain"] + name + bytes(32 - len(name))
    out += bytes([fields["kind"], fields["measurement"]]) + fields["flags"].to_bytes(2, "little")
    out += fields["key_epoch"].to_bytes(4, "little") + fields["owner"] + fields["public_key"]
    for counter in ("production_wh", "consumption_wh", "surplus_wh"):
        out += fields[counter].to_bytes(8, "little")
    return bytes(out + fields["valid_from_unix_s"].to_bytes(8, "little", signed=True) + fields["last_seal_hash"])


BAD_NAMES: list[tuple[str, bytes]] = [
    ("an empty name", b""),
    ("a capital letter", b"Roof"),
    ("an underscore", b"roof_7"),
    ("a slash", b"roof/7"),
    ("a wildcard", b"roof+"),
    ("a hyphen first", b"-roof"),
    ("a hyphen last", b"roof-"),
    ("a zero inside", b"roof\0seven"),
    ("not ASCII", "dächer".encode()),
    ("not even UTF-8", b"\xff\xfe"),
    ("a name of the hub's", b"hub-0"),
]


def enrolment_cases() -> list[Case]:
    """Statements."""
    cases = []
    for name, changes in {
        "a solar home": {},
        "the longest name": {"meter_id": "a" * 32},
        "the shortest name": {"meter_id": "7"},
        "wind": {"kind": 2},
        "a battery": {"kind": 3},
        "a grid meter, net only": {"kind": 4, "measurement": 2},
        "a rotation": {"key_epoch": 2, "last_seal_hash": HASH},
        "a meter that sums its phases": {"flags": 1},
        "a replaced meter": {"key_epoch": 2, "last_seal_hash": HASH, "flags": 2},
        "a replaced meter that sums its phases": {"key_epoch": 2, "last_seal_hash": HASH, "flags": 3},
        "everything greatest": {"key_epoch": 2**31 - 1, "production_wh": MAX_53, "consumption_wh": MAX_53}
        | {"surplus_wh": MAX_53, "valid_from_unix_s": YEAR_2100, "flags": 3},
    }.items():
        fields = {**STATEMENT, **changes}
        cases += both(name, "enrolment", fields, statement_bytes(fields))
    signed = statement_bytes(STATEMENT) + SIGNATURE
    cases.append(ok("a signed statement", "split_enrolment", signed, SIGNATURE))
    cases.append(bad("a short signature", "split_enrolment", signed[:-1], "enrolment_length"))
    for name, name_bytes in BAD_NAMES:
        data = statement_bytes({**STATEMENT, "meter_id": name_bytes})
        cases.append(bad(name, "decode_enrolment", data, "meter_id"))
    for name, changes, error in (
        ("kind 0", {"kind": 0}, "enrolment_kind"),
        ("kind 5", {"kind": 5}, "enrolment_kind"),
        ("measurement 0", {"measurement": 0}, "enrolment_measurement"),
        ("measurement 3", {"measurement": 3}, "enrolment_measurement"),
        ("epoch 0", {"key_epoch": 0}, "enrolment_epoch"),
        ("epoch 2^31", {"key_epoch": 2**31}, "enrolment_epoch"),
        ("a flag of tomorrow", {"flags": 4}, "enrolment_flags"),
        ("the last flag", {"flags": 0x8000}, "enrolment_flags"),
        ("a first key for a replaced meter", {"flags": 2}, "enrolment_flags"),
        ("production beyond 2^53 - 1", {"production_wh": MAX_53 + 1}, "enrolment_counter"),
        ("consumption beyond 2^53 - 1", {"consumption_wh": MAX_53 + 1}, "enrolment_counter"),
        ("surplus beyond production", {"surplus_wh": 15_001}, "enrolment_counter"),
        ("before 2020", {"valid_from_unix_s": YEAR_2020 - 1}, "enrolment_time"),
        ("after 2100", {"valid_from_unix_s": YEAR_2100 + 1}, "enrolment_time"),
    ):
        fields = {**STATEMENT, **changes}
        cases.append(bad(name, "encode_enrolment", fields, error))
        cases.append(bad(name, "decode_enrolment", statement_bytes(fields), error))
    good = statement_bytes(STATEMENT)
    for name, data, error in (
        ("a byte short", good[:-1], "enrolment_length"),
        ("a byte long", good + b"\0", "enrolment_length"),
        ("another version", statement_bytes(STATEMENT, b"CWE2"), "enrolment_magic"),
    ):
        cases.append(bad(name, "decode_enrolment", data, error))
    for name, changes, error in (
        ("33 letters", {"meter_id": "a" * 33}, "meter_id"),
        ("a domain of 9 bytes", {"domain": bytes(9)}, "enrolment_domain"),
        ("an owner of 31 bytes", {"owner": bytes(31)}, "enrolment_key"),
        ("a key of 33 bytes", {"public_key": bytes(33)}, "enrolment_key"),
        ("a hash of 31 bytes", {"last_seal_hash": bytes(31)}, "enrolment_hash"),
    ):
        cases.append(bad(name, "encode_enrolment", {**STATEMENT, **changes}, error))
    return cases


ROTATED: Fields = {**STATEMENT, "key_epoch": 2, "last_seal_hash": HASH}
ENDORSEMENT = hashlib.sha512(b"stands for another signature").digest()


def rotation_cases() -> list[Case]:
    """Statements for a next epoch with two signatures."""
    cases = []
    good = statement_bytes(ROTATED) + SIGNATURE + ENDORSEMENT
    for name, changes in {
        "the second key": {},
        "the last key": {"key_epoch": 2**31 - 1},
        "a key before the first seal": {"last_seal_hash": ZEROS},
        "another meter": {"flags": 2},
    }.items():
        fields = {**ROTATED, **changes}
        data = statement_bytes(fields) + SIGNATURE + ENDORSEMENT
        parts = {"statement": statement_bytes(fields), "signature": SIGNATURE, "endorsement": ENDORSEMENT}
        cases.append(ok(name, "join_rotation", parts, data))
        cases.append(ok(name, "decode_rotation", data, {**fields, "signature": SIGNATURE, "endorsement": ENDORSEMENT}))
    first = {**STATEMENT, "last_seal_hash": ZEROS}
    for name, data, error in (
        ("nothing", b"", "rotation_length"),
        ("a byte short", good[:-1], "rotation_length"),
        ("a byte long", good + b"\0", "rotation_length"),
        ("without an endorsement", good[:244], "rotation_length"),
        ("a first key", statement_bytes(first) + SIGNATURE + ENDORSEMENT, "rotation_epoch"),
        ("another version", statement_bytes(ROTATED, b"CWE2") + SIGNATURE + ENDORSEMENT, "enrolment_magic"),
        ("a flag of tomorrow", statement_bytes({**ROTATED, "flags": 4}) + SIGNATURE + ENDORSEMENT, "enrolment_flags"),
        ("a bad name", statement_bytes({**ROTATED, "meter_id": b"Roof"}) + SIGNATURE + ENDORSEMENT, "meter_id"),
    ):
        cases.append(bad(name, "decode_rotation", data, error))
    parts = {"statement": statement_bytes(ROTATED), "signature": SIGNATURE, "endorsement": ENDORSEMENT}
    for name, changed, error in (
        ("a short signature", {"signature": SIGNATURE[:-1]}, "rotation_length"),
        ("no endorsement", {"endorsement": b""}, "rotation_length"),
        ("a first key", {"statement": statement_bytes(first)}, "rotation_epoch"),
        ("half a statement", {"statement": statement_bytes(ROTATED)[:90]}, "enrolment_length"),
    ):
        cases.append(bad(name, "join_rotation", {**parts, **changed}, error))
    return cases


REPLACEMENT: Fields = {
    "domain": DOMAIN,
    "meter_id": METER,
    "key_epoch": 2,
    "register": 1,
    "at_unix_s": NOON,
    "final_wh": 48_210_700,
    "initial_wh": 12,
    "old_serial": "SDM630-21034477",
    "new_serial": "SDM630-25110021",
}


def replacement_bytes(fields: Fields, magic: bytes = b"CWR1") -> bytes:
    """108 bytes, little-endian, and a signature. Names and serials may be bytes."""
    name, old, new = (
        value if isinstance(value, bytes) else value.encode()
        for value in (fields["meter_id"], fields["old_serial"], fields["new_serial"])
    )
    out = magic + fields["domain"] + name + bytes(32 - len(name))
    out += struct.pack("<II", fields["key_epoch"], fields["register"])
    out += struct.pack("<qQQ", fields["at_unix_s"], fields["final_wh"], fields["initial_wh"])
    return bytes(out + old + bytes(16 - len(old)) + new + bytes(16 - len(new)) + SIGNATURE)


def replacement_cases() -> list[Case]:
    """Records of exchanged meters."""
    cases = []
    for name, changes in {
        "a generation meter": {},
        "a grid meter, import": {"register": 2, "final_wh": 0, "initial_wh": 0},
        "a grid meter, export": {"register": 3, "old_serial": "7", "new_serial": "no. 8 / B"},
        "everything greatest": {"key_epoch": 2**31 - 1, "at_unix_s": YEAR_2100, "final_wh": MAX_53}
        | {"initial_wh": MAX_53, "old_serial": "~" * 16, "new_serial": "~" * 16},
    }.items():
        fields = {**REPLACEMENT, **changes}
        data = replacement_bytes(fields)
        cases.append(ok(name, "encode_replacement", fields, data[:108]))
        cases.append(ok(name, "decode_replacement", data, fields))
    for name, name_bytes in BAD_NAMES:
        data = replacement_bytes({**REPLACEMENT, "meter_id": name_bytes})
        cases.append(bad(name, "decode_replacement", data, "meter_id"))
    for name, changes, error in (
        ("the first epoch", {"key_epoch": 1}, "replacement_epoch"),
        ("epoch 2^31", {"key_epoch": 2**31}, "replacement_epoch"),
        ("register 0", {"register": 0}, "replacement_register"),
        ("register 4", {"register": 4}, "replacement_register"),
        ("before 2020", {"at_unix_s": YEAR_2020 - 1}, "replacement_time"),
        ("after 2100", {"at_unix_s": YEAR_2100 + 1}, "replacement_time"),
        ("a last value beyond 2^53 - 1", {"final_wh": MAX_53 + 1}, "replacement_counter"),
        ("a first value beyond 2^53 - 1", {"initial_wh": MAX_53 + 1}, "replacement_counter"),
        ("no old serial", {"old_serial": ""}, "replacement_serial"),
        ("no new serial", {"new_serial": ""}, "replacement_serial"),
        ("a serial with a line break", {"new_serial": "7\n8"}, "replacement_serial"),
    ):
        fields = {**REPLACEMENT, **changes}
        cases.append(bad(name, "encode_replacement", fields, error))
        cases.append(bad(name, "decode_replacement", replacement_bytes(fields), error))
    for name, serial in (
        ("a serial with a zero inside", b"7\x008"),
        ("a serial that is not ASCII", "Zähler".encode()),
        ("a serial that is not even UTF-8", b"\xff\xfe"),
        ("a serial with a delete", b"7\x7f"),
    ):
        for which in ("old", "new"):
            data = replacement_bytes({**REPLACEMENT, f"{which}_serial": serial})
            cases.append(bad(f"{name}, {which}", "decode_replacement", data, "replacement_serial"))
    good = replacement_bytes(REPLACEMENT)
    cases.append(bad("a byte short", "decode_replacement", good[:-1], "replacement_length"))
    cases.append(bad("without a signature", "decode_replacement", good[:108], "replacement_length"))
    other = replacement_bytes(REPLACEMENT, b"CWR2")
    cases.append(bad("another version", "decode_replacement", other, "replacement_magic"))
    for name, changes, error in (
        ("a domain of 7 bytes", {"domain": bytes(7)}, "replacement_domain"),
        ("a serial of 17 letters", {"old_serial": "7" * 17}, "replacement_serial"),
        ("a serial with an umlaut", {"old_serial": "Zähler"}, "replacement_serial"),
        ("33 letters", {"meter_id": "a" * 33}, "meter_id"),
    ):
        cases.append(bad(name, "encode_replacement", {**REPLACEMENT, **changes}, error))
    return cases


CREDENTIAL: Fields = {
    "domain": DOMAIN,
    "meter_id": METER,
    "key_epoch": 1,
    "at_unix_s": NOON,
    "nonce": HASH[:16],
}


def credential_bytes(fields: Fields, magic: bytes = b"CWP1") -> bytes:
    """72 bytes, little-endian, and a signature."""
    name = fields["meter_id"]
    name = name if isinstance(name, bytes) else name.encode()
    out = magic + fields["domain"] + name + bytes(32 - len(name))
    return bytes(out + struct.pack("<Iq", fields["key_epoch"], fields["at_unix_s"]) + fields["nonce"] + SIGNATURE)


def credential_cases() -> list[Case]:
    """Requests for the broker password."""
    cases = []
    for name, changes in {
        "the first key": {},
        "the last key": {"key_epoch": 2**31 - 1, "at_unix_s": YEAR_2100, "meter_id": "a" * 32},
        "a nonce of zeros": {"nonce": bytes(16)},
    }.items():
        fields = {**CREDENTIAL, **changes}
        data = credential_bytes(fields)
        cases.append(ok(name, "encode_credential", fields, data[:72]))
        cases.append(ok(name, "decode_credential", data, fields))
    for name, name_bytes in BAD_NAMES:
        cases.append(
            bad(name, "decode_credential", credential_bytes({**CREDENTIAL, "meter_id": name_bytes}), "meter_id")
        )
    for name, changes, error in (
        ("epoch 0", {"key_epoch": 0}, "credential_epoch"),
        ("epoch 2^31", {"key_epoch": 2**31}, "credential_epoch"),
        ("before 2020", {"at_unix_s": YEAR_2020 - 1}, "credential_time"),
        ("after 2100", {"at_unix_s": YEAR_2100 + 1}, "credential_time"),
    ):
        fields = {**CREDENTIAL, **changes}
        cases.append(bad(name, "encode_credential", fields, error))
        cases.append(bad(name, "decode_credential", credential_bytes(fields), error))
    good = credential_bytes(CREDENTIAL)
    cases.append(bad("a byte short", "decode_credential", good[:-1], "credential_length"))
    cases.append(bad("without a signature", "decode_credential", good[:72], "credential_length"))
    cases.append(bad("another version", "decode_credential", credential_bytes(CREDENTIAL, b"CWP2"), "credential_magic"))
    for name, changes, error in (
        ("a domain of 9 bytes", {"domain": bytes(9)}, "credential_domain"),
        ("a nonce of 15 bytes", {"nonce": bytes(15)}, "credential_nonce"),
    ):
        cases.append(bad(name, "encode_credential", {**CREDENTIAL, **changes}, error))
    return cases


COMMAND: Fields = {
    "domain": DOMAIN,
    "meter_id": METER,
    "counter": 1,
    "expires_at_unix_s": NOON,
    "kind": 1,
    "first": 60,
    "last": 900,
}


def command_bytes(fields: Fields, magic: bytes = b"CWC1") -> bytes:
    """80 bytes, little-endian, and a signature."""
    name = fields["meter_id"]
    name = name if isinstance(name, bytes) else name.encode()
    numbers = (fields["counter"], fields["expires_at_unix_s"], fields["kind"], fields["first"], fields["last"])
    return magic + fields["domain"] + name + bytes(32 - len(name)) + struct.pack("<QqIQQ", *numbers) + SIGNATURE


def command_cases() -> list[Case]:
    """Orders."""
    cases = []
    for name, changes in {
        "a reading a minute": {},
        "live mode": {"first": 1, "last": 0},
        "the slowest": {"first": 900, "last": 86_400},
        "send again": {"kind": 2, "first": 3, "last": 3},
        "send everything again": {"kind": 2, "first": 1, "last": MAX_53},
        "start again": {"kind": 3, "first": 0, "last": 0, "counter": MAX_53, "expires_at_unix_s": YEAR_2100},
    }.items():
        fields = {**COMMAND, **changes}
        data = command_bytes(fields)
        cases.append(ok(name, "encode_command", fields, data[:80]))
        cases.append(ok(name, "decode_command", data, fields))
    for name, name_bytes in BAD_NAMES:
        cases.append(bad(name, "decode_command", command_bytes({**COMMAND, "meter_id": name_bytes}), "meter_id"))
    for name, changes, error in (
        ("counter 0", {"counter": 0}, "command_counter"),
        ("counter beyond 2^53 - 1", {"counter": MAX_53 + 1}, "command_counter"),
        ("expired before 2020", {"expires_at_unix_s": YEAR_2020 - 1}, "command_expiry"),
        ("never expires", {"expires_at_unix_s": 2**63 - 1}, "command_expiry"),
        ("kind 0", {"kind": 0}, "command_kind"),
        ("kind 4", {"kind": 4}, "command_kind"),
        ("no interval", {"first": 0}, "command_arguments"),
        ("too slow to read", {"first": 901, "last": 901}, "command_arguments"),
        ("sealed more often than read", {"last": 59}, "command_arguments"),
        ("too slow to seal", {"last": 86_401}, "command_arguments"),
        ("send sequence 0 again", {"kind": 2, "first": 0, "last": 1}, "command_arguments"),
        ("send nothing again", {"kind": 2, "first": 2, "last": 1}, "command_arguments"),
        ("send again beyond 2^53 - 1", {"kind": 2, "first": 1, "last": MAX_53 + 1}, "command_arguments"),
        ("start again with an argument", {"kind": 3, "first": 0, "last": 1}, "command_arguments"),
    ):
        fields = {**COMMAND, **changes}
        cases.append(bad(name, "encode_command", fields, error))
        cases.append(bad(name, "decode_command", command_bytes(fields), error))
    good = command_bytes(COMMAND)
    cases.append(bad("a byte short", "decode_command", good[:-1], "command_length"))
    cases.append(bad("without a signature", "decode_command", good[:80], "command_length"))
    cases.append(bad("another version", "decode_command", command_bytes(COMMAND, b"CWC2"), "command_magic"))
    cases.append(bad("a domain of 7 bytes", "encode_command", {**COMMAND, "domain": bytes(7)}, "command_domain"))
    return cases


def committed_cases() -> list[Case]:
    """Receipts: epoch, contiguous sequence, its hash, ranges beyond."""
    cases = []
    for name, epoch, contiguous, hash_, ranges in (
        ("nothing yet", 1, 0, None, []),
        ("one seal", 1, 1, HASH, []),
        ("islands", 3, 5, HASH, [[7, 7], [9, 12]]),
        ("islands alone", 1, 0, None, [[2, 2]]),
        ("sixty-four islands", 1, 1, HASH, [[2 * n + 3, 2 * n + 3] for n in range(64)]),
        ("everything greatest", 2**31 - 1, MAX_53 - 2, HASH, [[MAX_53, MAX_53]]),
    ):
        fields = {"key_epoch": epoch, "contiguous_sequence": contiguous}
        fields |= {"contiguous_seal_hash": hash_, "ranges": ranges}
        cases += both(name, "committed", fields, mp([epoch, contiguous, hash_, ranges]))
    for name, value, error in (
        ("no array", 5, "committed_shape"),
        ("nil", None, "committed_shape"),
        ("three fields", [1, 0, None], "committed_shape"),
        ("five fields", [1, 0, None, [], 0], "committed_shape"),
        ("epoch 0", [0, 0, None, []], "committed_epoch"),
        ("epoch 2^31", [2**31, 0, None, []], "committed_epoch"),
        ("epoch nil", [None, 0, None, []], "committed_epoch"),
        ("a negative sequence", [1, -1, HASH, []], "committed_sequence"),
        ("a sequence beyond 2^53 - 1", [1, MAX_53 + 1, HASH, []], "committed_sequence"),
        ("a sequence of bytes", [1, b"\1", HASH, []], "committed_sequence"),
        ("a hash of nothing", [1, 0, HASH, []], "committed_hash"),
        ("no hash", [1, 1, None, []], "committed_hash"),
        ("a short hash", [1, 1, HASH[:31], []], "committed_hash"),
        ("a hash that is a number", [1, 1, 7, []], "committed_hash"),
        ("no ranges", [1, 1, HASH, None], "committed_ranges"),
        ("sixty-five ranges", [1, 1, HASH, [[2 * n + 3, 2 * n + 3] for n in range(65)]], "committed_ranges"),
        ("a range of one number", [1, 1, HASH, [[3]]], "committed_ranges"),
        ("a range of nil", [1, 1, HASH, [[None, 3]]], "committed_ranges"),
        ("a range that is a number", [1, 1, HASH, [3]], "committed_ranges"),
        ("a range backwards", [1, 1, HASH, [[5, 4]]], "committed_ranges"),
        ("a range inside what is contiguous", [1, 5, HASH, [[5, 6]]], "committed_ranges"),
        ("ranges that overlap", [1, 1, HASH, [[3, 5], [5, 6]]], "committed_ranges"),
        ("ranges out of order", [1, 1, HASH, [[7, 8], [3, 4]]], "committed_ranges"),
        ("a range beyond 2^53 - 1", [1, 1, HASH, [[3, MAX_53 + 1]]], "committed_ranges"),
    ):
        cases.append(bad(name, "decode_committed", mp(value), error))
    cases.append(bad("nothing", "decode_committed", b"", "msgpack_truncated"))
    return cases


# --- topics and domains -------------------------------------------------------------------------------------------


def topic_cases() -> list[Case]:
    """Names, shards, topics and domains."""
    shard = hashlib.sha256(METER.encode()).digest()[0] % 16
    cases = []
    for channel in ("seals", "committed", "status", "commands"):
        topic = f"commonwatt/v1/{COMMUNITY}/{shard}/{METER}/{channel}"
        cases.append(ok(channel, "parse_topic", topic, [COMMUNITY, shard, METER, channel]))
        cases.append(ok(channel, "topic", [COMMUNITY, METER, channel], topic))
    for name, topic, error in (
        ("nothing", "", "topic"),
        ("another version", f"commonwatt/v2/{COMMUNITY}/{shard}/{METER}/seals", "topic"),
        ("another channel", f"commonwatt/v1/{COMMUNITY}/{shard}/{METER}/secrets", "topic"),
        ("a level too many", f"commonwatt/v1/{COMMUNITY}/{shard}/{METER}/seals/x", "topic"),
        ("a level too few", f"commonwatt/v1/{COMMUNITY}/{METER}/seals", "topic"),
        ("another shard", f"commonwatt/v1/{COMMUNITY}/{(shard + 1) % 16}/{METER}/seals", "topic_shard"),
        ("a shard with a zero before", f"commonwatt/v1/{COMMUNITY}/0{shard}/{METER}/seals", "topic_shard"),
        ("a bad community", f"commonwatt/v1/Sonnenhof/{shard}/{METER}/seals", "community_id"),
        ("a bad meter", f"commonwatt/v1/{COMMUNITY}/{shard}/Roof/seals", "meter_id"),
        ("a meter that calls itself the hub", f"commonwatt/v1/{COMMUNITY}/{shard}/hub-3/seals", "meter_id"),
    ):
        cases.append(bad(name, "parse_topic", topic, error))
    for name in ("a", "roof-7", "a" * 32, "0", "meter-00001"):
        cases.append(ok(name, "shard_of", name, hashlib.sha256(name.encode()).digest()[0] % 16))
    chain, program = HASH, hashlib.sha256(b"a program").digest()
    cases.append(ok("no chain", "domain_of", [COMMUNITY, b"", b""], DOMAIN))
    with_chain = hashlib.sha256(COMMUNITY.encode() + chain + program).digest()[:8]
    cases.append(ok("a chain", "domain_of", [COMMUNITY, chain, program], with_chain))
    cases.append(bad("half a chain", "domain_of", [COMMUNITY, chain, b""], "domain"))
    cases.append(bad("a short program id", "domain_of", [COMMUNITY, chain, program[:31]], "domain"))
    cases.append(bad("a bad community", "domain_of", ["", b"", b""], "community_id"))
    return cases


# --- netting ------------------------------------------------------------------------------------------------------


def settlement_cases() -> list[Case]:
    """Readings (second after noon, production Wh, consumption Wh) and what is closed after them.

    Given: the start (closed until, production, consumption, surplus), then the readings.
    """
    start = [NOON, 1_000, 500, 300]
    cases = []
    for name, readings, result in (
        ("an open interval adds nothing", [[600, 1_100, 500]], [NOON, 1_000, 500, 300]),
        ("a reading on the boundary closes", [[900, 1_100, 540]], [NOON + 900, 1_100, 540, 360]),
        (
            "a reading after it closes with the last before",
            [[600, 1_100, 540], [901, 1_200, 541]],
            [NOON + 900, 1_100, 540, 360],
        ),
        ("what is consumed is no surplus", [[900, 1_100, 700]], [NOON + 900, 1_100, 700, 300]),
        ("a deficit is not carried over", [[900, 1_000, 700], [1_800, 1_050, 700]], [NOON + 1_800, 1_050, 700, 350]),
        ("there and back within an interval", [[300, 1_100, 500], [900, 1_100, 600]], [NOON + 900, 1_100, 600, 300]),
        (
            "hours without a reading net as one",
            [[900, 1_100, 500], [9_000, 1_200, 700]],
            [NOON + 9_000, 1_200, 700, 400],
        ),
        (
            "after a gap the next reading opens its own interval",
            [[900, 1_100, 500], [9_100, 1_200, 600]],
            [NOON + 9_000, 1_100, 500, 400],
        ),
        ("no reading, nothing closed", [], [NOON, 1_000, 500, 300]),
    ):
        moved = [[NOON + second, production, consumption] for second, production, consumption in readings]
        cases.append(ok(name, "netting", [start, moved], result))
    for second, end in ((0, 0), (1, 900), (899, 900), (900, 900), (901, 1_800)):
        cases.append(ok(f"second {second}", "interval_end", NOON + second, NOON + end))
    for second, floor in ((0, 0), (1, 0), (899, 0), (900, 900)):
        cases.append(ok(f"second {second}", "first_closed_until", NOON + second, NOON + floor))
    return cases


FILES = {
    "msgpack.json": msgpack_cases,
    "seals.json": seal_cases,
    "messages.json": message_cases,
    "readings.json": readings_cases,
    "enrolments.json": enrolment_cases,
    "rotations.json": rotation_cases,
    "replacements.json": replacement_cases,
    "credentials.json": credential_cases,
    "commands.json": command_cases,
    "committed.json": committed_cases,
    "topics.json": topic_cases,
    "settlement.json": settlement_cases,
}


def text_of(cases: list[Case]) -> str:
    """The file: one case a line."""
    return "[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]\n"


def main() -> None:
    """Write every file beside this script."""
    here = Path(__file__).parent
    sys.path.insert(0, str(here))
    import make_ed25519

    for name, make in {**FILES, "ed25519.json": make_ed25519.cases}.items():
        (here / name).write_text(text_of(make()), encoding="utf-8")


if __name__ == "__main__":
    main()
