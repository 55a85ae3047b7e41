"""Who may do what: the one table. What is not in it is refused.

Three questions, three tables: what a role may (`GRANTS`), what a route asks for (`ROUTES`), and which routes ask for
nobody, with the reason why that is safe (`OPEN_ROUTES`). The API refuses to start if a route is in none of them, or a
line names no route.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What a member is in the community. Prosumer and consumer are types of members; the others are given."""

    PROSUMER = "prosumer"
    CONSUMER = "consumer"
    INVESTOR = "investor"
    ASSET_MANAGER = "asset_manager"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    ADMIN = "admin"


MEMBER_TYPES: Final = frozenset({Role.PROSUMER, Role.CONSUMER})
"""A member has exactly one of these, chosen when it registers; the chain's User account knows the same two."""

GIVEN_ROLES: Final = frozenset(Role) - MEMBER_TYPES
"""These an admin gives and takes."""


class Permission(StrEnum):
    """Something that can be done. An API key's scopes are such names."""

    ACCOUNT = "account"
    API_KEYS = "api_keys"
    NOTIFICATIONS = "notifications"
    LIVE_READ = "live.read"
    METERS_READ = "meters.read"
    METERS_REGISTER = "meters.register"
    METERS_GOVERN = "meters.govern"
    QUARANTINE_READ = "quarantine.read"
    QUARANTINE_DECIDE = "quarantine.decide"
    FLEET_READ = "fleet.read"
    ALARMS_READ = "alarms.read"
    MEMBERS_READ = "members.read"
    MEMBERS_CONTACT = "members.contact"
    MEMBERS_MANAGE = "members.manage"
    AUDIT_READ = "audit.read"
    DESCRIPTION_READ = "description.read"


KEY_SCOPES: Final = frozenset(Permission) - {Permission.ACCOUNT, Permission.API_KEYS}
"""What an API key may be good for: a machine never changes who its member is or how it signs in."""


class Reach(StrEnum):
    """How far a permission goes: what belongs to the member, or everything."""

    OWN = "own"
    ALL = "all"


_MEMBER: Final = {
    Permission.ACCOUNT: Reach.OWN,
    Permission.API_KEYS: Reach.OWN,
    Permission.NOTIFICATIONS: Reach.OWN,
    Permission.LIVE_READ: Reach.OWN,
    Permission.METERS_READ: Reach.OWN,
    Permission.DESCRIPTION_READ: Reach.ALL,
}
_AUDITOR: Final = _MEMBER | {
    Permission.METERS_READ: Reach.ALL,
    Permission.QUARANTINE_READ: Reach.ALL,
    Permission.FLEET_READ: Reach.ALL,
    Permission.ALARMS_READ: Reach.ALL,
    Permission.MEMBERS_READ: Reach.ALL,
    Permission.MEMBERS_CONTACT: Reach.ALL,
    Permission.AUDIT_READ: Reach.ALL,
}
_OPERATOR: Final = _MEMBER | {
    Permission.METERS_READ: Reach.ALL,
    Permission.METERS_REGISTER: Reach.ALL,
    Permission.METERS_GOVERN: Reach.ALL,
    Permission.QUARANTINE_READ: Reach.ALL,
    Permission.QUARANTINE_DECIDE: Reach.ALL,
    Permission.FLEET_READ: Reach.ALL,
    Permission.ALARMS_READ: Reach.ALL,
    Permission.MEMBERS_READ: Reach.ALL,
    Permission.MEMBERS_CONTACT: Reach.ALL,
}
_ADMIN: Final = _AUDITOR | _OPERATOR | {Permission.MEMBERS_MANAGE: Reach.ALL}

GRANTS: Final[Mapping[Role, Mapping[Permission, Reach]]] = {
    Role.PROSUMER: _MEMBER,
    Role.CONSUMER: _MEMBER,
    Role.INVESTOR: _MEMBER,
    Role.ASSET_MANAGER: _MEMBER,
    Role.OPERATOR: _OPERATOR,
    Role.AUDITOR: _AUDITOR,
    Role.ADMIN: _ADMIN,
}

Route = tuple[str, str]
"""Method and path template."""

