"""Buckets in the memory of one process, for the limits that every request meets. Bounded: the longest unused go."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from hub.limits.rules import Policy, Verdict, judge, take

BUCKETS_MAX: Final = 65_536
"""About 12 MB. Whoever has more addresses than this can make the hub forget counts, and has more quota anyway."""


class Buckets:
    """The buckets of all policies and subjects. Safe to use from several threads."""

    def __init__(self, buckets_max: int = BUCKETS_MAX) -> None:
        self._buckets_max = buckets_max
        self._rested_at_us: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._rested_at_us)

    def count(self, policy: Policy, subject: str, now_us: int) -> Verdict:
        """Take one request out of the subject's bucket, or say that it is empty."""
        key = (policy.name, subject)
        with self._lock:
            allowed, rested_at_us = take(policy, self._rested_at_us.get(key, now_us), now_us)
            self._rested_at_us[key] = rested_at_us
            self._rested_at_us.move_to_end(key)
            if len(self._rested_at_us) > self._buckets_max:
                self._rested_at_us.popitem(last=False)
        return judge(policy, allowed, rested_at_us, now_us)

    def look(self, policy: Policy, subject: str, now_us: int) -> Verdict:
        """Whether one more request would fit, without taking it."""
        with self._lock:
            rested_at_us = self._rested_at_us.get((policy.name, subject), now_us)
        allowed, _ = take(policy, rested_at_us, now_us)
        return judge(policy, allowed, rested_at_us, now_us)
