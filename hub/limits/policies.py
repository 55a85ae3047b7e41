"""Every rate limit of the hub, with the reason for its number. Whoever is over one is told 429 and when to come again.

What is counted in the process holds for each API process by itself; what guards guesses is counted in the database, for
all processes together. `docs/decisions/rate-limits.md` says how they work as a whole.
"""

from __future__ import annotations

from typing import Final

from hub.limits.rules import Policy

MINUTE_S: Final = 60
HOUR_S: Final = 3_600

# ── in each API process ──────────────────────────────────────────────────────────────────────────────────────

CLIENT: Final = Policy(
    "client",
    6_000,
    MINUTE_S,
    "per client address: a whole house of members behind one address, each with a page that asks every few seconds;"
    " and no single address can keep a process busy that answers some hundreds a second",
)
MEMBER: Final = Policy(
    "member",
    3_000,
    MINUTE_S,
    "per member, whatever its addresses, sessions and keys: fifty a second is a script that registers meters;"
    " a page in a loop is slowed before others notice",
)
REFUSALS: Final = Policy(
    "refusals",
    1_200,
    10 * MINUTE_S,
    "per address, what meters send and the hub cannot accept: a gateway stands for many meters and a backlog of thirty"
    " days must drain as fast as the hub can store it, so what is accepted costs nothing; a thousand bad ones at once"
    " are a fleet with a wrong clock, two a second for ever are somebody trying",
)

# ── in the database: what guards guesses ─────────────────────────────────────────────────────────────────────

SIGN_IN_BY_CLIENT: Final = Policy(
    "sign-in-client",
    30,
    15 * MINUTE_S,
    "passwords per client address, whosever: a house of members in the morning; a list of stolen passwords gets 2,880"
    " tries a day",
)
SIGN_IN_BY_ACCOUNT_AND_CLIENT: Final = Policy(
    "sign-in-account-client",
    10,
    15 * MINUTE_S,
    "passwords for one account from one address: somebody who has forgotten which of ten it was",
)
SIGN_IN_BY_ACCOUNT: Final = Policy(
    "sign-in-account",
    20,
    HOUR_S,
    "passwords for one account from all addresses whence it was never signed in before: 500 guesses a day by however"
    " many machines, of a password that zxcvbn puts beyond a hundred million",
)
SIGN_IN_BY_KNOWN_CLIENT: Final = Policy(
    "sign-in-known-client",
    10,
    15 * MINUTE_S,
    "passwords for one account from a client that was signed in to it: in place of the two above, so that what"
    " strangers try costs the member nothing",
)
PASSWORD_BY_MEMBER: Final = Policy(
    "password-member",
    10,
    15 * MINUTE_S,
    "the current password asked of a signed-in member: whoever finds an open session must not find the password too",
)
REGISTER_BY_CLIENT: Final = Policy(
    "register-client",
    20,
    HOUR_S,
    "registrations per client address: an afternoon of neighbours at one table; each costs a password hash and a mail",
)
REGISTER_BY_ADDRESS_AND_CLIENT: Final = Policy(
    "register-address-client",
    5,
    HOUR_S,
    "mails to one address about registering or linking it, asked for from one client address: a mail that did not come"
    " is asked for again",
)
REGISTER_BY_ADDRESS: Final = Policy(
    "register-address",
    20,
    HOUR_S,
    "the same from all client addresses: a stranger cannot use it up by himself, and so keep the owner from"
    " registering; twenty mails an hour are a nuisance and no weapon",
)
RESET_BY_CLIENT: Final = Policy(
    "reset-client",
    20,
    HOUR_S,
    "requests for a new password per client address, whosever: each may cost a mail",
)
RESET_BY_ADDRESS: Final = Policy(
    "reset-address",
    5,
    HOUR_S,
    "mails to one address for a new password; the links that have come stay good, so that nobody is kept from one by"
    " using this up",
)
PROOF_BY_CLIENT: Final = Policy(
    "proof-client",
    60,
    10 * MINUTE_S,
    "tokens from mails per client address: 256 bits are guessed by nobody; this bounds what trying costs the database",
)
CHALLENGE_BY_CLIENT: Final = Policy(
    "challenge-client",
    300,
    5 * MINUTE_S,
    "challenges for wallets per client address: each is a row for five minutes, so one address has 600 rows at most",
)
WALLET_BY_CLIENT: Final = Policy(
    "wallet-client",
    300,
    5 * MINUTE_S,
    "signatures of wallets per client address: guessed by nobody; this bounds what checking them costs",
)
REFRESH_BY_CLIENT: Final = Policy(
    "refresh-client",
    600,
    5 * MINUTE_S,
    "refreshes per client address: a session needs one in a quarter of an hour, so this is 1,800 sessions behind one"
    " address; tokens are guessed by nobody",
)
WEBHOOK_BY_MEMBER: Final = Policy(
    "webhook-member",
    120,
    HOUR_S,
    "tests and replays that a member asks for, for all its endpoints: somebody who mends a receiver asks every half"
    " minute, and what is missed is replayed by the hundred; each may be a row for thirty days and a request to"
    " somebody's server",
)

IN_THE_PROCESS: Final = (CLIENT, MEMBER, REFUSALS)
IN_THE_DATABASE: Final = (
    SIGN_IN_BY_CLIENT,
    SIGN_IN_BY_ACCOUNT_AND_CLIENT,
    SIGN_IN_BY_ACCOUNT,
    SIGN_IN_BY_KNOWN_CLIENT,
    PASSWORD_BY_MEMBER,
    REGISTER_BY_CLIENT,
    REGISTER_BY_ADDRESS_AND_CLIENT,
    REGISTER_BY_ADDRESS,
    RESET_BY_CLIENT,
    RESET_BY_ADDRESS,
    PROOF_BY_CLIENT,
    CHALLENGE_BY_CLIENT,
    WALLET_BY_CLIENT,
    REFRESH_BY_CLIENT,
    WEBHOOK_BY_MEMBER,
)
