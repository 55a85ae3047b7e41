"""The tables that the code believes in are those of the migrations."""

from __future__ import annotations

from pathlib import Path

import psycopg
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext

import hub.audit
import hub.auth.api_keys_store
import hub.auth.sessions_store
import hub.auth.wallets_store
import hub.chain.inbox_store
import hub.chain.intents_store
import hub.chain.lookup_tables_store
import hub.chain.mirrors_store
import hub.db
import hub.fleet.silences_store
import hub.fleet.store
import hub.idempotency
import hub.live.store
import hub.minting.store
import hub.notifications.alarms
import hub.notifications.deliveries_store
import hub.notifications.endpoints_store
import hub.notifications.store
import hub.outbox.store
import hub.readings.notices_store
import hub.readings.store
import hub.registry.commands_store
import hub.registry.keys_store
import hub.registry.onboarding_store
import hub.registry.store
from hub.db import MONTHLY_TABLES, ensure_monthly_partitions, metadata, transaction
from protocol.enrolment import split_enrolment
from tests.hub.readings.conftest import START, Hub, fleet
from tests.hub.readings.test_key_life import measured, rotate, shown


def _is_ours(item, name, kind, reflected, compare_to):
    """Partitions of a month are made at run time, under the name of their parent."""
    partition = kind == "table" and reflected and any(name.startswith(f"{table}_20") for table in MONTHLY_TABLES)
    return not partition and not (kind == "table" and name == "alembic_version")


def test_the_migrated_schema_is_the_one_in_the_code(engine):
    with transaction(engine) as connection:
        ensure_monthly_partitions(connection, [(2026, 11), (2026, 12)])
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": _is_ours, "compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_constraints_have_the_names_that_the_convention_gives(engine):
    names = {
        constraint.name for table in metadata.tables.values() for constraint in table.constraints if constraint.name
    }
    with engine.connect() as connection:
        known = {
            row[0]
            for row in connection.exec_driver_sql(
                "SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
            )
        }
    assert names <= known


def test_the_meters_of_an_older_hub_keep_key_password_and_permission(postgres):
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE older")
    url = postgres.url("older")
    config = Config()
    config.set_main_option("script_location", str(Path(hub.db.__file__).parent / "migrations"))
    config.attributes["url"] = url
    command.upgrade(config, "0001")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO meters (meter_id, shard, kind, measurement, owner, production_capacity_w,"
            " connection_capacity_w, register_quantum_wh, state, key_epoch, registered_at)"
            " VALUES ('roof', 0, 1, 1, decode(repeat('00', 32), 'hex'), 1, 1, 1, 'active', 1, now())"
        )
        connection.execute(
            "INSERT INTO meter_keys SELECT meter_no, 1, 'k', 's', 'g', '2026-11-19T12:00:00Z', 15, 4, 11 FROM meters"
        )
        command.upgrade(config, "head")
        assert connection.execute(
            "SELECT phases_netted, minting_allowed, password_generation FROM meters"
        ).fetchall() == [(True, True, 1)]
        assert connection.execute(
            "SELECT state, endorsed_by, base_sequence, base_reading_unix_s, base_production_wh, base_consumption_wh"
            " FROM meter_keys"
        ).fetchall() == [("active", "first", 0, 1_795_089_599, 15, 4)]


def test_a_meter_of_an_older_hub_goes_on_sealing_and_changes_its_key(postgres):
    """Its key, statement and stream are those that the first release wrote; its later energy is what it measured."""
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE older_with_a_meter")
    url = postgres.url("older_with_a_meter")
    config = Config()
    config.set_main_option("script_location", str(Path(hub.db.__file__).parent / "migrations"))
    config.attributes["url"] = url
    command.upgrade(config, "0001")
    [meter] = fleet()
    statement, signed, signature = split_enrolment(meter.enrolment())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO meters (meter_id, shard, kind, measurement, owner, production_capacity_w,"
            " connection_capacity_w, register_quantum_wh, state, key_epoch, registered_at)"
            " VALUES (%s, 0, %s, %s, %s, 10000, 20000, 10, 'active', 1, %s)",
            [meter.meter_id, statement.kind, statement.measurement, statement.owner, START],
        )
        connection.execute(
            "INSERT INTO meter_keys VALUES (1, 1, %s, %s, %s, to_timestamp(%s), %s, %s, %s)",
            [
                statement.public_key,
                signed,
                signature,
                statement.valid_from_unix_s,
                statement.production_wh,
                statement.consumption_wh,
                statement.surplus_wh,
            ],
        )
        connection.execute("INSERT INTO meter_streams VALUES (1, 1, 0, 0, NULL)")
    command.upgrade(config, "head")
    engine = hub.db.create_database_engine(url, "commonwatt-test")
    try:
        newer = Hub(engine)
        old_key = meter.messages(3)
        newer.take(*old_key)
        rotate(newer, meter)
        messages = old_key + meter.messages(4)
        newer.take(*messages)
        assert shown(newer) == measured(messages)
        assert newer.value("SELECT count(*) FROM seals WHERE state <> 'accepted' OR NOT linked") == 0
    finally:
        engine.dispose()
