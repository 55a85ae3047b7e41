"""Every refusal the hub can give, in one tree, each with a stable code and an HTTP status.

Rendered in one place (`hub/problems.py`) as RFC 9457 problem details. 422 is for malformed input, 409 for states, 503
for a part of ours that is away; a 500 is our bug and never one of these.
"""

from __future__ import annotations

BEARER = 'Bearer realm="commonwatt"'
BEARER_INVALID = f'{BEARER}, error="invalid_token"'
BEARER_EXPIRED = f'{BEARER_INVALID}, error_description="The access token has expired"'
BEARER_TOO_LITTLE = f'{BEARER}, error="insufficient_scope"'
BASIC = 'Basic realm="commonwatt", charset="UTF-8"'
"""What a refusal asks for (RFC 6750, RFC 7617). A token that was sent and is not good is told from none at all."""


class HubError(Exception):
    """A named refusal. `detail` is for people; programs look at `code`. `challenge` goes into WWW-Authenticate."""

    code = "hub_error"
    status = 500
    title = "The hub refused"
    challenge = ""

    def __init__(self, detail: str = "", challenge: str = "") -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.challenge = challenge or self.challenge


class SettingsInvalid(HubError):
    """The environment does not describe a hub that could start."""

    code, status, title = "settings_invalid", 500, "The configuration is invalid"


class Unauthorized(HubError):
    """No credentials, or wrong ones; what is wrong with them is not told."""

    code, status, title = "unauthorized", 401, "Credentials are missing or wrong"


class AccessTokenExpired(HubError):
    """The access token was good and its time is over: the refresh token brings the next."""

    code, status, title = "access_token_expired", 401, "The access token has expired"
    challenge = BEARER_EXPIRED


class RefreshTokenInvalid(HubError):
    """The refresh token is unknown, was used before, or its session is over; which of these is told to nobody."""

    code, status, title = "refresh_token_invalid", 401, "This refresh token is not good: sign in again"


class SessionNotFound(HubError):
    """The member has no such session, or it is over."""

    code, status, title = "session_not_found", 404, "No such session"


class Forbidden(HubError):
    """Who asks is known, and may not do this."""

    code, status, title = "forbidden", 403, "This is not permitted to you"


class MemberNotFound(HubError):
    """No such member."""

    code, status, title = "member_not_found", 404, "No such member"


class MemberSuspended(HubError):
    """The member has proven who it is, and an admin has suspended it."""

    code, status, title = "member_suspended", 403, "This member is suspended"


class MemberNotActive(HubError):
    """The member is suspended already."""

    code, status, title = "member_not_active", 409, "The member is not active"


class MemberNotSuspended(HubError):
    """Only a suspended member can be reinstated."""

    code, status, title = "member_not_suspended", 409, "The member is not suspended"


class RoleUnchanged(HubError):
    """The member has the role already, or never had it."""

    code, status, title = "role_unchanged", 409, "The member's role is already so"


class LastAdmin(HubError):
    """Without this member nobody could manage the others."""

    code, status, title = "last_admin", 409, "This is the last active admin"


class NotOverOneself(HubError):
    """Another admin must do this: nobody gives a role to himself, or suspends himself."""

    code, status, title = "not_over_oneself", 403, "Another admin must do this"


class IdentityTaken(HubError):
    """The address or wallet belongs to a member already."""

    code, status, title = "identity_taken", 409, "This belongs to a member already"


class AddressInvalid(HubError):
    """The text is not an address of this chain that a wallet could have, spelt as wallets spell it."""

    code, status, title = "address_invalid", 422, "This is not a wallet's address"


class ChallengeUnusable(HubError):
    """The hub knows no such challenge: never issued, used already, expired, or issued for something else."""

    code, status, title = "challenge_unusable", 409, "There is no such challenge; ask for another one"


class ProofRefused(HubError):
    """What was sent proves nobody: not the challenge's own bytes, not this wallet's signature, not the password."""

    code, status, title = "proof_refused", 401, "This does not prove who you are"


class WalletNotRegistered(HubError):
    """The wallet has proven itself, and no member has it."""

    code, status, title = "wallet_not_registered", 404, "No member has this wallet"


class WalletAlreadyRegistered(HubError):
    """The wallet has proven itself, and a member has it: who is that member signs in."""

    code, status, title = "wallet_already_registered", 409, "This wallet is already registered"


class WalletNotLinked(HubError):
    """The member has no such wallet."""

    code, status, title = "wallet_not_linked", 404, "You have no such wallet"


