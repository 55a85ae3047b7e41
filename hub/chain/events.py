"""What the program tells in the logs of a transaction: found strictly, decoded strictly. Pure.

Any program may print whatever it likes, also lines that look like our events. The runtime puts a prefix of its own
before what a program prints, and says who is at work: so a line counts only while our program itself is on top of the
stack of calls, and only if its call, and those around it, succeeded. Logs have a limit of length, behind which lines
are missing without order: nothing after that is believed, and whoever reads is told that something may be missing.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from solders.pubkey import Pubkey

from hub.chain.accounts import ConfigAccount, MeterAccount, UserAccount, decode_account
from hub.errors import ChainAccountMalformed, ChainEventMalformed

EVENT_MAGIC: Final = b"CWEV"
EVENT_VERSION: Final = 1
EVENT_HEADER_BYTES: Final = 32
NO_BUSINESS_ID: Final = bytes(16)
EVENT_BYTES_MAX: Final = 1_024
"""More than any account with its header has; longer lines are of no version that we know."""

LOG_LINES_MAX: Final = 10_000
"""The runtime keeps 10,000 bytes of a transaction's logs; what has more lines was made up."""

_ADDRESS_AT: Final = 8
_INVOKE = re.compile(r"Program (?P<program>[1-9A-HJ-NP-Za-km-z]{32,44}) invoke \[(?P<depth>[1-9][0-9]?)\]")
_SUCCESS = re.compile(r"Program (?P<program>[1-9A-HJ-NP-Za-km-z]{32,44}) success")
_FAILED = re.compile(r"Program (?P<program>[1-9A-HJ-NP-Za-km-z]{32,44}) failed: .*", re.DOTALL)
_DATA: Final = "Program data: "
_TRUNCATED: Final = "Log truncated"

Account = ConfigAccount | UserAccount | MeterAccount


@dataclass(frozen=True)
class ProgramEvent:
    """An account as an instruction left it. `amount_units` of GRID were minted by it, or 0."""

    instruction: int
    business_id: UUID | None
    amount_units: int
    account: Account


@dataclass(frozen=True)
class Printed:
    """What our program printed, undecoded, in order. Not `complete`: there may have been more."""

    payloads: tuple[bytes, ...]
    complete: bool


@dataclass
class _Call:
    program: str
    printed: list[bytes]


def read_logs(logs: Sequence[str], program_id: Pubkey) -> Printed:
    """What this program printed with `sol_log_data` in a transaction that succeeded.

    Logs that contradict themselves are not complete, and nothing behind the contradiction is read. A line that is not
    Base64 comes as it is, so that it is noticed by whoever decodes it.
    """
    ours = str(program_id)
    outermost: list[bytes] = []
    stack: list[_Call] = []
    for line in logs[:LOG_LINES_MAX]:
        if line == _TRUNCATED:
            return _cut_short(outermost, stack)
        if (called := _INVOKE.fullmatch(line)) is not None:
            if int(called["depth"]) != len(stack) + 1:
                return _cut_short(outermost, stack)
            stack.append(_Call(called["program"], []))
        elif (ended := _SUCCESS.fullmatch(line) or _FAILED.fullmatch(line)) is not None:
            if not stack or stack[-1].program != ended["program"]:
                return _cut_short(outermost, stack)
            done = stack.pop()
            if ended.re is _SUCCESS:
                (stack[-1].printed if stack else outermost).extend(done.printed)
        elif line.startswith(_DATA) and stack and stack[-1].program == ours:
            stack[-1].printed.append(_payload(line.removeprefix(_DATA)))
    if stack or len(logs) > LOG_LINES_MAX:
        return _cut_short(outermost, stack)
    return Printed(tuple(outermost), complete=True)


def decode_event(payload: bytes) -> ProgramEvent:
    """One event. Raises ChainEventMalformed: of another version, or not by this program."""
    if not EVENT_HEADER_BYTES < len(payload) <= EVENT_BYTES_MAX:
        raise ChainEventMalformed(f"{len(payload)} bytes are no event")
    if payload[:4] != EVENT_MAGIC or payload[4] != EVENT_VERSION or payload[6:8] != bytes(2):
        raise ChainEventMalformed(f"{payload[:8].hex()} begins no event of version {EVENT_VERSION}")
    business_id = payload[8:24]
    data = payload[EVENT_HEADER_BYTES:]
    if len(data) < _ADDRESS_AT + 32:
        raise ChainEventMalformed(f"an account of {len(data)} bytes")
    try:
        account = decode_account(Pubkey.from_bytes(data[_ADDRESS_AT : _ADDRESS_AT + 32]), data)
    except ChainAccountMalformed as fault:
        raise ChainEventMalformed(f"it tells of an account that is none: {fault}") from fault
    if not isinstance(account, Account):
        raise ChainEventMalformed(f"it tells of a {type(account).__name__}")
    return ProgramEvent(
        instruction=payload[5],
        business_id=None if business_id == NO_BUSINESS_ID else UUID(bytes=business_id),
        amount_units=int.from_bytes(payload[24:32], "little"),
        account=account,
    )


def decode_events(logs: Sequence[str], program_id: Pubkey) -> list[ProgramEvent]:
    """The events of a transaction that succeeded. Raises ChainEventMalformed, also if its logs are not complete."""
    printed = read_logs(logs, program_id)
    if not printed.complete:
        raise ChainEventMalformed("the logs are not complete")
    return [decode_event(payload) for payload in printed.payloads]


def _cut_short(outermost: list[bytes], stack: list[_Call]) -> Printed:
    """What was printed until here. The transaction succeeded, so the calls that were open did too."""
    printed = list(outermost)
    for call in stack:
        printed += call.printed
    return Printed(tuple(printed), complete=False)


def _payload(text: str) -> bytes:
    """The bytes behind `Program data: `; several fields, which our program never prints, are no Base64."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return text.encode()
