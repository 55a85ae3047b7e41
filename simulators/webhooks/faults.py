"""What is wrong with the receiver at this moment: a file that may be changed while it runs.

`faults.json` beside what was received, an object with any of these keys; without the file nothing is wrong:

    status        answer everything with this status
    statuses      answer with these statuses, one each, then as usual
    delay_s       seconds before the answer
    hang          true: take the request and never answer
    drip_s        send the answer byte by byte, so many seconds apart
    redirect      answer 307 to this address
    body_bytes    append a body of this length to the answer
    cut           so many times: take the request, keep it, and close the connection without an answer
    garbage       true: answer what is not HTTP

Counting begins anew whenever the file's content changes.
"""

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "faults.json"


class FaultsInvalid(ValueError):
    """The file does not describe faults."""


@dataclass(frozen=True)
class Faults:
    """What the file says."""

    status: int = 0
    statuses: tuple[int, ...] = ()
    delay_s: float = 0.0
    hang: bool = False
    drip_s: float = 0.0
    redirect: str = ""
    body_bytes: int = 0
    cut: int = 0
    garbage: bool = False


def parse(text: str) -> Faults:
    """The faults that a file's content describes. Raises FaultsInvalid."""
    try:
        table: Any = json.loads(text)
    except ValueError as error:
        raise FaultsInvalid(str(error)) from error
    if not isinstance(table, dict):
        raise FaultsInvalid("not an object")
    unknown = set(table) - set(Faults.__dataclass_fields__)
    if unknown:
        raise FaultsInvalid(f"no such fault: {', '.join(sorted(unknown))}")
    statuses = table.pop("statuses", [])
    if not isinstance(statuses, list) or not all(type(each) is int for each in statuses):
        raise FaultsInvalid("statuses: a list of numbers")
    for name, value in table.items():
        wanted = type(getattr(Faults(), name))
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise FaultsInvalid(f"{name}: {value!r}")
    return Faults(statuses=tuple(statuses), **table)


class Switches:
    """The faults in force, for many threads."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / FILE
        self._lock = threading.Lock()
        self._text = ""
        self._faults = Faults()
        self._cuts = 0
        self._statuses = 0

    def next(self) -> tuple[Faults, int, bool]:
        """For one request: the faults, the status to answer with, and whether to cut the connection instead.

        Raises FaultsInvalid.
        """
        with self._lock:
            text = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
            if text != self._text:
                self._faults, self._text = parse(text) if text else Faults(), text
                self._cuts = self._statuses = 0
            faults = self._faults
            if self._cuts < faults.cut:
                self._cuts += 1
                return faults, 0, True
            if self._statuses < len(faults.statuses):
                self._statuses += 1
                return faults, faults.statuses[self._statuses - 1], False
            return faults, faults.status, False
