"""Runs one file of golden vectors, on CPython and on MicroPython alike: no pytest, no library but the protocol.

    micropython tests/protocol/check_vectors_micropython.py <repository> <vector file>…

Prints one line per case that fails and ends with status 1, or prints how many cases passed.
"""

import json
import sys

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])

from protocol import (
    command,
    committed,
    credential,
    enrolment,
    msgpack,
    readings,
    replacement,
    rotation,
    seal,
    settlement,
    topics,
)
from protocol.errors import ProtocolError

SEAL_FIELDS = (
    "domain", "sequence", "sealed_at_unix_s", "closed_until_unix_s", "production_wh", "consumption_wh",
    "surplus_wh", "previous_seal_hash", "readings_hash",
)  # fmt: skip
ENROLMENT_FIELDS = (
    "domain", "meter_id", "kind", "measurement", "key_epoch", "owner", "public_key", "production_wh",
    "consumption_wh", "surplus_wh", "valid_from_unix_s", "last_seal_hash", "flags",
)  # fmt: skip
REPLACEMENT_FIELDS = (
    "domain", "meter_id", "key_epoch", "register", "at_unix_s", "final_wh", "initial_wh", "old_serial", "new_serial",
)  # fmt: skip
CREDENTIAL_FIELDS = ("domain", "meter_id", "key_epoch", "at_unix_s", "nonce")
COMMAND_FIELDS = ("domain", "meter_id", "counter", "expires_at_unix_s", "kind", "first", "last")
COMMITTED_FIELDS = ("key_epoch", "contiguous_sequence", "contiguous_seal_hash", "ranges")
BYTES_FIELDS = (
    "domain", "previous_seal_hash", "readings_hash", "owner", "public_key", "last_seal_hash",
    "contiguous_seal_hash", "seal", "signature", "section", "nonce", "statement", "endorsement",
)  # fmt: skip
READING_FIELDS = (
    "time_unix_s", "production_wh", "consumption_wh", "power_w", "voltage_dv", "frequency_mhz", "flags",
)  # fmt: skip


def from_hex(text):
    """Bytes from hexadecimal with `+n` for n zero bytes at the end."""
    parts = text.split("+")
    return bytes.fromhex(parts[0]) + bytes(int(parts[1]) if len(parts) > 1 else 0)


def arguments(fields, names):
    """The values of a JSON object in the order of a constructor."""
    return [
        from_hex(fields[name]) if name in BYTES_FIELDS and fields[name] is not None else fields[name] for name in names
    ]


def as_fields(thing, names):
    """The attributes of an object as the JSON has them."""
    values = {name: getattr(thing, name) for name in names}
    for name in names:
        if name in BYTES_FIELDS and values[name] is not None:
            values[name] = values[name].hex()
    return values


def _decode_message(given):
    message = seal.split_message(given)
    return {
        "seal": message.seal_bytes.hex(),
        "signature": message.signature.hex(),
        "section": message.section,
    }


def _decode_readings(given):
    return [[getattr(each, name) for name in READING_FIELDS] for each in readings.decode_readings(given)]


def _decode_committed(given):
    receipt = committed.decode_committed(given)
    receipt.ranges = [list(pair) for pair in receipt.ranges]
    return as_fields(receipt, COMMITTED_FIELDS)


def _decode_rotation(given):
    statement, _, signature, endorsement = rotation.split_rotation(given)
    fields = as_fields(statement, ENROLMENT_FIELDS)
    fields["signature"], fields["endorsement"] = signature.hex(), endorsement.hex()
    return fields


def _netting(given):
    closed_until, production, consumption, surplus = given[0]
    state = settlement.Netting(closed_until, production, consumption, surplus, production, consumption)
    for each in given[1]:
        state.add(*each)
    return [state.closed_until_unix_s, state.production_wh, state.consumption_wh, state.surplus_wh]


