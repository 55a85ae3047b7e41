"""The way to PostgreSQL: one engine, one kind of transaction, migrations, and the monthly partitions.

No SQL of a domain lives here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, MetaData, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

STATEMENT_TIMEOUT_MS = 30_000
LOCK_TIMEOUT_MS = 10_000
CONNECT_TIMEOUT_S = 5
GIVE_UP_ON_A_LOST_HOST: Final[Mapping[str, Any]] = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": STATEMENT_TIMEOUT_MS,
}
"""Parameters of a connection (seconds, but the last in milliseconds): the time-outs of a server end with its host."""

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fk",
    }
)

_AWAY_SQLSTATES = ("08", "40", "53", "55", "57")
"""Classes of errors that pass: connection, rollback (deadlock), resources, locks, an operator's hand (shutdown,
time-out). Others, as a value too long for an index, come again with the same data."""

Driver = psycopg.Connection[Any]
"""What stores speak to directly, where arrays go in or rows by COPY."""

MONTHLY_TABLES = ("readings", "interval_closings", "evidence")


def create_database_engine(url: str, application_name: str, pool_size: int = 5) -> Engine:
    """An engine whose connections give up rather than hang, and are checked before use."""
    return create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,  # a fault is logged as it is, and what it was about may be anybody's password
        connect_args={
            "application_name": application_name,
            "connect_timeout": CONNECT_TIMEOUT_S,
            **GIVE_UP_ON_A_LOST_HOST,
            "options": (
                f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}"
                " -c timezone=UTC -c jit=off -c idle_in_transaction_session_timeout=60000"
            ),
        },
    )


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction: committed at the end of the block, rolled back if it raises."""
    with engine.begin() as connection:
        yield connection


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Several statements that see one moment, for a figure that is worked out from more than one of them."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
        yield connection


def is_database_away(error: BaseException) -> bool:
    """Whether PostgreSQL did not answer, or not in time: nothing was stored, and later it may work."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or (error.orig is not None and is_database_away(error.orig))
    if isinstance(error, psycopg.OperationalError):
        return error.sqlstate is None or error.sqlstate.startswith(_AWAY_SQLSTATES)
    return isinstance(error, (psycopg.InterfaceError, PoolTimeout))


def driver(connection: Connection) -> psycopg.Connection[tuple[object, ...]]:
    """The psycopg connection beneath, inside the same transaction: for COPY and array parameters."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    return raw


def migrate(url: str) -> None:
    """Bring the schema to the newest version. Safe to run from several processes at once."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["url"] = url
    command.upgrade(config, "head")


def month_of(year: int, month: int) -> str:
    """Suffix of the partitions of a month, e.g. `2026_11`."""
    return f"{year:04d}_{month:02d}"


_months_seen: WeakKeyDictionary[Engine, set[tuple[int, int]]] = WeakKeyDictionary()


def ensure_months(engine: Engine, months: set[tuple[int, int]]) -> None:
    """Like ensure_monthly_partitions, in a transaction of its own, remembering what is already there."""
    seen = _months_seen.setdefault(engine, set())
    if not months <= seen:
        with transaction(engine) as connection:
            ensure_monthly_partitions(connection, months)
        seen |= months


def ensure_monthly_partitions(connection: Connection, months: Iterable[tuple[int, int]]) -> None:
    """Create the partitions of these months where they are missing.

    An advisory lock makes two workers that meet a new month at once take turns.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('commonwatt partitions'))"))
    for year, month in sorted(set(months)):
        following = (year + 1, 1) if month == 12 else (year, month + 1)
        for table in MONTHLY_TABLES:
            connection.execute(
                text(
                    f"CREATE TABLE IF NOT EXISTS {table}_{month_of(year, month)} PARTITION OF {table}"
                    f" FOR VALUES FROM ('{year:04d}-{month:02d}-01T00:00:00Z')"
                    f" TO ('{following[0]:04d}-{following[1]:02d}-01T00:00:00Z')"
                )
            )
