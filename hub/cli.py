"""The hub's processes: `commonwatt hub api|ingest|jobs|chain|migrate`. Settings come from the environment."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from alembic.util import CommandError
from prometheus_client import start_http_server

from hub import db, logs, metrics
from hub.audit.jobs import note_head_once
from hub.auth.bootstrap import bootstrap_admin
from hub.auth.forgetting import (
    forget_ended_keys_once,
    forget_ended_sessions_once,
    forget_expired_challenges_once,
    forget_mails_once,
)
from hub.auth.jobs import auth_mail_handlers
from hub.auth.mails import Sender
from hub.chores import Chore, forget_ended_jobs_once, forget_old_keys_once, make_partitions_once, run_chores
from hub.errors import HubError
from hub.fleet.jobs import measure_fleet_once
from hub.fleet.silence import tell_silences_once
from hub.integrations.broker_control import BrokerControl
from hub.integrations.mail import mail_server_of
from hub.integrations.webhooks import WebhookPost
from hub.limits.guard import forget_full_buckets_once
from hub.live.jobs import forget_old_updates_once
from hub.notifications.jobs import (
    forget_told_once,
    mail_handlers,
    queue_due_deliveries_once,
    tell_handlers,
    webhook_handlers,
)
from hub.outbox.jobs import Lane, OutboxGauges, loops_of, utc_now
from hub.readings.jobs import ask_for_gaps_once, forget_held_notices_once
from hub.registry.jobs import registry_handlers
from hub.registry.service import BROKER_SECRET_BYTES, queue_accounts
from hub.settings import MEMBER_SECRET_BYTES, Settings, read_secret, read_secret_bytes
from hub.signatures import SEED_BYTES, SigningKey

JOBS_CONNECTIONS = 12
"""One for each worker of a lane and one for the chores; nobody holds one while the network is waited for."""

app = typer.Typer(help="The hub: API, ingest and jobs.", no_args_is_help=True)
log = logs.get_logger()


@app.command()
def api() -> None:
    """Serve the HTTP interface until SIGTERM."""
    from hub.web import serve  # noqa: PLC0415 - FastAPI takes long to import, and only this process needs it

    with _process() as settings:
        serve(settings)


@app.command()
def ingest() -> None:
    """Take in what meters publish until SIGTERM. Start as many as you like: they share the shards."""
    from hub.fleet.consumer import run  # noqa: PLC0415 - likewise numpy

    with _process() as settings:
        run(settings)


@app.command()
def jobs() -> None:
    """Do what the outbox holds (broker accounts, commands to meters, mails, webhooks) and chores, until SIGTERM."""
    with _process() as settings:
        heard = _hear_signals()
        broker_secret = read_secret_bytes(settings.broker_secret_file, BROKER_SECRET_BYTES)
        command_key = SigningKey(read_secret_bytes(settings.command_key_file, SEED_BYTES))
        broker = BrokerControl(
            settings.mqtt_host,
            settings.mqtt_port,
            settings.mqtt_ca_file,
            read_secret(settings.mqtt_password_file),
        )
        member_secret = read_secret_bytes(settings.member_secret_file, MEMBER_SECRET_BYTES)
        mail_server = mail_server_of(settings)
        sender = Sender(settings.community_id, settings.public_url)
        post = WebhookPost(settings.webhook_networks_allowed)
        engine = db.create_database_engine(settings.database_url, "commonwatt-jobs", JOBS_CONNECTIONS)
        server, _ = start_http_server(settings.metrics_port, settings.metrics_host, metrics.REGISTRY)
        lanes = [
            Lane("broker", 1, registry_handlers(engine, broker, broker_secret, settings.community_id)),
            Lane("notices", 1, tell_handlers(engine)),
            Lane(
                "sign-in-mail",  # of its own: nobody waits for a link behind a thousand notifications
                1,
                auth_mail_handlers(engine, mail_server, member_secret, settings.community_id, settings.public_url),
            ),
            Lane("mail", 2, mail_handlers(engine, mail_server, sender)),
            Lane("webhooks", 6, webhook_handlers(engine, post, member_secret, utc_now)),
        ]
        assert sum(lane.workers for lane in lanes) < JOBS_CONNECTIONS
        gauges = OutboxGauges(kind for lane in lanes for kind in lane.handlers)
        chores = [
            Chore("ask_for_gaps", 10, lambda now: ask_for_gaps_once(engine, settings.domain, command_key, now)),
            Chore("make_partitions", 3_600, lambda now: make_partitions_once(engine, now)),
            Chore("measure_fleet", 30, lambda now: measure_fleet_once(engine, now)),
            Chore("tell_silences", 300, lambda now: tell_silences_once(engine, now)),
            Chore("measure_outbox", 5, lambda now: gauges.measure_once(engine, now)),
            Chore("queue_due_deliveries", 1, lambda now: queue_due_deliveries_once(engine, now)),
            Chore("forget_held_notices", 3_600, lambda now: forget_held_notices_once(engine, now)),
            Chore("forget_told", 3_600, lambda now: forget_told_once(engine, now)),
            Chore("forget_old_updates", 600, lambda now: forget_old_updates_once(engine, now)),
            Chore("forget_ended_jobs", 3_600, lambda now: forget_ended_jobs_once(engine, now)),
            Chore("note_audit_head", 3_600, lambda now: note_head_once(engine, now)),
            Chore("forget_full_buckets", 3_600, lambda now: forget_full_buckets_once(engine, now)),
            Chore("forget_idempotency_keys", 3_600, lambda now: forget_old_keys_once(engine, now)),
            Chore("forget_ended_sessions", 3_600, lambda now: forget_ended_sessions_once(engine, now)),
            Chore("forget_ended_api_keys", 3_600, lambda now: forget_ended_keys_once(engine, now)),
            Chore("forget_challenges", 600, lambda now: forget_expired_challenges_once(engine, now)),
            Chore("forget_mails", 600, lambda now: forget_mails_once(engine, now)),
        ]
        stop = threading.Event()
        log.info("jobs_started", metrics_port=server.server_port)
        try:
            with broker:
                _run_until_signalled(
                    {**loops_of(lanes, engine, stop), "chores": lambda: run_chores(chores, utc_now, stop)}, stop, heard
                )
        finally:
            server.shutdown()
            engine.dispose()
        log.info("jobs_stopped")


@app.command()
def chain() -> None:
    """Mint, send to the chain and follow what happens there until SIGTERM. It alone has the key on the chain."""
    from hub.chain_process import run  # noqa: PLC0415 - likewise Solana's runtime

    with _process() as settings:
        run(settings)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def program(context: typer.Context) -> None:
    """The energy program on the chain: deploy, initialize, configure, pause, status."""
    from hub.chain.program_cli import app as program_app  # noqa: PLC0415 - likewise

    program_app(args=context.args, prog_name="commonwatt hub program")


@app.command()
def migrate() -> None:
    """Bring the database to the newest schema."""
    with _process() as settings:
        db.migrate(settings.database_url)
        log.info("database_migrated")


@app.command()
def bootstrap(
    key_file: Annotated[Path, typer.Option(help="A new file for the admin's API key, mode 0600.")],
    name: Annotated[str, typer.Option(help="The admin's name.")] = "First admin",
    another: Annotated[bool, typer.Option(help="Also if there is one: all have lost their keys.")] = False,
) -> None:
    """Make the first admin, with an API key for `commonwatt admin`."""
    with _process() as settings:
        member_secret = read_secret_bytes(settings.member_secret_file, MEMBER_SECRET_BYTES)
        engine = db.create_database_engine(settings.database_url, "commonwatt-bootstrap")
        descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file, db.transaction(engine) as connection:
                # the file first: a key that exists and that nobody has would be worse than a file without one
                key = bootstrap_admin(connection, member_secret, name, another, utc_now())
                file.write(key + "\n")
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            key_file.unlink()
            raise
        finally:
            engine.dispose()
        typer.echo(f"{name} is an admin; the API key is in {key_file}.")


@app.command()
def accounts() -> None:
    """Queue the broker account of every meter again, for when the broker has lost them; `hub jobs` makes them."""
    with _process() as settings:
        engine = db.create_database_engine(settings.database_url, "commonwatt-accounts")
        with db.transaction(engine) as connection:
            count = queue_accounts(connection, "command line", utc_now())
        engine.dispose()
        typer.echo(f"Queued {count} accounts.")


@contextmanager
def _process() -> Iterator[Settings]:
    """What every process begins and ends with: settings, logs, and one clear line for what an operator must mend."""
    try:
        settings = Settings.read()
        logs.configure_logs(settings.log_level)
        yield settings
    except HubError as fault:
        _refuse(": ".join(part for part in (fault.title, fault.detail) if part))
    except (CommandError, OSError) as fault:
        _refuse(f"{type(fault).__name__}: {fault}")
    except Exception as fault:
        if not db.is_database_away(fault):
            raise
        _refuse(f"The database does not answer: {str(fault).strip().splitlines()[0]}")


def _refuse(message: str) -> None:
    typer.echo(f"commonwatt hub: {message}", err=True)
    raise typer.Exit(1)


STOPPING = (signal.SIGTERM, signal.SIGINT)


def _hear_signals() -> socket.socket:
    """A socket from which a byte can be read once we are to stop.

    Whichever thread the signal hits: libraries have threads of their own from the moment they are imported, so neither
    blocking the signals nor waiting for them with `sigwait` would do.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.detach())
    for number in STOPPING:
        signal.signal(number, lambda *_: None)  # only so that the byte is written
    return heard


def _run_until_signalled(loops: Mapping[str, Callable[[], None]], stop: threading.Event, heard: socket.socket) -> None:
    """Run loops in threads until a signal comes or one of them fails; then set `stop` and wait for all.

    The signal's handler does nothing: one that sets an event can deadlock with the thread it interrupts.
    """
    failures: list[BaseException] = []

    def guarded(loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as fault:  # noqa: BLE001 - carried to the main thread, which raises it
            failures.append(fault)
            os.kill(os.getpid(), signal.SIGTERM)

    threads = [threading.Thread(target=guarded, args=(loop,), name=name) for name, loop in loops.items()]
    for thread in threads:
        thread.start()
    heard.recv(1)
    stop.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
