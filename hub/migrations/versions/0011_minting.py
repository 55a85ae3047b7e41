"""Minting: what was presented to the chain and came of it, and gaps that were declared lost."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Create the tables."""
    for statement in SCHEMA.split(";\n"):
        if statement.strip():
            op.execute(statement)


SCHEMA = """
CREATE TABLE lost_gaps (
    meter_no       integer NOT NULL,
    key_epoch      integer NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence  bigint NOT NULL,
    declared_by    text NOT NULL,
    declared_at    timestamptz NOT NULL,
    reason         text NOT NULL,
    passed_at      timestamptz,
    CONSTRAINT lost_gaps_pk PRIMARY KEY (meter_no, key_epoch, first_sequence),
    CONSTRAINT lost_gaps_meter_no_key_epoch_fk
        FOREIGN KEY (meter_no, key_epoch) REFERENCES meter_keys (meter_no, key_epoch),
    CONSTRAINT lost_gaps_order_check CHECK (first_sequence <= last_sequence)
);
CREATE TABLE mints (
    mint_id                   bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT mints_pk PRIMARY KEY,
    meter_no                  integer NOT NULL CONSTRAINT mints_meter_no_fk REFERENCES meters (meter_no),
    intent_id                 uuid NOT NULL,
    step                      text NOT NULL CONSTRAINT mints_step_check
                              CHECK (step IN ('submit', 'write_off', 'make_way', 'rotate')),
    state                     text NOT NULL CONSTRAINT mints_state_check
                              CHECK (state IN ('open', 'finalized', 'failed')),
    key_epoch                 integer NOT NULL,
    first_sequence            bigint NOT NULL,
    last_sequence             bigint NOT NULL,
    closed_from_unix_s        bigint NOT NULL,
    closed_until_unix_s       bigint NOT NULL,
    surplus_wh                bigint NOT NULL,
    minted_wh                 bigint NOT NULL,
    written_off_wh            bigint NOT NULL,
    written_off_production_wh bigint NOT NULL,
    earned_back_wh            bigint NOT NULL,
    settled_wh                bigint NOT NULL,
    planned_at                timestamptz NOT NULL,
    signature                 text,
    slot                      bigint,
    ended_at                  timestamptz,
    error_code                text,
    CONSTRAINT mints_sum_check CHECK (surplus_wh = minted_wh + written_off_wh + earned_back_wh),
    CONSTRAINT mints_ended_check CHECK (
        (state = 'open') = (ended_at IS NULL)
        AND (state = 'finalized') = (signature IS NOT NULL AND slot IS NOT NULL))
);
CREATE UNIQUE INDEX mints_open_idx ON mints (meter_no) WHERE state = 'open';
CREATE INDEX mints_intent_id_idx ON mints (intent_id);
CREATE INDEX mints_seals_idx ON mints (meter_no, key_epoch, last_sequence) WHERE state = 'finalized';
CREATE INDEX mints_meter_no_idx ON mints (meter_no, mint_id);
CREATE TABLE mint_days (
    mint_id        bigint NOT NULL CONSTRAINT mint_days_mint_id_fk REFERENCES mints (mint_id),
    day            date NOT NULL,
    minted_wh      bigint NOT NULL,
    written_off_wh bigint NOT NULL,
    earned_back_wh bigint NOT NULL,
    CONSTRAINT mint_days_pk PRIMARY KEY (mint_id, day)
);
CREATE TABLE minting_holds (
    meter_no   integer CONSTRAINT minting_holds_pk PRIMARY KEY
               CONSTRAINT minting_holds_meter_no_fk REFERENCES meters (meter_no),
    mint_id    bigint NOT NULL CONSTRAINT minting_holds_mint_id_fk REFERENCES mints (mint_id),
    error_code text NOT NULL,
    error      text NOT NULL,
    held_at    timestamptz NOT NULL
);
CREATE TABLE minting_turns (
    meter_no  integer CONSTRAINT minting_turns_pk PRIMARY KEY
              CONSTRAINT minting_turns_meter_no_fk REFERENCES meters (meter_no),
    looked_at timestamptz NOT NULL,
    alone     boolean NOT NULL
);
CREATE INDEX minting_turns_looked_at_idx ON minting_turns (looked_at)
"""
