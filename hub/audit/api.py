"""HTTP for auditors: what was done and by whom, and the whole chain as one file that proves itself.

What is answered is the text that was hashed. The format of the file is public: a header line, then a line per entry;
`commonwatt verify` reads it offline.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Field

from hub.api_types import (
    AnswerBody,
    Bytes32,
    Instant,
    Moment,
    NextCursor,
    Page,
    Parameters,
    decode_cursor,
    encode_cursor,
)
from hub.audit import store
from hub.db import snapshot, transaction
from hub.dependencies import Hub, TheHub, Transaction
from hub.errors import MalformedInput

FORMAT = "commonwatt-audit/1"
MEDIA_TYPE = "application/x-ndjson"
LINKS_PER_PAGE = 1_000
NEWEST = 2**53 - 1
"""Behind every position."""

Word = Annotated[str, Field(pattern="^[ -~]{1,200}$")]
Position = Annotated[int, Field(ge=1, lt=NEWEST, description="Counts the entries of the chain, from 1, without a gap.")]

router = APIRouter(tags=["audit"])

LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "JSON lines: a header, then the entries in their order.",
        "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
    }
}


class AuditQuery(Page):
    """Which entries, newest first; a filter left out means any."""

    actor: Word | None = Field(default=None, description="Who, such as `member:<id>`, whatever key it acted with.")
    subject: Word | None = Field(default=None, description="To what, such as `meter:roof-17`.")
    action: Word | None = Field(default=None, description="What, such as `meter.suspend`, or all of `meter`.")
    since: Instant | None = Field(default=None, alias="from", description="From this instant on.")
    until: Instant | None = Field(default=None, alias="to", description="Before this instant.")


class ExportQuery(Parameters):
    """From which position on; from the first one unless told."""

    from_position: Position = 1


class AuditEntryAnswer(AnswerBody):
    """One act. `entry_hash` is of the text that was stored, `chain_hash` binds it to all before it."""

    position: Position
    audit_id: int
    at: Moment
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    entry_hash: Bytes32
    chain_hash: Bytes32


class AuditHeadAnswer(AnswerBody):
    """How far the chain goes. Keep it elsewhere: it shows later whether anything before it was changed."""

    position: int = Field(ge=0, description="0 if nothing was ever done.")
    chain_hash: Bytes32


class AuditAnswer(AnswerBody):
    """A page of the audit log."""

    entries: list[AuditEntryAnswer]
    head: AuditHeadAnswer
    next_cursor: NextCursor


@router.get("/audit", response_model=AuditAnswer)
def list_audit(query: Annotated[AuditQuery, Query()], connection: Transaction) -> Response:
    """What was done, newest first."""
    [before] = decode_cursor(query.cursor, (NEWEST,))
    filters = store.Filters(query.actor, query.subject, query.action, query.since, query.until)
    links = store.list_newest(connection, filters, before, query.limit + 1)
    head = store.get_head(connection)
    page = links[: query.limit]
    return JSONResponse(
        {
            "entries": [
                {
                    "position": link.position,
                    **json.loads(link.entry),
                    "entry_hash": link.entry_hash.hex(),
                    "chain_hash": link.chain_hash.hex(),
                }
                for link in page
            ],
            "head": {"position": head.position, "chain_hash": head.chain_hash.hex()},
            "next_cursor": encode_cursor(page[-1].position) if len(links) > query.limit else None,
        }
    )


@router.get("/audit/export", response_class=Response, responses=LINES)
def export_audit(query: Annotated[ExportQuery, Query()], hub: TheHub) -> Response:
    """The chain, entry by entry, as far as it goes now. The header says how far, so a file cut short is seen to be."""
    first = query.from_position
    with snapshot(hub.engine) as connection:
        head = store.get_head(connection)
        if first > head.position + 1:
            raise MalformedInput(f"from_position: the log ends at {head.position}")
        before = store.list_links(connection, first - 1, first - 1, 1)
    header = {
        "format": FORMAT,
        "community_id": hub.settings.community_id,
        "from_position": first,
        "to_position": head.position,
        "chain_hash_before": (before[0].chain_hash if before else store.NO_ENTRIES.chain_hash).hex(),
    }
    pages = _pages(hub, first, head.position)
    first_page = next(pages, b"")  # a database that is away is still told in the status
    return StreamingResponse(
        chain([_line(header) + first_page], pages),
        media_type=MEDIA_TYPE,
        headers={"Content-Disposition": f'attachment; filename="{first}-{head.position}.audit.ndjson"'},
    )


def _pages(hub: Hub, first: int, last: int) -> Iterator[bytes]:
    """Each page is a transaction of its own, so that a slow reader holds no connection."""
    while first <= last:
        with transaction(hub.engine) as connection:
            links = store.list_links(connection, first, last, LINKS_PER_PAGE)
        yield b"".join(
            _line({"position": link.position, "entry": link.entry, "chain_hash": link.chain_hash.hex()})
            for link in links
        )
        first = links[-1].position + 1 if len(links) == LINKS_PER_PAGE else last + 1


def _line(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"
