"""Live updates: how far each topic has come, and its newest updates, for those who were away for a while."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create both tables. One statement writes them together (`hub/live/store.py`), so no foreign key joins them."""
    for statement in SCHEMA.split(";\n"):
        op.execute(statement)


SCHEMA = """
CREATE TABLE live_topics (
    topic    text CONSTRAINT live_topics_pk PRIMARY KEY,
    sequence bigint NOT NULL CONSTRAINT live_topics_sequence_check CHECK (sequence > 0)
) WITH (fillfactor = 50);
CREATE TABLE live_updates (
    topic    text NOT NULL,
    sequence bigint NOT NULL,
    at       timestamptz NOT NULL,
    kind     text NOT NULL,
    data     json NOT NULL,
    CONSTRAINT live_updates_pk PRIMARY KEY (topic, sequence)
)
"""
