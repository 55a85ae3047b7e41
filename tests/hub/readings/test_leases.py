"""Leases of shards: shared fairly, taken over when they run out, and checked in the transaction that relies on them."""

import pytest

from hub.db import driver, transaction
from hub.errors import LeaseLost
from hub.readings import leases
from protocol.limits import SHARDS
from tests.hub.readings.conftest import Hub


def announce(hub: Hub, worker: str) -> int:
    with transaction(hub.engine) as connection:
        return leases.announce_worker(driver(connection), worker)


def acquire(hub: Hub, worker: str, known: list[int], limit: int = SHARDS) -> dict[int, int]:
    with transaction(hub.engine) as connection:
        return leases.acquire_leases(driver(connection), worker, known, limit)


def check(hub: Hub, worker: str, tokens: dict[int, int]) -> None:
    with transaction(hub.engine) as connection:
        leases.check_leases_for_share(driver(connection), worker, tokens)


def run_out(hub: Hub, table: str) -> None:
    with transaction(hub.engine) as connection:
        driver(connection).execute(f"UPDATE {table} SET expires_at = now() - interval '1 second'")  # type: ignore[arg-type]


@pytest.mark.parametrize(("workers", "share"), [(1, 16), (2, 8), (3, 6), (5, 4), (16, 1), (40, 1), (0, 16)])
def test_every_shard_has_room_among_any_number_of_workers(workers: int, share: int) -> None:
    assert leases.fair_share(workers) == share
    assert share * max(1, workers) >= SHARDS


def test_a_shard_has_one_holder_until_its_lease_runs_out(hub: Hub) -> None:
    mine = acquire(hub, "one", [])
    assert sorted(mine) == list(range(SHARDS))
    assert acquire(hub, "two", []) == {}
    check(hub, "one", mine)
    run_out(hub, "shard_leases")
    taken = acquire(hub, "two", [], limit=5)
    assert {shard: token - mine[shard] for shard, token in taken.items()} == dict.fromkeys(range(5), 1)
    with pytest.raises(LeaseLost):
        check(hub, "one", mine)
    check(hub, "one", {shard: token for shard, token in mine.items() if shard >= 5})
    with transaction(hub.engine) as connection:
        assert leases.renew_leases(driver(connection), "one", mine) == set(range(5, SHARDS))


def test_a_token_from_before_does_not_count_even_for_the_same_worker(hub: Hub) -> None:
    before = acquire(hub, "one", [])
    after = acquire(hub, "one", list(range(1, SHARDS)))
    assert after == {0: before[0] + 1}, "what it holds without knowing the token it may take again at once"
    with pytest.raises(LeaseLost):
        check(hub, "one", {0: before[0]})


def test_what_is_given_back_is_free_at_once(hub: Hub) -> None:
    acquire(hub, "one", [])
    with transaction(hub.engine) as connection:
        leases.release_leases(driver(connection), "one", [3, 4])
    assert sorted(acquire(hub, "two", [])) == [3, 4]


def test_a_worker_that_falls_silent_no_longer_counts(hub: Hub) -> None:
    assert announce(hub, "one") == 1
    assert announce(hub, "two") == 2
    run_out(hub, "ingest_workers")
    assert announce(hub, "two") == 1
    with transaction(hub.engine) as connection:
        leases.dismiss_worker(driver(connection), "two")
    assert announce(hub, "one") == 1
