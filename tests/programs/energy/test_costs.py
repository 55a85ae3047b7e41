"""What a transaction costs in compute units and bytes, which is what it costs in lamports and how many fit a block."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.instruction import Instruction
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import (
    CreateLookupTableParams,
    ExtendLookupTableParams,
    create_lookup_table,
    extend_lookup_table,
)
from solders.transaction import VersionedTransaction

from tests.programs.energy.community import ADA, OTTO, Community, Device, initialized, must
from tests.programs.energy.ledger import Ledger, keypair
from tests.programs.energy.measures import BASELINE, measure
from tests.programs.energy.refusals import EMMY, NEW
from tests.programs.energy.signing import ed25519
from tests.programs.energy.token_2022 import TOKEN_2022, create_token_account

PACKET_BYTES = 1_232
SUBMIT_AND_SETTLE_UNITS_MAX = 12_000
"""The reference system needs 29,410."""
HUB = keypair("hub")


@pytest.fixture(scope="module")
def measured() -> dict[str, int]:
    return measure()


@pytest.fixture(scope="module")
def baseline() -> dict[str, int]:
    units: dict[str, int] = json.loads(BASELINE.read_text())
    return units


def test_every_instruction_has_a_baseline(measured, baseline):
    assert measured.keys() == baseline.keys()


def test_no_instruction_costs_a_twentieth_more_than_its_baseline(measured, baseline):
    dearer = {name: (baseline[name], units) for name, units in measured.items() if units * 100 > baseline[name] * 105}
    assert dearer == {}


def test_what_became_cheaper_stays_cheaper(measured, baseline):
    """If this fails, be glad, and run `python -m tests.programs.energy.measures`."""
    cheaper = {name: (baseline[name], units) for name, units in measured.items() if units * 100 < baseline[name] * 95}
    assert cheaper == {}


def test_a_seal_is_submitted_and_settled_within_the_target(measured):
    assert measured["submit_reading"] + measured["settle_meter_balance"] <= SUBMIT_AND_SETTLE_UNITS_MAX


def test_whatever_a_meters_bump_it_is_within_the_target(community):
    """A bump is searched only when an account is made, never when it is used."""
    for number in range(5):
        device = replace(NEW, meter_id=f"meter-{number}", key=keypair(f"meter's key {number}"))
        must(community.enrol(device))
        acts = [ed25519(community.sealed(device)), community.submit(device), community.settle(device)]
        assert sum(must(community.send(acts)).per_instruction) <= SUBMIT_AND_SETTLE_UNITS_MAX


def make_lookup_table(ledger: Ledger, addresses: list[Pubkey]) -> AddressLookupTableAccount:
    """By the hub's transactions; what is in it counts from the next slot on."""
    slot = ledger.svm.get_clock().slot
    ledger.svm.set_slot_hashes([(slot - 1, ledger.svm.latest_blockhash())])
    hub = HUB.pubkey()
    create, table = create_lookup_table(
        CreateLookupTableParams(authority_address=hub, payer_address=hub, recent_slot=slot - 1)
    )
    extend = extend_lookup_table(
        ExtendLookupTableParams(
            lookup_table_address=table, authority_address=hub, payer_address=hub, new_addresses=addresses
        )
    )
    must(ledger.send([create, extend], HUB))
    ledger.svm.warp_to_slot(slot + 1)
    return AddressLookupTableAccount(table, addresses)


def test_three_meters_fit_one_transaction(code):
    """Of three owners, with the hub as payer, its business ids, and a priority fee."""
    community: Community = initialized(code)  # of its own: slots pass here
    emmys = Device("emmy-roof", EMMY, keypair("emmy's meter"))
    must(community.send([community.register_user(EMMY)]))
    must(community.send([create_token_account(HUB.pubkey(), EMMY.pubkey(), community.mint)]))
    must(community.enrol(emmys))
    devices = [ADA, OTTO, emmys]
    acts: list[Instruction] = [set_compute_unit_limit(60_000), set_compute_unit_price(1_000)]
    for number, device in enumerate(devices):
        business_id = bytes([number]) * 16
        acts += [
            ed25519(community.sealed(device)),
            community.submit(device, business_id).instruction(),
            community.settle(device, business_id).instruction(),
        ]
    meters = [community.addresses.meter(device.meter_id) for device in devices]
    known = [community.config, community.mint, TOKEN_2022, community.submit(ADA).key("ixs")]
    accounts = [community.grid_account(device.owner) for device in devices]
    table = make_lookup_table(community.ledger, [*known, *meters, *accounts])
    message = MessageV0.try_compile(HUB.pubkey(), acts, [table], community.ledger.svm.latest_blockhash())
    transaction = VersionedTransaction(message, [HUB])
    assert len(bytes(transaction)) <= PACKET_BYTES
    outcome = must(community.ledger.send_signed(transaction))
    assert len(outcome.events) == 6
    assert community.supply_units() == 3 * 800 * 10**6
    assert outcome.compute_units <= 3 * SUBMIT_AND_SETTLE_UNITS_MAX
