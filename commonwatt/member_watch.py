"""`commonwatt member watch`: what happens, as it happens, over one WebSocket that comes back when it is lost."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from commonwatt.access import Access, open_client, open_stranger
from commonwatt.hub_client import CommandError
from commonwatt.live_socket import ConnectionLost, Position, open_live
from commonwatt.member_session import Tokens
from commonwatt.terminal import clean

WAIT_S = 5.0
"""How long to listen before looking at the clock."""
PAUSES_S = (0.2, 1.0, 2.0, 5.0, 10.0)
"""Before each new connection; the last one again and again."""
_PASSING = ("no_answer", "database_away", "access_token_expired")


def watch(
    context: typer.Context,
    topics: Annotated[
        list[str] | None, typer.Argument(metavar="[TOPIC]…", help="All that you may, unless given.")
    ] = None,
    after: Annotated[
        list[str] | None, typer.Option(metavar="TOPIC=SEQUENCE", help="Go on behind this update of a topic.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many updates.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object in each line.")] = False,
) -> None:
    """Print what happens to your meters, and what you are told, until Ctrl-C.

    After a lost connection nothing is missing: each topic goes on behind its last update. `resync` says that too much
    has happened meanwhile; read the state anew then.
    """
    with open_client(context) as hub:
        offered = {topic["topic"]: topic["sequence"] for topic in hub.get("/live/topics")["topics"]}
        begin = {topic: offered.get(topic, 0) for topic in topics or offered} | _positions(after or [])
        _watch(context, Position(begin), count, as_json)


def _watch(context: typer.Context, position: Position, count: int | None, as_json: bool) -> None:
    access: Access = context.obj
    failures, seen = 0, 0
    while True:
        tokens = access.session.read()
        try:
            with open_live(access.url or tokens.url, tokens.access_token, position) as socket:
                while True:
                    frame = socket.next_frame(WAIT_S)
                    if frame is not None:
                        failures = 0
                        typer.echo(json.dumps(frame) if as_json else line_of(frame))
                        seen += frame["type"] == "update"
                        if seen == count:
                            return
                    if socket.is_to_be_renewed(datetime.now(UTC)):
                        socket.renew(_renewed(context).access_token)
        except ConnectionLost as fault:
            reason = str(fault)
        except CommandError as fault:
            if fault.code not in _PASSING:
                raise
            reason = str(fault)
            if fault.code == "access_token_expired":
                _renewed(context)
        pause_s = PAUSES_S[min(failures, len(PAUSES_S) - 1)]
        failures += 1
        typer.echo(f"Not connected ({clean(reason)}); again in {pause_s:g} s.", err=True)
        time.sleep(pause_s)


def line_of(frame: dict[str, Any]) -> str:
    """A frame in words."""
    match frame["type"]:
        case "update":
            at = f"{frame['at'][:19]}Z"
            text = f"{at}  {frame['topic']} {frame['sequence']}  {frame['kind']}  {_in_words(frame)}"
        case "resync":
            text = f"{frame['topic']}: too much has happened; read the state. Going on behind {frame['sequence']}."
        case "subscribed":
            text = f"{frame['topic']}: following; its newest update is {frame['sequence']}."
        case kind:
            text = f"{kind}."
    return clean(text)


def _in_words(update: dict[str, Any]) -> str:
    data = update["data"]
    match update["kind"]:
        case "meter.read":
            power = "" if data["power_w"] is None else f"{data['power_w']} W, "
            energy = f"{data['production_wh']} Wh produced, {data['consumption_wh']} Wh consumed"
            return f"{data['meter_id']}: {power}{energy}, seal {data['sequence']}"
        case "notification.new":
            return f"{data['title']}. {data['text']}"
        case _:
            return ", ".join(f"{name} {value}" for name, value in data.items())


def _renewed(context: typer.Context) -> Tokens:
    """The next tokens; who has lost the hub for a while simply asks again."""
    access: Access = context.obj
    with open_stranger(context, access.url or access.session.read().url) as hub:
        return access.session.renew(lambda token: hub.post("/auth/refresh", {"refresh_token": token}))


def _positions(given: list[str]) -> dict[str, int]:
    try:
        return {topic: int(sequence) for topic, sequence in (each.split("=") for each in given)}
    except ValueError as fault:
        raise typer.BadParameter("--after meters=42 is expected") from fault
