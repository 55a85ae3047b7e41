"""What the routes of this domain answer, as the description of the interface tells it. Energy is in watt-hours."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from hub.api_types import AnswerBody, Bytes32, Count, EnergyWh, Hex, MeterName, Moment, NextCursor, UnixS
from hub.readings.exports import PARQUET_TYPE
from hub.registry.answers import KeyEpoch, MeterAnswer
from protocol.limits import (
    FREQUENCY_MHZ_MAX,
    POWER_W_ABS_MAX,
    READINGS_PER_SEAL_MAX,
    SEQUENCE_MAX,
    VOLTAGE_DV_MAX,
)
from protocol.readings import FLAGS_ALL

SealState = Literal["accepted", "quarantined", "released", "rejected"]
Sequence = Annotated[int, Field(ge=1, le=SEQUENCE_MAX, description="Counts the seals of a key, from 1.")]
SequenceOrNone = Annotated[int, Field(ge=0, le=SEQUENCE_MAX, description="A sequence; 0 if there is none yet.")]


class SealAnswer(AnswerBody):
    """A stored seal without its bytes. `linked` says whether its predecessor is stored and agrees with it."""

    key_epoch: KeyEpoch
    sequence: Sequence
    state: SealState
    linked: bool
    seal_hash: Bytes32
    sealed_at: Moment
    closed_until: Moment
    production_wh: EnergyWh
    consumption_wh: EnergyWh
    surplus_wh: EnergyWh
    first_reading_at: Moment
    last_reading_at: Moment
    reading_count: int = Field(ge=1, le=READINGS_PER_SEAL_MAX)
    received_at: Moment
    minted: bool = Field(description="Whether it counts, and what it says of surplus was presented and finalized.")
    transaction_signature: str | None = Field(description="Of the transaction that presented it.")


class MeterProgressAnswer(MeterAnswer):
    """What is registered about a meter, and how far the stream of its current key has come."""

    highest_sequence: SequenceOrNone
    contiguous_sequence: SequenceOrNone
    latest_seal: SealAnswer | None


class ReadingAnswer(AnswerBody):
    """A reading: counters since ever, and what the meter measured at that moment if it says so."""

    time: Moment
    production_wh: EnergyWh
    consumption_wh: EnergyWh
    power_w: Annotated[int, Field(ge=-POWER_W_ABS_MAX, le=POWER_W_ABS_MAX)] | None
    voltage_dv: Annotated[int, Field(ge=0, le=VOLTAGE_DV_MAX, description="Tenths of a volt.")] | None
    frequency_mhz: Annotated[int, Field(ge=0, le=FREQUENCY_MHZ_MAX, description="Thousandths of a hertz.")] | None
    flags: int = Field(ge=0, le=FLAGS_ALL)
    minted: bool = Field(description="Whether its interval was netted, presented and finalized.")
    transaction_signature: str | None


class LatestReadingAnswer(AnswerBody):
    """The newest accepted reading; null before the first."""

    meter_id: MeterName
    reading: ReadingAnswer | None


class ReadingsAnswer(AnswerBody):
    """A page of readings as the meter sealed them."""

    meter_id: MeterName
    bucket: Literal["raw"]
    start: Moment = Field(alias="from")
    end: Moment = Field(alias="to")
    readings: list[ReadingAnswer]
    next_cursor: NextCursor


class BucketAnswer(AnswerBody):
    """What a home produced, consumed and had over in a stretch of time."""

    start: Moment = Field(alias="from")
    end: Moment = Field(alias="to")
    production_wh: EnergyWh
    consumption_wh: EnergyWh
    surplus_wh: EnergyWh


class EnergyAnswer(AnswerBody):
    """A page of energy by bucket. A bucket without a reading is absent."""

    meter_id: MeterName
    bucket: Literal["15min", "hour", "day"]
    start: Moment = Field(alias="from")
    end: Moment = Field(alias="to")
    buckets: list[BucketAnswer]
    next_cursor: NextCursor


class SealsAnswer(AnswerBody):
    """A page of seals."""

    seals: list[SealAnswer]
    next_cursor: NextCursor


class GapAnswer(AnswerBody):
    """Sequences that no stored seal has, from first to last. `asked_at`: when the meter was last asked for them.

    `lost_at`: when an operator gave them up; `passed`: minting has gone across since, so they can no longer count.
    """

    key_epoch: KeyEpoch
    first_sequence: Sequence
    last_sequence: Sequence
    detected_at: Moment
    asked_at: Moment | None
    lost_at: Moment | None
    lost_by: str | None
    lost_reason: str | None
    passed: bool


class LostGapAnswer(AnswerBody):
    """The range that is given up."""

    meter_id: MeterName
    key_epoch: KeyEpoch
    first_sequence: Sequence
    last_sequence: Sequence


class GapsAnswer(AnswerBody):
    """A page of gaps."""

    gaps: list[GapAnswer]
    next_cursor: NextCursor


class QuarantineEntryAnswer(AnswerBody):
    """Something that is held, or was: what came where, why it does not count, and who decided what."""

    quarantine_id: Count
    meter_id: MeterName | None
    key_epoch: KeyEpoch | None
    sequence: Sequence | None
    topic: str
    reason: str
    detail: str
    verified: bool = Field(description="Whether a key of the meter signed it.")
    message_hash: Bytes32
    received_at: Moment
    state: Literal["held", "released", "rejected"]
    decided_by: str | None
    decided_at: Moment | None
    decision_note: str | None


class QuarantineAnswer(AnswerBody):
    """A page of the quarantine."""

    entries: list[QuarantineEntryAnswer]
    next_cursor: NextCursor


class DecisionAnswer(AnswerBody):
    """What the entry is now."""

    quarantine_id: Count
    state: Literal["released", "rejected"]


class BacklogAnswer(AnswerBody):
    """How many seals were released."""

    meter_id: MeterName
    released: Count


class PostedSealAnswer(AnswerBody):
    """A seal that is stored, now or already. `receipt` is what a meter hears from the broker (docs/protocol.md)."""

    committed: Literal[True]
    state: Literal["accepted", "quarantined", "repeat"]
    reason: str | None
    key_epoch: KeyEpoch
    sequence: Sequence
    contiguous_sequence: SequenceOrNone
    receipt: Hex


class NewKeyAnswer(AnswerBody):
    """The key that took over."""

    meter_id: MeterName
    key_epoch: KeyEpoch
    public_key: Bytes32
    endorsed_by: Literal["old_key", "owner"]
    state: Literal["active", "superseded", "revoked"]
    phases_netted: bool
    minting_allowed: bool


class KeyAnswer(AnswerBody):
    """A key of a meter: who endorsed it, where it began and how it ended. `replacements` are signed records."""

    key_epoch: KeyEpoch
    public_key: Bytes32
    state: Literal["active", "superseded", "revoked"]
    endorsed_by: Literal["first", "old_key", "owner"]
    valid_from: Moment
    registered_at: Moment
    base_sequence: SequenceOrNone
    base_reading_at: Moment
    superseded_after_sequence: SequenceOrNone | None
    superseded_at: Moment | None
    revoked_from: Moment | None
    replacements: list[Hex]


class NextKeyAnswer(AnswerBody):
    """Where the next key must begin: the last seal that counts, or what the key without one stated."""

    key_epoch: KeyEpoch
    public_key: Bytes32
    sequence: SequenceOrNone
    seal_key_epoch: KeyEpoch
    seal_hash: Bytes32
    closed_until_unix_s: UnixS
    production_wh: EnergyWh
    consumption_wh: EnergyWh
    surplus_wh: EnergyWh
    last_reading_unix_s: UnixS
    last_production_wh: EnergyWh
    last_consumption_wh: EnergyWh


class KeysAnswer(AnswerBody):
    """All keys that the meter ever had, oldest first. Of `next`, key epoch and public key are the current key's."""

    meter_id: MeterName
    keys: list[KeyAnswer]
    next: NextKeyAnswer


