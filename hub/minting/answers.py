"""What the routes of minting answer, as the description of the interface tells it. Energy in Wh, GRID in base units."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hub.api_types import AnswerBody, Count, EnergyWh, MeterName, Moment, NextCursor
from hub.minting.rules import Reason
from hub.registry.answers import KeyEpoch
from protocol.limits import SEQUENCE_MAX

Units = Annotated[str, Field(pattern="^[0-9]{1,30}$", description="Base units of GRID: 1 Wh is 1,000,000.")]
SequenceOrNone = Annotated[int, Field(ge=0, le=SEQUENCE_MAX)]
Day = Annotated[str, Field(json_schema_extra={"format": "date"}, description="A UTC day.")]
Signature = Annotated[str, Field(description="The transaction's id, in Base58.")]


class BalanceAnswer(AnswerBody):
    """Where surplus is. accepted + taken back = minted + written off + earned back + pending + held, at any moment.

    `over_minted_wh` was minted, or written off, for a key whose word was taken back: it is to be earned before anything
    new is minted.
    """

    accepted_wh: EnergyWh
    minted_wh: EnergyWh
    pending_wh: EnergyWh
    held_wh: EnergyWh
    written_off_wh: EnergyWh
    earned_back_wh: EnergyWh
    taken_back_wh: EnergyWh
    over_minted_wh: int


class DayBalanceAnswer(BalanceAnswer):
    """The same of a UTC day: that of the last interval which a seal closes."""

    day: Day


class NextStepAnswer(AnswerBody):
    """What is done next, or why nothing is; `reason` is null if something is. `needs_somebody`: it waits for one."""

    does: Literal["submit", "write_off", "make_way", "rotate", "nothing"]
    reason: Reason | None
    detail: str
    needs_somebody: bool


class MeterMintingAnswer(AnswerBody):
    """A meter's balance, in all and by day, newest day first, and what comes next."""

    meter_id: MeterName
    minting_allowed: bool
    presented_key_epoch: KeyEpoch
    presented_sequence: SequenceOrNone
    next_step: NextStepAnswer
    total: BalanceAnswer
    minted_units: Units
    days: list[DayBalanceAnswer]
    next_cursor: NextCursor


class MintAnswer(AnswerBody):
    """A step: seals first to last of a key, what became of their surplus, and the transaction that did it."""

    mint_id: Count
    step: Literal["submit", "write_off", "make_way", "rotate"]
    state: Literal["open", "finalized", "failed"]
    key_epoch: KeyEpoch
    first_sequence: SequenceOrNone
    last_sequence: SequenceOrNone
    closed_from: Moment
    closed_until: Moment
    surplus_wh: EnergyWh
    minted_wh: EnergyWh
    amount_units: Units
    written_off_wh: EnergyWh
    earned_back_wh: EnergyWh
    planned_at: Moment
    ended_at: Moment | None
    transaction_signature: Signature | None
    slot: Count | None
    error_code: str | None


class MintsAnswer(AnswerBody):
    """A page of steps, newest first."""

    mints: list[MintAnswer]
    next_cursor: NextCursor


class MeterTokensAnswer(AnswerBody):
    """What a meter has earned in all."""

    meter_id: MeterName
    amount_units: Units
    amount: str
    mints: Count


class EarningsAnswer(AnswerBody):
    """What the member's meters have earned in all. What is in its wallet now, only the chain knows."""

    amount_units: Units
    amount: str
    meters: list[MeterTokensAnswer]


class SupplyAnswer(AnswerBody):
    """How much GRID was minted, by the hub's books and by the chain as it was last read; holders may burn theirs."""

    minted_units: Units
    minted: str
    chain_units: Units | None
    chain_slot: Count | None
    chain_read_at: Moment | None


class BlockedMeterAnswer(AnswerBody):
    """A meter of which nothing is minted, and why."""

    meter_id: MeterName
    reason: Reason
    detail: str
    since: Moment | None = Field(description="When the chain refused, if it did.")


class BlockedMetersAnswer(AnswerBody):
    """The blocked meters among the next so many meters; a page may have few, or none, and not be the last."""

    meters: list[BlockedMeterAnswer]
    next_cursor: str | None


class RetryAnswer(AnswerBody):
    """The meter goes on."""

    meter_id: MeterName
    held: Literal[False]
