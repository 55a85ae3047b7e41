"""HTTP for the evidence of a meter as one file (`evidence_lines.py`)."""

from __future__ import annotations

from itertools import chain
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from hub.api_types import MeterPath, Parameters, refusals
from hub.db import transaction
from hub.dependencies import TheHub
from hub.errors import MalformedInput, MeterKeyNotFound
from hub.readings import evidence_lines, queries
from hub.readings.answers import EVIDENCE_LINES
from hub.registry import keys_service
from hub.registry import service as registry
from protocol.limits import KEY_EPOCH_MAX, SEQUENCE_MAX

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
    evidence_format = evidence_lines.FORMAT if len(keys) == 1 else evidence_lines.FORMAT_OF_SEVERAL_KEYS
    header = evidence_lines.header_line(hub.settings, meter_id, keys[0], from_sequence, lasts[0], evidence_format)
    pages = evidence_lines.seal_pages(hub.engine, meter.meter_no, keys[0].key_epoch, from_sequence, lasts[0])
    first_page = next(pages, b"")  # a database that is away is still told in the status
    parts = [chain([header + first_page], pages)]
    for key, last in zip(keys[1:], lasts[1:], strict=True):
        taken_over = evidence_lines.key_line(key, exchanges.get(key.key_epoch, []), last)
        pages = evidence_lines.seal_pages(hub.engine, meter.meter_no, key.key_epoch, 1, last)
        parts.append(chain([taken_over], pages))
    span = "all" if len(keys) > 1 else f"{keys[0].key_epoch}-{from_sequence}-{lasts[0]}"
    return StreamingResponse(
        chain.from_iterable(parts),
        media_type=evidence_lines.MEDIA_TYPE,
        headers={"Content-Disposition": f'attachment; filename="{meter_id}-{span}.evidence.ndjson"'},
    )
