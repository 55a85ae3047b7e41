"""`commonwatt member me`, `meters`, `sessions`: what the hub has of a member, and where it is signed in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from commonwatt.access import open_client
from commonwatt.hub_client import path_of
from commonwatt.terminal import show, show_list

Json = Mapping[str, Any]

sessions_app = typer.Typer(help="Where you are signed in.", no_args_is_help=True)


def me(context: typer.Context) -> None:
    """Who you are here, how you are known, and what you may."""
    with open_client(context) as hub:
        answer = hub.get("/me")
    rights = (f"{permission} ({reach})" for permission, reach in sorted(answer["permissions"].items()))
    show_list([*member_lines(answer), ("may", ", ".join(rights))])


def profile(
    context: typer.Context,
    name: Annotated[str | None, typer.Option(help="How you are called.")] = None,
    phone: Annotated[str | None, typer.Option(help="Where operators can call you; empty to take it away.")] = None,
    postal_address: Annotated[str | None, typer.Option(help="Where you live; empty to take it away.")] = None,
) -> None:
    """Change what you say of yourself; what is not given stays."""
    with open_client(context) as hub:
        now = hub.get("/me")
        body = {"name": now["name"], "phone": now["contact"]["phone"]}
        body["postal_address"] = now["contact"]["postal_address"]
        given = {"name": name, "phone": phone, "postal_address": postal_address}
        body |= {field: value or None for field, value in given.items() if value is not None}
        show_list(member_lines(hub.post("/me", body)))


def meters(context: typer.Context) -> None:
    """Your meters: those whose enrolment names a wallet of yours as the owner."""
    with open_client(context) as hub:
        found = list(hub.each("/meters", "meters"))
    show(
        ("meter", "kind", "state", "key epoch", "registered"),
        (
            (meter["meter_id"], meter["kind"], meter["state"], meter["key_epoch"], meter["registered_at"])
            for meter in found
        ),
    )


@sessions_app.command("list")
def list_sessions(context: typer.Context) -> None:
    """Where you are signed in, the session used last first."""
    with open_client(context) as hub:
        found = hub.get("/me/sessions")["sessions"]
    show(
        ("session", "", "by", "since", "last used", "from", "with"),
        (
            (
                each["session_id"],
                "this one" if each["current"] else "",
                *(each[name] for name in ("method", "created_at", "last_used_at", "client_address", "user_agent")),
            )
            for each in found
        ),
    )


@sessions_app.command()
def end(context: typer.Context, session_id: Annotated[str, typer.Argument(metavar="SESSION")]) -> None:
    """End one of them."""
    with open_client(context) as hub:
        hub.post(path_of("me", "sessions", session_id, "end"), {})
    typer.echo(f"Session {session_id} is over.")


@sessions_app.command()
def end_others(context: typer.Context) -> None:
    """End all of them but this one."""
    with open_client(context) as hub:
        ended = hub.post("/me/sessions/end-others", {})["ended"]
    typer.echo(f"Sessions ended: {ended}.")


def member_lines(member: Json) -> list[tuple[str, object]]:
    """What is known of a member, as (name, words); what is not known is left out."""
    lines: list[tuple[str, object]] = [
        ("member", member["member_id"]),
        ("name", member["name"]),
        (
            "is",
            " ".join([member["type"], *member["roles"], *([] if member["state"] == "active" else [member["state"]])]),
        ),
        ("since", member["created_at"]),
        ("meters", member["meters"]),
    ]
    lines += [(f"{wallet['chain']} wallet", wallet["address"]) for wallet in member["wallets"]]
    contact = member["contact"] or {}
    lines += [(name.replace("_", " "), value) for name, value in contact.items() if value is not None]
    return lines
