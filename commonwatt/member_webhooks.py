"""`commonwatt member webhooks`: addresses to which the hub posts what it tells a member, and what became of it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from commonwatt.access import open_client
from commonwatt.hub_client import path_of
from commonwatt.terminal import new_secret_file, show

app = typer.Typer(help="Where the hub posts what it tells you.", no_args_is_help=True)

EndpointId = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its id in the list.")]


@app.command("list")
def list_endpoints(context: typer.Context) -> None:
    """Your endpoints, and how they do."""
    with open_client(context) as hub:
        found = hub.get("/me/webhooks")["endpoints"]
    show(
        ("endpoint", "address", "description", "state", "because", "failing since"),
        (
            [each[name] for name in ("endpoint_id", "url", "description", "state", "disabled_because", "failing_since")]
            for each in found
        ),
    )


@app.command()
def create(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL")],
    secret_file: Annotated[Path, typer.Option(help="Where the secret that signs is written, mode 0600.")],
    description: Annotated[str, typer.Option(help="What it is for.")],
) -> None:
    """Have what you are told posted to an address; a test goes there at once."""
    with open_client(context) as hub, new_secret_file(secret_file, "secret_file", hub.how_to_repeat) as file:
        answer = hub.post("/me/webhooks", {"url": url, "description": description})
        file.write(answer["secret"])
    typer.echo(f"Endpoint {answer['endpoint_id']}; its secret is in {secret_file}.")


@app.command()
def rotate_secret(
    context: typer.Context,
    endpoint_id: EndpointId,
    secret_file: Annotated[Path, typer.Option(help="Where the next secret is written, mode 0600; must not exist.")],
) -> None:
    """Sign with another secret; for 24 hours the one before signs, too."""
    with open_client(context) as hub, new_secret_file(secret_file, "secret_file", hub.how_to_repeat) as file:
        file.write(hub.post(path_of("me", "webhooks", endpoint_id, "rotate-secret"), {})["secret"])
    typer.echo(f"The next secret of endpoint {endpoint_id} is in {secret_file}.")


@app.command()
def deliveries(
    context: typer.Context,
    endpoint_id: EndpointId,
    count: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
) -> None:
    """What was sent to an endpoint, newest first, and how that went."""
    with open_client(context) as hub:
        found = list(islice(hub.each(path_of("me", "webhooks", endpoint_id, "deliveries"), "deliveries"), count))
    show(
        ("delivery", "what", "state", "tries", "last answer", "next try"),
        (
            (
                *(each[name] for name in ("delivery_id", "kind", "state", "attempts")),
                each["last_error"] or each["last_status"],
                each["next_try_at"],
            )
            for each in found
        ),
    )


@app.command()
def replay(
    context: typer.Context, endpoint_id: EndpointId, delivery_id: Annotated[str, typer.Argument(metavar="DELIVERY")]
) -> None:
    """Send one again, under the same webhook-id: whoever has it already can tell."""
    with open_client(context) as hub:
        answer = hub.post(path_of("me", "webhooks", endpoint_id, "deliveries", delivery_id, "replay"), {})
    typer.echo(f"{answer['webhook_id']} is {answer['state']}.")


def _change(context: typer.Context, endpoint_id: str, action: str) -> None:
    with open_client(context) as hub:
        answer = hub.post(path_of("me", "webhooks", endpoint_id, action), {})
    typer.echo(f"Endpoint {endpoint_id} is {answer['state']}.")


@app.command()
def disable(context: typer.Context, endpoint_id: EndpointId) -> None:
    """Send nothing more to an endpoint."""
    _change(context, endpoint_id, "disable")


@app.command()
def enable(context: typer.Context, endpoint_id: EndpointId) -> None:
    """Send to it again."""
    _change(context, endpoint_id, "enable")
