"""What members are told and how, their webhook endpoints and deliveries, silences of meters; jobs by kind."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Create the tables, and let each lane of the outbox find its own jobs."""
    for statement in SCHEMA.split(";\n"):
        op.execute(statement)


SCHEMA = """
CREATE TABLE notifications (
    notification_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT notifications_pk PRIMARY KEY,
    member_id       uuid NOT NULL CONSTRAINT notifications_member_id_fk REFERENCES members,
    kind            text NOT NULL,
    key             text,
    data            jsonb NOT NULL,
    times           integer NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL,
    last_at         timestamptz NOT NULL,
    read_at         timestamptz,
    mail            text NOT NULL
        CONSTRAINT notifications_mail_check CHECK (mail IN ('none', 'due', 'sending', 'sent', 'dropped')),
    mailed_at       timestamptz
);
CREATE UNIQUE INDEX notifications_key_idx ON notifications (member_id, key) WHERE key IS NOT NULL;
CREATE INDEX notifications_member_id_idx ON notifications (member_id, notification_id);
CREATE INDEX notifications_unread_idx ON notifications (member_id, notification_id) WHERE read_at IS NULL;
CREATE INDEX notifications_mail_due_idx ON notifications (member_id, notification_id)
    WHERE mail IN ('due', 'sending');
CREATE INDEX notifications_mailed_idx ON notifications (member_id, mailed_at) WHERE mailed_at IS NOT NULL;
CREATE INDEX notifications_recent_idx ON notifications (member_id, created_at);
CREATE INDEX notifications_created_at_idx ON notifications (created_at);

CREATE TABLE notification_preferences (
    member_id  uuid NOT NULL CONSTRAINT notification_preferences_member_id_fk REFERENCES members,
    kind_group text NOT NULL,
    channel    text NOT NULL
        CONSTRAINT notification_preferences_channel_check CHECK (channel IN ('email', 'webhook')),
    enabled    boolean NOT NULL,
    changed_at timestamptz NOT NULL,
    CONSTRAINT notification_preferences_pk PRIMARY KEY (member_id, kind_group, channel)
);

CREATE TABLE webhook_endpoints (
    endpoint_id           uuid CONSTRAINT webhook_endpoints_pk PRIMARY KEY,
    member_id             uuid NOT NULL CONSTRAINT webhook_endpoints_member_id_fk REFERENCES members,
    url                   text NOT NULL,
    description           text NOT NULL,
    state                 text NOT NULL
        CONSTRAINT webhook_endpoints_state_check CHECK (state IN ('active', 'disabled')),
    disabled_because      text
        CONSTRAINT webhook_endpoints_disabled_because_check CHECK (disabled_because IN ('member', 'gone', 'failing')),
    secret_generation     integer NOT NULL,
    previous_secret_until timestamptz,
    failing_since         timestamptz,
    failures              integer NOT NULL DEFAULT 0,
    rests_until           timestamptz,
    created_at            timestamptz NOT NULL,
    CONSTRAINT webhook_endpoints_disabled_check CHECK ((state = 'disabled') = (disabled_because IS NOT NULL))
);
CREATE INDEX webhook_endpoints_member_id_idx ON webhook_endpoints (member_id);

CREATE TABLE webhook_deliveries (
    delivery_no      bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT webhook_deliveries_pk PRIMARY KEY,
    delivery_id      uuid NOT NULL CONSTRAINT webhook_deliveries_delivery_id_key UNIQUE,
    endpoint_id      uuid NOT NULL CONSTRAINT webhook_deliveries_endpoint_id_fk REFERENCES webhook_endpoints,
    kind             text NOT NULL,
    body             text NOT NULL,
    state            text NOT NULL CONSTRAINT webhook_deliveries_state_check
        CHECK (state IN ('queued', 'waiting', 'delivered', 'given_up')),
    attempts         integer NOT NULL DEFAULT 0,
    tries            integer NOT NULL DEFAULT 0,
    created_at       timestamptz NOT NULL,
    last_try_at      timestamptz,
    last_outcome     text CONSTRAINT webhook_deliveries_last_outcome_check
        CHECK (last_outcome IN ('delivered', 'refused', 'unknown', 'not_sent')),
    last_status      integer,
    last_error       text,
    last_duration_ms integer,
    next_try_at      timestamptz,
    ended_at         timestamptz,
    CONSTRAINT webhook_deliveries_next_try_check CHECK ((state = 'waiting') = (next_try_at IS NOT NULL)),
    CONSTRAINT webhook_deliveries_ended_check CHECK ((state IN ('delivered', 'given_up')) = (ended_at IS NOT NULL))
);
CREATE INDEX webhook_deliveries_endpoint_id_idx ON webhook_deliveries (endpoint_id, delivery_no);
CREATE INDEX webhook_deliveries_created_at_idx ON webhook_deliveries (endpoint_id, created_at);
CREATE INDEX webhook_deliveries_unfinished_idx ON webhook_deliveries (endpoint_id, state, next_try_at, delivery_no)
    WHERE state IN ('queued', 'waiting');
CREATE INDEX webhook_deliveries_ended_at_idx ON webhook_deliveries (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE meter_silences (
    meter_no          integer CONSTRAINT meter_silences_pk PRIMARY KEY
        CONSTRAINT meter_silences_meter_no_fk REFERENCES meters,
    silent_since      timestamptz NOT NULL,
    noticed_at        timestamptz NOT NULL,
    operators_told_at timestamptz,
    owner_told_at     timestamptz
);

CREATE TABLE held_notices (
    meter_no integer NOT NULL CONSTRAINT held_notices_meter_no_fk REFERENCES meters,
    hour     timestamptz NOT NULL,
    CONSTRAINT held_notices_pk PRIMARY KEY (meter_no, hour)
);

DROP INDEX outbox_jobs_due_idx;
CREATE INDEX outbox_jobs_due_idx ON outbox_jobs (kind, run_at, job_id) WHERE state IN ('waiting', 'running')
"""
