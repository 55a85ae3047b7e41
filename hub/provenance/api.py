"""HTTP for the bundle behind a mint: readings, seals, meter signatures and transaction in one file.

The format is public, `commonwatt verify` reads it offline: a header that names the transaction; then for each meter a
line that says what was minted and how its keys came to be, and the evidence of its seals (`evidence_lines.py`),
from the last one that an earlier transaction had presented.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import Connection

from hub.api_types import refusals
from hub.auth import members_service
from hub.db import transaction
from hub.dependencies import CurrentAccess, Hub, TheHub, refuse_query
from hub.errors import MintNotFound
from hub.minting.minted import Minted, list_minted_by
from hub.permissions import Reach
from hub.readings import evidence_lines
from hub.readings.answers import EVIDENCE_LINES
from hub.registry import keys_service
from hub.registry import service as registry
from hub.registry.keys_store import MeterKey

FORMAT = "commonwatt-provenance/1"
UNITS_PER_WH = 1_000_000

router = APIRouter(tags=["tokens"])

SignaturePath = Annotated[
    str,
    Path(description="The transaction, as Solana writes its signature.", pattern="^[1-9A-HJ-NP-Za-km-z]{64,88}$"),
]


@router.get(
    "/tokens/provenance/{signature}",
    response_class=Response,
    dependencies=[Depends(refuse_query)],
    responses=EVIDENCE_LINES | refusals(MintNotFound),
)
def export_provenance(signature: SignaturePath, access: CurrentAccess, hub: TheHub) -> Response:
    """Everything behind a transaction that minted, for whoever wants to check it: `commonwatt verify FILE --rpc URL`.

    Of a transaction that minted for several meters a member gets the part about its own.
    """
    with transaction(hub.engine) as connection:
        minted = list_minted_by(connection, signature)
        if access.reach is Reach.OWN:
            owners = members_service.wallets_of(connection, access.actor.member_id)
            minted = [each for each in minted if each.owner in owners]
        if not minted:
            raise MintNotFound(signature)
        sections = [(each, _keys(connection, each)) for each in minted]
    header = {
        "format": FORMAT,
        **evidence_lines.deployment_fields(hub.settings),
        "transaction": signature,
        "slot": minted[0].slot,
        "meters": len(minted),
    }
    pages = chain([evidence_lines.line(header)], *(_section(hub, each, keys) for each, keys in sections))
    return StreamingResponse(
        pages,
        media_type=evidence_lines.MEDIA_TYPE,
        headers={"Content-Disposition": f'attachment; filename="{signature[:16]}.provenance.ndjson"'},
    )


def _keys(connection: Connection, minted: Minted) -> list[MeterKey]:
    meter = registry.get_meter(connection, minted.meter_id)
    keys = keys_service.list_keys(connection, meter.meter_no)
    return [key for key in keys if key.key_epoch <= minted.key_epoch]


def _section(hub: Hub, minted: Minted, keys: list[MeterKey]) -> Iterator[bytes]:
    """One meter's part. Its evidence begins with the seal before, to which the first one minted is linked."""
    first = max(1, minted.first_sequence - 1)
    yield evidence_lines.line(
        {
            "meter_id": minted.meter_id,
            "owner": minted.owner.hex(),
            "key_epoch": minted.key_epoch,
            "first_sequence": minted.first_sequence,
            "last_sequence": minted.last_sequence,
            "surplus_wh": minted.surplus_wh,
            "minted_wh": minted.minted_wh,
            "written_off_wh": minted.written_off_wh,
            "earned_back_wh": minted.earned_back_wh,
            "amount_units": str(minted.minted_wh * UNITS_PER_WH),
            "enrolment": (keys[0].statement + keys[0].signature).hex(),
            "rotations": [evidence_lines.rotation_of(key).hex() for key in keys[1:]],
        }
    )
    yield evidence_lines.header_line(hub.settings, minted.meter_id, keys[-1], first, minted.last_sequence)
    yield from evidence_lines.seal_pages(hub.engine, minted.meter_no, minted.key_epoch, first, minted.last_sequence)
