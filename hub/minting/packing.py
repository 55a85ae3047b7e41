"""How many meters go into one transaction: as many as fit into a packet. Pure.

A step of a meter takes some 300 bytes even when a lookup table names its accounts, so three is the most, and without
tables one or two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.instruction import Instruction
from solders.pubkey import Pubkey

from hub.chain.messages import TRANSACTION_BYTES_MAX, build_message, transaction_bytes

METERS_MAX: Final = 3

Item = TypeVar("Item")

TablesFor = Callable[[Sequence[Instruction]], Sequence[AddressLookupTableAccount]]
"""The lookup tables that make a transaction with these instructions shorter."""


@dataclass(frozen=True)
class Wanted(Generic[Item]):
    """What is to be packed: its instructions, what they need at most, and whether others may go with it."""

    item: Item
    instructions: tuple[Instruction, ...]
    compute_units: int
    alone: bool


@dataclass(frozen=True)
class Packed(Generic[Item]):
    """What goes into one transaction together."""

    items: tuple[Item, ...]
    compute_units: int
    tables: tuple[Pubkey, ...]


def pack(payer: bytes, wanted: Sequence[Wanted[Item]], tables_for: TablesFor) -> Iterator[Packed[Item]]:
    """Put these into as few transactions as they fit into, in their order."""
    waiting: list[Wanted[Item]] = []
    for one in wanted:
        if waiting and (one.alone or len(waiting) == METERS_MAX or not _fits(payer, [*waiting, one], tables_for)):
            yield _packed(waiting, tables_for)
            waiting = []
        waiting.append(one)
        if one.alone:
            yield _packed(waiting, tables_for)
            waiting = []
    if waiting:
        yield _packed(waiting, tables_for)


def _fits(payer: bytes, together: Sequence[Wanted[Any]], tables_for: TablesFor) -> bool:
    """Whether a transaction with these, and what the sender puts before them, is no larger than a packet."""
    instructions = [instruction for one in together for instruction in one.instructions]
    message = build_message(
        Pubkey.from_bytes(payer), instructions, 1, 1, bytes(32), UUID(int=0), tables_for(instructions)
    )
    return transaction_bytes(message) <= TRANSACTION_BYTES_MAX


def _packed(together: Sequence[Wanted[Item]], tables_for: TablesFor) -> Packed[Item]:
    instructions = [instruction for one in together for instruction in one.instructions]
    return Packed(
        tuple(one.item for one in together),
        sum(one.compute_units for one in together),
        tuple(table.key for table in tables_for(instructions)),
    )
