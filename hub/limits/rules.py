"""The rate limit: a bucket that holds `quota` requests and fills again evenly within `window_s`.

This is the generic cell rate algorithm: all there is to remember of a bucket is the instant at which it would be full
again (`rested_at_us`). Pure and in integers: microseconds of whatever clock the caller has. `hub/limits/store.py` says
the same in SQL.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MICROSECONDS_PER_S = 1_000_000


@dataclass(frozen=True)
class Policy:
    """How many requests within what time, of whom, and why so many."""

    name: str
    quota: int
    window_s: int
    reason: str

    def __post_init__(self) -> None:
        assert self.quota >= 1, self.name
        assert self.window_us % self.quota == 0, f"{self.name}: a request must cost whole microseconds"

    @property
    def window_us(self) -> int:
        """The time in which an empty bucket becomes full."""
        return self.window_s * MICROSECONDS_PER_S

    @property
    def cost_us(self) -> int:
        """The time in which a bucket regains one request."""
        return self.window_us // self.quota


@dataclass(frozen=True)
class Verdict:
    """Whether a request may be served, and what is left after it.

    `remaining` requests may follow at once; `next_in_us` until it is one more, or until a refused one may come again.
    """

    policy: Policy
    allowed: bool
    remaining: int
    next_in_us: int

    @property
    def next_in_s(self) -> int:
        """The same in whole seconds, never too few and never none."""
        return max(1, -(-self.next_in_us // MICROSECONDS_PER_S))


def take(policy: Policy, rested_at_us: int, now_us: int) -> tuple[bool, int]:
    """Whether one more request fits, and when the bucket is full again after that. A refused one costs nothing.

    A clock that was set back finds a bucket no emptier than empty.
    """
    begins_us = min(max(rested_at_us, now_us), now_us + policy.window_us)
    ends_us = begins_us + policy.cost_us
    return (True, ends_us) if ends_us <= now_us + policy.window_us else (False, begins_us)


def judge(policy: Policy, allowed: bool, rested_at_us: int, now_us: int) -> Verdict:
    """What to tell of a decision of `take`."""
    spent_us = min(max(rested_at_us - now_us, 0), policy.window_us)
    remaining = (policy.window_us - spent_us) // policy.cost_us
    next_in_us = spent_us - (policy.quota - remaining - 1) * policy.cost_us
    return Verdict(policy, allowed, remaining, max(next_in_us, 0))


def policy_field(verdicts: Iterable[Verdict]) -> str:
    """The value of `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11): quota and window of each policy."""
    return ", ".join(f'"{each.policy.name}";q={each.policy.quota};w={each.policy.window_s}' for each in verdicts)


def limit_field(verdicts: Iterable[Verdict]) -> str:
    """The value of `RateLimit`: what remains of each, and for how many seconds it will be no more than that."""
    return ", ".join(f'"{each.policy.name}";r={each.remaining};t={each.next_in_s}' for each in verdicts)
