"""What requests and answers of all domains share: how an instant, an id, a note and a cursor are written."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from hub.errors import MalformedInput
from protocol.limits import METER_ID_BYTES_MAX, TIME_MAX_UNIX_S, TIME_MIN_UNIX_S

NOTE_LENGTH_MAX = 500
CURSOR_LENGTH_MAX = 100
ITEMS_PER_PAGE_MAX = 1_000
ITEMS_PER_PAGE_DEFAULT = 100

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)")


class Strict(BaseModel):
    """A body in which nothing is converted and nothing unknown is ignored."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Parameters(BaseModel):
    """Query parameters: they are text, so they are converted; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid")


class Page(Parameters):
    """A page of a list: `cursor` is the `next_cursor` of the page before."""

    cursor: str = Field(default="", max_length=CURSOR_LENGTH_MAX)
    limit: int = Field(default=ITEMS_PER_PAGE_DEFAULT, ge=1, le=ITEMS_PER_PAGE_MAX)


def _parse_instant(value: object) -> datetime:
    if not isinstance(value, str) or not _INSTANT.fullmatch(value):
        raise ValueError("an ISO 8601 instant in whole seconds with its offset, such as 2026-11-20T06:00:00Z")
    at = datetime.fromisoformat(value)  # a ValueError of its own for the 30th of February
    if not TIME_MIN_UNIX_S <= at.timestamp() <= TIME_MAX_UNIX_S:
        raise ValueError("an instant between 2020 and 2100")
    return at.astimezone(UTC)


def _check_text(value: str) -> str:
    if not all(letter.isprintable() or letter == "\n" for letter in value):
        raise ValueError("no control characters")
    return value


Instant = Annotated[datetime, BeforeValidator(_parse_instant)]
Note = Annotated[str, Field(min_length=1, max_length=NOTE_LENGTH_MAX), AfterValidator(_check_text)]
MeterName = Annotated[str, Field(max_length=METER_ID_BYTES_MAX, pattern="^[a-z0-9-]+$")]
MeterPath = Annotated[str, Path(max_length=METER_ID_BYTES_MAX, pattern="^[a-z0-9-]+$")]


def iso(at: datetime) -> str:
    """An instant as answers show it: ISO 8601 in UTC."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def iso_of(unix_s: int) -> str:
    """The same, from unix seconds."""
    return iso(datetime.fromtimestamp(unix_s, UTC))


def encode_cursor(*position: int) -> str:
    """A position in a list, in a form that nobody is tempted to compute with."""
    return base64.urlsafe_b64encode(".".join(map(str, position)).encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str, start: tuple[int, ...]) -> tuple[int, ...]:
    """The inverse; `start` for an empty cursor, and so many numbers otherwise. Raises MalformedInput."""
    if not cursor:
        return start
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        position = tuple(int(part) for part in text.split("."))
    except (ValueError, binascii.Error):
        raise MalformedInput("cursor: not one that this list gave out") from None
    if len(position) != len(start) or encode_cursor(*position) != cursor or max(position) >= 2**53:
        raise MalformedInput("cursor: not one that this list gave out")
    return position
