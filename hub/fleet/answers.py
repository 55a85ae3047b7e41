"""What the fleet's routes answer, as the description of the interface tells it.

What a device says of itself has no other shape than that of `status.py`: words are words here, whatever they are.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from hub.api_types import AnswerBody, Count, Hex, MeterName, Moment, NextCursor
from hub.registry.answers import KeyEpoch, MeterKind, MeterState
from protocol.limits import SEQUENCE_MAX

Presence = Literal["online", "offline", "never"]
Sequence = Annotated[int, Field(ge=0, le=SEQUENCE_MAX)]
CountByName = dict[str, Count]


class FleetLineAnswer(AnswerBody):
    """A meter as an operator sees it. What it stated is null until it did; `held_messages` ends at 10,000."""

    meter_id: MeterName
    kind: MeterKind
    state: MeterState
    presence: Presence
    last_seen_at: Moment | None
    status_at: Moment | None
    last_seal_at: Moment | None
    last_reading_at: Moment | None
    key_epoch: KeyEpoch
    highest_sequence: Sequence | None
    missing_seals: Count
    held_messages: Count
    backlog_seals: Count | None
    behind: bool
    clock: str | None
    clock_skew_s: int | None = Field(description="The hub's clock less the meter's, as far as whole seconds tell.")
    firmware: str | None
    transport: str | None
    problems: list[str]


class FleetAnswer(AnswerBody):
    """A page of the fleet, as it was at one moment."""

    at: Moment
    meters: list[FleetLineAnswer]
    next_cursor: NextCursor


class FleetSummaryAnswer(AnswerBody):
    """The fleet in figures; retired meters are in `states` alone. Of problems and versions the most frequent."""

    at: Moment
    meters: Count
    presences: CountByName
    states: CountByName
    meters_behind: Count
    meters_with_problems: Count
    problems: CountByName
    firmware: CountByName
    backlog_seals: Count
    missing_seals: Count
    held_messages: Count


class StatedDevice(AnswerBody):
    """A device that the agent reads, as the agent names it."""

    role: str
    map: str
    quantum_wh: str | None = None


class StatedAnswer(AnswerBody):
    """What a meter last said of itself. Unsigned: nothing here decides about energy."""

    state: Literal["online", "offline"]
    since: Moment | None
    key_epoch: Annotated[int, Field(ge=0)] | None
    sequence: Sequence | None
    backlog_seals: Count | None
    unsealed_readings: Count | None
    last_reading_at: Moment | None
    journal_bytes: Count | None
    journal_bytes_max: Count | None
    meters: list[StatedDevice] | None
    counts: CountByName | None


class MeterStatusAnswer(FleetLineAnswer):
    """How a meter is, and what it last said of itself: null if it never did."""

    at: Moment
    phases_netted: bool
    minting_allowed: bool
    stated: StatedAnswer | None


class AlarmAnswer(AnswerBody):
    """Something that an operator must look into; what `detail` holds depends on the kind."""

    alarm_id: Count
    kind: str
    meter_id: MeterName | None
    detail: dict[str, Any]
    raised_at: Moment


class AlarmsAnswer(AnswerBody):
    """A page of alarms."""

    alarms: list[AlarmAnswer]
    next_cursor: NextCursor


class ReportAnswer(AnswerBody):
    """What an agent would have heard from the broker. `status_noted` says whether its status was understood."""

    receipt: Hex
    commands: list[Hex]
    status_noted: bool
