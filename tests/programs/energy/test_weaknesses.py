"""What went wrong in the reference system (its readings and its minting), and does not here."""

import pytest
from solders.instruction import AccountMeta, Instruction

from tests.programs.energy import calls
from tests.programs.energy.community import ADA, BASE_WH, OTTO, Device, must
from tests.programs.energy.error_numbers import NAMES
from tests.programs.energy.ledger import START_UNIX_S, keypair
from tests.programs.energy.refusals import EMMY, HONEST, NEW, registering
from tests.programs.energy.signing import INTERVAL_S, ed25519, sign
from tests.programs.energy.token_2022 import create_token_account, mint_to

ED25519_BYTES = 16 + 32 + 64 + 124
PADDING_AT = 1
"""The one byte that says nothing."""


def test_every_bit_that_a_meter_signs_counts(community):
    """There the signature covered an id, one number and a time; here no bit of all that is presented can be changed."""
    honest = ed25519(community.sealed(ADA))
    for at in range(ED25519_BYTES):
        for bit in (1, 128):
            data = bytearray(honest.data)
            data[at] ^= bit
            outcome = community.send([Instruction(honest.program_id, bytes(data), []), community.submit(ADA)])
            assert outcome.accepted == (at == PADDING_AT), at
            if outcome.accepted:
                must(community.submit_once(ADA))
                honest = ed25519(community.sealed(ADA))


@pytest.mark.parametrize("time_unix_s", [0, 1, -INTERVAL_S])
def test_a_time_that_nobody_could_read_is_no_time(community, time_unix_s):
    """There it became 0, and its signature was good for ever."""
    changes = {"closed_until_unix_s": time_unix_s, "sealed_at_unix_s": START_UNIX_S}
    assert NAMES[community.submit_once(ADA, **changes).custom] == "seal_malformed"


def test_an_old_seal_is_good_once_and_never_after_a_newer_one(community):
    first = ed25519(community.sealed(ADA))
    must(community.send([first, community.submit(ADA)]))
    assert NAMES[community.send([first, community.submit(ADA)]).custom] == "sequence_not_later"
    must(community.submit_once(ADA))
    assert NAMES[community.send([first, community.submit(ADA)]).custom] == "sequence_not_later"


def test_the_same_frame_twice_in_a_transaction_adds_its_energy_once(community):
    signed = ed25519(community.sealed(ADA))
    acts = [signed, community.submit(ADA), signed, community.submit(ADA), community.settle(ADA)]
    assert NAMES[community.send(acts).custom] == "sequence_not_later"
    assert community.supply_units() == 0


def test_one_meter_has_one_owner(community):
    """There two owners could hold one meter id, and each was credited its energy."""
    ottos = Device(ADA.meter_id, OTTO.owner, keypair("a third meter"))
    assert NAMES[community.enrol(ottos).custom] == "already_exists"
    assert community.read_meter(ADA.meter_id).owner == bytes(ADA.owner.pubkey())


def test_nobody_adds_a_meter_to_somebody_elses_account(community):
    """There any payer could register one. Here the hub pays and signs, the owner signs, the meter has signed."""
    acts = registering(community)
    register = community.register_meter(NEW)
    for wrong in (
        register.with_account("hub", EMMY.pubkey()),
        register.unsigned("owner"),
        register.with_account("owner", EMMY.pubkey()),
    ):
        assert not community.send([acts[0], wrong]).accepted
    stated = sign(keypair("stranger"), community.statement(NEW).encode())
    assert NAMES[community.send([ed25519(stated), register]).custom] == "key_differs"
    assert community.read_user(ADA.owner).meters == 1


def test_there_is_one_way_to_mint(community):
    """There two paths credited one kilowatt-hour twice. Here one instruction raises the supply, and once."""
    must(community.submit_once(ADA))
    saved = community.ledger.save()
    for number, honest in HONEST.items():
        must(community.send(honest(community)))
        assert (community.supply_units() > 0) == (number == calls.SETTLE)
        community.ledger.restore(saved)


