"""Reading a meter's line: what it costs does not grow with what was minted long ago."""

from __future__ import annotations

from sqlalchemy import Connection, text

from hub.db import driver, transaction
from hub.minting.line import read_line
from hub.registry import keys_service

SEALS = 4_000


def multiply(connection: Connection, table: str) -> None:
    """Thousands of seals like the first."""
    names = "SELECT column_name FROM information_schema.columns WHERE table_name = :it ORDER BY ordinal_position"
    columns = [row[0] for row in connection.execute(text(names), {"it": table})]
    copied = ", ".join("n" if name == "sequence" else name for name in columns)
    connection.exec_driver_sql(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {copied} FROM {table}, generate_series(2, {SEALS}) AS n"
    )


def test_only_what_lies_behind_the_last_seal_presented_is_read(house, home):
    house.take(*home.messages(1))
    with transaction(house.engine) as connection:
        multiply(connection, "seals")
        connection.exec_driver_sql(f"UPDATE meter_streams SET highest_sequence = {SEALS}")
        keys = keys_service.list_keys(connection, 1)
        connection.exec_driver_sql("ANALYZE seals")
        db = driver(connection)
        before = db.execute("SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'seals'").fetchone()
        line = read_line(connection, 1, 1, SEALS - 10, keys)
        after = db.execute("SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'seals'").fetchone()
        assert [(run.first, run.last) for run in line.runs] == [(SEALS - 9, SEALS)]
        assert before == after, "nothing is looked for from the beginning"


def test_of_many_uncounted_seals_the_reasons_are_read_at_once(house, home):
    house.take(*home.messages(1))
    with transaction(house.engine) as connection:
        connection.exec_driver_sql("UPDATE seals SET state = 'quarantined'")
        multiply(connection, "seals")
        connection.exec_driver_sql(f"UPDATE meter_streams SET highest_sequence = {SEALS}")
        connection.exec_driver_sql(
            "INSERT INTO quarantine"
            " (topic, message_hash, meter_no, key_epoch, sequence, reason, state, detail, verified, received_at)"
            " SELECT sequence, seal_hash, meter_no, key_epoch, sequence, 'too_old', 'held', '', true, received_at"
            " FROM seals"
        )
        connection.exec_driver_sql("ANALYZE seals; ANALYZE quarantine")
        db, keys = driver(connection), keys_service.list_keys(connection, 1)
        looked = "SELECT idx_scan + seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'quarantine'"
        [before] = db.execute(looked).fetchone()
        line = read_line(connection, 1, 1, 0, keys)
        [after] = db.execute(looked).fetchone()
    assert [(run.kind, run.reason) for run in line.runs] == [("held", "too_old")]
    assert after - before <= 2, "a search for each seal"
