"""What an agent says of itself: its bytes, parsed. Strict about types and bounds, tolerant of what it does not know.

Unsigned: only the broker account, or the password of a posted report, vouches for it. It informs operators and nothing
else. A status that is not understood is dropped and counted; the next one comes within a minute.
"""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Final, Literal

import msgspec

from protocol.limits import KEY_EPOCH_MAX, SEQUENCE_MAX, TIME_MAX_UNIX_S

STATUS_BYTES_MAX: Final = 4_096
PROBLEMS_MAX: Final = 32
COUNTS_MAX: Final = 64
DEVICES_MAX: Final = 32
COUNT_MAX: Final = 2**53 - 1
NAME_PATTERN: Final = r"\A[a-z0-9_]{1,64}\Z"
WORDS_PATTERN: Final = r"\A[ -~]{1,64}\Z"
"""One line of printable ASCII: a version."""
MAP_NAME_LENGTH_MAX: Final = 64

_Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
_Words = Annotated[str, msgspec.Meta(pattern=WORDS_PATTERN)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=TIME_MAX_UNIX_S)]


class StatusMalformed(Exception):
    """These bytes are no status."""


class Device(msgspec.Struct, frozen=True, omit_defaults=True):
    """A meter that the agent reads: its place, its register map, the smallest step of its registers in Wh.

    A map may be a file of the member's own: its name is made fit to be shown, never a reason not to see the meter.
    """

    role: _Name
    map: str
    quantum_wh: Annotated[str, msgspec.Meta(pattern=r"\A[0-9][0-9.eE+/-]{0,31}\Z")] | None = None

    def __post_init__(self) -> None:
        shown = "".join(letter if letter.isprintable() else " " for letter in self.map[:MAP_NAME_LENGTH_MAX])
        msgspec.structs.force_setattr(self, "map", shown)


class Status(msgspec.Struct):
    """A status as stated. Whatever an agent leaves out is None; a last will has its state alone.

    Of long lists the first entries are kept: a device with too many problems must not be the one that is not seen.
    """

    state: Literal["online", "offline"]
    agent: _Words | None = None
    time_unix_s: _Time | None = None
    key_epoch: Annotated[int, msgspec.Meta(ge=0, le=KEY_EPOCH_MAX)] | None = None
    sequence: Annotated[int, msgspec.Meta(ge=0, le=SEQUENCE_MAX)] | None = None
    backlog_seals: _Count | None = None
    unsealed_readings: _Count | None = None
    last_reading_unix_s: _Time | None = None
    journal_bytes: _Count | None = None
    journal_bytes_max: _Count | None = None
    clock: _Name | None = None
    transport: _Name | None = None
    meters: list[Device] | None = None
    problems: list[_Name] = []
    counts: dict[_Name, _Count] | None = None

    def __post_init__(self) -> None:
        self.problems = self.problems[:PROBLEMS_MAX]
        self.meters = None if self.meters is None else self.meters[:DEVICES_MAX]
        self.counts = None if self.counts is None else dict(islice(self.counts.items(), COUNTS_MAX))


_decode = msgspec.json.Decoder(Status).decode


def parse_status(payload: bytes) -> Status:
    """Parse a status. Raises StatusMalformed and nothing else, whatever the bytes."""
    if len(payload) > STATUS_BYTES_MAX:
        raise StatusMalformed(f"{len(payload)} bytes")
    try:
        return _decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as fault:
        raise StatusMalformed(str(fault)) from fault
