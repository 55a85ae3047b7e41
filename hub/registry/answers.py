"""What the registry's routes answer, as the description of the interface tells it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hub.api_types import AnswerBody, Bytes32, Count, MeterName, Moment, NextCursor
from hub.registry.onboarding_answers import OnChainAnswer
from hub.registry.rules import CAPACITY_W_MAX, REGISTER_QUANTUM_WH_MAX
from protocol.limits import KEY_EPOCH_MAX, SHARDS

MeterKind = Literal["solar", "wind", "battery", "grid"]
MeterState = Literal["active", "suspended", "retired"]
KeyEpoch = Annotated[int, Field(ge=1, le=KEY_EPOCH_MAX, description="Counts the keys of a meter, from 1.")]


class MeterAnswer(AnswerBody):
    """What is registered about a meter. Its owner is the public key of a Solana wallet."""

    meter_id: MeterName
    shard: int = Field(ge=0, lt=SHARDS, description="Which part of the broker's topics it publishes under.")
    kind: MeterKind
    measurement: Literal["generation_and_grid", "net_only"]
    owner: Bytes32
    state: MeterState
    key_epoch: KeyEpoch
    production_capacity_w: int = Field(ge=0, le=CAPACITY_W_MAX)
    connection_capacity_w: int = Field(ge=1, le=CAPACITY_W_MAX)
    register_quantum_wh: int = Field(ge=1, le=REGISTER_QUANTUM_WH_MAX, description="The register's smallest step.")
    phases_netted: bool
    minting_allowed: bool
    commands_issued: Count
    broker_ready: bool = Field(description="Whether the broker knows the meter's account.")
    registered_at: Moment
    chain: OnChainAnswer | None = Field(description="The meter's account on the chain; null if it is not there.")


class MetersAnswer(AnswerBody):
    """A page of meters."""

    meters: list[MeterAnswer]
    next_cursor: NextCursor


class BrokerAccount(AnswerBody):
    """User name and password of a meter at the broker."""

    username: str
    password: str


class RegisteredMeterAnswer(AnswerBody):
    """What the agent of a new meter needs to connect. Not kept with the Idempotency-Key: the password in force."""

    meter_id: MeterName
    key_epoch: KeyEpoch
    shard: int = Field(ge=0, lt=SHARDS)
    state: MeterState
    domain: str = Field(pattern="^[0-9a-f]{16}$", description="What every seal of this deployment names.")
    community_id: str
    command_public_key: Bytes32
    broker: BrokerAccount


class MeterStateAnswer(AnswerBody):
    """The state that the meter is in now."""

    meter_id: MeterName
    state: MeterState


class MintingAnswer(AnswerBody):
    """Whether what the meter measures may be minted now."""

    meter_id: MeterName
    minting_allowed: bool


class BrokerPasswordAnswer(AnswerBody):
    """The meter's account at the broker from now on."""

    meter_id: MeterName
    password_generation: Count
    broker: BrokerAccount


class CommandAnswer(AnswerBody):
    """A command that is on its way. Commands of a meter are counted from 1."""

    meter_id: MeterName
    counter: Count
    expires_at_unix_s: Count
