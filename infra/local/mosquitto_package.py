"""Where Mosquitto is: installed on this machine, or fetched privately from the machine's own package mirror."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.local import debian_package
from infra.local.processes import LaunchError

PACKAGE = "mosquitto"
PLUGIN = "mosquitto_dynamic_security.so"
SYSTEM_LIBRARIES = ("/usr/local/lib", "/usr/lib")
REMEDY = "install the package `mosquitto` (2.0 or later, with its dynamic-security plugin)"


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
    program = debian_package.find_program(PACKAGE)
    plugin = next(_plugins(SYSTEM_LIBRARIES), None)
    if program is None or plugin is None:
        return None
    return Installation(program, plugin, {})


def fetch(cache: Path) -> Installation:
    """The private copy in `cache`, downloading about 2 MB (and the package lists, if the machine has
    none)."""
    unpacked = debian_package.fetch(PACKAGE, cache, REMEDY)
    program = unpacked.root / "usr/sbin/mosquitto"
    plugin = next(_plugins((str(unpacked.root / "usr/lib"),)), None)
    if plugin is None or not program.exists():
        raise LaunchError(f"the package in {cache} has no {PLUGIN}: delete the directory and {REMEDY}")
    return Installation(program, plugin, unpacked.environment)


def _plugins(directories: Sequence[str]) -> Iterator[Path]:
    for directory in directories:
        for pattern in (PLUGIN, f"*/{PLUGIN}"):
            yield from Path(directory).glob(pattern)