class WalletsTooMany(HubError):
    """The member has as many wallets as one may have."""

    code, status, title = "wallets_too_many", 409, "You have as many wallets as one member may have"


class LastWayIn(HubError):
    """Without this wallet the member could never sign in again."""

    code, status, title = "last_way_in", 409, "Without this you could not sign in any more"


class ApiKeyNotFound(HubError):
    """The member has no such API key."""

    code, status, title = "api_key_not_found", 404, "No such API key"


class SignInTooOld(HubError):
    """What was asked for outlives the session, so it wants a session that has only just begun."""

    code, status, title = "sign_in_too_old", 401, "Sign in again first"
    challenge = f'{BEARER}, error="insufficient_user_authentication", max_age="900"'


class TooManyApiKeys(HubError):
    """The member has as many keys as a member may have; one must be revoked first."""

    code, status, title = "too_many_api_keys", 409, "There are too many API keys"


class AdminExists(HubError):
    """The first admin is there already; others are made by an admin."""

    code, status, title = "admin_exists", 409, "There is an admin already"


class PasswordTooWeak(HubError):
    """The password is too short, too long, or one that would be guessed; the detail says which, and what helps."""

    code, status, title = "password_too_weak", 422, "The password is too weak"


class PasswordsBusy(HubError):
    """More passwords are being checked than this process may work on at once."""

    code, status, title = "passwords_busy", 503, "Too many passwords are being checked at this moment"


class EmailOrPasswordWrong(HubError):
    """No member has this address, or it has another password; which of the two is told to nobody."""

    code, status, title = "email_or_password_wrong", 401, "The e-mail address or the password is wrong"


class MailProofInvalid(HubError):
    """The token of a mail is none of ours, used, replaced or too old; which of these is told to nobody."""

    code, status, title = "mail_proof_invalid", 401, "The link is wrong, used or too old"


class RegistrationPasswordWrong(HubError):
    """The link is good, and this is not the password that was given with the registration."""

    code, status, title = "registration_password_wrong", 401, "This is not the password of this registration"


class MailNotConfigured(HubError):
    """This hub sends no mail, and what is asked for needs one."""

    code, status, title = "mail_not_configured", 503, "This hub sends no mail"


class MalformedInput(HubError):
    """The request cannot be understood, whatever the state of the hub."""

    code, status, title = "malformed_input", 422, "The request is malformed"


class BodyTooLarge(HubError):
    """The body exceeds what this route takes."""

    code, status, title = "body_too_large", 413, "The request body is too large"


class RequestTooSlow(HubError):
    """The body did not come within the time that a request has for it."""

    code, status, title = "request_too_slow", 408, "The request came too slowly"


class HeadersTooLarge(HubError):
    """The request line and the headers exceed what the hub reads."""

    code, status, title = "headers_too_large", 431, "The request headers are too large"


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


class GapNotFound(HubError):
    """No missing range of this key epoch begins with this sequence."""

    code, status, title = "gap_not_found", 404, "No such gap"


class GapAlreadyLost(HubError):
    """The gap was declared lost before."""

    code, status, title = "gap_already_lost", 409, "This gap is already declared lost"


class MintNotFound(HubError):
    """No transaction with this signature has minted for a meter that the caller may see."""

    code, status, title = "mint_not_found", 404, "No such mint"


class MintingNotHeld(HubError):
    """Nothing of this meter is held: minting goes on by itself."""

    code, status, title = "minting_not_held", 409, "Minting of this meter is not held"


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


class RateLimited(HubError):
    """More was asked within a time than one address, account or member may; again in `retry_after_s`."""

    code, status, title = "rate_limited", 429, "Too many requests"

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class WebhookUrlRefused(HubError):
    """The address is not of the one form that everybody reads alike, or not one of the public internet."""

    code, status, title = "webhook_url_refused", 422, "The hub sends nothing to this address"


class WebhookEndpointNotFound(HubError):
    """The member has no such webhook endpoint."""

    code, status, title = "webhook_endpoint_not_found", 404, "You have no such webhook endpoint"


class WebhookEndpointDisabled(HubError):
    """The endpoint is disabled: enable it first."""

    code, status, title = "webhook_endpoint_disabled", 409, "The webhook endpoint is disabled"


class WebhookEndpointsTooMany(HubError):
    """The member has as many webhook endpoints as one may have."""

    code, status, title = "webhook_endpoints_too_many", 409, "You have as many webhook endpoints as one may have"