def test_nothing_but_energy_makes_grid(community):
    """There an airdrop of the payment token made kilowatt-hours that nobody had produced."""
    for name in ("hub", "authority", "issuer", "validator", "ada"):
        key = keypair(name).pubkey()
        assert not community.send([mint_to(community.mint, community.grid_account(ADA.owner), key, 10**10)]).accepted
    by_config = mint_to(community.mint, community.grid_account(ADA.owner), community.config, 10**10)
    metas = [*by_config.accounts[:2], AccountMeta(community.config, False, False)]
    assert not community.send([Instruction(by_config.program_id, bytes(by_config.data), metas)]).accepted
    assert community.supply_units() == 0


def test_net_is_what_was_net_in_each_quarter_whichever_way_it_is_presented(community):
    """There 10 kWh produced and 15 consumed later were 0 by one path and 8 by another."""
    saved = community.ledger.save()
    for skip in (False, True):
        if not skip:
            must(community.submit_once(ADA, 1_000, 200, 800))
        changes = {"sequence": 2, "previous_seal_hash": b"\1" * 32, "surplus_wh": BASE_WH[2] + 800}
        times = {"closed_until_unix_s": START_UNIX_S - 8 * INTERVAL_S, "sealed_at_unix_s": START_UNIX_S}
        totals = {"production_wh": BASE_WH[0] + 1_000, "consumption_wh": BASE_WH[1] + 1_500}
        must(community.submit_once(ADA, **changes, **times, **totals))
        must(community.settle_once(ADA))
        assert community.supply_units() == 800 * 10**6
        community.ledger.restore(saved)


def test_what_was_minted_too_much_is_recovered(community):
    """There a net that fell later was cut off at zero, and what had been minted stayed."""
    signed = ed25519(community.sealed(ADA, 1_000, 0, 1_000))
    must(community.send([signed, community.submit(ADA), community.settle(ADA)]))
    must(community.send([signed, community.write_off(ADA, 600, 600)]))
    must(community.submit_once(ADA, 500, 0, 500))
    must(community.settle_once(ADA))
    assert community.supply_units() == 1_000 * 10**6
    must(community.submit_once(ADA, 500, 0, 500))
    must(community.settle_once(ADA))
    assert community.supply_units() == 1_400 * 10**6


def test_readings_that_come_late_are_in_the_next_seal_that_is_presented(community):
    """There a window that had closed lost them. Here counters are cumulative: the newest says it all."""
    until_unix_s = START_UNIX_S - 2 * INTERVAL_S
    must(community.submit_once(
        ADA, 8_000, 1_000, 7_500, sequence=40, previous_seal_hash=b"\1" * 32, closed_until_unix_s=until_unix_s,
        sealed_at_unix_s=START_UNIX_S,
    ))  # fmt: skip
    must(community.settle_once(ADA))
    assert community.supply_units() == 7_500 * 10**6


def test_a_good_sunny_roof_is_not_an_anomaly(community):
    """There a ratio of production to consumption refused a fifth of all surplus. Here its capacity is the limit."""
    must(community.submit_once(ADA, 2_750, 1, 2_749))
    assert NAMES[community.submit_once(ADA, 2_851, 0, 2_851).custom] == "over_capacity"


def test_tokens_are_not_stranded_with_somebody_who_has_no_account_yet(community):
    """A meter may be settled before its owner has a token account: refused, nothing lost, paid later."""
    must(community.send([community.register_user(EMMY)]))
    emmys = Device("emmy-roof", EMMY, keypair("emmy's meter"))
    must(community.enrol(emmys))
    must(community.submit_once(emmys))
    assert not community.settle_once(emmys).accepted
    must(community.send([create_token_account(keypair("hub").pubkey(), EMMY.pubkey(), community.mint)]))
    must(community.settle_once(emmys))
    assert community.balance_units(EMMY) == 800 * 10**6
