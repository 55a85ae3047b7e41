"""The tables that the code believes in are those of the migrations."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

import hub.audit
import hub.idempotency
import hub.outbox.store
import hub.readings.store
import hub.registry.store  # noqa: F401 - each import adds its tables to the metadata
from hub.db import MONTHLY_TABLES, ensure_monthly_partitions, metadata, transaction


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
