"""Counting a request in this process's buckets, and having its answer tell what is left."""

from __future__ import annotations

import time

from starlette.types import Scope

from hub import metrics
from hub.errors import RateLimited
from hub.limits.buckets import Buckets
from hub.limits.rules import Policy, Verdict


def count_request(scope: Scope, buckets: Buckets, policy: Policy, subject: str) -> None:
    """Count a request to a subject. Raises RateLimited."""
    verdict = buckets.count(policy, subject, monotonic_us())
    note_verdict(scope, verdict)
    refuse_if_over(verdict)


def note_verdict(scope: Scope, verdict: Verdict) -> None:
    """Have the answer's headers tell of this limit."""
    scope["state"]["verdicts"].append(verdict)


def refuse_if_over(verdict: Verdict) -> None:
    """Raises RateLimited if the request is one too many."""
    if not verdict.allowed:
        metrics.REQUESTS_LIMITED.labels(verdict.policy.name).inc()
        raise RateLimited(f"{verdict.policy.name}: again in {verdict.next_in_s} s", verdict.next_in_s)


def monotonic_us() -> int:
    """The clock of the buckets in memory: nobody sets it back."""
    return time.monotonic_ns() // 1_000
