"""Where Mosquitto is: installed on this machine, or fetched privately from the machine's own package mirror.

The private copy needs no root and touches nothing on the host: the packages that `apt-get install
mosquitto` would add are downloaded and unpacked into a cache directory. Same release as the host, so its
libraries fit.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.local.processes import LaunchError

PACKAGE = "mosquitto"
PLUGIN = "mosquitto_dynamic_security.so"
SYSTEM_PROGRAMS = ("/usr/local/sbin", "/usr/sbin", "/usr/local/bin", "/usr/bin")
SYSTEM_LIBRARIES = ("/usr/local/lib", "/usr/lib")
REMEDY = "install the package `mosquitto` (2.0 or later, with its dynamic-security plugin)"
APT_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Installation:
    """A Mosquitto that can be started: the program, its dynamic-security plugin, and what to add to the
    environment."""

    program: Path
    plugin: Path
    environment: dict[str, str]


def find_or_fetch(cache: Path) -> Installation:
    """The installed Mosquitto, else the private copy in `cache`, made now if needed. Raises LaunchError."""
    return find_installed() or fetch(cache)


def find_installed() -> Installation | None:
    """The Mosquitto on PATH or in the usual system directories, if its plugin is there too."""
    search = os.pathsep.join((os.environ.get("PATH", ""), *SYSTEM_PROGRAMS))
    program = shutil.which(PACKAGE, path=search)
    plugin = next(_plugins(SYSTEM_LIBRARIES), None)
    if program is None or plugin is None:
        return None
    return Installation(Path(program), plugin, {})


def fetch(cache: Path) -> Installation:
    """The private copy in `cache`, downloading about 2 MB (and the package lists, if the machine has
    none)."""
    cache = cache.absolute()
    root = cache / "root"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            _download_and_unpack(cache, root)
    program = root / "usr/sbin/mosquitto"
    plugin = next(_plugins((str(root / "usr/lib"),)), None)
    if plugin is None or not program.exists():
        raise LaunchError(f"the package in {cache} has no {PLUGIN}: delete the directory and {REMEDY}")
    libraries = sorted({str(file.parent) for file in root.rglob("*.so*")})
    return Installation(program, plugin, {"LD_LIBRARY_PATH": os.pathsep.join(libraries)})


def _plugins(directories: Sequence[str]) -> Iterator[Path]:
    for directory in directories:
        for pattern in (PLUGIN, f"*/{PLUGIN}"):
            yield from Path(directory).glob(pattern)


def _download_and_unpack(cache: Path, root: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise LaunchError(f"Mosquitto is not installed and this machine has no apt to fetch it: {REMEDY}")
    packages = cache / "packages"
    packages.mkdir(exist_ok=True)
    try:
        try:
            _download(packages, {})
        except subprocess.CalledProcessError:  # no package lists, or old ones: make our own
            environment = _private_state(cache / "apt")
            _run(["apt-get", "update", "-qq"], packages, environment)
            _download(packages, environment)
        unpacked = cache / "root.new"
        shutil.rmtree(unpacked, ignore_errors=True)
        for package in sorted(packages.glob("*.deb")):
            _run(["dpkg-deb", "--extract", str(package), str(unpacked)], packages, {})
        unpacked.rename(root)
    except (OSError, subprocess.SubprocessError) as error:
        detail = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise LaunchError(f"Mosquitto is not installed and could not be downloaded ({detail[-1]}): {REMEDY}") from error
    shutil.rmtree(packages)
    shutil.rmtree(cache / "apt", ignore_errors=True)


def _download(packages: Path, environment: dict[str, str]) -> None:
    """Download Mosquitto and the dependencies that this machine lacks, as a simulated installation names
    them."""
    simulation = ["apt-get", "--simulate", "--no-install-recommends", "install", PACKAGE]
    lines = _run(simulation, packages, environment).splitlines()
    wanted = {line.split()[1] for line in lines if line.startswith("Inst ")} | {PACKAGE}
    _run(["apt-get", "download", "-qq", *sorted(wanted)], packages, environment)


def _private_state(directory: Path) -> dict[str, str]:
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
