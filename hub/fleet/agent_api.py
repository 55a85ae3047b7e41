"""`POST /agent/report`: what an agent without a broker says of itself, and what it would have heard from the broker.

The answer brings the receipt, which the agent hears before it sends a seal, and the commands that it has not followed
yet. They depend on no status: one that is not understood is dropped, as when it is published, and `status_noted` says
so. The password is that of the meter's broker account. Seals are posted to `/readings/seals`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from pydantic import Field
from sqlalchemy import Connection

from hub.api_types import MeterName, Parameters, refusals
from hub.dependencies import Hub, Now, TheHub, Transaction
from hub.errors import BASIC, MeterNotFound, Unauthorized
from hub.fleet import service as fleet
from hub.fleet.answers import ReportAnswer
from hub.readings import service
from hub.readings.posted_api import read_body
from hub.registry import service as registry
from hub.registry.rules import RETIRED
from hub.registry.store import Meter
from protocol.committed import encode_committed
from protocol.limits import SEQUENCE_MAX

PATH = "/agent/report"
AUTHORIZATION_LENGTH_MAX = 400

router = APIRouter(tags=["agents"])

BODY = {
    "requestBody": {
        "required": True,
        "description": "A status, at most 4,096 bytes.",
        "content": {"application/json": {}},
    }
}
"""What the description of the interface cannot see: bytes are taken as they come."""


class ReportedBy(Parameters):
    """Whose report it is, and the counter of the last command that the agent followed."""

    meter_id: MeterName
    last_command: int = Field(default=0, ge=0, le=SEQUENCE_MAX)


@router.post(PATH, response_model=ReportAnswer, openapi_extra=BODY, responses=refusals(Unauthorized))
def post_report(
    query: Annotated[ReportedBy, Query()],
    status: Annotated[bytes, Depends(read_body)],
    hub: TheHub,
    connection: Transaction,
    now: Now,
    authorization: Annotated[str, Header(include_in_schema=False)] = "",
) -> dict[str, Any]:
    """Note a status; answer with the receipt as it stands, and the unexpired commands after `last_command`."""
    meter = authenticate_meter(connection, hub, query.meter_id, authorization)
    noted = fleet.record_status(connection, meter.meter_no, status, now, live=True)
    receipt = service.get_receipt(connection, meter.meter_no, meter.key_epoch)
    commands = registry.pending_commands(connection, meter.meter_no, query.last_command, now)
    return {
        "receipt": encode_committed(receipt).hex(),
        "commands": [command.hex() for command in commands],
        "status_noted": noted,
    }


def authenticate_meter(connection: Connection, hub: Hub, meter_id: str, authorization: str) -> Meter:
    """The meter whose broker password this is (HTTP Basic). Raises Unauthorized, without telling what was wrong."""
    try:
        meter = registry.get_meter(connection, meter_id)
    except MeterNotFound:
        raise Unauthorized(challenge=BASIC) from None
    password = registry.broker_password(hub.broker_secret, meter_id, meter.password_generation)
    known = f"{meter_id}:{password}".encode()
    if meter.state == RETIRED or not hmac.compare_digest(_basic(authorization), known):
        raise Unauthorized(challenge=BASIC)
    return meter


def _basic(authorization: str) -> bytes:
    """`user:password` as sent; empty if this is no Basic authorization."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic" or len(encoded) > AUTHORIZATION_LENGTH_MAX:
        return b""
    try:
        return base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""
