"""Every refusal the hub can give, in one tree, each with a stable code and an HTTP status.

Rendered in one place (`hub/web.py`) as RFC 9457 problem details. 422 is for malformed input, 409 for states, 503 for
a part of ours that is away; a 500 is our bug and never one of these.
"""

from __future__ import annotations


class HubError(Exception):
    """A named refusal. `detail` is for people; programs look at `code`."""

    code = "hub_error"
    status = 500
    title = "The hub refused"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or self.title)
        self.detail = detail


class SettingsInvalid(HubError):
    """The environment does not describe a hub that could start."""

    code, status, title = "settings_invalid", 500, "The configuration is invalid"


class Unauthorized(HubError):
    """No credentials, or wrong ones; which of the two is not told."""

    code, status, title = "unauthorized", 401, "Credentials are missing or wrong"


class MalformedInput(HubError):
    """The request cannot be understood, whatever the state of the hub."""

    code, status, title = "malformed_input", 422, "The request is malformed"


class BodyTooLarge(HubError):
    """The body exceeds what this route takes."""

    code, status, title = "body_too_large", 413, "The request body is too large"


class EnrolmentInvalid(HubError):
    """The enrolment statement is not one, is not signed by the key it names, or is for another deployment."""

    code, status, title = "enrolment_invalid", 422, "The enrolment statement is invalid"


class MeterAlreadyRegistered(HubError):
    """This meter id is taken."""

    code, status, title = "meter_already_registered", 409, "This meter is already registered"


class MeterKeyInUse(HubError):
    """A key belongs to one meter for ever."""

    code, status, title = "meter_key_in_use", 409, "This key already belongs to a meter"


class MeterNotFound(HubError):
    """No such meter."""

    code, status, title = "meter_not_found", 404, "No such meter"


class MeterKeyNotFound(HubError):
    """The meter has no key of this epoch."""

    code, status, title = "meter_key_not_found", 404, "The meter has no such key"


class RotationInvalid(HubError):
    """The rotation is not one, is not signed or endorsed by those who may, or contradicts what is registered."""

    code, status, title = "rotation_invalid", 422, "The rotation is invalid"


class RotationBaseDiffers(HubError):
    """The new key does not begin at the last seal of the old one that counts."""

    code, status, title = "rotation_base_differs", 409, "The rotation begins at another seal"


class KeyEpochDiffers(HubError):
    """Another key has this epoch, or an epoch before it is not there."""

    code, status, title = "key_epoch_differs", 409, "This is not the meter's next key epoch"


class RotationTooOften(HubError):
    """The meter has had as many new keys of this endorser within a day as it may."""

    code, status, title = "rotation_too_often", 409, "The meter has had too many new keys today"


class KeyAlreadyRevoked(HubError):
    """The key is revoked, from that time or an earlier one."""

    code, status, title = "key_already_revoked", 409, "This key is already revoked"


class CredentialRequestInvalid(HubError):
    """The request is not one, not fresh, or not by the meter's current key; which of these is told to nobody."""

    code, status, title = "credential_request_invalid", 401, "The request for credentials is not accepted"


class MintingUnchanged(HubError):
    """Whether the meter may mint is already as asked."""

    code, status, title = "minting_unchanged", 409, "Minting is already so"


class MeterRetired(HubError):
    """The meter is retired: that is final."""

    code, status, title = "meter_retired", 409, "The meter is retired"


class MeterNotActive(HubError):
    """The meter is suspended or retired."""

    code, status, title = "meter_not_active", 409, "The meter is not active"


class MeterNotSuspended(HubError):
    """Only a suspended meter can be resumed."""

    code, status, title = "meter_not_suspended", 409, "The meter is not suspended"


class SealNotFound(HubError):
    """No such seal is stored."""

    code, status, title = "seal_not_found", 404, "No such seal"


class SealUnverifiable(HubError):
    """The bytes are no seal of this meter: nothing was stored."""

    code, status, title = "seal_unverifiable", 422, "These bytes are no valid seal of this meter"


class SealEquivocates(HubError):
    """Another seal with this number is stored: the key signed two histories, and its meter is suspended."""

    code, status, title = "seal_equivocates", 409, "Another seal with this number is stored"


class SealNotTaken(HubError):
    """The seal is not stored now; the meter keeps it and sends it again."""

    code, status, title = "seal_not_taken", 409, "The seal cannot be taken now"


class QuarantineEntryNotFound(HubError):
    """No such entry in the quarantine."""

    code, status, title = "quarantine_entry_not_found", 404, "No such quarantine entry"


class QuarantineAlreadyDecided(HubError):
    """An operator has already released or rejected this entry."""

    code, status, title = "quarantine_already_decided", 409, "This quarantine entry is already decided"


class QuarantineNotReleasable(HubError):
    """What no key of the meter signed, or what was signed twice, cannot become energy by an operator's word."""

    code, status, title = "quarantine_not_releasable", 409, "This quarantine entry cannot be released"


class IdempotencyKeyMissing(HubError):
    """A POST that changes something must say under which key it may be repeated."""

    code, status, title = "idempotency_key_missing", 400, "The Idempotency-Key header is missing or malformed"


class IdempotencyKeyReused(HubError):
    """The same key came with other content."""

    code, status, title = "idempotency_key_reused", 422, "This Idempotency-Key was used with another request"


class IdempotencyKeyInFlight(HubError):
    """The first request with this key has not ended yet."""

    code, status, title = "idempotency_key_in_flight", 409, "A request with this Idempotency-Key is in flight"


class DatabaseAway(HubError):
    """PostgreSQL does not answer; nothing was stored and nothing acknowledged."""

    code, status, title = "database_away", 503, "The database does not answer"


class LeaseLost(HubError):
    """Another worker owns the shard now; the transaction that noticed is rolled back."""

    code, status, title = "lease_lost", 503, "The shard belongs to another worker"
