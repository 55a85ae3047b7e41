"""What the chain tells: the inbox of program events, how far it was read, and what the program's accounts hold."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Create the tables."""
    for statement in SCHEMA.split(";\n"):
        if statement.strip():
            op.execute(statement)


SCHEMA = """
CREATE TABLE chain_cursor (
    cursor_id           smallint CONSTRAINT chain_cursor_pk PRIMARY KEY
        CONSTRAINT chain_cursor_one_check CHECK (cursor_id = 1),
    genesis_hash        bytea NOT NULL,
    program_id          bytea NOT NULL,
    slot                bigint NOT NULL DEFAULT 0,
    position            integer NOT NULL DEFAULT 0,
    signature           bytea,
    previous_signature  bytea,
    seen_through_slot   bigint NOT NULL DEFAULT 0,
    seen_at             timestamptz,
    reconcile_because   text,
    reconciled_slot     bigint,
    reconciled_at       timestamptz
);

CREATE TABLE chain_events (
    event_id          bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT chain_events_pk PRIMARY KEY,
    signature         bytea NOT NULL,
    event_no          smallint NOT NULL,
    slot              bigint NOT NULL,
    position          integer NOT NULL,
    block_time_unix_s bigint,
    payload           bytea NOT NULL,
    account_address   bytea,
    instruction       smallint,
    business_id       uuid,
    amount_units      numeric(20) NOT NULL,
    state             text NOT NULL
        CONSTRAINT chain_events_state_check CHECK (state IN ('waiting', 'processed', 'set_aside')),
    attempts          integer NOT NULL DEFAULT 0,
    next_try_at       timestamptz,
    last_error        text,
    seen_at           timestamptz NOT NULL,
    processed_at      timestamptz,
    CONSTRAINT chain_events_signature_event_no_key UNIQUE (signature, event_no),
    CONSTRAINT chain_events_processed_check CHECK ((state = 'processed') = (processed_at IS NOT NULL)),
    CONSTRAINT chain_events_next_try_check CHECK ((state = 'set_aside') = (next_try_at IS NOT NULL))
);
CREATE INDEX chain_events_waiting_idx ON chain_events (slot, position, event_no) WHERE state = 'waiting';
CREATE INDEX chain_events_set_aside_idx ON chain_events (account_address) WHERE state = 'set_aside';
CREATE INDEX chain_events_account_address_idx ON chain_events (account_address, slot, position, event_no);
CREATE INDEX chain_events_business_id_idx ON chain_events (business_id) WHERE business_id IS NOT NULL;

CREATE TABLE chain_config (
    address             bytea CONSTRAINT chain_config_pk PRIMARY KEY,
    state               smallint NOT NULL,
    decimals            smallint NOT NULL,
    domain              bytea NOT NULL,
    admin               bytea NOT NULL,
    hub                 bytea NOT NULL,
    issuer              bytea NOT NULL,
    validator           bytea NOT NULL,
    grid_mint           bytea NOT NULL,
    capacity_w_max      numeric(20) NOT NULL,
    register_step_wh_max bigint NOT NULL,
    slot                bigint NOT NULL,
    position            integer NOT NULL,
    mirrored_at         timestamptz NOT NULL
);

CREATE TABLE chain_users (
    address       bytea CONSTRAINT chain_users_pk PRIMARY KEY,
    state         smallint NOT NULL,
    kind          smallint NOT NULL,
    wallet        bytea NOT NULL CONSTRAINT chain_users_wallet_key UNIQUE,
    registered_at_unix_s bigint NOT NULL,
    meters        bigint NOT NULL,
    meters_ever   bigint NOT NULL,
    slot          bigint NOT NULL,
    position      integer NOT NULL,
    mirrored_at   timestamptz NOT NULL
);

CREATE TABLE chain_meters (
    address                   bytea CONSTRAINT chain_meters_pk PRIMARY KEY,
    state                     smallint NOT NULL,
    kind                      smallint NOT NULL,
    meter_id                  text NOT NULL CONSTRAINT chain_meters_meter_id_key UNIQUE,
    owner                     bytea NOT NULL,
    key                       bytea NOT NULL,
    grid_account              bytea NOT NULL,
    key_epoch                 bigint NOT NULL,
    measurement               smallint NOT NULL,
    flags                     integer NOT NULL,
    capacity_w                numeric(20) NOT NULL,
    register_step_wh          bigint NOT NULL,
    sequence                  numeric(20) NOT NULL,
    closed_until_unix_s       bigint NOT NULL,
    production_wh             numeric(20) NOT NULL,
    consumption_wh            numeric(20) NOT NULL,
    surplus_wh                numeric(20) NOT NULL,
    settled_wh                numeric(20) NOT NULL,
    written_off_production_wh numeric(20) NOT NULL,
    written_off_surplus_wh    numeric(20) NOT NULL,
    base_production_wh        numeric(20) NOT NULL,
    base_surplus_wh           numeric(20) NOT NULL,
    registered_at_unix_s      bigint NOT NULL,
    high_production_wh        numeric(20) NOT NULL,
    high_until_unix_s         bigint NOT NULL,
    slot                      bigint NOT NULL,
    position                  integer NOT NULL,
    mirrored_at               timestamptz NOT NULL
);
CREATE INDEX chain_meters_owner_idx ON chain_meters (owner, meter_id);

CREATE TABLE chain_supply (
    mint        bytea CONSTRAINT chain_supply_pk PRIMARY KEY,
    units       numeric(20) NOT NULL,
    slot        bigint NOT NULL,
    mirrored_at timestamptz NOT NULL
);
"""
