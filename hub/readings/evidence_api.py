"""HTTP for the evidence of a meter as one file, for whoever does not want to believe this hub.

The format is public: a header line, then a line per seal in sequence order. `commonwatt verify` reads it offline.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from hub.api_types import MeterPath, Parameters, iso
from hub.db import transaction
from hub.dependencies import Hub, TheHub, authenticate
from hub.errors import MalformedInput
from hub.readings import queries
from hub.registry import service as registry
from protocol.limits import KEY_EPOCH_MAX, SEQUENCE_MAX

FORMAT = "commonwatt-evidence/1"
MEDIA_TYPE = "application/x-ndjson"
SEALS_PER_PAGE = 100
"""At most 3 MB of messages at a time, whatever the length of the export."""

router = APIRouter(dependencies=[Depends(authenticate)])


class EvidenceQuery(Parameters):
    """Inclusive sequences of one key epoch: all of the current one unless told."""

    from_sequence: int = Field(default=1, ge=1, le=SEQUENCE_MAX)
    to_sequence: int = Field(default=SEQUENCE_MAX, ge=1, le=SEQUENCE_MAX)
    key_epoch: int | None = Field(default=None, ge=1, le=KEY_EPOCH_MAX)


@router.get("/meters/{meter_id}/evidence")
def export_evidence(meter_id: MeterPath, query: Annotated[EvidenceQuery, Query()], hub: TheHub) -> Response:
    """Enrolment and messages, byte for byte as the meter signed them, whatever became of them.

    The header's `to_sequence` is the highest that is stored now, so a file that was cut off is seen to be.
    """
    if query.from_sequence > query.to_sequence:
        raise MalformedInput("from_sequence, to_sequence: the range is empty")
    with transaction(hub.engine) as connection:
        meter = registry.get_meter(connection, meter_id)
        key_epoch = query.key_epoch or meter.key_epoch
        enrolment = queries.get_enrolment(connection, meter.meter_no, key_epoch)
        highest = queries.get_progress(connection, meter.meter_no, key_epoch).highest_sequence
    last = min(query.to_sequence, highest)
    header = {
        "format": FORMAT,
        "community_id": hub.settings.community_id,
        "genesis_hash": bytes.fromhex(hub.settings.genesis_hash_hex).hex(),
        "program_id": bytes.fromhex(hub.settings.program_id_hex).hex(),
        "domain": hub.settings.domain.hex(),
        "meter_id": meter_id,
        "key_epoch": key_epoch,
        "from_sequence": query.from_sequence,
        "to_sequence": last,
        "enrolment": enrolment.hex(),
    }
    pages = _pages(hub, meter.meter_no, key_epoch, query.from_sequence, last)
    first_page = next(pages, b"")  # a database that is away is still told in the status
    name = f"{meter_id}-{key_epoch}-{query.from_sequence}-{last}.evidence.ndjson"
    return StreamingResponse(
        chain([_line(header) + first_page], pages),
        media_type=MEDIA_TYPE,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
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