ROUTES: Final[Mapping[Route, Permission]] = {
    ("GET", "/openapi.json"): Permission.DESCRIPTION_READ,
    # sessions and API keys
    ("GET", "/me/sessions"): Permission.ACCOUNT,
    ("POST", "/me/sessions/{session_id}/end"): Permission.ACCOUNT,
    ("POST", "/me/sessions/end-others"): Permission.ACCOUNT,
    ("GET", "/me/wallets"): Permission.ACCOUNT,
    ("POST", "/me/wallets"): Permission.ACCOUNT,
    ("POST", "/me/wallets/challenge"): Permission.ACCOUNT,
    ("POST", "/me/wallets/unlink"): Permission.ACCOUNT,
    ("POST", "/me/proofs/challenge"): Permission.ACCOUNT,
    ("GET", "/me/api-keys"): Permission.API_KEYS,
    ("POST", "/me/api-keys"): Permission.API_KEYS,
    ("POST", "/me/api-keys/{key_id}/revoke"): Permission.API_KEYS,
    ("POST", "/me/password"): Permission.ACCOUNT,
    ("POST", "/me/email"): Permission.ACCOUNT,
    ("POST", "/me/email/verify"): Permission.ACCOUNT,
    # members
    ("GET", "/me"): Permission.ACCOUNT,
    ("POST", "/me"): Permission.ACCOUNT,
    ("GET", "/members"): Permission.MEMBERS_READ,
    ("GET", "/members/{member_id}"): Permission.MEMBERS_READ,
    ("POST", "/members/{member_id}/roles/give"): Permission.MEMBERS_MANAGE,
    ("POST", "/members/{member_id}/roles/take"): Permission.MEMBERS_MANAGE,
    ("POST", "/members/{member_id}/suspend"): Permission.MEMBERS_MANAGE,
    ("POST", "/members/{member_id}/reinstate"): Permission.MEMBERS_MANAGE,
    # onboarding
    ("POST", "/me/registrations/user"): Permission.ACCOUNT,
    ("POST", "/me/registrations/meter"): Permission.ACCOUNT,
    ("GET", "/me/registrations"): Permission.ACCOUNT,
    ("GET", "/me/registrations/{registration_id}"): Permission.ACCOUNT,
    ("POST", "/me/registrations/{registration_id}/signature"): Permission.ACCOUNT,
    ("GET", "/registrations"): Permission.MEMBERS_READ,
    # notifications
    ("GET", "/me/notifications"): Permission.NOTIFICATIONS,
    ("POST", "/me/notifications/read"): Permission.NOTIFICATIONS,
    ("GET", "/me/notification-preferences"): Permission.NOTIFICATIONS,
    ("POST", "/me/notification-preferences"): Permission.NOTIFICATIONS,
    ("GET", "/me/webhooks"): Permission.NOTIFICATIONS,
    ("POST", "/me/webhooks"): Permission.NOTIFICATIONS,
    ("POST", "/me/webhooks/{endpoint_id}/disable"): Permission.NOTIFICATIONS,
    ("POST", "/me/webhooks/{endpoint_id}/enable"): Permission.NOTIFICATIONS,
    ("POST", "/me/webhooks/{endpoint_id}/rotate-secret"): Permission.NOTIFICATIONS,
    ("POST", "/me/webhooks/{endpoint_id}/test"): Permission.NOTIFICATIONS,
    ("GET", "/me/webhooks/{endpoint_id}/deliveries"): Permission.NOTIFICATIONS,
    ("POST", "/me/webhooks/{endpoint_id}/deliveries/{delivery_id}/replay"): Permission.NOTIFICATIONS,
    ("POST", "/me/webhooks/{endpoint_id}/replay"): Permission.NOTIFICATIONS,
    # registry
    ("POST", "/meters"): Permission.METERS_REGISTER,
    ("GET", "/meters"): Permission.METERS_READ,
    ("POST", "/meters/{meter_id}/suspend"): Permission.METERS_GOVERN,
    ("POST", "/meters/{meter_id}/resume"): Permission.METERS_GOVERN,
    ("POST", "/meters/{meter_id}/retire"): Permission.METERS_GOVERN,
    ("POST", "/meters/{meter_id}/minting"): Permission.METERS_GOVERN,
    ("POST", "/meters/{meter_id}/broker-password"): Permission.METERS_GOVERN,
    ("POST", "/meters/{meter_id}/commands"): Permission.METERS_GOVERN,
    # readings
    ("GET", "/meters/{meter_id}"): Permission.METERS_READ,
    ("GET", "/meters/{meter_id}/latest"): Permission.METERS_READ,
    ("GET", "/meters/{meter_id}/readings"): Permission.METERS_READ,
    ("GET", "/meters/{meter_id}/seals"): Permission.METERS_READ,
    ("GET", "/meters/{meter_id}/seals/{key_epoch}/{sequence}/evidence"): Permission.METERS_READ,
    ("GET", "/meters/{meter_id}/gaps"): Permission.METERS_READ,
    ("GET", "/meters/{meter_id}/evidence"): Permission.METERS_READ,
    ("GET", "/meters/{meter_id}/keys"): Permission.METERS_READ,
    ("POST", "/meters/{meter_id}/keys/{key_epoch}/revoke"): Permission.METERS_GOVERN,
    ("GET", "/quarantine"): Permission.QUARANTINE_READ,
    ("POST", "/quarantine/{quarantine_id}/release"): Permission.QUARANTINE_DECIDE,
    ("POST", "/quarantine/{quarantine_id}/reject"): Permission.QUARANTINE_DECIDE,
    ("POST", "/meters/{meter_id}/backlog/release"): Permission.QUARANTINE_DECIDE,
    ("POST", "/meters/{meter_id}/gaps/{key_epoch}/{first_sequence}/declare-lost"): Permission.QUARANTINE_DECIDE,
    # minting
    ("GET", "/minting"): Permission.FLEET_READ,
    ("GET", "/meters/{meter_id}/minting"): Permission.METERS_READ,
    ("GET", "/meters/{meter_id}/mints"): Permission.METERS_READ,
    ("POST", "/meters/{meter_id}/minting/retry"): Permission.METERS_GOVERN,
    ("GET", "/me/tokens"): Permission.METERS_READ,
    ("GET", "/tokens/supply"): Permission.METERS_READ,
    ("GET", "/tokens/provenance/{signature}"): Permission.METERS_READ,
    # fleet
    ("GET", "/fleet"): Permission.FLEET_READ,
    ("GET", "/fleet/summary"): Permission.FLEET_READ,
    ("GET", "/meters/{meter_id}/status"): Permission.METERS_READ,
    ("GET", "/alarms"): Permission.ALARMS_READ,
    # live
    ("GET", "/live/topics"): Permission.LIVE_READ,
    # audit
    ("GET", "/audit"): Permission.AUDIT_READ,
    ("GET", "/audit/export"): Permission.AUDIT_READ,
}

