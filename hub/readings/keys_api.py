"""HTTP for the keys of meters: their list, rotation, revocation, and the broker password for whoever has the key.

Rotation and credentials need no token: the signatures speak.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from hub.api_types import Instant, MeterPath, Note, Strict, iso, iso_of, refusals
from hub.dependencies import Now, OnceOnly, TheHub, Transaction, refuse_query
from hub.errors import (
    CredentialRequestInvalid,
    KeyAlreadyRevoked,
    KeyEpochDiffers,
    MeterKeyInUse,
    MeterKeyNotFound,
    MeterRetired,
    RotationBaseDiffers,
    RotationInvalid,
    RotationTooOften,
)
from hub.idempotency import Answer
from hub.readings import key_life
from hub.readings.answers import SAME_KEY, CredentialsAnswer, KeysAnswer, NewKeyAnswer, RevocationAnswer
from hub.registry import keys_service
from hub.registry import service as registry
from hub.registry.keys_store import MeterKey
from protocol.credential import CREDENTIAL_REQUEST_BYTES
from protocol.limits import KEY_EPOCH_MAX
from protocol.replacement import REPLACEMENT_BYTES, REPLACEMENTS_MAX
from protocol.rotation import ROTATION_BYTES
from protocol.seal import SIGNATURE_BYTES

router = APIRouter(tags=["keys"])

_HEX = "^[0-9a-f]*$"
_ROTATION_LENGTH = 2 * ROTATION_BYTES
_RECORD_LENGTH = 2 * (REPLACEMENT_BYTES + SIGNATURE_BYTES)
_REQUEST_LENGTH = 2 * (CREDENTIAL_REQUEST_BYTES + SIGNATURE_BYTES)

Record = Annotated[str, Field(min_length=_RECORD_LENGTH, max_length=_RECORD_LENGTH, pattern=_HEX)]
Epoch = Annotated[int, Path(ge=1, le=KEY_EPOCH_MAX)]


class NewKey(Strict):
    """A rotation, and the records of exchanged meters that come with it, in hexadecimal."""

    rotation: str = Field(min_length=_ROTATION_LENGTH, max_length=_ROTATION_LENGTH, pattern=_HEX)
    replacements: list[Record] = Field(default=[], max_length=REPLACEMENTS_MAX)


class Revocation(Strict):
    """From when on the key was in other hands, and why; goes to the audit log."""

    since: Instant = Field(alias="from")
    reason: Note


class CredentialRequest(Strict):
    """A request signed by the meter's key, in hexadecimal."""

    request: str = Field(min_length=_REQUEST_LENGTH, max_length=_REQUEST_LENGTH, pattern=_HEX)


@router.post(
    "/meters/{meter_id}/keys",
    status_code=201,
    response_model=NewKeyAnswer,
    responses=SAME_KEY
    | refusals(RotationInvalid, MeterRetired, KeyEpochDiffers, RotationTooOften, RotationBaseDiffers, MeterKeyInUse),
    dependencies=[Depends(refuse_query)],
)
def rotate_key(meter_id: MeterPath, body: NewKey, hub: TheHub, connection: Transaction, now: Now) -> Response:
    """Let a new key take over. 201 the first time, 200 for the same bytes again."""
    records = [bytes.fromhex(record) for record in body.replacements]
    key, created = key_life.rotate_key(
        connection, meter_id, bytes.fromhex(body.rotation), records, hub.settings.domain, now
    )
    meter = registry.get_meter(connection, meter_id)
    answer = {
        "meter_id": meter_id,
        "key_epoch": key.key_epoch,
        "public_key": key.public_key.hex(),
        "endorsed_by": key.endorsed_by,
        "state": key.state,
        "phases_netted": meter.phases_netted,
        "minting_allowed": meter.minting_allowed,
    }
    return JSONResponse(answer, 201 if created else 200)


@router.get("/meters/{meter_id}/keys", response_model=KeysAnswer, dependencies=[Depends(refuse_query)])
def list_keys(meter_id: MeterPath, connection: Transaction) -> dict[str, Any]:
    """All keys that the meter ever had, oldest first, and where the next one would begin."""
    meter = registry.get_meter(connection, meter_id)
    keys = keys_service.list_keys(connection, meter.meter_no)
    exchanges = keys_service.list_exchanges(connection, meter.meter_no)
    base = key_life.find_base(connection, meter.meter_no, keys)
    return {
        "meter_id": meter_id,
        "keys": [_key_json(key, exchanges.get(key.key_epoch, [])) for key in keys],
        "next": {
            "key_epoch": meter.key_epoch,
            "public_key": keys[-1].public_key.hex(),
            "sequence": base.sequence,
            "seal_key_epoch": base.key_epoch,
            "seal_hash": base.seal_hash.hex(),
            "closed_until_unix_s": base.closed_until_unix_s,
            "production_wh": base.production_wh,
            "consumption_wh": base.consumption_wh,
            "surplus_wh": base.surplus_wh,
            "last_reading_unix_s": base.last_reading_unix_s,
            "last_production_wh": base.last_production_wh,
            "last_consumption_wh": base.last_consumption_wh,
        },
    }


@router.post(
    "/meters/{meter_id}/keys/{key_epoch}/revoke",
    response_model=RevocationAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(MeterKeyNotFound, KeyAlreadyRevoked),
)
def revoke_key(meter_id: MeterPath, key_epoch: Epoch, body: Revocation, hub: TheHub, once: OnceOnly) -> Response:
    """Take a key's word back from a time on: what it sealed since is held, and what it seals from now on."""

    def perform() -> Answer:
        revoked, withdrawn = key_life.revoke_key(
            once.connection,
            meter_id,
            key_epoch,
            body.since,
            body.reason,
            hub.settings.community_id,
            once.actor,
            once.now,
        )
        return {"meter_id": meter_id, "revoked_key_epochs": revoked, "withdrawn_seals": withdrawn}

    return once.answer(body, 200, perform)


@router.post(
    "/agent/credentials",
    response_model=CredentialsAnswer,
    dependencies=[Depends(refuse_query)],
    responses=refusals(CredentialRequestInvalid),
)
def get_credentials(body: CredentialRequest, hub: TheHub, connection: Transaction, now: Now) -> dict[str, str]:
    """The broker account in force, for whoever proves to have the meter's current key."""
    username, password = keys_service.answer_credential_request(
        connection, bytes.fromhex(body.request), hub.settings.domain, hub.broker_secret, now
    )
    return {"username": username, "password": password}


def _key_json(key: MeterKey, exchanges: list[bytes]) -> dict[str, Any]:
    return {
        "key_epoch": key.key_epoch,
        "public_key": key.public_key.hex(),
        "state": key.state,
        "endorsed_by": key.endorsed_by,
        "valid_from": iso(key.valid_from),
        "registered_at": iso(key.registered_at),
        "base_sequence": key.base_sequence,
        "base_reading_at": iso_of(key.base_reading_unix_s),
        "superseded_after_sequence": key.superseded_after_sequence,
        "superseded_at": None if key.superseded_at is None else iso(key.superseded_at),
        "revoked_from": None if key.revoked_from is None else iso(key.revoked_from),
        "replacements": [record.hex() for record in exchanges],
    }