class WebhookDeliveryNotFound(HubError):
    """The endpoint has no such delivery; ended ones are forgotten after some weeks."""

    code, status, title = "webhook_delivery_not_found", 404, "No such delivery"


class NotificationNotFound(HubError):
    """The member has no such notification."""

    code, status, title = "notification_not_found", 404, "You have no such notification"


class PreferenceFixed(HubError):
    """What this is about must reach the member, so it cannot be turned off."""

    code, status, title = "preference_fixed", 409, "This cannot be turned off"


class IdempotencyKeyMissing(HubError):
    """A POST that changes something must say under which key it may be repeated."""

    code, status, title = "idempotency_key_missing", 400, "The Idempotency-Key header is missing or malformed"


class IdempotencyKeyReused(HubError):
    """The same key came with other content."""

    code, status, title = "idempotency_key_reused", 422, "This Idempotency-Key was used with another request"


class IdempotencyKeyInFlight(HubError):
    """The first request with this key has not ended yet."""

    code, status, title = "idempotency_key_in_flight", 409, "A request with this Idempotency-Key is in flight"


class TokenInUrl(HubError):
    """Addresses are logged, by us and by every proxy on the way: what authenticates belongs in the first message."""

    code, status, title = "token_in_url", 400, "Credentials do not belong in the address"


class OriginRefused(HubError):
    """A page of another site opens a socket in the name of whoever looks at it."""

    code, status, title = "origin_refused", 403, "Pages of this origin may not use the hub"


class AuthenticationTimeout(HubError):
    """The socket did not say in time who it is."""

    code, status, title = "authentication_timeout", 401, "The first message did not come in time"


class MemberDiffers(HubError):
    """A socket stays the member's who opened it; another opens its own."""

    code, status, title = "member_differs", 409, "This socket belongs to another member"


class TopicNotFound(HubError):
    """No such topic can be followed."""

    code, status, title = "topic_not_found", 404, "No such topic"


class AlreadySubscribed(HubError):
    """The socket follows this topic; to begin elsewhere it unsubscribes first."""

    code, status, title = "already_subscribed", 409, "This topic is already followed"


class NotSubscribed(HubError):
    """The socket does not follow this topic."""

    code, status, title = "not_subscribed", 409, "This topic is not followed"


class TooManySockets(HubError):
    """The member, or those who have not yet said who they are, have as many sockets as they may."""

    code, status, title = "too_many_sockets", 429, "There are too many sockets"


class LiveFull(HubError):
    """This process holds as many sockets as it can; another one may have room."""

    code, status, title = "live_full", 503, "There is no room for another socket"


class TooManyMessages(HubError):
    """The socket says more than a client has reason to."""

    code, status, title = "too_many_messages", 429, "There are too many messages"


class DatabaseAway(HubError):
    """PostgreSQL does not answer; nothing was stored and nothing acknowledged."""

    code, status, title = "database_away", 503, "The database does not answer"


class TooManyConnections(HubError):
    """This process has as many clients as it can bear; nothing was read of the request."""

    code, status, title = "too_many_connections", 503, "Too many clients are connected"


class LeaseLost(HubError):
    """Another worker owns the shard now; the transaction that noticed is rolled back."""

    code, status, title = "lease_lost", 503, "The shard belongs to another worker"


class ChainNotConfigured(HubError):
    """This hub was given no node: it stores readings, and nothing of it reaches a chain."""

    code, status, title = "chain_not_configured", 503, "This hub has no chain"


class IntentNotFound(HubError):
    """There is no such transaction of the hub's."""

    code, status, title = "intent_not_found", 404, "No such transaction"


class IntentNotAwaiting(HubError):
    """The wallet's signature was there already, or nothing is to be signed any more, or not yet."""

    code, status, title = "intent_not_awaiting", 409, "This transaction awaits no signature"


class TransactionNotOurs(HubError):
    """The hub built no such transaction: it co-signs its own, byte for byte, and no other."""

    code, status, title = "transaction_not_ours", 422, "The hub did not build this transaction"


class WalletSignatureInvalid(HubError):
    """This is not the wallet's signature over the transaction."""

    code, status, title = "wallet_signature_invalid", 422, "This is not the wallet's signature"


class TransactionExpired(HubError):
    """The transaction was the hub's own, and another has taken its place, or its time is over."""

    code, status, title = "transaction_expired", 409, "This transaction has expired"


class ChainAway(HubError):
    """The node of the chain does not answer, or not in time. What was sent to it may have arrived."""

    code, status, title = "chain_away", 503, "The node of the chain does not answer"


