"""Meters, sealed batches, readings, and what every later domain shares: audit, outbox, idempotency."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the first schema."""
    for statement in SCHEMA.split(";\n"):
        if statement.strip():
            op.execute(statement)


SCHEMA = """
CREATE TABLE meters (
    meter_no              integer GENERATED ALWAYS AS IDENTITY CONSTRAINT meters_pk PRIMARY KEY,
    meter_id              text NOT NULL CONSTRAINT meters_meter_id_key UNIQUE,
    shard                 smallint NOT NULL CONSTRAINT meters_shard_check CHECK (shard BETWEEN 0 AND 15),
    kind                  smallint NOT NULL,
    measurement           smallint NOT NULL,
    owner                 bytea NOT NULL CONSTRAINT meters_owner_check CHECK (length(owner) = 32),
    production_capacity_w bigint NOT NULL,
    connection_capacity_w bigint NOT NULL,
    register_quantum_wh   integer NOT NULL,
    state                 text NOT NULL
        CONSTRAINT meters_state_check CHECK (state IN ('active', 'suspended', 'retired')),
    key_epoch             integer NOT NULL,
    command_counter       bigint NOT NULL DEFAULT 0,
    broker_ready_at       timestamptz,
    registered_at         timestamptz NOT NULL
);

CREATE TABLE meter_keys (
    meter_no       integer NOT NULL CONSTRAINT meter_keys_meter_no_fk REFERENCES meters,
    key_epoch      integer NOT NULL,
    public_key     bytea NOT NULL CONSTRAINT meter_keys_public_key_key UNIQUE,
    statement      bytea NOT NULL,
    signature      bytea NOT NULL,
    valid_from     timestamptz NOT NULL,
    production_wh  bigint NOT NULL,
    consumption_wh bigint NOT NULL,
    surplus_wh     bigint NOT NULL,
    CONSTRAINT meter_keys_pk PRIMARY KEY (meter_no, key_epoch)
);

CREATE TABLE meter_streams (
    meter_no             integer NOT NULL,
    key_epoch            integer NOT NULL,
    highest_sequence     bigint NOT NULL,
    contiguous_sequence  bigint NOT NULL,
    contiguous_seal_hash bytea,
    CONSTRAINT meter_streams_pk PRIMARY KEY (meter_no, key_epoch),
    CONSTRAINT meter_streams_meter_no_key_epoch_fk
        FOREIGN KEY (meter_no, key_epoch) REFERENCES meter_keys,
    CONSTRAINT meter_streams_order_check CHECK (contiguous_sequence <= highest_sequence)
) WITH (fillfactor = 50);

CREATE TABLE seals (
    meter_no              integer NOT NULL,
    key_epoch             integer NOT NULL,
    sequence              bigint NOT NULL,
    state                 text NOT NULL CONSTRAINT seals_state_check
        CHECK (state IN ('accepted', 'quarantined', 'released', 'rejected')),
    linked                boolean NOT NULL,
    sound                 boolean NOT NULL,
    seal_hash             bytea NOT NULL,
    previous_seal_hash    bytea NOT NULL,
    sealed_at_unix_s      bigint NOT NULL,
    closed_until_unix_s   bigint NOT NULL,
    production_wh         bigint NOT NULL,
    consumption_wh        bigint NOT NULL,
    surplus_wh            bigint NOT NULL,
    first_reading_unix_s  bigint NOT NULL,
    first_production_wh   bigint NOT NULL,
    first_consumption_wh  bigint NOT NULL,
    last_reading_unix_s   bigint NOT NULL,
    last_production_wh    bigint NOT NULL,
    last_consumption_wh   bigint NOT NULL,
    production_excess_ws  bigint NOT NULL,
    consumption_excess_ws bigint NOT NULL,
    reading_count         integer NOT NULL,
    received_at           timestamptz NOT NULL,
    CONSTRAINT seals_pk PRIMARY KEY (meter_no, key_epoch, sequence)
);
CREATE INDEX seals_not_accepted_idx ON seals (meter_no, key_epoch, sequence)
    WHERE state IN ('quarantined', 'rejected');

CREATE TABLE seal_gaps (
    meter_no       integer NOT NULL,
    key_epoch      integer NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence  bigint NOT NULL,
    detected_at    timestamptz NOT NULL,
    asked_at       timestamptz,
    CONSTRAINT seal_gaps_pk PRIMARY KEY (meter_no, key_epoch, first_sequence),
    CONSTRAINT seal_gaps_order_check CHECK (first_sequence <= last_sequence)
);

CREATE TABLE evidence (
    meter_no    integer NOT NULL,
    key_epoch   integer NOT NULL,
    sequence    bigint NOT NULL,
    received_at timestamptz NOT NULL,
    message     bytea NOT NULL,
    CONSTRAINT evidence_pk PRIMARY KEY (meter_no, key_epoch, sequence, received_at)
) PARTITION BY RANGE (received_at);

CREATE TABLE readings (
    meter_no       integer NOT NULL,
    time           timestamptz NOT NULL,
    production_wh  bigint NOT NULL,
    consumption_wh bigint NOT NULL,
    power_w        integer,
    voltage_dv     integer,
    frequency_mhz  integer,
    flags          smallint NOT NULL,
    CONSTRAINT readings_pk PRIMARY KEY (meter_no, time)
) PARTITION BY RANGE (time);

CREATE TABLE interval_closings (
    meter_no        integer NOT NULL,
    key_epoch       integer NOT NULL,
    interval_end    timestamptz NOT NULL,
    last_reading_at timestamptz NOT NULL,
    production_wh   bigint NOT NULL,
    consumption_wh  bigint NOT NULL,
    CONSTRAINT interval_closings_pk PRIMARY KEY (meter_no, key_epoch, interval_end)
) PARTITION BY RANGE (interval_end);

CREATE TABLE quarantine (
    quarantine_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT quarantine_pk PRIMARY KEY,
    meter_no      integer CONSTRAINT quarantine_meter_no_fk REFERENCES meters,
    key_epoch     integer,
    sequence      bigint,
    topic         text NOT NULL,
    reason        text NOT NULL,
    detail        text NOT NULL,
    verified      boolean NOT NULL,
    message       bytea,
    message_hash  bytea NOT NULL,
    received_at   timestamptz NOT NULL,
    state         text NOT NULL CONSTRAINT quarantine_state_check
        CHECK (state IN ('held', 'released', 'rejected')),
    decided_by    text,
    decided_at    timestamptz,
    decision_note text,
    CONSTRAINT quarantine_topic_message_hash_key UNIQUE (topic, message_hash)
);
CREATE INDEX quarantine_held_idx ON quarantine (quarantine_id) WHERE state = 'held';
CREATE INDEX quarantine_meter_no_idx ON quarantine (meter_no, quarantine_id);

CREATE TABLE alarms (
    alarm_id  bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT alarms_pk PRIMARY KEY,
    kind      text NOT NULL,
    meter_no  integer,
    detail    jsonb NOT NULL,
    raised_at timestamptz NOT NULL
);

CREATE TABLE shard_leases (
    shard      smallint CONSTRAINT shard_leases_pk PRIMARY KEY,
    holder     text,
    token      bigint NOT NULL,
    expires_at timestamptz NOT NULL
);
INSERT INTO shard_leases SELECT shard, NULL, 0, '-infinity' FROM generate_series(0, 15) AS shard;

CREATE TABLE ingest_workers (
    worker_id    text CONSTRAINT ingest_workers_pk PRIMARY KEY,
    expires_at   timestamptz NOT NULL
);

CREATE TABLE audit_log (
    audit_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT audit_log_pk PRIMARY KEY,
    at       timestamptz NOT NULL,
    actor    text NOT NULL,
    action   text NOT NULL,
    subject  text NOT NULL,
    detail   jsonb NOT NULL
);
CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only();

CREATE TABLE outbox_jobs (
    job_id       bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT outbox_jobs_pk PRIMARY KEY,
    kind         text NOT NULL,
    subject      text NOT NULL,
    payload      jsonb NOT NULL,
    state        text NOT NULL CONSTRAINT outbox_jobs_state_check
        CHECK (state IN ('waiting', 'running', 'done', 'given_up')),
    attempts     integer NOT NULL DEFAULT 0,
    lease_token  bigint NOT NULL DEFAULT 0,
    run_at       timestamptz NOT NULL,
    leased_until timestamptz,
    last_error   text,
    created_at   timestamptz NOT NULL,
    ended_at     timestamptz
);
CREATE INDEX outbox_jobs_due_idx ON outbox_jobs (run_at) WHERE state IN ('waiting', 'running');
CREATE INDEX outbox_jobs_unfinished_idx ON outbox_jobs (subject, kind, job_id)
    WHERE state IN ('waiting', 'running');

CREATE TABLE idempotency_keys (
    scope           text NOT NULL,
    key             text NOT NULL,
    request_hash    bytea NOT NULL,
    response_status integer NOT NULL,
    response_body   bytea NOT NULL,
    created_at      timestamptz NOT NULL,
    CONSTRAINT idempotency_keys_pk PRIMARY KEY (scope, key)
);
"""
