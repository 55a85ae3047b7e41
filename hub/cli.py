"""The hub's processes: `commonwatt hub api|ingest|jobs|migrate`. Settings come from the environment."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import typer
from alembic.util import CommandError
from prometheus_client import start_http_server

from hub import db, logs, metrics
from hub.chores import Chore, forget_ended_jobs_once, forget_old_keys_once, make_partitions_once, run_chores
from hub.errors import HubError
from hub.fleet.jobs import measure_fleet_once
from hub.integrations.broker_control import BrokerControl
from hub.outbox.jobs import run_jobs, utc_now
from hub.readings.jobs import ask_for_gaps_once
from hub.registry.jobs import registry_handlers
from hub.registry.service import BROKER_SECRET_BYTES, queue_accounts
from hub.settings import Settings, read_secret, read_secret_bytes
from hub.signatures import SEED_BYTES, SigningKey

app = typer.Typer(help="The hub: API, ingest and jobs.", no_args_is_help=True)
log = logs.get_logger()


@app.command()
def api() -> None:
    """Serve the HTTP interface until SIGTERM."""
    from hub.web import serve  # noqa: PLC0415 - FastAPI takes a second to import, and only this process needs it

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
    """Do what the outbox holds (broker accounts, commands to meters) and the hub's chores, until SIGTERM."""
    with _process() as settings:
        _block_signals()  # before any thread exists: the main thread alone waits for them
        broker_secret = read_secret_bytes(settings.broker_secret_file, BROKER_SECRET_BYTES)
        command_key = SigningKey(read_secret_bytes(settings.command_key_file, SEED_BYTES))
        broker = BrokerControl(
            settings.mqtt_host,
            settings.mqtt_port,
            settings.mqtt_ca_file,
            read_secret(settings.mqtt_password_file),
        )
        engine = db.create_database_engine(settings.database_url, "commonwatt-jobs")
        server, _ = start_http_server(settings.metrics_port, settings.metrics_host, metrics.REGISTRY)
        handlers = registry_handlers(engine, broker, broker_secret, settings.community_id)
        chores = [
            Chore("ask_for_gaps", 10, lambda now: ask_for_gaps_once(engine, settings.domain, command_key, now)),
            Chore("make_partitions", 3_600, lambda now: make_partitions_once(engine, now)),
            Chore("measure_fleet", 30, lambda now: measure_fleet_once(engine, now)),
            Chore("forget_ended_jobs", 3_600, lambda now: forget_ended_jobs_once(engine, now)),
            Chore("forget_idempotency_keys", 3_600, lambda now: forget_old_keys_once(engine, now)),
        ]
        stop = threading.Event()
        log.info("jobs_started", metrics_port=server.server_port)
        try:
            with broker:
                _run_until_signalled(
                    {
                        "outbox": lambda: run_jobs(engine, handlers, stop),
                        "chores": lambda: run_chores(chores, utc_now, stop),
                    },
                    stop,
                )
        finally:
            server.shutdown()
            engine.dispose()
        log.info("jobs_stopped")


@app.command()
def migrate() -> None:
    """Bring the database to the newest schema."""
    with _process() as settings:
        db.migrate(settings.database_url)
        log.info("database_migrated")


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
        _refuse(f"{fault.title}: {fault}")
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


def _block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)


def _run_until_signalled(loops: Mapping[str, Callable[[], None]], stop: threading.Event) -> None:
    """Run loops in threads until a signal comes or one of them fails; then set `stop` and wait for all.

    Signals are waited for, not handled: a handler that sets an event can deadlock with the thread it interrupts.
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
    signal.sigwait(STOPPING)
    stop.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
