"""What crosses the socket: a client's messages, parsed strictly, and the frames that it gets (docs/live.md)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

import msgspec

from hub.api_types import iso
from hub.errors import HubError, MalformedInput
from hub.live.store import StoredUpdate
from hub.live.topics import public_name
from hub.live.wire import text_frame
from protocol.limits import SEQUENCE_MAX

TOKEN_LENGTH_MAX: Final = 4_096

_TopicName = Annotated[str, msgspec.Meta(max_length=64)]


class Authenticate(msgspec.Struct, tag="authenticate", forbid_unknown_fields=True, frozen=True):
    """Who this is: an access token or an API key. The first message; later, the next token of the same member."""

    token: Annotated[str, msgspec.Meta(min_length=1, max_length=TOKEN_LENGTH_MAX)]


class Subscribe(msgspec.Struct, tag="subscribe", forbid_unknown_fields=True, frozen=True):
    """Follow a topic: behind the sequence `after`, or from now on."""

    topic: _TopicName
    after: Annotated[int, msgspec.Meta(ge=0, le=SEQUENCE_MAX)] | None = None


class Unsubscribe(msgspec.Struct, tag="unsubscribe", forbid_unknown_fields=True, frozen=True):
    """Follow a topic no longer."""

    topic: _TopicName


class Ping(msgspec.Struct, tag="ping", forbid_unknown_fields=True, frozen=True):
    """For clients that see no ping of the protocol, such as pages in a browser."""


Message = Authenticate | Subscribe | Unsubscribe | Ping

_decode = msgspec.json.Decoder(Message).decode


def parse_message(text: str) -> Message:
    """A client's message. Raises MalformedInput, and nothing else, whatever the text."""
    try:
        message: Message = _decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as fault:
        raise MalformedInput(str(fault)) from None
    return message


def authenticated_frame(member_id: UUID, expires_at: datetime | None, topics: Sequence[str]) -> bytes:
    """Now the socket is this member's, until then; null: for as long as the API key is good."""
    return _frame(
        type="authenticated",
        member_id=str(member_id),
        expires_at=None if expires_at is None else iso(expires_at),
        topics=topics,
    )


def subscribed_frame(name: str, head: int) -> bytes:
    """Followed from here on; `sequence` is that of the topic's newest update."""
    return _frame(type="subscribed", topic=name, sequence=head)


def unsubscribed_frame(name: str) -> bytes:
    """The last frame about this topic."""
    return _frame(type="unsubscribed", topic=name)


def update_frame(update: StoredUpdate) -> bytes:
    """What happened. Made once for all sockets: `data` goes as it was written."""
    return text_frame(
        f'{{"type":"update","topic":"{public_name(update.topic)}","sequence":{update.sequence},'
        f'"at":"{iso(update.at)}","kind":"{update.kind}","data":{update.data}}}'
    )


def resync_frame(name: str, head: int) -> bytes:
    """Updates are missing before the next one: read the state, go on behind this sequence."""
    return _frame(type="resync", topic=name, sequence=head)


def pong_frame() -> bytes:
    """The answer to a ping."""
    return _frame(type="pong")


def error_frame(error: HubError, name: str | None = None) -> bytes:
    """A refusal, with the code that it has over HTTP; `topic` if it was about one."""
    about = {} if name is None else {"topic": name}
    return _frame(type="error", code=error.code, title=error.title, detail=error.detail, **about)


def _frame(**fields: object) -> bytes:
    return text_frame(json.dumps(fields, separators=(",", ":")))
