"""`commonwatt member notifications`: what the hub has told a member, and how it wants to be told."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Literal

import typer

from commonwatt.access import open_client
from commonwatt.terminal import show

app = typer.Typer(help="What you were told.", no_args_is_help=True)


@app.command("list")
def list_notifications(
    context: typer.Context,
    unread: Annotated[bool, typer.Option("--unread", help="Only what you have not read.")] = False,
    count: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
) -> None:
    """What you were told, newest first."""
    with open_client(context) as hub:
        parameters = {"unread": "true"} if unread else {}
        found = list(islice(hub.each("/me/notifications", "notifications", parameters), count))
    show(
        ("id", "at", "", "what", "in words"),
        (
            (
                each["notification_id"],
                each["created_at"],
                "" if each["read_at"] else "new",
                each["title"] + (f" ({each['times']} times)" if each["times"] > 1 else ""),
                each["text"],
            )
            for each in found
        ),
    )


@app.command()
def read(
    context: typer.Context,
    notification_id: Annotated[int, typer.Argument(metavar="ID", help="Its number in the list.", min=1)],
    and_older: Annotated[bool, typer.Option("--and-older", help="And every older one.")] = False,
) -> None:
    """Note that you have read one."""
    with open_client(context) as hub:
        answer = hub.post("/me/notifications/read", {"notification_id": notification_id, "and_older": and_older})
    typer.echo(f"Read: {answer['marked']}. Unread: {answer['unread_count']}.")


@app.command()
def preferences(context: typer.Context) -> None:
    """What you are told of, and by which ways. What is about security always goes by e-mail."""
    with open_client(context) as hub:
        groups = hub.get("/me/notification-preferences")["groups"]
    show(
        ("group", "about", "by"),
        (
            (
                group["group"],
                group["title"],
                " ".join(
                    channel["channel"] + ("" if channel["changeable"] else " (always)")
                    for channel in group["channels"]
                    if channel["enabled"]
                ),
            )
            for group in groups
        ),
    )


@app.command()
def prefer(
    context: typer.Context,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="Its name in the list of preferences.")],
    channel: Annotated[Literal["email", "webhook"], typer.Argument(metavar="email|webhook")],
    enabled: Annotated[bool, typer.Option("--on/--off", help="Be told by it, or not.")],
) -> None:
    """Be told of a group of things by e-mail or webhook, or not."""
    with open_client(context) as hub:
        hub.post("/me/notification-preferences", {"group": group, "channel": channel, "enabled": enabled})
    typer.echo(f"{group} by {channel}: {'on' if enabled else 'off'}.")
