"""A meter that goes on behind its last honest seal with another key, as its owner makes it do after a theft."""

from __future__ import annotations

from datetime import timedelta

from protocol.seal import NO_PREDECESSOR, Seal, decode_seal, encode_seal, seal_hash
from protocol.settlement import Netting
from simulators.sealing import ExpectedEnergy, SimulatedMeter, seeded_key
from tests.hub.minting.conftest import House
from tests.hub.readings.test_key_life import hand_in


def went_on_from(house: House, stolen: SimulatedMeter, before: ExpectedEnergy) -> SimulatedMeter:
    """The same registers from where the last seal that counts ended, under the owner's next key."""
    [row] = house.rows(
        "SELECT e.message, s.last_reading_unix_s FROM seals s JOIN evidence e USING (meter_no, key_epoch, sequence)"
        " WHERE s.state = 'accepted' ORDER BY s.sequence DESC LIMIT 1"
    )
    seal_bytes, last_unix_s = bytes(row[0])[:124], int(str(row[1]))  # type: ignore[arg-type]
    seal: Seal = decode_seal(seal_bytes)
    assert encode_seal(seal) == seal_bytes
    meter = SimulatedMeter(
        meter_id=stolen.meter_id,
        key=stolen.key,
        domain=stolen.domain,
        start_unix_s=last_unix_s,
        interval_s=stolen.interval_s,
        readings_per_seal=stolen.readings_per_seal,
    )
    meter.key_epoch = stolen.key_epoch
    meter.sequence, meter.last_seal_hash = seal.sequence, seal_hash(seal_bytes)
    meter._energy_ws = [
        (before.production_wh - 100_000) * 3_600,
        (before.consumption_wh - 80_000) * 3_600,
    ]
    meter._netting = Netting(
        seal.closed_until_unix_s,
        seal.production_wh,
        seal.consumption_wh,
        seal.surplus_wh,
        before.production_wh,
        before.consumption_wh,
    )
    key = seeded_key("the owner's new key")
    house.now += timedelta(seconds=60)
    hand_in(house, meter.meter_id, meter.rotation(key, stolen.owner_key))
    meter.take_over(key)
    assert meter.last_seal_hash == NO_PREDECESSOR
    return meter
