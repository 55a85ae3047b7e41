"""What requests and answers of all domains share: how an instant, an id, a note and a cursor are written."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from hub.errors import HubError, MalformedInput
from protocol.limits import ENERGY_WH_MAX, METER_ID_BYTES_MAX, TIME_MAX_UNIX_S, TIME_MIN_UNIX_S

NOTE_LENGTH_MAX = 500
NAME_LENGTH_MAX = 100
CURSOR_LENGTH_MAX = 100
CURSOR_DESCRIPTION = "The `next_cursor` of the page before; empty for the first page."
ITEMS_PER_PAGE_MAX = 1_000
ITEMS_PER_PAGE_DEFAULT = 100

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)")


class Strict(BaseModel):
    """A body in which nothing is converted and nothing unknown is ignored."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Nothing(Strict):
    """The body of a request whose path says all: an empty object, or no body."""


NOTHING = Nothing()


class Parameters(BaseModel):
    """Query parameters: they are text, so they are converted; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid")


def _leave_open(schema: dict[str, Any]) -> None:
    schema.pop("additionalProperties", None)


class AnswerBody(BaseModel):
    """The body of an answer. We send nothing that it does not name; its reader must bear what a later version adds."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=_leave_open)


CODES = "x-codes"
"""Where a response in the description keeps the codes of its refusals until `hub/description.py` writes it out."""


def refusals(*errors: type[HubError]) -> dict[int | str, dict[str, Any]]:
    """A route's own refusals, for its `responses`; what every route refuses stands in `hub/description.py`."""
    found: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        found.setdefault(error.status, {"description": error.title, CODES: []})[CODES].append(error.code)
    return found


class Page(Parameters):
    """A page of a list: `cursor` is the `next_cursor` of the page before."""

    cursor: str = Field(default="", max_length=CURSOR_LENGTH_MAX, description=CURSOR_DESCRIPTION)
    limit: int = Field(
        default=ITEMS_PER_PAGE_DEFAULT, ge=1, le=ITEMS_PER_PAGE_MAX, description="How many items at most."
    )


def _parse_instant(value: object) -> datetime:
    if not isinstance(value, str) or not _INSTANT.fullmatch(value):
        raise ValueError("an ISO 8601 instant in whole seconds with its offset, such as 2026-11-20T06:00:00Z")
    at = datetime.fromisoformat(value)  # a ValueError of its own for the 30th of February
    if not TIME_MIN_UNIX_S <= at.timestamp() <= TIME_MAX_UNIX_S:
        raise ValueError("an instant between 2020 and 2100")
    return at.astimezone(UTC)


def check_text(value: str) -> str:
    """Text of one or more lines, as it is. Raises ValueError for what cannot be shown."""
    if not all(letter.isprintable() or letter == "\n" for letter in value):
        raise ValueError("no control characters")
    return value


def check_line(value: str) -> str:
    """A line of text, as it is. Raises ValueError for what cannot be shown, or is two."""
    if not value.isprintable():
        raise ValueError("no control characters, and one line")
    return value


Instant = Annotated[
    datetime,
    BeforeValidator(_parse_instant),
    WithJsonSchema(
        {
            "type": "string",
            "format": "date-time",
            "pattern": "^20[2-9][0-9]-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})$",
            "description": "An instant in whole seconds between 2020 and 2100, such as 2026-11-20T06:00:00Z.",
        }
    ),
]
Note = Annotated[str, Field(min_length=1, max_length=NOTE_LENGTH_MAX), AfterValidator(check_text)]
MemberName = Annotated[
    str,
    Field(max_length=NAME_LENGTH_MAX, pattern=r"^\S(.*\S)?$", description="What the community calls the member."),
    AfterValidator(check_line),
]
MeterName = Annotated[str, Field(max_length=METER_ID_BYTES_MAX, pattern="^[a-z0-9-]+$")]
MeterPath = Annotated[str, Path(max_length=METER_ID_BYTES_MAX, pattern="^[a-z0-9-]+$")]

Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""An instant in an answer: ISO 8601 in UTC, as `iso` writes it."""
NextCursor = Annotated[str | None, Field(description="Asks for the next page; null on the last one.")]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
EnergyWh = Annotated[int, Field(ge=0, le=ENERGY_WH_MAX, description="Watt-hours.")]
UnixS = Annotated[int, Field(ge=0, le=TIME_MAX_UNIX_S, description="Seconds since 1970-01-01T00:00:00Z.")]
Bytes32 = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="32 bytes in hexadecimal.")]
Hex = Annotated[str, Field(pattern="^([0-9a-f]{2})*$", description="Bytes in hexadecimal.")]


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
