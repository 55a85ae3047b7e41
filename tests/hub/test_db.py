"""The way to the database: it may be away, and is never waited for without end."""

from __future__ import annotations

from hub.db import GIVE_UP_ON_A_LOST_HOST, STATEMENT_TIMEOUT_MS, driver, transaction


def test_a_database_whose_host_vanished_is_given_up_as_soon_as_a_statement_would_be(engine):
    """Its own timeouts run where nobody is left; the system's would keep a thread for hours."""
    with transaction(engine) as connection:
        told = driver(connection).info.get_parameters()
    assert {name: int(told[name]) for name in GIVE_UP_ON_A_LOST_HOST} == GIVE_UP_ON_A_LOST_HOST
    silence_s = int(told["keepalives_idle"]) + int(told["keepalives_interval"]) * int(told["keepalives_count"])
    assert silence_s * 1_000 == int(told["tcp_user_timeout"]) == STATEMENT_TIMEOUT_MS
