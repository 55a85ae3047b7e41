"""A simulated meter's seals are what an honest agent would send."""

import pytest
from nacl.signing import VerifyKey

from protocol.enrolment import split_enrolment
from protocol.errors import ProtocolError
from protocol.readings import decode_readings
from protocol.seal import NO_PREDECESSOR, seal_hash, split_message
from protocol.settlement import Netting, first_closed_until
from simulators.sealing import FleetPlan, SimulatedMeter

START = 1_795_046_400 + 137


def plan(**changes: int) -> FleetPlan:
    return FleetPlan("sonnenhof", seed=5, meters=3, start_unix_s=START, **changes)


def first_meter(**changes: int) -> SimulatedMeter:
    return next(plan(**changes).each_meter())


@pytest.mark.parametrize(("readings_per_seal", "interval_s"), [(1, 60), (15, 60), (60, 10), (900, 1)])
def test_every_message_is_signed_chained_and_netted(readings_per_seal: int, interval_s: int) -> None:
    meter = first_meter(readings_per_seal=readings_per_seal, interval_s=interval_s)
    statement, signed, signature = split_enrolment(meter.enrolment())
    key = VerifyKey(statement.public_key)
    key.verify(signed, signature)
    netting = Netting(
        first_closed_until(statement.valid_from_unix_s),
        statement.production_wh,
        statement.consumption_wh,
        statement.surplus_wh,
        statement.production_wh,
        statement.consumption_wh,
    )
    previous, last_time = NO_PREDECESSOR, statement.valid_from_unix_s
    for sequence, sent in enumerate(meter.messages(8), 1):
        message = split_message(sent.message)
        key.verify(message.seal_bytes, message.signature)
        assert message.seal.sequence == sent.sequence == sequence
        assert message.seal.domain == statement.domain
        assert message.seal.previous_seal_hash == previous
        readings = decode_readings(message.section)
        assert len(readings) == readings_per_seal
        assert readings[0].time_unix_s > last_time
        for reading in readings:
            netting.add(reading.time_unix_s, reading.production_wh, reading.consumption_wh)
        assert message.seal.closed_until_unix_s == netting.closed_until_unix_s
        assert message.seal.production_wh == netting.production_wh
        assert message.seal.consumption_wh == netting.consumption_wh
        assert message.seal.surplus_wh == netting.surplus_wh
        previous, last_time = seal_hash(message.seal_bytes), readings[-1].time_unix_s
    expected = meter.expected()
    assert (expected.production_wh, expected.consumption_wh) == (
        netting.last_production_wh,
        netting.last_consumption_wh,
    )
    assert (expected.sealed_production_wh, expected.surplus_wh) == (netting.production_wh, netting.surplus_wh)


def test_the_same_seed_makes_the_same_bytes_and_every_meter_differs() -> None:
    first, second = ([meter.next_message().message for meter in plan().each_meter()] for _ in range(2))
    assert first == second
    assert len(set(first)) == 3


def test_a_plan_that_makes_no_fleet_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        plan(seals_per_meter=0)
    with pytest.raises(ValueError, match="900"):
        plan(readings_per_seal=901)
    with pytest.raises(ProtocolError):
        FleetPlan("Sonnenhof", seed=5, meters=3, start_unix_s=START)
