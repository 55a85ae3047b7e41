"""HTTP for the evidence of a meter as one file, for whoever does not want to believe this hub.

The format is public: a header line, then a line per seal in sequence order, and before the seals of each further key a
line with its rotation. `commonwatt verify` reads it offline.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from hub.api_types import MeterPath, Parameters, iso, refusals
from hub.db import transaction
from hub.dependencies import Hub, TheHub
from hub.errors import MalformedInput, MeterKeyNotFound
from hub.readings import queries
from hub.readings.answers import EVIDENCE_LINES
from hub.registry import keys_service
from hub.registry import service as registry
from hub.registry.keys_store import MeterKey
from protocol.limits import KEY_EPOCH_MAX, SEQUENCE_MAX

FORMAT = "commonwatt-evidence/1"
FORMAT_OF_SEVERAL_KEYS = "commonwatt-evidence/2"
MEDIA_TYPE = "application/x-ndjson"
SEALS_PER_PAGE = 100
"""At most 3 MB of messages at a time, whatever the length of the export."""

router = APIRouter(tags=["readings"])


class EvidenceQuery(Parameters):
    """Everything unless told; or inclusive sequences of one key epoch, the current one unless told."""

    from_sequence: int | None = Field(default=None, ge=1, le=SEQUENCE_MAX)
    to_sequence: int | None = Field(default=None, ge=1, le=SEQUENCE_MAX)
    key_epoch: int | None = Field(default=None, ge=1, le=KEY_EPOCH_MAX)


@router.get(
    "/meters/{meter_id}/evidence", response_class=Response, responses=EVIDENCE_LINES | refusals(MeterKeyNotFound)
)
def export_evidence(meter_id: MeterPath, query: Annotated[EvidenceQuery, Query()], hub: TheHub) -> Response:
    """Enrolment, rotations and messages, byte for byte as the meter signed them, whatever became of them.

    The header's `to_sequence` is the highest that is stored now, so a file that was cut off is seen to be.
    """
    from_sequence, to_sequence = query.from_sequence or 1, query.to_sequence or SEQUENCE_MAX
    if from_sequence > to_sequence:
        raise MalformedInput("from_sequence, to_sequence: the range is empty")
    everything = query.key_epoch is query.from_sequence is query.to_sequence is None
    with transaction(hub.engine) as connection:
        meter = registry.get_meter(connection, meter_id)
        keys = keys_service.list_keys(connection, meter.meter_no)
        if not everything:
            keys = [keys_service.find_key(keys, query.key_epoch or meter.key_epoch)]
        exchanges = keys_service.list_exchanges(connection, meter.meter_no)
        lasts = [
            min(to_sequence, queries.get_progress(connection, meter.meter_no, key.key_epoch).highest_sequence)
            for key in keys
        ]
    header = {
        "format": FORMAT if len(keys) == 1 else FORMAT_OF_SEVERAL_KEYS,
        "community_id": hub.settings.community_id,
        "genesis_hash": bytes.fromhex(hub.settings.genesis_hash_hex).hex(),
        "program_id": bytes.fromhex(hub.settings.program_id_hex).hex(),
        "domain": hub.settings.domain.hex(),
        "meter_id": meter_id,
        "key_epoch": keys[0].key_epoch,
        "from_sequence": from_sequence,
        "to_sequence": lasts[0],
        "enrolment": (keys[0].statement + keys[0].signature).hex(),
    }
    pages = _pages(hub, meter.meter_no, keys[0].key_epoch, from_sequence, lasts[0])
    first_page = next(pages, b"")  # a database that is away is still told in the status
    parts = [chain([_line(header) + first_page], pages)]
    for key, last in zip(keys[1:], lasts[1:], strict=True):
        key_line = _key_line(key, exchanges.get(key.key_epoch, []), last)
        parts.append(chain([key_line], _pages(hub, meter.meter_no, key.key_epoch, 1, last)))
    span = "all" if len(keys) > 1 else f"{keys[0].key_epoch}-{from_sequence}-{lasts[0]}"
    return StreamingResponse(
        chain.from_iterable(parts),
        media_type=MEDIA_TYPE,
        headers={"Content-Disposition": f'attachment; filename="{meter_id}-{span}.evidence.ndjson"'},
    )


def _key_line(key: MeterKey, exchanges: list[bytes], last: int) -> bytes:
    """What stands before the seals of a key that took over: its rotation, byte for byte as it was handed in."""
    assert key.endorsement is not None, "every key but the first was endorsed"
    return _line(
        {
            "key_epoch": key.key_epoch,
            "rotation": (key.statement + key.signature + key.endorsement).hex(),
            "replacements": [record.hex() for record in exchanges],
            "to_sequence": last,
        }
    )


def _pages(hub: Hub, meter_no: int, key_epoch: int, first: int, last: int) -> Iterator[bytes]:
    """Each page is a transaction of its own, so that a slow reader holds no connection."""
    while first <= last:
        with transaction(hub.engine) as connection:
            seals = queries.list_evidence(connection, meter_no, key_epoch, first, last, SEALS_PER_PAGE)
        yield b"".join(
            _line(
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


def _line(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"
