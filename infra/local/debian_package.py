"""A program out of a Debian package, fetched privately from the machine's own package mirror.

For what is not installed on this machine. It needs no root and touches nothing on the host: the packages that
`apt-get install` would add are downloaded and unpacked into a cache directory. Same release as the host, so its
libraries fit.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.local.processes import LaunchError

SYSTEM_PROGRAMS = ("/usr/local/sbin", "/usr/sbin", "/usr/local/bin", "/usr/bin")
APT_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Unpacked:
    """Where a package and its dependencies lie, and what a program of it needs in its environment."""

    root: Path
    environment: dict[str, str]


def find_program(name: str) -> Path | None:
    """A program on PATH or in the usual system directories."""
    program = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *SYSTEM_PROGRAMS)))
    return None if program is None else Path(program)


def fetch(package: str, cache: Path, remedy: str) -> Unpacked:
    """The private copy in `cache`, downloaded now if needed (with the package lists, if the machine has none).

    remedy: what to do if it cannot be had, for the message of the LaunchError then raised.
    """
    cache = cache.absolute()
    root = cache / "root"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            _download_and_unpack(package, cache, root, remedy)
    libraries = sorted({str(file.parent) for file in root.rglob("*.so*")})
    return Unpacked(root, {"LD_LIBRARY_PATH": os.pathsep.join(libraries)})


def _download_and_unpack(package: str, cache: Path, root: Path, remedy: str) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise LaunchError(f"{package} is not installed and this machine has no apt to fetch it: {remedy}")
    packages = cache / "packages"
    packages.mkdir(exist_ok=True)
    try:
        try:
            _download(package, packages, {})
        except subprocess.CalledProcessError:  # no package lists, or old ones: make our own
            environment = private_state(cache / "apt")
            _run(["apt-get", "update", "-qq"], packages, environment)
            _download(package, packages, environment)
        unpacked = cache / "root.new"
        shutil.rmtree(unpacked, ignore_errors=True)
        for file in sorted(packages.glob("*.deb")):
            _run(["dpkg-deb", "--extract", str(file), str(unpacked)], packages, {})
        unpacked.rename(root)
    except (OSError, subprocess.SubprocessError) as error:
        detail = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise LaunchError(f"{package} is not installed and could not be downloaded ({detail[-1]}): {remedy}") from error
    shutil.rmtree(packages)
    shutil.rmtree(cache / "apt", ignore_errors=True)


def _download(package: str, packages: Path, environment: dict[str, str]) -> None:
    """Download a package and the dependencies that this machine lacks, as a simulated installation names them."""
    simulation = ["apt-get", "--simulate", "--no-install-recommends", "install", package]
    lines = _run(simulation, packages, environment).splitlines()
    wanted = {line.split()[1] for line in lines if line.startswith("Inst ")} | {package}
    _run(["apt-get", "download", "-qq", *sorted(wanted)], packages, environment)


def private_state(directory: Path) -> dict[str, str]:
    """A private apt state: the machine's sources, keys, proxies and installed packages, but lists of our own.

    Hooks of the machine (which would want root) are left out: only its Acquire settings are taken over.
    """
    for name in ("lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    machine = _run(["apt-config", "dump"], directory, {}).splitlines()
    settings = [line for line in machine if line.startswith("Acquire::")]
    settings += [
        'Dir::Etc::parts "/dev/null";',
        'Dir::Etc::main "/dev/null";',
        f'Dir::State::lists "{directory / "lists"}";',
        f'Dir::Cache "{directory / "cache"}";',
        'APT::Sandbox::User "root";',
        'Acquire::Languages "none";',
        'Debug::NoLocking "true";',
    ]
    configuration = directory / "apt.conf"
    configuration.write_text("\n".join(settings) + "\n")
    configuration.chmod(0o600)  # a proxy's password may be among them
    return {"APT_CONFIG": str(configuration)}


def _run(command: Sequence[str], directory: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        check=True,
        cwd=directory,
        env={**os.environ, "LC_ALL": "C", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=APT_TIMEOUT_S,
    )
    return done.stdout