class RevocationAnswer(AnswerBody):
    """The keys whose word was taken back, and how many seals stopped to count by it."""

    meter_id: MeterName
    revoked_key_epochs: list[KeyEpoch]
    withdrawn_seals: Count


class CredentialsAnswer(AnswerBody):
    """The meter's account at the broker."""

    username: str
    password: str


TABLES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page in JSON, or the whole range as a table.",
        "content": {
            "text/csv": {"schema": {"type": "string", "description": "RFC 4180, with a header line."}},
            PARQUET_TYPE: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
"""The other forms of readings and energy."""

SAME_KEY: dict[int | str, dict[str, Any]] = {
    200: {"model": NewKeyAnswer, "description": "The same bytes again: nothing changed."}
}

SEAL_BYTES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The message as the meter signed it.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            "ETag": {
                "description": "The hash of the seal.",
                "required": True,
                "schema": {"type": "string", "pattern": '^"[0-9a-f]{64}"$'},
            },
            "X-Seal-State": {
                "required": True,
                "schema": {"enum": ["accepted", "quarantined", "released", "rejected"]},
            },
            "X-Seal-Received-At": {"required": True, "schema": {"type": "string", "format": "date-time"}},
        },
    }
}

EVIDENCE_LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "JSON lines: a header, then seals, and before those of a further key its rotation.",
        "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
    }
}