class ChainRefuses(HubError):
    """The node answers that it will not: too many requests, a history that it does not keep, a failure of its own."""

    code, status, title = "chain_refuses", 503, "The node of the chain refuses"


class ChainAnswersNonsense(HubError):
    """What the node answers has not the shape of an answer; nothing is concluded from it."""

    code, status, title = "chain_answers_nonsense", 503, "The node of the chain answers nonsense"


class ChainLags(HubError):
    """One answer of the node is older than another that it gave before: nothing is concluded from them."""

    code, status, title = "chain_lags", 503, "The node of the chain is behind"


class ChainDiffers(HubError):
    """The node's chain began with another block than the one that the settings name."""

    code, status, title = "chain_differs", 503, "The node is on another chain"


class ProgramNotDeployed(HubError):
    """At the program's address is no program."""

    code, status, title = "program_not_deployed", 503, "The energy program is not deployed"


class ProgramDiffers(HubError):
    """The program on the chain is not the one that this hub came with."""

    code, status, title = "program_differs", 503, "The energy program on the chain is another one"


class ProgramNotInitialized(HubError):
    """The program is there and has no Config yet."""

    code, status, title = "program_not_initialized", 503, "The energy program is not initialized"


class ConfigDiffers(HubError):
    """The program serves another community, or another key as its hub."""

    code, status, title = "config_differs", 503, "The energy program is configured for another hub"


class HubKeyEmpty(HubError):
    """The hub's key has not enough lamports to pay for another transaction and what it makes."""

    code, status, title = "hub_key_empty", 503, "The hub cannot pay the chain"


class ChainAccountMalformed(HubError):
    """An account of the chain is not what its address says."""

    code, status, title = "chain_account_malformed", 503, "An account of the chain is malformed"


class ChainEventMalformed(HubError):
    """What a transaction printed in the program's name is no event of a version that this hub knows."""

    code, status, title = "chain_event_malformed", 503, "An event of the chain is malformed"


class TransactionRefused(HubError):
    """The chain refused a transaction of the operator's; `detail` has the name of the refusal."""

    code, status, title = "transaction_refused", 503, "The chain refused the transaction"


class ChainNotReady(HubError):
    """The energy program is not there for this hub yet, or not set up, or the hub has not read it yet."""

    code, status, title = "chain_not_ready", 503, "The chain is not ready for this hub"


class ProgramPaused(HubError):
    """The program is paused: nothing is registered or minted until its admin lets it go on."""

    code, status, title = "program_paused", 409, "The energy program is paused"


class UserAlreadyOnChain(HubError):
    """The wallet is registered on the chain, for good."""

    code, status, title = "user_already_on_chain", 409, "This wallet is already registered on the chain"


class UserNotOnChain(HubError):
    """A meter's owner is registered on the chain before the meter."""

    code, status, title = "user_not_on_chain", 409, "This wallet is not registered on the chain yet"


class MeterAlreadyOnChain(HubError):
    """The meter is registered on the chain, for good."""

    code, status, title = "meter_already_on_chain", 409, "This meter is already registered on the chain"


class MeterOwnedByAnother(HubError):
    """The meter is registered on the chain under another wallet: a meter has one owner, for ever."""

    code, status, title = "meter_owned_by_another", 409, "This meter has another owner on the chain"


class StatementOfAnotherDomain(HubError):
    """What the meter's key stated is for another deployment, made before the hub had this chain, say."""

    code, status, title = "statement_of_another_domain", 409, "The meter is enrolled for another deployment"


class MeterCapacityRefused(HubError):
    """The program takes no meter of this capacity, or with register steps of this size."""

    code, status, title = "meter_capacity_refused", 409, "The chain takes no meter of this capacity"


class RegistrationInProgress(HubError):
    """Another member has asked for the same, with this wallet, and it is not over."""

    code, status, title = "registration_in_progress", 409, "Another member has asked for this registration"


class RegistrationNotFound(HubError):
    """The member has asked for no such registration."""

    code, status, title = "registration_not_found", 404, "You have no such registration"


class SponsorshipUsedUp(HubError):
    """The hub has paid as much for this member's accounts on the chain as it does for one member."""

    code, status, title = "sponsorship_used_up", 409, "The hub pays for no more accounts of yours"


class SponsorshipUsedUpToday(HubError):
    """The hub has paid as much for accounts on the chain as it does within a day, for all members."""

    code, status, title = "sponsorship_used_up_today", 409, "The hub pays for no more accounts today"