DECODERS = {
    "decode_msgpack": msgpack.unpack,
    "decode_msgpack_bytes": msgpack.unpack,
    "decode_seal": lambda given: as_fields(seal.decode_seal(given), SEAL_FIELDS),
    "seal_hash": seal.seal_hash,
    "decode_message": _decode_message,
    "decode_readings": _decode_readings,
    "decode_enrolment": lambda given: as_fields(enrolment.decode_enrolment(given), ENROLMENT_FIELDS),
    "split_enrolment": lambda given: enrolment.split_enrolment(given)[2],
    "decode_rotation": _decode_rotation,
    "decode_replacement": lambda given: as_fields(replacement.split_replacement(given)[0], REPLACEMENT_FIELDS),
    "decode_credential": lambda given: as_fields(credential.split_credential_request(given)[0], CREDENTIAL_FIELDS),
    "decode_command": lambda given: as_fields(command.split_command(given)[0], COMMAND_FIELDS),
    "decode_committed": _decode_committed,
}
"""From bytes."""

OPERATIONS = {
    "encode_msgpack": msgpack.pack,
    "encode_seal": lambda given: seal.encode_seal(seal.Seal(*arguments(given, SEAL_FIELDS))),
    "encode_message": lambda given: seal.join_message(*arguments(given, ("seal", "signature", "section"))),
    "encode_readings": lambda given: readings.encode_readings([readings.Reading(*each) for each in given]),
    "encode_enrolment": lambda given: enrolment.encode_enrolment(
        enrolment.Enrolment(*arguments(given, ENROLMENT_FIELDS))
    ),
    "join_rotation": lambda given: rotation.join_rotation(*arguments(given, ("statement", "signature", "endorsement"))),
    "encode_replacement": lambda given: replacement.encode_replacement(
        replacement.Replacement(*arguments(given, REPLACEMENT_FIELDS))
    ),
    "encode_credential": lambda given: credential.encode_credential_request(
        credential.CredentialRequest(*arguments(given, CREDENTIAL_FIELDS))
    ),
    "encode_command": lambda given: command.encode_command(command.Command(*arguments(given, COMMAND_FIELDS))),
    "encode_committed": lambda given: committed.encode_committed(
        committed.Committed(*arguments(given, COMMITTED_FIELDS))
    ),
    "parse_topic": lambda given: list(topics.parse_topic(given)),
    "topic": lambda given: topics.topic(*given),
    "shard_of": topics.shard_of,
    "domain_of": lambda given: topics.domain_of(given[0], from_hex(given[1]), from_hex(given[2])),
    "netting": _netting,
    "interval_end": settlement.interval_end,
    "first_closed_until": settlement.first_closed_until,
}
"""From JSON."""


def outcome(case):
    """What the protocol makes of a case: {"result": …} or {"error": code}."""
    operation, given = case["operation"], case["given"]
    try:
        if operation in DECODERS:
            return {"result": DECODERS[operation](from_hex(given))}
        return {"result": OPERATIONS[operation](given)}
    except ProtocolError as error:
        return {"error": error.code}


def passes(case):
    """Whether the protocol does what the case says."""
    found = outcome(case)
    if "error" in case or "error" in found:
        return found.get("error") == case.get("error")
    expected, result = case["result"], found["result"]
    if isinstance(result, bytes):
        return isinstance(expected, str) and result == from_hex(expected)
    if isinstance(result, dict) and isinstance(result.get("section"), bytes):
        return result == dict(expected, section=from_hex(expected["section"]))
    return result == expected


def main(paths):
    """Check every file; the exit status."""
    failed = count = 0
    for path in paths:
        with open(path) as file:  # noqa: PTH123 (MicroPython has no pathlib)
            cases = json.load(file)
        for case in cases:
            count += 1
            if not passes(case):
                failed += 1
                print(path, case["operation"], case["name"], outcome(case))
    print(f"{count - failed} of {count} cases passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
