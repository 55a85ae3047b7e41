"""What members are told, in the one table: who is told, in which words, and what may be turned off. Pure.

A notification keeps its kind and its facts; title and text are made from them when somebody reads. Times in the facts
are as `instant` writes them; ids and numbers are as in the API. The table only grows: what is old is read with it too.
"""

from __future__ import annotations

import contextlib
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Final

Data = Mapping[str, object]

_INSTANT = re.compile(r"\d{4}(-\d\d){2}T\d\d(:\d\d){2}Z")


def instant(at: datetime) -> str:
    """An instant as facts hold it: ISO 8601 in UTC, in whole seconds."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


class Channel(StrEnum):
    """Ways to a member. What is told in the application stays there, whatever else is turned off."""

    IN_APP = "in_app"
    EMAIL = "email"
    WEBHOOK = "webhook"


class Audience(StrEnum):
    """Who is told."""

    MEMBER = "member"
    """The one whom it concerns: as a rule the owner of a meter."""
    OPERATORS = "operators"
    """Operators and admins."""


@dataclass(frozen=True)
class Group:
    """Kinds that a member turns on and off together. `channels` are on unless turned off; `fixed` ones cannot be."""

    name: str
    title: str
    audience: Audience
    channels: frozenset[Channel]
    fixed: frozenset[Channel] = frozenset()
    never: frozenset[Channel] = frozenset()
    """Channels that these kinds do not use."""


ALL: Final = frozenset({Channel.EMAIL, Channel.WEBHOOK})

ACCOUNT: Final = Group(
    "account", "Who can sign in as you, and what you may do", Audience.MEMBER, ALL, fixed=frozenset({Channel.EMAIL})
)
EMAIL_AND_PASSWORD: Final = Group(
    "email_and_password",
    "Your e-mail address and password",
    Audience.MEMBER,
    ALL - {Channel.EMAIL},  # of these there are mails already, also to the address before: `hub/auth/mails.py`
    never=frozenset({Channel.EMAIL}),
)
METERS: Final = Group("meters", "Decisions about your meters", Audience.MEMBER, ALL)
METER_KEYS: Final = Group(
    "meter_keys", "Keys and passwords of your meters", Audience.MEMBER, ALL, fixed=frozenset({Channel.EMAIL})
)
HELD: Final = Group("held", "Energy of yours that is held", Audience.MEMBER, ALL)
SILENCE: Final = Group("silence", "Meters of yours that are not heard", Audience.MEMBER, ALL)
TRANSACTIONS: Final = Group("transactions", "Transactions of yours on the chain", Audience.MEMBER, ALL)
ENDPOINTS: Final = Group(
    "endpoints",
    "Your webhook endpoints",
    Audience.MEMBER,
    ALL - {Channel.WEBHOOK},
    fixed=frozenset({Channel.EMAIL}),
    never=frozenset({Channel.WEBHOOK}),
)
SUMMARIES: Final = Group("summaries", "Sums of what was too much to tell one by one", Audience.MEMBER, ALL)
TOKENS: Final = Group("tokens", "Your GRID", Audience.MEMBER, ALL - {Channel.EMAIL})
FLEET: Final = Group("fleet", "The community's meters", Audience.OPERATORS, ALL - {Channel.EMAIL})
ALARMS: Final = Group("alarms", "Alarms of the community", Audience.OPERATORS, ALL, fixed=frozenset({Channel.EMAIL}))


@dataclass(frozen=True)
class Kind:
    """One thing that can be told. The names in braces are the facts it needs; there are no others."""

    name: str
    group: Group
    title: str
    text: str
    to_suspended: bool = False
    """Whether it is mailed although the member is suspended."""

    @cached_property
    def fields(self) -> frozenset[str]:
        """The facts that title and text name."""
        parts = [*string.Formatter().parse(self.title), *string.Formatter().parse(self.text)]
        return frozenset(name for _, name, _, _ in parts if name)

    def render(self, data: Data) -> tuple[str, str]:
        """Title and text in plain words."""
        words = {name: _in_words(value) for name, value in data.items()}
        return self.title.format_map(words), self.text.format_map(words)


_ALL_KINDS = (
    Kind(
        "account.wallet_linked",
        ACCOUNT,
        "Another wallet can sign in as you",
        "The {chain} account {address} can sign in as you from now on. If you did not link it, unlink it, look at your "
        "API keys, and tell those who run the community.",
    ),
    Kind(
        "account.wallet_unlinked",
        ACCOUNT,
        "A wallet can no longer sign in as you",
        "The {chain} account {address} can no longer sign in as you. Sessions that were ended: {ended_sessions}. If "
        "you did not unlink it, tell those who run the community.",
    ),
    Kind(
        "account.email_linked",
        EMAIL_AND_PASSWORD,
        "Another e-mail address can sign in as you",
        "You sign in with another e-mail address from now on. Sessions that were ended: {ended_sessions}. If you did "
        "not link it, tell those who run the community.",
    ),
    Kind(
        "account.password_changed",
        EMAIL_AND_PASSWORD,
        "Your password was changed",
        "Your password was changed. Sessions that were ended: {ended_sessions}. If you did not change it, ask for "
        "another one at once, look at your API keys and wallets, and tell those who run the community.",
    ),
    Kind(
        "account.api_key_made",
        ACCOUNT,
        "Another API key acts as you",
        "The API key {name} ({key_id}) acts as you from now on, until {expires_at}. If you did not make it, revoke it, "
        "and end all other sessions.",
    ),
    Kind(
        "account.api_key_revoked",
        ACCOUNT,
        "An API key acts as you no more",
        "The API key {name} ({key_id}) was revoked: whatever uses it is refused from now on.",
    ),
    Kind(
        "account.token_reused",
        ACCOUNT,
        "A session of yours was ended: somebody may have copied it",
        "A refresh token that had been used was shown again, so two may have had the tokens of the session "
        "{session_id}, used last from {client_address}. It was ended; sign in again. If this happens often, look for "
        "what reads along where you sign in.",
    ),
    Kind(
        "account.signed_in",
        ACCOUNT,
        "Somebody signed in as you from a new place or program",
        "Somebody, you we hope, signed in as you ({method}) from {client_address}, and none of your sessions was used "
        "last by this program there. If this was not you, end the session {session_id}, change your password or "
        "unlink the wallet, and look at your API keys.",
    ),
    Kind(
        "account.role_given",
        ACCOUNT,
        "You have another role: {role}",
        "You were given the role {role}. The reason: {reason}. It counts from now on.",
    ),
    Kind(
        "account.role_taken",
        ACCOUNT,
        "You no longer have the role {role}",
        "The role {role} was taken from you. The reason: {reason}.",
    ),
    Kind(
        "account.suspended",
        ACCOUNT,
        "Your account is suspended",
        "Your account is suspended: you are signed out, and your API keys are refused. The reason: {reason}. Your "
        "meters go on, and what they measure stays yours.",
        to_suspended=True,
    ),
    Kind(
        "account.reinstated",
        ACCOUNT,
        "Your account is no longer suspended",
        "You can sign in again, and your API keys are good again. The reason: {reason}.",
    ),
    Kind(
        "meter.registered",
        METERS,
        "Meter {meter_id} is registered",
        "Meter {meter_id} is registered as yours. What it measures is taken in from now on. If it is not your meter, "
        "tell an operator.",
    ),
    Kind(
        "meter.suspended",
        METERS,
        "Meter {meter_id} is suspended",
        "Meter {meter_id} is suspended. The reason: {reason}. What it sends is kept, and counts only if an operator "
        "releases it.",
    ),
    Kind(
        "meter.resumed",
        METERS,
        "Meter {meter_id} is taken in again",
        "Meter {meter_id} is no longer suspended. The reason: {reason}. What was held meanwhile stays held until an "
        "operator releases it.",
    ),
    Kind(
        "meter.retired",
        METERS,
        "Meter {meter_id} is retired",
        "Meter {meter_id} is retired for good. The reason: {reason}. What it measured until now stays yours; what it "
        "still sends does not count.",
    ),
    Kind(
        "meter.minting_allowed",
        METERS,
        "Energy of meter {meter_id} may be minted",
        "What meter {meter_id} measures may be minted from now on. The reason: {reason}.",
    ),
    Kind(
        "meter.minting_forbidden",
        METERS,
        "Energy of meter {meter_id} is not minted",
        "What meter {meter_id} measures is stored, and not minted. The reason: {reason}.",
    ),
    Kind(
        "meter.key_rotated",
        METER_KEYS,
        "Meter {meter_id} has a new key",
        "Meter {meter_id} signs with a new key, its number {key_epoch}, vouched for by {vouched_for_by}. If neither "
        "you nor your installer did this, tell an operator at once.",
    ),
    Kind(
        "meter.key_revoked",
        METER_KEYS,
        "A key of meter {meter_id} is revoked",
        "Of meter {meter_id} the key number {key_epoch} is revoked from {revoked_from} on. The reason: {reason}. "
        "Sealed batches that no longer count: {withdrawn_seals}. The meter needs a new key.",
    ),
    Kind(
        "meter.password_renewed",
        METER_KEYS,
        "Meter {meter_id} has a new broker password",
        "Meter {meter_id} has a new password for the broker; the old one has ended. The reason: {reason}.",
    ),
    Kind(
        "meter.seals_held",
        HELD,
        "Energy of meter {meter_id} is held",
        "Since {since}, sealed batches of meter {meter_id} are held and do not count: {why} An operator can "
        "look into it; you are told at most once an hour.",
    ),
    Kind(
        "meter.silent",
        SILENCE,
        "Meter {meter_id} is not heard",
        "The hub has heard nothing from meter {meter_id} since {silent_since}. Its agent keeps what it measures and "
        "sends it later; look at its power and its network.",
    ),
    Kind(
        "meter.heard_again",
        SILENCE,
        "Meter {meter_id} is heard again",
        "Meter {meter_id}, silent since {silent_since}, is heard again.",
    ),
    Kind(
        "chain.transaction_delayed",
        TRANSACTIONS,
        "A transaction of yours is delayed: {what}",
        "The chain does not say yet what became of a transaction of yours ({what}, {signature}). It has not failed: "
        "the hub keeps asking, and nothing of yours is lost. There is nothing that you must do.",
    ),
    Kind(
        "chain.user_registered",
        TRANSACTIONS,
        "Your wallet is registered on the chain",
        "The wallet {wallet} is registered on the chain. You can have your meters registered there from now on. If you "
        "did not sign this, tell those who run the community.",
    ),
    Kind(
        "chain.meter_registered",
        TRANSACTIONS,
        "Meter {meter_id} is registered on the chain",
        "Meter {meter_id} is registered on the chain as a meter of your wallet {wallet}: what it delivers from now on "
        "becomes GRID there. If you did not sign this, tell those who run the community.",
    ),
    Kind(
        "chain.registration_failed",
        TRANSACTIONS,
        "Not registered on the chain: {what}",
        "The chain refused to register the {what}. The reason: {reason}. You may ask for it again when that is mended.",
    ),
    Kind(
        "chain.registration_expired",
        TRANSACTIONS,
        "Not registered on the chain: {what}",
        "The registration of the {what} on the chain was not signed by {expires_at}, and is over. You may ask for it "
        "again at any time.",
    ),
    Kind(
        "webhook.endpoint_added",
        ENDPOINTS,
        "Your notifications are also posted to {host}",
        "From now on what you are told is also posted to {host} (endpoint {endpoint_id}). If this was not you, disable "
        "the endpoint and end your other sessions.",
    ),
    Kind(
        "webhook.secret_rotated",
        ENDPOINTS,
        "A webhook endpoint of yours has another secret",
        "Your endpoint {description} ({endpoint_id}) is signed with another secret from now on; for a day the old one "
        "signs too. If this was not you, end your other sessions and rotate it again.",
    ),
    Kind(
        "webhook.endpoint_disabled",
        ENDPOINTS,
        "A webhook endpoint of yours is disabled",
        "Nothing more is sent to your endpoint {description} ({endpoint_id}): {why} When it works again, enable it and "
        "replay what it missed.",
    ),
    Kind(
        "tokens.minted",
        TOKENS,
        "Energy of meter {meter_id} becomes GRID",
        "On {day}, surplus of meter {meter_id} was minted as GRID to your wallet. You are told once a day; under your "
        "tokens are the sums and each transaction.",
    ),
    Kind(
        "minting.held",
        HELD,
        "Energy of meter {meter_id} cannot be minted now",
        "Since {since} the chain refuses what meter {meter_id} has earned ({error}). An operator looks into it; what "
        "was earned stays yours.",
    ),
    Kind(
        "notifications.more",
        SUMMARIES,
        "There is more than is told one by one",
        "Since {since} there was more to tell you than one member is told one by one in an hour. Look at your meters "
        "and alarms themselves.",
    ),
    Kind(
        "fleet.seals_held",
        FLEET,
        "Energy of meter {meter_id} is held",
        "Since {since}, sealed batches of meter {meter_id} are held: {why} They are in the quarantine; you are told at "
        "most once an hour.",
    ),
    Kind(
        "fleet.meters_silent",
        FLEET,
        "Meters that are not heard: {count}",
        "The hub no longer hears so many meters as before: {count}. Some of them: {meter_ids}. {advice}",
    ),
    Kind(
        "fleet.meters_heard_again",
        FLEET,
        "Meters that are heard again: {count}",
        "So many meters that were silent are heard again: {count}. Some of them: {meter_ids}.",
    ),
    Kind(
        "alarm.raised",
        ALARMS,
        "Alarm: {alarm} at meter {meter_id}",
        "{why} Meter {meter_id}; alarm number {alarm_id}, raised at {raised_at}. It is in the list of alarms with its "
        "details.",
    ),
    Kind(
        "alarm.chain",
        ALARMS,
        "Alarm: {alarm}",
        "{why} Alarm number {alarm_id}, raised at {raised_at}. It is in the list of alarms with its details.",
    ),
)

KINDS: Final[Mapping[str, Kind]] = {kind.name: kind for kind in _ALL_KINDS}
GROUPS: Final[Mapping[str, Group]] = {kind.group.name: kind.group for kind in _ALL_KINDS}
MORE: Final = "notifications.more"

assert len(KINDS) == len(_ALL_KINDS), "a kind has two lines"
assert all(group.fixed <= group.channels and not group.never & group.channels for group in GROUPS.values())


def kinds_counted_with(group: Group) -> list[str]:
    """The kinds of which so many are told in an hour, together: what is about security is counted apart, so that
    nobody hides an alarm, or a stranger's sign-in, behind a hundred other things.
    """
    return [kind.name for kind in _ALL_KINDS if bool(kind.group.fixed) == bool(group.fixed)]


def get_kind(name: str, data: Data) -> Kind:
    """The kind, whose facts these are. Anything else is our mistake."""
    kind = KINDS[name]
    assert kind.fields == data.keys(), f"{name} needs {sorted(kind.fields)}, was given {sorted(data)}"
    return kind


def render(name: str, data: Data) -> tuple[str, str]:
    """Title and text of a stored notification; of a kind that only a newer hub knows, its name."""
    kind = KINDS.get(name)
    if kind is None or not kind.fields <= data.keys():
        return name, "A newer version of the hub wrote this notification."
    return kind.render(data)


def _in_words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, str) and _INSTANT.fullmatch(value):
        with contextlib.suppress(ValueError):  # somebody's words that only look like an instant
            return f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M} UTC"
    return str(value)
