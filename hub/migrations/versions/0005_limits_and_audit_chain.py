"""Buckets of the rate limits; and the audit log becomes a chain that shows if anything was taken out or changed."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create both; what the audit log already holds is chained in the order in which it was numbered."""
    for statement in (LIMITS, *CHAIN, ENTRY, *LINK, *CHAINED, APPEND_ONLY, BEGIN_THE_CHAIN):
        op.execute(statement)


LIMITS = """
CREATE UNLOGGED TABLE rate_limits (
    bucket       bytea CONSTRAINT rate_limits_pk PRIMARY KEY
        CONSTRAINT rate_limits_bucket_check CHECK (length(bucket) = 16),
    rested_at_us bigint NOT NULL,
    counted      boolean NOT NULL
) WITH (fillfactor = 70)
"""

CHAIN = (
    """
CREATE TABLE audit_chain (
    position   bigint CONSTRAINT audit_chain_pk PRIMARY KEY
        CONSTRAINT audit_chain_position_check CHECK (position >= 1),
    audit_id   bigint NOT NULL CONSTRAINT audit_chain_audit_id_key UNIQUE
        CONSTRAINT audit_chain_audit_id_fk REFERENCES audit_log,
    entry      text NOT NULL,
    entry_hash bytea NOT NULL CONSTRAINT audit_chain_entry_hash_check CHECK (length(entry_hash) = 32),
    chain_hash bytea NOT NULL CONSTRAINT audit_chain_chain_hash_check CHECK (length(chain_hash) = 32)
)
""",
    """
ALTER TABLE audit_log
    ADD CONSTRAINT audit_log_at_check CHECK (isfinite(at)),
    ADD CONSTRAINT audit_log_detail_check CHECK (jsonb_typeof(detail) = 'object')
""",
    "CREATE INDEX audit_log_at_idx ON audit_log (at)",
    "CREATE INDEX audit_log_actor_idx ON audit_log (actor)",
    "CREATE INDEX audit_log_subject_idx ON audit_log (subject)",
)

ENTRY = """
CREATE FUNCTION audit_entry(e audit_log) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'at', to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'actor', e.actor,
        'action', e.action,
        'detail', e.detail,
        'subject', e.subject,
        'audit_id', e.audit_id)::text
$$
"""

LINK = (
    """
CREATE FUNCTION audit_chain_link() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    head audit_chain;
    logged audit_log;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('commonwatt audit chain'));
    SELECT * INTO head FROM audit_chain ORDER BY position DESC LIMIT 1;
    SELECT * INTO STRICT logged FROM audit_log WHERE audit_id = NEW.audit_id;
    NEW.position := coalesce(head.position, 0) + 1;
    NEW.entry := audit_entry(logged);
    NEW.entry_hash := sha256(convert_to(NEW.entry, 'UTF8'));
    NEW.chain_hash := sha256(
        coalesce(head.chain_hash, decode(repeat('00', 32), 'hex')) || int8send(NEW.position) || NEW.entry_hash);
    RETURN NEW;
END $$
""",
    """
CREATE TRIGGER audit_chain_linked BEFORE INSERT ON audit_chain
    FOR EACH ROW EXECUTE FUNCTION audit_chain_link()
""",
)
"""Whatever is inserted, what is stored follows from the log and the head: a chain cannot be written by hand."""

CHAINED = (
    """
CREATE FUNCTION audit_log_chain() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO audit_chain (audit_id) VALUES (NEW.audit_id); RETURN NULL; END $$
""",
    """
CREATE CONSTRAINT TRIGGER audit_log_chained AFTER INSERT ON audit_log DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION audit_log_chain()
""",
)
"""At the commit: by then a transaction has every lock that it will ever need, so this last one closes no circle."""

APPEND_ONLY = """
CREATE TRIGGER audit_chain_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_chain
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only()
"""

BEGIN_THE_CHAIN = """
DO $$
DECLARE
    logged bigint;
BEGIN
    FOR logged IN SELECT audit_id FROM audit_log ORDER BY audit_id LOOP
        INSERT INTO audit_chain (audit_id) VALUES (logged);
    END LOOP;
END $$
"""
