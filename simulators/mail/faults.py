"""What is wrong with the mail server at this moment: a file that may be changed while it runs.

`faults.json` beside the messages, an object with any of these keys; without the file nothing is wrong:

    refused          list of addresses: "550 no such mailbox", for good
    greylisted       so many times each recipient is told "451 come back later"
    drops            object {step: times}: the connection is cut at the greeting, sender, recipient or message
    lost_answers     so many messages are kept, and the connection cut before the answer that says so
    delay_s          seconds before every answer to a message
    full             true: "452 no space"

Counting begins anew whenever the file's content changes.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = "faults.json"
STEPS = ("greeting", "sender", "recipient", "message")


class FaultsInvalid(ValueError):
    """The file does not describe faults."""


@dataclass(frozen=True)
class Faults:
    """What the file says."""

    refused: frozenset[str] = frozenset()
    greylisted: int = 0
    drops: dict[str, int] = field(default_factory=dict)
    lost_answers: int = 0
    delay_s: float = 0.0
    full: bool = False


def parse(text: str) -> Faults:
    """The faults that a file's content describes. Raises FaultsInvalid."""
    try:
        table = json.loads(text)
    except ValueError as error:
        raise FaultsInvalid(str(error)) from error
    if not isinstance(table, dict):
        raise FaultsInvalid("not an object")
    unknown = set(table) - set(Faults.__dataclass_fields__)
    if unknown:
        raise FaultsInvalid(f"no such fault: {', '.join(sorted(unknown))}")
    faults = Faults(
        refused=frozenset(address.lower() for address in _kind(table, "refused", list, [])),
        greylisted=_kind(table, "greylisted", int, 0),
        drops=_kind(table, "drops", dict, {}),
        lost_answers=_kind(table, "lost_answers", int, 0),
        delay_s=float(_kind(table, "delay_s", (int, float), 0)),
        full=_kind(table, "full", bool, False),
    )
    if set(faults.drops) - set(STEPS) or not all(type(times) is int for times in faults.drops.values()):
        raise FaultsInvalid(f"drops: counts of {', '.join(STEPS)}")
    return faults


def _kind(table: dict[str, Any], key: str, kind: type | tuple[type, ...], default: object) -> Any:
    value = table.get(key, default)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise FaultsInvalid(f"{key}: {value!r}")
    return value


class Switches:
    """The faults in force, and how often each has happened. A file that cannot be read leaves them as they were."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / FILE
        self._text = ""
        self._faults = Faults()
        self._happened: Counter[tuple[str, str]] = Counter()

    @property
    def now(self) -> Faults:
        """What the file says at this moment. Raises FaultsInvalid."""
        try:
            text = self._file.read_text(encoding="utf-8")
        except FileNotFoundError:
            text = ""
        if text != self._text:
            self._faults = parse(text) if text else Faults()
            self._text = text
            self._happened.clear()
        return self._faults

    def drops_at(self, step: str) -> bool:
        """Whether the connection is to be cut here; counts that it was."""
        return self._happens("drop", step, self.now.drops.get(step, 0))

    def greylists(self, recipient: str) -> bool:
        """Whether this recipient is to be told to come back; counts that it was."""
        return self._happens("greylist", recipient.lower(), self.now.greylisted)

    def loses_answer(self) -> bool:
        """Whether the answer to this message is to be lost; counts that it was."""
        return self._happens("lose", "", self.now.lost_answers)

    def _happens(self, fault: str, what: str, times: int) -> bool:
        if self._happened[fault, what] >= times:
            return False
        self._happened[fault, what] += 1
        return True
