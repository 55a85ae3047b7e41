from sqlalchemy import text
from hub.db import transaction
from hub.chain.intents_store import _LEASE
from tests.hub.chain.cluster import utc_now

def test_it(engine):
    with transaction(engine) as c:
        c.execute(text("""INSERT INTO chain_intents (intent_id, kind, subject, instructions, compute_units, lookup_tables, data, state, next_at, created_at, ended_at, ended_by, slot)
        SELECT gen_random_uuid(), 'mint', 'm', '{}', 1, '{}', '{}', CASE WHEN i <= 50000 THEN 'planned' ELSE 'finalized' END, now() - i * interval '1 ms', now(), CASE WHEN i <= 50000 THEN NULL ELSE now() END, '\\x00', 1 FROM generate_series(1, 250000) AS i"""))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        c.execute(text("ANALYZE chain_intents"))
        for states in (["planned"], ["awaiting_wallet", "unknown"]):
            for row in c.execute(text("EXPLAIN (ANALYZE, BUFFERS) " + _LEASE.text), {"states": states, "now": utc_now(), "leased_until": utc_now()}):
                print(row[0])
    assert 0
