"""PostgreSQL and Mosquitto as whoever we happen to be: root, root without user namespaces, a user id without a name."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from infra.local.mosquitto import Mosquitto
from infra.local.mosquitto_package import Installation
from infra.local.postgres import NOT_DURABLE, Postgres
from infra.local.processes import LaunchError

NAMELESS_ID = 12_345
AS_NAMELESS = ("setpriv", f"--reuid={NAMELESS_ID}", f"--regid={NAMELESS_ID}", "--clear-groups")
REPOSITORY = Path(__file__).parents[2]
TIMEOUT_S = 60.0

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

STARTS_POSTGRES = """
import sys
from pathlib import Path
from infra.local.postgres import NOT_DURABLE, Postgres
with Postgres(Path(sys.argv[1]), NOT_DURABLE):
    print("serves")
"""

STARTS_MOSQUITTO = """
import sys
from pathlib import Path
from infra.local.mosquitto import Mosquitto
from infra.local.mosquitto_package import find_or_fetch
with Mosquitto(Path(sys.argv[1]), find_or_fetch(Path(sys.argv[2])), "test-community"):
    print("serves")
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that everybody may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@pytest.fixture
def no_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The `unshare` of a machine whose kernel forbids user namespaces."""
    unshare = tmp_path / "bin" / "unshare"
    unshare.parent.mkdir()
    unshare.write_text("#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n")
    unshare.chmod(0o755)
    monkeypatch.setenv("PATH", str(unshare.parent), prepend=os.pathsep)


def may_be_entered_by_nobody(path: Path) -> bool:
    nobody = pwd.getpwnam("nobody")
    become = ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
    return subprocess.run([*become, "test", "-x", str(path)], check=False).returncode == 0


def as_nameless(script: str, directory: Path, *arguments: Path) -> str:
    """What a program prints when it runs as a user id without a name, over a directory of its own."""
    python = [*AS_NAMELESS, sys.executable]
    trial = subprocess.run([*python, "-c", ""], check=False, cwd=REPOSITORY, capture_output=True, text=True)
    if trial.returncode != 0:
        pytest.skip(f"another user cannot run this Python: {trial.stderr.strip()}")
    own = directory / "own"
    own.mkdir()
    os.chown(own, NAMELESS_ID, NAMELESS_ID)
    done = subprocess.run(
        [*python, "-B", "-c", script, str(own), *map(str, arguments)],
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    return done.stdout + done.stderr


def serves(server: Postgres) -> bool:
    with psycopg.connect(server.url()) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def may_use_namespaces(*prefix: str) -> bool:
    command = [*prefix, "unshare", "--user", "--map-user=65534", "--map-group=65534", "true"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not may_use_namespaces(), reason="the kernel forbids user namespaces")
def test_root_serves_from_a_closed_directory_where_the_only_names_are_root_and_nobody(tmp_path: Path) -> None:
    passwd = tmp_path / "passwd"
    entries = Path("/etc/passwd").read_text().splitlines()
    passwd.write_text("".join(f"{line}\n" for line in entries if line.split(":")[0] in ("root", "nobody")))
    hide = f'mount --bind "{passwd}" /etc/passwd && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", hide, "sh", sys.executable, "-c", STARTS_POSTGRES]
    if subprocess.run([*command[:6], "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this root may not mount")
    done = subprocess.run(
        [*command, str(tmp_path / "postgres")], check=False, cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.stdout + done.stderr == "serves\n"


@pytest.mark.usefixtures("no_namespaces")
def test_root_without_namespaces_serves_as_nobody(open_directory: Path) -> None:
    server = Postgres(open_directory / "postgres", NOT_DURABLE)
    if not may_be_entered_by_nobody(server.binaries / "postgres"):
        pytest.skip(f"nobody may not run {server.binaries}/postgres")
    with server:
        assert serves(server)
        assert server.data.stat().st_uid == pwd.getpwnam("nobody").pw_uid


@pytest.mark.skipif(not may_use_namespaces(), reason="the kernel forbids user namespaces")
def test_data_made_in_a_namespace_goes_on_without(open_directory: Path, request: pytest.FixtureRequest) -> None:
    server = Postgres(open_directory / "postgres", NOT_DURABLE)
    if not may_be_entered_by_nobody(server.binaries / "postgres"):
        pytest.skip(f"nobody may not run {server.binaries}/postgres")
    with server:
        assert server.data.stat().st_uid == 0
    request.getfixturevalue("no_namespaces")
    with server:
        assert serves(server)


@pytest.mark.usefixtures("no_namespaces")
def test_a_directory_closed_to_nobody_is_named_and_nothing_is_given_away(open_directory: Path) -> None:
    closed = open_directory / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(LaunchError, match=f"`nobody` may not enter {closed}: start as another user"):
        Postgres(closed / "below" / "postgres", NOT_DURABLE).start()
    assert (closed / "below" / "postgres" / "password").stat().st_uid == 0


@pytest.mark.usefixtures("no_namespaces")
def test_programs_closed_to_nobody_are_named(open_directory: Path) -> None:
    binaries = open_directory / "bin"
    binaries.mkdir(mode=0o700)
    for name in ("initdb", "postgres"):
        (binaries / name).symlink_to("/bin/true")
    (binaries / "initdb").unlink()
    shutil.copy("/bin/true", binaries / "initdb")
    with pytest.raises(LaunchError, match=f"`nobody` may not enter {binaries}:"):
        Postgres(open_directory / "postgres", NOT_DURABLE, binaries).start()


def test_a_machine_without_nobody_gets_one_clear_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> pwd.struct_passwd:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", unknown)
    with pytest.raises(LaunchError, match="this machine has no user `nobody`"):
        Postgres(tmp_path / "postgres", NOT_DURABLE).start()


@pytest.mark.skipif(not may_use_namespaces(*AS_NAMELESS), reason="the kernel forbids user namespaces")
def test_a_user_id_without_a_name_runs_postgresql(open_directory: Path) -> None:
    assert as_nameless(STARTS_POSTGRES, open_directory) == "serves\n"


def test_a_user_id_without_a_name_or_namespaces_gets_one_clear_sentence(
    open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unshare = open_directory / "unshare"
    unshare.write_text("#!/bin/sh\necho 'Operation not permitted' >&2\nexit 1\n")
    unshare.chmod(0o755)
    monkeypatch.setenv("PATH", str(open_directory), prepend=os.pathsep)
    printed = as_nameless(STARTS_POSTGRES, open_directory)
    assert f"LaunchError: PostgreSQL refuses user id {NAMELESS_ID}" in printed
    assert "(Operation not permitted): start as a user with a name" in printed


def test_a_user_id_without_a_name_runs_mosquitto(open_directory: Path, mosquitto_installation: Installation) -> None:
    if not may_be_entered_by_nobody(mosquitto_installation.program):
        pytest.skip("Mosquitto is where nobody else may go")
    cache = REPOSITORY / "var" / "cache" / "mosquitto"
    (copy := open_directory / "mosquitto").mkdir()
    if cache.exists():
        shutil.copytree(cache, copy, symlinks=True, dirs_exist_ok=True)
        (copy / "lock").chmod(0o666)
    assert as_nameless(STARTS_MOSQUITTO, open_directory, copy) == "serves\n"


def test_root_runs_mosquitto_whatever_the_environment_calls_it(
    tmp_path: Path, mosquitto_installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, "daemon")
    with Mosquitto(tmp_path, mosquitto_installation, "test-community"):
        pass
