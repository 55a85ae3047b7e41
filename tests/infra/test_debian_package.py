"""A Debian package fetched privately, for programs that a machine does not have."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.local import debian_package, mbpoll_package
from infra.local.processes import LaunchError

CACHE = Path(__file__).parents[2] / "var" / "cache" / "mbpoll"


def test_mbpoll_runs_wherever_it_came_from() -> None:
    mbpoll = mbpoll_package.find_or_fetch(CACHE)
    environment = {**os.environ, **mbpoll.environment}
    done = subprocess.run([mbpoll.program, "-V"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_machine_with_neither_the_program_nor_apt_gets_one_clear_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match=r"mbpoll is not installed .*: install the package `mbpoll`"):
        debian_package.fetch("mbpoll", tmp_path / "cache", mbpoll_package.REMEDY)


def test_of_many_who_want_a_package_at_once_one_fetches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's apt, played by scripts that note each call: no network, and no package twice."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "apt-get").write_text(
        '#!/bin/sh\ncase "$1" in\n--simulate) echo "Inst libthing1 (1.0)"; echo "Inst thing (1.0)";;\n'
        f'download) echo called >> {tmp_path}/calls; shift 2; for name; do touch "$name.deb"; done;;\nesac\n'
    )
    (programs / "dpkg-deb").write_text(
        '#!/bin/sh\nmkdir -p "$3/usr/bin" "$3/usr/lib/here"\ntouch "$3/usr/bin/thing" "$3/usr/lib/here/libthing.so.1"\n'
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    with ThreadPoolExecutor(4) as pool:
        fetched = list(pool.map(lambda _: debian_package.fetch("thing", tmp_path / "cache", "none"), range(4)))
    assert {copy.root for copy in fetched} == {tmp_path / "cache" / "root"}
    assert (fetched[0].root / "usr/bin/thing").exists()
    assert fetched[0].environment == {"LD_LIBRARY_PATH": str(fetched[0].root / "usr/lib/here")}
    assert (tmp_path / "calls").read_text() == "called\n"
