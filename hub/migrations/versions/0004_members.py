"""Members: who they are, how they prove it, what they may, and where they are signed in."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the tables."""
    for statement in SCHEMA.split(";\n"):
        op.execute(statement)


SCHEMA = """
CREATE TABLE members (
    member_id      uuid CONSTRAINT members_pk PRIMARY KEY,
    type           text NOT NULL CONSTRAINT members_type_check CHECK (type IN ('prosumer', 'consumer')),
    name           text NOT NULL,
    phone          text,
    postal_address text,
    state          text NOT NULL CONSTRAINT members_state_check CHECK (state IN ('active', 'suspended')),
    created_at     timestamptz NOT NULL
);
CREATE INDEX members_created_at_idx ON members (created_at, member_id);

CREATE TABLE member_roles (
    member_id uuid NOT NULL CONSTRAINT member_roles_member_id_fk REFERENCES members,
    role      text NOT NULL CONSTRAINT member_roles_role_check
        CHECK (role IN ('investor', 'asset_manager', 'operator', 'auditor', 'admin')),
    given_by  text NOT NULL,
    given_at  timestamptz NOT NULL,
    CONSTRAINT member_roles_pk PRIMARY KEY (member_id, role)
);
CREATE INDEX member_roles_role_idx ON member_roles (role);

CREATE TABLE identities (
    kind       text NOT NULL CONSTRAINT identities_kind_check CHECK (kind IN ('solana', 'dogecoin', 'email')),
    value      text NOT NULL,
    public_key bytea,
    member_id  uuid NOT NULL CONSTRAINT identities_member_id_fk REFERENCES members,
    linked_at  timestamptz NOT NULL,
    CONSTRAINT identities_pk PRIMARY KEY (kind, value)
);
CREATE INDEX identities_member_id_idx ON identities (member_id);
CREATE UNIQUE INDEX identities_public_key_idx ON identities (public_key) WHERE public_key IS NOT NULL;
CREATE UNIQUE INDEX identities_one_email_idx ON identities (member_id) WHERE kind = 'email';

CREATE TABLE passwords (
    member_id  uuid CONSTRAINT passwords_pk PRIMARY KEY CONSTRAINT passwords_member_id_fk REFERENCES members,
    hash       text NOT NULL,
    changed_at timestamptz NOT NULL
);

CREATE TABLE mail_proofs (
    proof_id   uuid CONSTRAINT mail_proofs_pk PRIMARY KEY,
    purpose    text NOT NULL CONSTRAINT mail_proofs_purpose_check
        CHECK (purpose IN ('register', 'reset', 'link', 'password_changed', 'email_changed')),
    email      text NOT NULL,
    member_id  uuid CONSTRAINT mail_proofs_member_id_fk REFERENCES members,
    detail     jsonb NOT NULL,
    tries      integer NOT NULL CONSTRAINT mail_proofs_tries_check CHECK (tries >= 0),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
CREATE INDEX mail_proofs_email_idx ON mail_proofs (email, purpose);
CREATE INDEX mail_proofs_member_id_idx ON mail_proofs (member_id);
CREATE INDEX mail_proofs_expires_at_idx ON mail_proofs (expires_at);

CREATE TABLE challenges (
    nonce      text CONSTRAINT challenges_pk PRIMARY KEY,
    chain      text NOT NULL CONSTRAINT challenges_chain_check CHECK (chain IN ('solana', 'dogecoin')),
    purpose    text NOT NULL CONSTRAINT challenges_purpose_check
        CHECK (purpose IN ('sign_in', 'register', 'link', 'confirm')),
    address    text NOT NULL,
    origin     text NOT NULL,
    member_id  uuid CONSTRAINT challenges_member_id_fk REFERENCES members,
    statement  text NOT NULL,
    client     text NOT NULL,
    issued_at  timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT challenges_member_check CHECK ((member_id IS NOT NULL) = (purpose IN ('link', 'confirm')))
);
CREATE INDEX challenges_address_idx ON challenges (address, client);
CREATE INDEX challenges_client_idx ON challenges (client);
CREATE INDEX challenges_expires_at_idx ON challenges (expires_at);

CREATE TABLE sessions (
    session_id          uuid CONSTRAINT sessions_pk PRIMARY KEY,
    member_id           uuid NOT NULL CONSTRAINT sessions_member_id_fk REFERENCES members,
    method              text NOT NULL,
    client_address      text NOT NULL,
    user_agent          text NOT NULL,
    family_hash         bytea NOT NULL CONSTRAINT sessions_family_hash_key UNIQUE,
    token_hash          bytea NOT NULL,
    previous_token_hash bytea,
    created_at          timestamptz NOT NULL,
    last_used_at        timestamptz NOT NULL,
    expires_at          timestamptz NOT NULL,
    ended_at            timestamptz,
    ended_because       text,
    CONSTRAINT sessions_ended_check CHECK ((ended_at IS NULL) = (ended_because IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX sessions_member_id_idx ON sessions (member_id);

CREATE TABLE api_keys (
    key_id       text CONSTRAINT api_keys_pk PRIMARY KEY,
    member_id    uuid NOT NULL CONSTRAINT api_keys_member_id_fk REFERENCES members,
    name         text NOT NULL,
    secret_hash  bytea NOT NULL,
    scopes       text[] NOT NULL,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at   timestamptz
);
CREATE INDEX api_keys_member_id_idx ON api_keys (member_id);
CREATE INDEX meters_owner_idx ON meters (owner)
"""
