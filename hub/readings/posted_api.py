"""`POST /readings/seals`: the same bytes that a meter publishes, over HTTP. No token: the signature speaks.

The answer brings the same receipt that a meter hears from the broker.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from hub.api_types import MeterName, Parameters, refusals
from hub.dependencies import Now, TheHub
from hub.errors import MeterNotFound, SealEquivocates, SealNotTaken, SealUnverifiable
from hub.readings import service
from hub.readings.answers import PostedSealAnswer
from hub.readings.rules import Policy
from protocol.committed import encode_committed

PATH = "/readings/seals"

router = APIRouter(tags=["agents"])

BODY = {
    "requestBody": {
        "required": True,
        "description": "Seal, signature and readings section, as published.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
"""What the description of the interface cannot see: bytes are taken as they come."""


class PostedBy(Parameters):
    """Whose seal it is."""

    meter_id: MeterName


async def read_body(request: Request) -> bytes:
    """The whole body; its size is bounded before any route is reached (`hub/web.py`)."""
    return await request.body()


@router.post(
    PATH,
    response_model=PostedSealAnswer,
    openapi_extra=BODY,
    responses=refusals(MeterNotFound, SealUnverifiable, SealEquivocates, SealNotTaken),
)
def post_seal(
    query: Annotated[PostedBy, Query()],
    message: Annotated[bytes, Depends(read_body)],
    hub: TheHub,
    now: Now,
) -> dict[str, Any]:
    """Store a seal. 200 says that it is stored durably, whether it counts or not; repeating it is harmless."""
    settings = hub.settings
    policy = Policy(settings.community_id, settings.domain, settings.backlog_age_max_s)
    posted = service.receive_posted(hub.engine, policy, query.meter_id, message, now)
    return {
        "committed": True,
        "state": posted.state,
        "reason": posted.reason or None,
        "key_epoch": posted.key_epoch,
        "sequence": posted.sequence,
        "contiguous_sequence": posted.receipt.contiguous_sequence,
        "receipt": encode_committed(posted.receipt).hex(),
    }
