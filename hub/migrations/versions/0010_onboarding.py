"""Registrations of users and meters on the chain, who pays their rent, and the accounts that came of them."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Create the tables."""
    for statement in SCHEMA.split(";\n"):
        if statement.strip():
            op.execute(statement)


SCHEMA = """
CREATE TABLE chain_registrations (
    registration_id uuid CONSTRAINT chain_registrations_pk PRIMARY KEY,
    member_id       uuid NOT NULL CONSTRAINT chain_registrations_member_id_fk REFERENCES members,
    kind            text NOT NULL
        CONSTRAINT chain_registrations_kind_check CHECK (kind IN ('user.register', 'meter.register')),
    subject         text NOT NULL,
    wallet          bytea NOT NULL,
    meter_id        text CONSTRAINT chain_registrations_meter_id_fk REFERENCES meters (meter_id),
    says            jsonb NOT NULL,
    outcome         text
        CONSTRAINT chain_registrations_outcome_check CHECK (outcome IN ('finalized', 'failed', 'expired')),
    signature       text,
    slot            bigint,
    error_code      text,
    error           text,
    requested_at    timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    ended_at        timestamptz,
    CONSTRAINT chain_registrations_meter_check CHECK ((kind = 'meter.register') = (meter_id IS NOT NULL)),
    CONSTRAINT chain_registrations_ended_check CHECK ((outcome IS NULL) = (ended_at IS NULL)),
    CONSTRAINT chain_registrations_finalized_check CHECK (outcome <> 'finalized' OR signature IS NOT NULL)
);
CREATE UNIQUE INDEX chain_registrations_open_idx ON chain_registrations (subject) WHERE outcome IS NULL;
CREATE INDEX chain_registrations_member_id_idx ON chain_registrations (member_id, requested_at, registration_id);
CREATE INDEX chain_registrations_requested_at_idx ON chain_registrations (requested_at, registration_id);

CREATE TABLE rent_sponsorships (
    registration_id uuid CONSTRAINT rent_sponsorships_pk PRIMARY KEY
        CONSTRAINT rent_sponsorships_registration_id_fk REFERENCES chain_registrations,
    payer           bytea NOT NULL,
    member_id       uuid NOT NULL CONSTRAINT rent_sponsorships_member_id_fk REFERENCES members,
    lamports        bigint NOT NULL CONSTRAINT rent_sponsorships_lamports_check CHECK (lamports > 0),
    state           text NOT NULL
        CONSTRAINT rent_sponsorships_state_check CHECK (state IN ('reserved', 'paid', 'given_back')),
    reserved_at     timestamptz NOT NULL,
    ended_at        timestamptz,
    CONSTRAINT rent_sponsorships_ended_check CHECK ((state = 'reserved') = (ended_at IS NULL))
);
CREATE INDEX rent_sponsorships_member_id_idx ON rent_sponsorships (member_id);
CREATE INDEX rent_sponsorships_reserved_at_idx ON rent_sponsorships (reserved_at);

CREATE TABLE chain_accounts (
    address   bytea CONSTRAINT chain_accounts_pk PRIMARY KEY,
    kind      text NOT NULL CONSTRAINT chain_accounts_kind_check CHECK (kind IN ('user', 'meter')),
    wallet    bytea NOT NULL,
    meter_id  text CONSTRAINT chain_accounts_meter_id_key UNIQUE,
    state     text NOT NULL
        CONSTRAINT chain_accounts_state_check CHECK (state IN ('active', 'suspended', 'deactivated')),
    signature text,
    slot      bigint NOT NULL,
    linked_at timestamptz NOT NULL,
    CONSTRAINT chain_accounts_meter_check CHECK ((kind = 'meter') = (meter_id IS NOT NULL))
);
CREATE UNIQUE INDEX chain_accounts_user_idx ON chain_accounts (wallet) WHERE kind = 'user'
"""
