"""Netting: how much of what a home produced was surplus, one settlement interval at a time.

An interval covers the readings in (end − 900 s, end]. Its net is max(0, Δproduction − Δconsumption) between the last
reading before it and the last reading in it. An open interval adds nothing. Hours without a reading are netted with
the interval in which the next reading falls, which can only take away: max(0, a + b) ≤ max(0, a) + max(0, b).

The agent uses this to seal and the hub to check what was sealed; the sums telescope, so no rounding and no sampling
rate can create a watt-hour.
"""

from protocol.limits import SETTLEMENT_INTERVAL_S


def interval_end(time_unix_s: int) -> int:
    """End of the settlement interval to which a reading belongs; a reading on the boundary belongs to its past."""
    return -(-time_unix_s // SETTLEMENT_INTERVAL_S) * SETTLEMENT_INTERVAL_S


def first_closed_until(valid_from_unix_s: int) -> int:
    """The boundary at or before the start of a key epoch: where its netting begins."""
    return time_floor(valid_from_unix_s)


def time_floor(time_unix_s: int) -> int:
    """The latest interval boundary at or before a time."""
    return time_unix_s // SETTLEMENT_INTERVAL_S * SETTLEMENT_INTERVAL_S


class Netting:
    """Counters as of the last closed interval, and the last reading since. Energy in watt-hours.

    `production_wh`, `consumption_wh` and `surplus_wh` are what a seal states; `last_…` is the newest reading seen.
    """

    def __init__(
        self,
        closed_until_unix_s: int,
        production_wh: int,
        consumption_wh: int,
        surplus_wh: int,
        last_production_wh: int,
        last_consumption_wh: int,
    ) -> None:
        self.closed_until_unix_s = closed_until_unix_s
        self.production_wh = production_wh
        self.consumption_wh = consumption_wh
        self.surplus_wh = surplus_wh
        self.last_production_wh = last_production_wh
        self.last_consumption_wh = last_consumption_wh

    def add(self, time_unix_s: int, production_wh: int, consumption_wh: int) -> None:
        """Take the next reading, closing every interval that it shows to be over.

        Readings come in time order, with counters that never fall; the caller has checked both.
        """
        start_unix_s = interval_end(time_unix_s) - SETTLEMENT_INTERVAL_S
        if start_unix_s > self.closed_until_unix_s:
            self._close(start_unix_s)
        self.last_production_wh = production_wh
        self.last_consumption_wh = consumption_wh
        if time_unix_s == start_unix_s + SETTLEMENT_INTERVAL_S:
            self._close(time_unix_s)

    def _close(self, until_unix_s: int) -> None:
        net_wh = (self.last_production_wh - self.production_wh) - (self.last_consumption_wh - self.consumption_wh)
        if net_wh > 0:
            self.surplus_wh += net_wh
        self.production_wh = self.last_production_wh
        self.consumption_wh = self.last_consumption_wh
        self.closed_until_unix_s = until_unix_s
