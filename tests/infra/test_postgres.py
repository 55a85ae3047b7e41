import os
import stat
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from infra.local import postgres as launcher
from infra.local.postgres import NOT_DURABLE, Postgres, find_binaries
from infra.local.processes import LaunchError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Postgres]:
    with Postgres(tmp_path / "postgres") as server:
        yield server


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_a_committed_row_survives_sigkill_and_the_address_stays_the_same(server: Postgres) -> None:
    url = server.url()
    execute(url, "CREATE TABLE energy AS SELECT 5000 AS energy_wh")
    server.kill()
    assert server.start() == url
    assert execute(url, "SELECT energy_wh FROM energy") == [(5000,)]


def test_killed_five_times_in_a_row_it_serves_again(server: Postgres) -> None:
    for _ in range(5):
        server.kill()
        server.start()
    assert execute(server.url(), "SELECT 1") == [(1,)]


def test_it_is_durable_unless_told_otherwise(server: Postgres, postgres_url: str) -> None:
    durability = "SELECT current_setting('fsync'), current_setting('full_page_writes')"
    assert execute(server.url(), durability) == [("on", "on")]
    assert execute(postgres_url, durability) == [("off", "off")]


def test_it_listens_on_loopback_only_and_wants_the_password(server: Postgres) -> None:
    assert execute(server.url(), "SHOW listen_addresses") == [("127.0.0.1",)]
    assert execute(server.url(), "SHOW unix_socket_directories") == [("",)]
    password = (server.directory / "password").read_text()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        execute(server.url().replace(password, "guess"), "SELECT 1")


def test_only_the_owner_can_read_the_password(server: Postgres) -> None:
    assert stat.S_IMODE((server.directory / "password").stat().st_mode) == 0o600


def test_a_pid_file_with_the_recycled_pid_of_another_program_is_ignored(server: Postgres) -> None:
    server.stop()
    somebody = os.getppid()
    (server.data / "postmaster.pid").write_text(f"{somebody}\n{server.data}\n1\n5432\n\n127.0.0.1\n1 1\nready\n")
    server.start()
    assert execute(server.url(), "SELECT 1") == [(1,)]


def test_a_second_run_over_the_same_directory_is_refused(server: Postgres) -> None:
    with pytest.raises(LaunchError, match="another run is using"):
        Postgres(server.directory).start()
    assert execute(server.url(), "SELECT 1") == [(1,)]


def test_a_wrong_setting_is_an_error_that_quotes_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "START_TIMEOUT_S", 1.0)
    with pytest.raises(LaunchError, match="work_mum"):
        Postgres(tmp_path / "postgres", ("work_mum=1", *NOT_DURABLE)).start()


def test_a_bin_directory_without_postgres_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMONWATT_POSTGRES_BIN", str(tmp_path))
    with pytest.raises(LaunchError, match="no initdb"):
        find_binaries()
