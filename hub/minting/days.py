"""On which UTC days the surplus of a step falls. Pure.

A settlement interval belongs to the day in which it lies: what closes at midnight is of the day that ends there. The
surplus of a seal falls on the day of the last interval it closes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from hub.minting.store import DayShare


def split_by_day(added_wh: Sequence[tuple[date, int]], written_off_wh: int, earned_back_wh: int) -> list[DayShare]:
    """Split what was added on each day, in order.

    What pays back comes out of the first days, what is written off out of those after; the rest is minted.
    """
    shares = []
    for day, day_wh in added_wh:
        back_wh = min(day_wh, earned_back_wh)
        off_wh = min(day_wh - back_wh, written_off_wh)
        shares.append(DayShare(day, day_wh - back_wh - off_wh, off_wh, back_wh))
        earned_back_wh -= back_wh
        written_off_wh -= off_wh
    return shares
