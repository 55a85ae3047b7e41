"""Alembic's entry: runs the migrations in one transaction, one process at a time."""

from alembic import context
from sqlalchemy import text

from hub.db import create_database_engine

engine = create_database_engine(context.config.attributes["url"], "commonwatt-migrate")
with engine.begin() as connection:
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('commonwatt migrate'))"))
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
