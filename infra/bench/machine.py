"""The facts without which a figure means nothing: what it was measured on, and with which versions."""

import importlib.metadata
import os
import platform
from pathlib import Path

PACKAGES = ("paho-mqtt", "psycopg", "sqlalchemy", "cryptography", "pynacl", "msgspec", "numpy", "uvicorn", "websockets")


def machine_facts() -> dict[str, object]:
    """Cores, processor, kernel, Python, and the libraries on the hot paths."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
