"""`WS /live`, and over HTTP how far each topic has come. The protocol is described in docs/live.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import cast

from fastapi import APIRouter, Depends, FastAPI, WebSocket
from pydantic import Field

from hub.api_types import AnswerBody
from hub.dependencies import CurrentActor, Transaction, refuse_query
from hub.errors import HubError
from hub.live import store
from hub.live.switchboard import Switchboard
from hub.live.topics import TOPICS, may_follow, stored_topic
from hub.problems import problem_of

PATH = "/live"

router = APIRouter(tags=["live"])


class TopicAnswer(AnswerBody):
    """A topic that may be followed."""

    topic: str = Field(description="As `subscribe` names it.")
    tells: str
    sequence: int = Field(ge=0, description="Of its newest update; 0: there was none yet.")
    oldest_sequence: int | None = Field(description="Of the oldest update that is still kept; null: none is.")


class TopicsAnswer(AnswerBody):
    """What the caller may follow."""

    topics: list[TopicAnswer]


@router.get("/live/topics", dependencies=[Depends(refuse_query)])
def list_topics(actor: CurrentActor, connection: Transaction) -> TopicsAnswer:
    """What the caller may follow, and how far each topic has come.

    Read this, then the state, then subscribe behind the `sequence` that you read here: nothing is missed.
    """
    stored = {name: stored_topic(actor, name) for name in TOPICS if may_follow(actor, name)}
    heads = store.map_sequences(connection, list(stored.values()))
    oldest = store.map_oldest_sequences(connection, list(stored.values()))
    return TopicsAnswer(
        topics=[
            TopicAnswer(
                topic=name,
                tells=TOPICS[name].tells,
                sequence=heads.get(topic, 0),
                oldest_sequence=oldest.get(topic),
            )
            for name, topic in stored.items()
        ]
    )


@router.websocket(PATH)
async def live(websocket: WebSocket) -> None:
    """Updates as they happen."""
    board = cast(Switchboard, websocket.app.state.switchboard)
    try:
        await board.serve(websocket)
    except HubError as refusal:
        await websocket.send_denial_response(problem_of(refusal, websocket.state.request_id))


@asynccontextmanager
async def keep_live(app: FastAPI) -> AsyncIterator[None]:
    """While the application runs, it feeds its sockets."""
    app.state.switchboard = board = Switchboard(app.state.hub)
    running = asyncio.create_task(board.run())
    try:
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
