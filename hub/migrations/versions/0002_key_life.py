"""The life of a meter's keys: who endorsed each, where it began and ended; replacements, commands, passwords."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns and tables; every key there is becomes a first, active one."""
    for statement in SCHEMA.split(";\n"):
        if statement.strip():
            op.execute(statement)


SCHEMA = """
ALTER TABLE meters
    ADD phases_netted boolean,
    ADD minting_allowed boolean,
    ADD password_generation integer NOT NULL DEFAULT 1
        CONSTRAINT meters_password_generation_check CHECK (password_generation >= 1);
UPDATE meters SET phases_netted = true, minting_allowed = true;
ALTER TABLE meters
    ALTER phases_netted SET NOT NULL,
    ALTER minting_allowed SET NOT NULL;

ALTER TABLE meter_keys
    ADD state text CONSTRAINT meter_keys_state_check CHECK (state IN ('active', 'superseded', 'revoked')),
    ADD endorsed_by text
        CONSTRAINT meter_keys_endorsed_by_check CHECK (endorsed_by IN ('first', 'old_key', 'owner')),
    ADD endorsement bytea,
    ADD base_sequence bigint,
    ADD base_sealed_at_unix_s bigint,
    ADD base_reading_unix_s bigint,
    ADD base_production_wh bigint,
    ADD base_consumption_wh bigint,
    ADD base_production_excess_ws bigint,
    ADD base_consumption_excess_ws bigint,
    ADD superseded_after_sequence bigint,
    ADD superseded_at timestamptz,
    ADD revoked_from timestamptz,
    ADD registered_at timestamptz;
UPDATE meter_keys AS k SET
    state = 'active',
    endorsed_by = 'first',
    base_sequence = 0,
    base_sealed_at_unix_s = CAST(extract(epoch FROM k.valid_from) AS bigint) - 1,
    base_reading_unix_s = CAST(extract(epoch FROM k.valid_from) AS bigint) - 1,
    base_production_wh = k.production_wh,
    base_consumption_wh = k.consumption_wh,
    base_production_excess_ws = 0,
    base_consumption_excess_ws = 0,
    registered_at = m.registered_at
FROM meters AS m WHERE m.meter_no = k.meter_no;
ALTER TABLE meter_keys
    ALTER state SET NOT NULL,
    ALTER endorsed_by SET NOT NULL,
    ALTER base_sequence SET NOT NULL,
    ALTER base_sealed_at_unix_s SET NOT NULL,
    ALTER base_reading_unix_s SET NOT NULL,
    ALTER base_production_wh SET NOT NULL,
    ALTER base_consumption_wh SET NOT NULL,
    ALTER base_production_excess_ws SET NOT NULL,
    ALTER base_consumption_excess_ws SET NOT NULL,
    ALTER registered_at SET NOT NULL,
    ADD CONSTRAINT meter_keys_key_epoch_check CHECK (key_epoch >= 1),
    ADD CONSTRAINT meter_keys_first_check CHECK ((endorsed_by = 'first') = (key_epoch = 1)),
    ADD CONSTRAINT meter_keys_endorsement_check CHECK (
        (endorsed_by = 'first' AND endorsement IS NULL) OR
        (endorsed_by <> 'first' AND endorsement IS NOT NULL AND length(endorsement) = 64)),
    ADD CONSTRAINT meter_keys_base_check CHECK (
        base_sequence >= 0 AND base_production_wh >= production_wh AND base_consumption_wh >= consumption_wh
        AND base_production_excess_ws >= 0 AND base_consumption_excess_ws >= 0),
    ADD CONSTRAINT meter_keys_superseded_check CHECK (
        (superseded_at IS NULL) = (superseded_after_sequence IS NULL)
        AND (superseded_after_sequence IS NULL OR superseded_after_sequence >= 0)
        AND (state <> 'superseded' OR superseded_at IS NOT NULL)
        AND (state <> 'active' OR superseded_at IS NULL)),
    ADD CONSTRAINT meter_keys_revoked_check CHECK ((state = 'revoked') = (revoked_from IS NOT NULL));
CREATE UNIQUE INDEX meter_keys_active_idx ON meter_keys (meter_no) WHERE state = 'active';

CREATE TABLE meter_replacements (
    meter_no   integer NOT NULL,
    key_epoch  integer NOT NULL,
    register   smallint NOT NULL CONSTRAINT meter_replacements_register_check CHECK (register BETWEEN 1 AND 3),
    record     bytea NOT NULL CONSTRAINT meter_replacements_record_check CHECK (length(record) = 108),
    signature  bytea NOT NULL CONSTRAINT meter_replacements_signature_check CHECK (length(signature) = 64),
    at         timestamptz NOT NULL,
    final_wh   bigint NOT NULL CONSTRAINT meter_replacements_final_wh_check CHECK (final_wh >= 0),
    initial_wh bigint NOT NULL CONSTRAINT meter_replacements_initial_wh_check CHECK (initial_wh >= 0),
    old_serial text NOT NULL,
    new_serial text NOT NULL,
    CONSTRAINT meter_replacements_pk PRIMARY KEY (meter_no, key_epoch, register),
    CONSTRAINT meter_replacements_meter_no_key_epoch_fk FOREIGN KEY (meter_no, key_epoch) REFERENCES meter_keys
);

CREATE TABLE meter_commands (
    meter_no   integer NOT NULL CONSTRAINT meter_commands_meter_no_fk REFERENCES meters,
    counter    bigint NOT NULL CONSTRAINT meter_commands_counter_check CHECK (counter >= 1),
    expires_at timestamptz NOT NULL,
    message    bytea NOT NULL CONSTRAINT meter_commands_message_check CHECK (length(message) = 144),
    CONSTRAINT meter_commands_pk PRIMARY KEY (meter_no, counter)
);

CREATE TABLE bad_signatures (
    meter_no integer NOT NULL CONSTRAINT bad_signatures_meter_no_fk REFERENCES meters,
    day      date NOT NULL,
    messages bigint NOT NULL CONSTRAINT bad_signatures_messages_check CHECK (messages >= 1),
    CONSTRAINT bad_signatures_pk PRIMARY KEY (meter_no, day)
);
"""
