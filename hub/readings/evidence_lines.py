"""The lines of an evidence file: what a meter signed, byte for byte, for whoever does not want to believe this hub.

The format is public: a header line, then a line per seal in sequence order, and before the seals of each further key a
line with its rotation. `commonwatt verify` reads it offline.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from sqlalchemy import Engine

from hub.api_types import iso
from hub.db import transaction
from hub.readings import queries
from hub.registry.keys_store import MeterKey
from hub.settings import Settings

FORMAT = "commonwatt-evidence/1"
FORMAT_OF_SEVERAL_KEYS = "commonwatt-evidence/2"
MEDIA_TYPE = "application/x-ndjson"
SEALS_PER_PAGE = 100
"""At most 3 MB of messages at a time, whatever the length of the export."""


def deployment_fields(settings: Settings) -> dict[str, object]:
    """What every header says of where its seals are good."""
    return {
        "community_id": settings.community_id,
        "genesis_hash": bytes.fromhex(settings.genesis_hash_hex).hex(),
        "program_id": bytes.fromhex(settings.program_id_hex).hex(),
    }


def header_line(
    settings: Settings,
    meter_id: str,
    key: MeterKey,
    from_sequence: int,
    to_sequence: int,
    evidence_format: str = FORMAT,
) -> bytes:
    """The first line: whose evidence, which sequences of which key, and that key's own statement."""
    return line(
        {
            "format": evidence_format,
            **deployment_fields(settings),
            "domain": settings.domain.hex(),
            "meter_id": meter_id,
            "key_epoch": key.key_epoch,
            "from_sequence": from_sequence,
            "to_sequence": to_sequence,
            "enrolment": (key.statement + key.signature).hex(),
        }
    )


def rotation_of(key: MeterKey) -> bytes:
    """The rotation to a key, byte for byte as it was handed in."""
    assert key.endorsement is not None, "every key but the first was endorsed"
    return key.statement + key.signature + key.endorsement


def key_line(key: MeterKey, exchanges: list[bytes], last: int) -> bytes:
    """What stands before the seals of a key that took over."""
    return line(
        {
            "key_epoch": key.key_epoch,
            "rotation": rotation_of(key).hex(),
            "replacements": [record.hex() for record in exchanges],
            "to_sequence": last,
        }
    )


def seal_pages(engine: Engine, meter_no: int, key_epoch: int, first: int, last: int) -> Iterator[bytes]:
    """The seals' lines. Each page is a transaction of its own, so that a slow reader holds no connection."""
    while first <= last:
        with transaction(engine) as connection:
            seals = queries.list_evidence(connection, meter_no, key_epoch, first, last, SEALS_PER_PAGE)
        yield b"".join(
            line(
                {
                    "sequence": seal.sequence,
                    "state": seal.state,
                    "received_at": iso(seal.received_at),
                    "message": seal.message.hex(),
                }
            )
            for seal in seals
        )
        first = seals[-1].sequence + 1 if len(seals) == SEALS_PER_PAGE else last + 1


def line(fields: Mapping[str, object]) -> bytes:
    """One line."""
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"
