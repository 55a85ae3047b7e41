"""The energy that the database gives is what the meter counted, in whatever order its seals came."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from hub.api_types import iso_of

DAY = int(datetime.now(UTC).timestamp()) // 86_400 * 86_400 - 3 * 86_400
"""So that nothing of the two days that follow is from the future."""
SEALS = 40


@pytest.mark.parametrize("seed", range(3))
def test_a_shuffled_day_adds_up_to_the_watt_hour(server, new_meter, seed):
    chance = random.Random(seed)
    meter = new_meter("roof", valid_from_unix_s=DAY)
    server.register(meter)
    time, production_wh, consumption_wh = DAY, 0, 0
    messages = []
    for _ in range(SEALS):
        readings = []
        for _ in range(chance.randint(1, 8)):
            pause_s = chance.choice([60, 300, 900, 1_700])
            time += pause_s
            production_wh += chance.randint(0, pause_s * 4)
            consumption_wh += chance.randint(0, pause_s * 4)
            readings.append((time, production_wh, consumption_wh))
        messages.append(meter.seal(readings))
    netting = meter.netting
    chance.shuffle(messages)
    for message in messages:
        answer = server.post_seal(meter, message).json()
        assert answer["state"] == "accepted", answer

    closed = _energy(server, netting.closed_until_unix_s)
    assert closed == (netting.production_wh, netting.consumption_wh, netting.surplus_wh)
    open_end = -(-time // 900) * 900
    assert _energy(server, open_end)[:2] == (production_wh, consumption_wh)


def _energy(server, end_unix_s):
    page = server.client.get(
        "/meters/roof/readings", params={"from": iso_of(DAY), "to": iso_of(end_unix_s), "limit": 10_000}
    ).json()
    assert page["next_cursor"] is None
    return tuple(
        sum(bucket[name] for bucket in page["buckets"]) for name in ("production_wh", "consumption_wh", "surplus_wh")
    )
