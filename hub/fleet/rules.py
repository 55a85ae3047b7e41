"""When a meter counts as online, and when it is behind. Pure; time is an argument.

What a meter says of itself is not signed, so nothing here may decide about energy.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from protocol.limits import SETTLEMENT_INTERVAL_S, STATUS_INTERVAL_S

ONLINE: Final = "online"
OFFLINE: Final = "offline"
NEVER: Final = "never"
PRESENCES: Final = (ONLINE, OFFLINE, NEVER)

MISSED_INTERVALS_MAX: Final = 3
STATUS_SILENCE_MAX: Final = MISSED_INTERVALS_MAX * timedelta(seconds=STATUS_INTERVAL_S)
SEAL_SILENCE_MAX: Final = MISSED_INTERVALS_MAX * timedelta(seconds=SETTLEMENT_INTERVAL_S)
"""For a meter that is known by its seals alone: it never sent a status, or sealed on after its last one."""
AHEAD_MAX: Final = STATUS_SILENCE_MAX
"""What is dated further ahead was written while the hub's clock was wrong: no sign of life; anything replaces it."""
OFFLINE_GRACE: Final = timedelta(seconds=90)
"""A restarted broker may say the last will of every meter; the longest pause before an agent is back is 60 s."""

BACKLOG_SEALS_NORMAL: Final = 1
"""The seal that is on its way when the meter speaks."""


@dataclass(frozen=True)
class Sightings:
    """What is known of a meter's life: since when it is in the state it stated, and when the hub last heard it."""

    stated: str | None
    stated_since: datetime | None
    status_at: datetime | None
    seal_at: datetime | None

    @property
    def last_seen_at(self) -> datetime | None:
        """The last sign of life. A last will is none: the broker says it."""
        seen = [at for at in (self.status_at, self.seal_at) if at is not None]
        return max(seen) if seen else None


def presence(now: datetime, sightings: Sightings) -> str:
    """One of PRESENCES: offline if the meter or its broker said so, or if it has been silent for three intervals.

    What was said counts only after a grace, and not if the meter was heard since. `queries.py` says the same in SQL.
    """
    if sightings.last_seen_at is None:
        return NEVER
    status_at, seal_at = (
        None if at is None or at > now + AHEAD_MAX else at for at in (sightings.status_at, sightings.seal_at)
    )
    last_seen_at = Sightings(None, None, status_at, seal_at).last_seen_at
    if last_seen_at is None:
        return OFFLINE
    if sightings.stated == OFFLINE and sightings.stated_since is not None:
        believed_from = sightings.stated_since + OFFLINE_GRACE
        if last_seen_at < believed_from <= now:
            return OFFLINE
    reports = status_at is not None and (seal_at is None or seal_at - status_at <= STATUS_SILENCE_MAX)
    silence_max = STATUS_SILENCE_MAX if reports else SEAL_SILENCE_MAX
    return OFFLINE if last_seen_at < now - silence_max else ONLINE


def is_behind(backlog_seals: int | None, missing_seals: int) -> bool:
    """Whether seals that exist are not here yet: stated by the meter, or missing between those that are."""
    return missing_seals > 0 or (backlog_seals or 0) > BACKLOG_SEALS_NORMAL
