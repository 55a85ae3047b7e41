"""What minting does when the chain tells something else than was planned."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from hub.chain.events import ProgramEvent
from hub.chain.inbox import StoredEvent
from hub.chain.instructions import SETTLE_METER_BALANCE, SUBMIT_READING
from hub.db import transaction
from hub.minting import queries
from hub.minting.reactions import react_to_event
from tests.hub.conftest import log_lines
from tests.hub.minting.chain_model import AT, UNITS_PER_WH

__all__ = ["log_lines"]  # a fixture of another room


def tell(house, account, amount_units, business_id: UUID | None, instruction=SETTLE_METER_BALANCE):
    """The chain tells of an instruction, as the inbox does."""
    event = ProgramEvent(instruction, business_id, amount_units, account)
    stored = StoredEvent("5" * 87, 0, house.chain.slot, 0, None, event)
    with transaction(house.engine) as connection:
        react_to_event(connection, stored, None, house.now)


def alarms(house):
    return [row[0] for row in house.rows("SELECT detail FROM alarms WHERE kind = 'minting_differs'")]


@pytest.fixture
def settled(house, home):
    """The meter as its mint left it, the mint's business id and its units."""
    house.take(*home.messages(3))
    house.mint_all()
    [(intent_id, minted_wh)] = house.rows("SELECT intent_id, minted_wh FROM mints")
    return house.chain.meter(home.meter_id), intent_id, minted_wh * UNITS_PER_WH


def test_a_settlement_as_it_was_planned_alarms_nobody(house, settled):
    tell(house, *settled[::2], settled[1])
    assert alarms(house) == []


@pytest.mark.parametrize("spoil", ["amount", "settled", "business", "no business"])
def test_a_settlement_that_was_planned_otherwise_or_not_at_all_is_an_alarm(house, settled, spoil):
    account, business_id, units = settled
    if spoil == "amount":
        units += 1
    if spoil == "settled":
        account = replace(account, settled_wh=account.settled_wh + 1)
    if spoil == "business":
        business_id = uuid4()
    if spoil == "no business":
        business_id = None
    tell(house, account, units, business_id)
    [alarm] = alarms(house)
    assert (alarm["amount_units"], alarm["signature"]) == (str(units), "5" * 87)


def test_a_settlement_of_a_meter_that_this_hub_does_not_know_stops_nothing(house, settled, log_lines):
    account, business_id, units = settled
    tell(house, replace(account, meter_id="elsewhere", address=AT.meter("elsewhere")), units, business_id)
    assert alarms(house) == []
    assert [line["event"] for line in log_lines()].count("minting_differs") == 1


def test_other_instructions_are_not_compared(house, settled):
    tell(house, settled[0], 0, uuid4(), SUBMIT_READING)
    assert alarms(house) == []


def test_a_hub_restored_from_before_a_mint_says_that_the_chain_has_more_and_never_mints_it_twice(house, home, settled):
    account, business_id, units = settled
    with transaction(house.engine) as connection:
        connection.exec_driver_sql("DELETE FROM mint_days; DELETE FROM mints")
    tell(house, account, units, business_id)
    assert len(alarms(house)) == 1
    with transaction(house.engine) as connection:
        assert queries.sum_minted_wh(connection) == 0
    house.take(*home.messages(20))
    house.mint_all()
    assert house.chain.refusals == []
    surplus_wh = house.value("SELECT max(surplus_wh) FROM seals")
    assert house.chain.minted_wh() == surplus_wh - account.base_surplus_wh
    with transaction(house.engine) as connection:
        missing_units = sum(house.chain.balances.values()) - queries.sum_minted_wh(connection) * UNITS_PER_WH
    assert missing_units == units, "what the books lack is what the alarm said"
