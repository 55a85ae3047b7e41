"""Where every watt-hour is, at any moment, while everything happens at once: late seals, losses, leaps, new keys.

The oracle is the raw readings, without what was a leap, summed by hand in quarters of an hour.
"""

from __future__ import annotations

import contextlib
import random

import pytest

from hub.errors import GapAlreadyLost, RotationBaseDiffers
from protocol.readings import decode_readings
from protocol.seal import decode_seal, split_message
from simulators.sealing import START_CONSUMPTION_WH, START_PRODUCTION_WH, START_SURPLUS_WH, SealedMessage, seeded_key
from tests.hub.minting.conftest import House, sunny
from tests.hub.readings.test_key_life import hand_in

STEPS = 30
LEAP_WH = 1_000_000


class Home:
    """A meter whose leaps are known, and what of it is still on its way."""

    def __init__(self, house: House, seed: int) -> None:
        self.rng = random.Random(f"accounting/{seed}")
        [self.meter] = sunny(seed=seed + 1, readings_per_seal=self.rng.choice([7, 15, 20, 45]))
        self.house = house
        house.join(self.meter)
        self.leapt_wh = 0
        self.readings: list[tuple[int, int, int]] = []
        self.on_their_way: list[SealedMessage] = []
        self.keys = 0

    def seal(self) -> SealedMessage:
        message = self.meter.next_message()
        self.readings += [
            (each.time_unix_s, each.production_wh - self.leapt_wh, each.consumption_wh)
            for each in decode_readings(split_message(message.message).section)
        ]
        return message

    def leap(self) -> None:
        self.meter.leap(LEAP_WH)
        self.leapt_wh += LEAP_WH

    def true_surplus_wh(self, until_unix_s: int) -> int:
        """By hand, of the quarters that are over at this time."""
        last = {}
        for time_unix_s, production_wh, consumption_wh in self.readings:
            last[-(-time_unix_s // 900) * 900] = (production_wh, consumption_wh)
        before, sum_wh = (START_PRODUCTION_WH, START_CONSUMPTION_WH), 0
        for end, closing in sorted(last.items()):
            if end <= until_unix_s:
                sum_wh += max(0, closing[0] - before[0] - (closing[1] - before[1]))
                before = closing
        return sum_wh


def act(home: Home) -> None:
    house, rng, meter = home.house, home.rng, home.meter
    what = rng.choices(
        ["seal", "late", "deliver", "leap", "reject", "lose", "rotate", "mint"], [6, 3, 4, 1, 3, 1, 1, 5]
    )[0]
    if what == "seal":
        house.take(home.seal())
    elif what == "late":
        home.on_their_way.append(home.seal())
    elif what == "deliver" and home.on_their_way:
        house.take(home.on_their_way.pop(rng.randrange(len(home.on_their_way))))
    elif what == "leap":
        home.leap()
        house.take(home.seal())
    elif what == "reject":
        for entry in house.entries():
            house.reject(entry)
    elif what == "lose":
        lose(home)
    elif what == "rotate" and not home.on_their_way and meter.sequence:
        rotate(home)
    elif what == "mint":
        house.mint(rng.randint(1, 3))


def lose(home: Home) -> None:
    gaps = home.house.rows("SELECT key_epoch, first_sequence FROM seal_gaps ORDER BY 1, 2 LIMIT 1")
    for key_epoch, first in gaps:
        with contextlib.suppress(GapAlreadyLost):
            home.house.declare_lost(home.meter.meter_id, int(str(first)), int(str(key_epoch)))


def rotate(home: Home) -> None:
    for entry in home.house.entries():
        home.house.reject(entry)
    home.keys += 1
    key = seeded_key(f"{home.meter.meter_id}/{home.keys}")
    with contextlib.suppress(RotationBaseDiffers):  # its last seal does not count
        hand_in(home.house, home.meter.meter_id, home.meter.rotation(key))
        home.meter.take_over(key)


def check(home: Home) -> None:
    house, meter = home.house, home.meter
    assert house.chain.refusals == [], "what the program refuses is not sent"
    balance = house.balance(meter.meter_id)
    assert balance.minted_wh == house.chain.minted_wh()
    chain = house.chain.meter(meter.meter_id)
    assert balance.minted_wh <= home.true_surplus_wh(chain.closed_until_unix_s)
    assert (balance.taken_back_wh, balance.over_minted_wh) == (0, 0)


def live(house: House, seed: int) -> None:
    home = Home(house, seed)
    for _ in range(STEPS):
        act(home)
        check(home)
    for message in home.on_their_way:
        house.take(message)
    for _ in range(3):  # a rejection may uncover a seal that is held for what it follows
        for entry in house.entries():
            house.reject(entry)
    house.take(home.seal())
    house.mint_all()
    check(home)
    assert house.balance(home.meter.meter_id).pending_wh == 0


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_minted_that_was_not_measured_and_every_watt_hour_is_somewhere(house, seed):
    live(house, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3, 120))
def test_the_same_for_a_long_time(house, seed):
    live(house, seed)


def test_what_only_comes_late_is_minted_to_the_last_watt_hour(house):
    home = Home(house, 1)
    messages = [home.seal() for _ in range(24)]
    home.rng.shuffle(messages)
    for start in range(0, 24, 3):
        house.take(*messages[start : start + 3])
        house.mint()
        check(home)
    house.mint_all()
    until = house.chain.meter(home.meter.meter_id).closed_until_unix_s
    assert house.chain.minted_wh() == home.true_surplus_wh(until) == house.balance(home.meter.meter_id).accepted_wh
    newest = max(decode_seal(message.message[:124]).surplus_wh for message in messages)
    assert house.chain.minted_wh() == newest - START_SURPLUS_WH > 0
