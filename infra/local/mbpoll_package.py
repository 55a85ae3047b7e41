"""Where mbpoll is: a Modbus master that shares no code with ours, to hold our simulated meters against.

Installed on this machine, or fetched privately (with libmodbus) from the machine's own package mirror.
"""

from dataclasses import dataclass
from pathlib import Path

from infra.local import debian_package
from infra.local.processes import LaunchError

PACKAGE = "mbpoll"
REMEDY = "install the package `mbpoll`"


@dataclass(frozen=True)
class Mbpoll:
    """The program, and what to add to its environment."""

    program: Path
    environment: dict[str, str]


def find_or_fetch(cache: Path) -> Mbpoll:
    """The installed mbpoll, else the private copy in `cache`, made now if needed. Raises LaunchError."""
    installed = debian_package.find_program(PACKAGE)
    if installed is not None:
        return Mbpoll(installed, {})
    unpacked = debian_package.fetch(PACKAGE, cache, REMEDY)
    program = unpacked.root / "usr/bin/mbpoll"
    if not program.exists():
        raise LaunchError(f"the package in {cache} has no mbpoll: delete the directory and {REMEDY}")
    return Mbpoll(program, unpacked.environment)
