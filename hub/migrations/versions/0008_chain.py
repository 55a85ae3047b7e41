"""Acts on the chain: intents, the transactions signed for them, and address lookup tables."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create the tables."""
    for statement in SCHEMA.split(";\n"):
        if statement.strip():
            op.execute(statement)


SCHEMA = """
CREATE TABLE chain_intents (
    intent_id     uuid CONSTRAINT chain_intents_pk PRIMARY KEY,
    kind          text NOT NULL,
    subject       text NOT NULL,
    instructions  bytea[] NOT NULL,
    compute_units integer NOT NULL,
    wallet        bytea CONSTRAINT chain_intents_wallet_check CHECK (length(wallet) = 32),
    lookup_tables bytea[] NOT NULL,
    data          jsonb NOT NULL,
    valid_until   timestamptz,
    state         text NOT NULL CONSTRAINT chain_intents_state_check CHECK (state IN
        ('planned', 'awaiting_wallet', 'open', 'unknown', 'finalized', 'failed', 'expired')),
    error_code    text,
    error         text NOT NULL DEFAULT '',
    ended_by      bytea,
    slot          bigint,
    setbacks      integer NOT NULL DEFAULT 0,
    lease_token   bigint NOT NULL DEFAULT 0,
    leased_until  timestamptz,
    next_at       timestamptz NOT NULL,
    unknown_at    timestamptz,
    created_at    timestamptz NOT NULL,
    ended_at      timestamptz,
    CONSTRAINT chain_intents_ended_check CHECK ((state IN ('finalized', 'failed', 'expired')) = (ended_at IS NOT NULL)),
    CONSTRAINT chain_intents_failed_check CHECK (state NOT IN ('failed', 'expired') OR error_code IS NOT NULL),
    CONSTRAINT chain_intents_finalized_check
        CHECK (state <> 'finalized' OR (ended_by IS NOT NULL AND slot IS NOT NULL)),
    CONSTRAINT chain_intents_wallet_time_check CHECK ((wallet IS NULL) = (valid_until IS NULL))
);
CREATE INDEX chain_intents_due_idx ON chain_intents (state, next_at, created_at, intent_id) WHERE ended_at IS NULL;
CREATE INDEX chain_intents_open_idx ON chain_intents (kind, subject) WHERE ended_at IS NULL;

CREATE TABLE chain_attempts (
    signature               bytea CONSTRAINT chain_attempts_pk PRIMARY KEY
        CONSTRAINT chain_attempts_signature_check CHECK (length(signature) = 64),
    intent_id               uuid NOT NULL CONSTRAINT chain_attempts_intent_id_fk REFERENCES chain_intents,
    attempt_no              integer NOT NULL,
    message                 bytea NOT NULL,
    wallet_signature        bytea,
    last_valid_block_height bigint NOT NULL,
    signed_at_slot          bigint NOT NULL,
    sends                   integer NOT NULL DEFAULT 0,
    refusal_code            text,
    refusal                 text NOT NULL DEFAULT '',
    signed_at               timestamptz NOT NULL,
    CONSTRAINT chain_attempts_intent_id_attempt_no_key UNIQUE (intent_id, attempt_no)
);

CREATE TABLE chain_lookup_tables (
    table_address bytea CONSTRAINT chain_lookup_tables_pk PRIMARY KEY,
    intent_id     uuid CONSTRAINT chain_lookup_tables_intent_id_fk REFERENCES chain_intents,
    created_at    timestamptz NOT NULL
);

CREATE TABLE chain_lookup_addresses (
    table_address bytea NOT NULL CONSTRAINT chain_lookup_addresses_table_address_fk REFERENCES chain_lookup_tables,
    position      integer NOT NULL CONSTRAINT chain_lookup_addresses_position_check CHECK (position BETWEEN 0 AND 255),
    address       bytea NOT NULL,
    extended_slot bigint,
    CONSTRAINT chain_lookup_addresses_pk PRIMARY KEY (table_address, position),
    CONSTRAINT chain_lookup_addresses_address_table_address_key UNIQUE (address, table_address)
);
"""
