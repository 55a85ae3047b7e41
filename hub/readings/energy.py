"""From counters to energy: what a home produced, consumed and had over, per settlement interval, hour and day.

Pure, and integers only. An interval's energy is its closing counters minus those of the closing before it: hours
without a reading fall into the next interval that has one, a late reading splits them exactly, and the sums telescope,
so that nothing is counted twice or lost whatever the order of arrival.

A new key goes on from the last reading of the one before, so the counters of a meter are one rising line whatever its
key; the closing of an interval in which the key changed is that of the later reading.

A seal that is held or was rejected does not count, but the counters of its successor contain its energy. Its `Jump`
is therefore taken out of the first interval that ends with a later reading. A jump can only take away: no counter's
energy falls below zero, and the surplus never exceeds what it would be with the seal in it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import attrgetter

from protocol.limits import SETTLEMENT_INTERVAL_S

HOUR_S = 3_600
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Closing:
    """The cumulative counters of the last reading in the interval (end − 900 s, end]; Wh and unix seconds.

    The base before the first one is a Closing too: the starting counters of the meter's first key.
    """

    interval_end_unix_s: int
    last_reading_unix_s: int
    production_wh: int
    consumption_wh: int


@dataclass(frozen=True, slots=True)
class Jump:
    """What uncounted seals added to the counters, in Wh. It is in the counters of all readings after the given time."""

    last_reading_unix_s: int
    production_wh: int
    consumption_wh: int


@dataclass(frozen=True, slots=True)
class Energy:
    """The energy of one bucket, in Wh. `start_unix_s` names it; UTC days and hours, like intervals, are aligned."""

    start_unix_s: int
    production_wh: int
    consumption_wh: int
    surplus_wh: int


def interval_energies(base: Closing, closings: Sequence[Closing], jumps: Iterable[Jump]) -> list[Energy]:
    """Energy of each interval that has a closing; `closings` ascend, one an interval, and follow `base`."""
    ends = [closing.last_reading_unix_s for closing in closings]
    taken_production_wh = [0] * len(closings)
    taken_consumption_wh = [0] * len(closings)
    for jump in jumps:
        index = bisect_right(ends, jump.last_reading_unix_s)
        if index < len(closings) and jump.last_reading_unix_s >= base.last_reading_unix_s:
            taken_production_wh[index] += jump.production_wh
            taken_consumption_wh[index] += jump.consumption_wh
    energies = []
    for index, (before, after) in enumerate(pairwise([base, *closings])):
        whole_production_wh = after.production_wh - before.production_wh
        whole_consumption_wh = after.consumption_wh - before.consumption_wh
        production_wh = _less(whole_production_wh, taken_production_wh[index])
        consumption_wh = _less(whole_consumption_wh, taken_consumption_wh[index])
        surplus_wh = max(0, min(production_wh - consumption_wh, whole_production_wh - whole_consumption_wh))
        start_unix_s = after.interval_end_unix_s - SETTLEMENT_INTERVAL_S
        energies.append(Energy(start_unix_s, production_wh, consumption_wh, surplus_wh))
    return energies


def sum_by_bucket(energies: Iterable[Energy], bucket_s: int) -> list[Energy]:
    """Add up intervals into buckets aligned in UTC; empty buckets are absent."""
    ordered = sorted(energies, key=attrgetter("start_unix_s"))
    return [
        Energy(
            start_unix_s,
            sum(energy.production_wh for energy in members),
            sum(energy.consumption_wh for energy in members),
            sum(energy.surplus_wh for energy in members),
        )
        for start_unix_s, members in (
            (start, list(group))
            for start, group in groupby(ordered, lambda energy: energy.start_unix_s // bucket_s * bucket_s)
        )
    ]


def _less(whole_wh: int, taken_wh: int) -> int:
    return max(0, whole_wh - max(0, taken_wh))
