"""What meters say of themselves: one row each; and an index to count what is held of a meter."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table and the index."""
    for statement in SCHEMA.split(";\n"):
        op.execute(statement)


SCHEMA = """
CREATE TABLE meter_status (
    meter_no            integer CONSTRAINT meter_status_pk PRIMARY KEY
        CONSTRAINT meter_status_meter_no_fk REFERENCES meters,
    state               text NOT NULL CONSTRAINT meter_status_state_check CHECK (state IN ('online', 'offline')),
    state_at            timestamptz NOT NULL,
    status_at           timestamptz,
    clock_skew_s        bigint,
    agent               text,
    key_epoch           integer,
    sequence            bigint,
    backlog_seals       bigint,
    unsealed_readings   bigint,
    last_reading_unix_s bigint,
    journal_bytes       bigint,
    journal_bytes_max   bigint,
    clock               text,
    transport           text,
    meters              jsonb,
    problems            text[] NOT NULL,
    counts              jsonb
) WITH (fillfactor = 60);
CREATE INDEX quarantine_held_meter_no_idx ON quarantine (meter_no) WHERE state = 'held'
"""