OPEN_ROUTES: Final[Mapping[Route, str]] = {
    ("WS", "/live"): "the first message authenticates, within ten seconds",
    ("GET", "/.well-known/jwks.json"): "public keys",
    ("POST", "/auth/refresh"): "the refresh token speaks",
    ("POST", "/auth/sign-out"): "the refresh token speaks",
    ("POST", "/auth/wallet/challenge"): "says nothing of anybody: every address gets one",
    ("POST", "/auth/wallet/sign-in"): "the wallet's signature speaks",
    ("POST", "/auth/wallet/register"): "the wallet's signature speaks",
    ("GET", "/auth/verify"): "a page, the same for everybody",
    ("GET", "/auth/reset"): "a page, the same for everybody",
    ("POST", "/auth/register"): "says the same of every address; a mail goes there",
    ("POST", "/auth/verify"): "the mailed token and the password speak",
    ("POST", "/auth/sign-in"): "the password speaks",
    ("POST", "/auth/password/forgot"): "says the same of every address; a mail goes to a member",
    ("POST", "/auth/password/reset"): "the mailed token speaks",
    ("GET", "/health"): "says only that the process lives",
    ("GET", "/ready"): "says only whether the parts are there",
    ("GET", "/metrics"): "figures without names; a proxy need not pass it on",
    ("POST", "/readings/seals"): "the meter's signature speaks",
    ("POST", "/meters/{meter_id}/keys"): "the signatures of the keys speak",
    ("POST", "/agent/credentials"): "the meter's signature speaks",
    ("POST", "/agent/report"): "the password of the meter's broker account, by HTTP Basic",
}


REPEATABLE_ROUTES: Final[Mapping[Route, str]] = {
    ("POST", "/auth/refresh"): "a refresh token is good once, and a repeat at once is answered with the same next one",
    ("POST", "/auth/sign-out"): "what is over stays over",
    ("POST", "/auth/wallet/challenge"): "a challenge more does nothing, and the oldest are forgotten",
    ("POST", "/auth/wallet/sign-in"): "a challenge is answered once; the answer is secret",
    ("POST", "/auth/wallet/register"): "a challenge is answered once; the answer is secret",
    ("POST", "/me/wallets"): "a challenge is answered once, and a wallet linked once",
    ("POST", "/me/wallets/challenge"): "a challenge more does nothing, and the oldest are forgotten",
    ("POST", "/me/wallets/unlink"): "a wallet that is gone stays gone",
    ("POST", "/me/proofs/challenge"): "a challenge more does nothing, and the oldest are forgotten",
    ("POST", "/auth/register"): "another mail at most; a kept hash of the request would be a fast hash of a password",
    ("POST", "/auth/verify"): "a mailed token is used once; the answer is secret",
    ("POST", "/auth/sign-in"): "another session at most, which is the member's; the answer is secret",
    ("POST", "/auth/password/forgot"): "another mail at most",
    ("POST", "/auth/password/reset"): "a mailed token is used once",
    ("POST", "/me/password"): "the password in force is good once, because this changes it",
    ("POST", "/me/email"): "another mail at most",
    ("POST", "/me/email/verify"): "a mailed token is used once",
    ("POST", "/readings/seals"): "a seal is known by its meter, key epoch and sequence",
    ("POST", "/meters/{meter_id}/keys"): "a rotation is known by its bytes",
    ("POST", "/agent/credentials"): "changes nothing",
    ("POST", "/agent/report"): "a status replaces the one before",
}
"""What may be posted without an Idempotency-Key, and why a repeat does no harm."""


def reach_of(roles: Iterable[Role], permission: Permission) -> Reach | None:
    """The farthest reach that any of these roles gives; None is not at all."""
    reaches = {GRANTS[role].get(permission) for role in roles}
    return Reach.ALL if Reach.ALL in reaches else Reach.OWN if Reach.OWN in reaches else None
