"""The shapes of what a node answers, strictly: a field of another type is no answer, fields beyond are ignored."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Generic, Literal, TypeVar

import base58
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from solders.pubkey import Pubkey

Level = Literal["processed", "confirmed", "finalized"]

Number = Annotated[int, Field(ge=0, lt=2**63)]
"""Slots, heights and lamports, as a bigint of PostgreSQL can keep them."""


def _base58_of(length: int) -> BeforeValidator:
    def decode(value: object) -> bytes:
        if not isinstance(value, str) or len(value) > 2 * length:
            raise ValueError(f"not {length} bytes in Base58")
        decoded = base58.b58decode(value)
        if len(decoded) != length:
            raise ValueError(f"not {length} bytes in Base58")
        return decoded

    return BeforeValidator(decode)


def _base64(value: object) -> bytes:
    if not (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and value[1] == "base64"):
        raise ValueError("not bytes in Base64")
    try:
        return base64.b64decode(value[0], validate=True)
    except binascii.Error as fault:
        raise ValueError("not bytes in Base64") from fault


Key = Annotated[bytes, _base58_of(32)]
Signature = Annotated[bytes, _base58_of(64)]
Data = Annotated[bytes, BeforeValidator(_base64)]
T = TypeVar("T")


class Answer(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Context(Answer):
    """As of which slot the node answers."""

    slot: Number


class At(Answer, Generic[T]):
    """An answer that is true of a slot."""

    context: Context
    value: T


class LatestBlockhash(Answer):
    """What a transaction has to name, and until which block height it may land."""

    blockhash: Key
    last_valid_block_height: Number = Field(alias="lastValidBlockHeight")


class EpochInfo(Answer):
    """Slot and block height at one level."""

    slot: Number = Field(alias="absoluteSlot")
    block_height: Number = Field(alias="blockHeight")


class SignatureStatus(Answer):
    """What a node knows of a transaction."""

    slot: Number
    err: Any
    level: Level | None = Field(default=None, alias="confirmationStatus")
    confirmations: Number | None = None


class NodeAccount(Answer):
    """An account as it lies on the chain."""

    lamports: Number
    owner: Key
    data: Data
    executable: bool


class KeyedAccount(Answer):
    """An account with its address."""

    address: Key = Field(alias="pubkey")
    account: NodeAccount

    @property
    def pubkey(self) -> Pubkey:
        """The address."""
        return Pubkey.from_bytes(self.address)


class SignatureOfAddress(Answer):
    """A transaction that touched an address; with an `err` it did nothing but pay its fee."""

    signature: Signature
    slot: Number
    err: Any


class Simulated(Answer):
    """What would come of a transaction now."""

    err: Any
    logs: list[str] | None
    compute_units: Number | None = Field(default=None, alias="unitsConsumed")


class TransactionMeta(Answer):
    """What came of a transaction."""

    err: Any
    logs: list[str] | None = Field(default=None, alias="logMessages")
    fee: Number


class LandedTransaction(Answer):
    """A transaction in a block."""

    slot: Number
    block_time: int | None = Field(default=None, alias="blockTime")
    meta: TransactionMeta
