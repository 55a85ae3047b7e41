"""`commonwatt admin members`: who takes part, what they may, and whether they may at all."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from commonwatt.access import open_client
from commonwatt.hub_client import path_of
from commonwatt.member_account import member_lines
from commonwatt.terminal import show, show_list

app = typer.Typer(help="Members and their roles.", no_args_is_help=True)

MemberId = Annotated[str, typer.Argument(metavar="MEMBER", help="Member id.")]
Role = Literal["investor", "asset_manager", "operator", "auditor", "admin"]
RoleName = Annotated[Role, typer.Argument(metavar="ROLE")]
Note = Annotated[str, typer.Option(help="Why; goes to the audit log.")]


@app.command("list")
def list_members(
    context: typer.Context,
    role: Annotated[Role | None, typer.Option(help="Only who was given this role.")] = None,
    member_type: Annotated[Literal["prosumer", "consumer"] | None, typer.Option("--type", help="Only these.")] = None,
    state: Annotated[Literal["active", "suspended"] | None, typer.Option(help="Only these.")] = None,
    text: Annotated[str | None, typer.Option("--name", help="Only whose name has this in it.")] = None,
) -> None:
    """All members, in the order in which they came."""
    with open_client(context) as hub:
        found = list(hub.each("/members", "members", {"role": role, "type": member_type, "state": state, "text": text}))
    show(
        ("member", "name", "type", "roles", "state", "since"),
        (
            (each["member_id"], each["name"], each["type"], " ".join(each["roles"]), each["state"], each["created_at"])
            for each in found
        ),
    )


@app.command("show")
def show_member(context: typer.Context, member_id: MemberId) -> None:
    """One member: how it is known, and what it may."""
    with open_client(context) as hub:
        show_list(member_lines(hub.get(path_of("members", member_id))))


@app.command()
def give(context: typer.Context, member_id: MemberId, role: RoleName, reason: Note) -> None:
    """Give a role. It counts from the member's next request."""
    _change_role(context, member_id, role, "give", reason)


@app.command()
def take(context: typer.Context, member_id: MemberId, role: RoleName, reason: Note) -> None:
    """Take a role away. It counts from the member's next request."""
    _change_role(context, member_id, role, "take", reason)


@app.command()
def suspend(context: typer.Context, member_id: MemberId, reason: Note) -> None:
    """End every session of a member and let it sign in no more. Its meters go on."""
    _change_state(context, member_id, "suspend", reason)


@app.command()
def reinstate(context: typer.Context, member_id: MemberId, reason: Note) -> None:
    """Let a suspended member sign in again."""
    _change_state(context, member_id, "reinstate", reason)


def _change_role(context: typer.Context, member_id: str, role: str, action: str, reason: str) -> None:
    with open_client(context) as hub:
        answer = hub.post(path_of("members", member_id, "roles", action), {"role": role, "reason": reason})
    typer.echo(f"Roles of {member_id} now: {' '.join(answer['roles']) or 'none'}.")


def _change_state(context: typer.Context, member_id: str, action: str, reason: str) -> None:
    with open_client(context) as hub:
        answer = hub.post(path_of("members", member_id, action), {"reason": reason})
    typer.echo(f"{member_id} is {answer['state']}.")
