"""How a community begins, who may join it with which meters, and who may change or stop it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from solders.pubkey import Pubkey

from protocol.enrolment import decode_enrolment, encode_enrolment
from protocol.seal import decode_seal, encode_seal
from tests.programs.energy import calls, layout
from tests.programs.energy.administration_refusals import HUB
from tests.programs.energy.community import (
    ADA,
    BASE_WH,
    CAPACITY_W_MAX,
    DOMAIN,
    OTTO,
    REGISTER_STEP_WH_MAX,
    Community,
    Device,
    make_mint,
    must,
)
from tests.programs.energy.error_numbers import NAMES, ROOT
from tests.programs.energy.layout import Config, Event, Meter, MeterKey, User, bump_of
from tests.programs.energy.ledger import (
    BUFFER_HEAD_BYTES,
    START_UNIX_S,
    keypair,
    program_bytes,
    program_data_of,
    set_upgrade_authority,
)
from tests.programs.energy.minting_refusals import WH_MAX
from tests.programs.energy.refusals import EMMY, NAMES_OF_CALLS, NEW, NEXT_KEY, Act, registering, rotating
from tests.programs.energy.signing import INTERVAL_S, Seal, Statement, ed25519, sign
from tests.programs.energy.token_2022 import (
    BAD_EXTENSIONS,
)

BATTERY = Device("ada-battery", ADA.owner, keypair("ada's battery"), layout.BATTERY)
KEYS = ("config", "user", "meter", "meter_key")


def refused(outcome) -> str:
    assert not outcome.accepted
    return NAMES[outcome.custom]


# -- beginnings


def test_the_deployed_program_is_the_one_in_the_repository(bare):
    code = program_bytes()
    deployed = bare.ledger.data(program_data_of(bare.program))[BUFFER_HEAD_BYTES + 8 :]
    assert deployed[: len(code)] == code
    assert not any(deployed[len(code) :])


def test_the_upgrade_authority_begins_and_becomes_the_admin(bare):
    must(bare.send([bare.initialize()]))
    keys = bare.keys
    assert bare.read_config() == Config(
        bump_of(bare.program, b"config"), layout.RUNNING, layout.DECIMALS, bytes(bare.config), DOMAIN,
        bytes(keys.authority.pubkey()), bytes(keys.hub.pubkey()), bytes(keys.issuer.pubkey()),
        bytes(keys.validator.pubkey()), bytes(bare.mint), CAPACITY_W_MAX, REGISTER_STEP_WH_MAX,
    )  # fmt: skip


def test_a_new_upgrade_authority_may_begin(bare):
    must(bare.send([set_upgrade_authority(bare.program, bare.keys.authority.pubkey(), EMMY.pubkey())]))
    bare.ledger.airdrop(EMMY.pubkey())
    must(bare.send([bare.initialize().with_account("authority", EMMY.pubkey())]))
    assert bare.read_config().admin == bytes(EMMY.pubkey())


MINTS = {
    "without a name": ({"named": False}, True),
    "with supply": ({"minted_units": 1}, False),
    "with a freeze authority": ({"freeze_authority": HUB.pubkey()}, False),
    "of 8 decimals": ({"decimals": 8}, False),
    "that the hub mints": ({"authority": HUB.pubkey()}, False),
    **{f"with {each}": ({"extension": each}, False) for each in BAD_EXTENSIONS},
    **{f"with {each} alone": ({"extension": each, "named": False}, False) for each in BAD_EXTENSIONS},
}


@pytest.mark.parametrize("what", MINTS)
def test_a_mint_gives_nobody_but_the_program_power_over_what_members_earn(bare, what):
    choices, good = MINTS[what]
    other = Community(bare.ledger, bare.program_key, keypair("another mint"), bare.keys)
    make_mint(other, **choices)
    outcome = other.send([other.initialize()])
    assert outcome.accepted if good else refused(outcome) == "mint_unacceptable"


# -- addresses that somebody paid before


def _empties(community: Community, kind: str) -> tuple[list[Act], Pubkey]:
    if kind == "config":
        return [community.initialize()], community.config
    if kind == "user":
        return [community.register_user(EMMY)], community.addresses.user(EMMY.pubkey())
    if kind == "meter":
        return registering(community), community.addresses.meter(NEW.meter_id)
    return rotating(community), community.addresses.meter_key(NEXT_KEY.pubkey())


@pytest.mark.parametrize("lamports", [1, 10**6, 10**9])
@pytest.mark.parametrize("kind", KEYS)
def test_lamports_sent_ahead_do_not_keep_an_account_from_being_made(request, kind, lamports):
    community = request.getfixturevalue("bare" if kind == "config" else "community")
    acts, key = _empties(community, kind)
    community.ledger.airdrop(key, lamports)
    must(community.send(acts))
    account = community.ledger.find(key)
    assert account.owner == community.program
    assert account.lamports == max(lamports, community.ledger.rent(len(account.data)))


def test_the_hub_pays_the_rent_and_nothing_more(community):
    before = community.ledger.find(HUB.pubkey()).lamports
    must(community.send(registering(community)))
    paid = before - community.ledger.find(HUB.pubkey()).lamports
    assert paid == community.ledger.rent(Meter.BYTES) + community.ledger.rent(MeterKey.BYTES)


# -- members and meters


def test_a_user_is_what_the_page_says(community):
    for wallet, kind in ((EMMY, layout.PROSUMER), (keypair("lise"), layout.CONSUMER)):
        outcome = must(community.send([community.register_user(wallet, kind)]))
        address = community.addresses.user(wallet.pubkey())
        bump = bump_of(community.program, b"user", bytes(wallet.pubkey()))
        expected = User(bump, layout.ACTIVE, kind, bytes(address), bytes(wallet.pubkey()), START_UNIX_S, 0, 0)
        assert community.read_user(wallet) == expected
        assert outcome.events == [Event(calls.REGISTER_USER, bytes(16), 0, expected.encode()).encode()]


def test_a_meter_is_what_its_statement_says(community):
    statement = community.statement(NEW, measurement=2, flags=1, valid_from_unix_s=START_UNIX_S - 1)
    signed = ed25519(sign(NEW.key, statement.encode()))
    outcome = must(community.send([signed, community.register_meter(NEW, 1_234, 56)]))
    production_wh, consumption_wh, surplus_wh = BASE_WH
    address = community.addresses.meter(NEW.meter_id)
    meter_id = NEW.meter_id.encode().ljust(32, b"\0")
    expected = Meter(
        bump_of(community.program, b"meter", meter_id), layout.ACTIVE, layout.SOLAR, bytes(address), meter_id,
        bytes(ADA.owner.pubkey()), bytes(NEW.key.pubkey()), bytes(community.grid_account(ADA.owner)), 1, 2, 1, 1_234,
        56, 0, START_UNIX_S - INTERVAL_S, production_wh, consumption_wh, surplus_wh, surplus_wh, 0, 0, production_wh,
        surplus_wh, START_UNIX_S, 0, 0,
    )  # fmt: skip
    assert community.read_meter(NEW.meter_id) == expected
    key = bytes(NEW.key.pubkey())
    key_address = community.addresses.meter_key(key)
    assert MeterKey.decode(community.ledger.data(key_address)) == MeterKey(
        bump_of(community.program, b"key", key), 1, 0, bytes(key_address), key, bytes(address), 1, START_UNIX_S
    )
    user = community.read_user(ADA.owner)
    assert (user.meters, user.meters_ever) == (2, 2)
    told = [Event(calls.REGISTER_METER, bytes(16), 0, each.encode()).encode() for each in (expected, user)]
    assert outcome.events == told


def test_a_meter_may_be_as_large_as_the_community_allows(community):
    must(
        community.send([registering(community)[0], community.register_meter(NEW, CAPACITY_W_MAX, REGISTER_STEP_WH_MAX)])
    )


BOUNDS = {
    "the highest counters": {"production_wh": WH_MAX, "consumption_wh": WH_MAX, "surplus_wh": WH_MAX},
    "the lowest counters": {"production_wh": 0, "consumption_wh": 0, "surplus_wh": 0},
    "the earliest time": {"valid_from_unix_s": START_UNIX_S - 366 * 86_400},
    "the latest time": {"valid_from_unix_s": 4_102_444_800},
    "all flags of a first key": {"flags": 1},
}


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_statement_may_go_to_its_bounds(community, bound):
    must(community.send(registering(community, **BOUNDS[bound])))


@pytest.mark.parametrize("meter_id", ["a", "a" * 32, "0-9", "hub", "hub9"])
def test_a_meter_may_have_any_name_that_the_protocol_allows(community, meter_id):
    must(community.send(registering(community, replace(NEW, meter_id=meter_id))))


@pytest.mark.parametrize("by", ["hub", "owner"])
def test_a_deactivated_meter_counts_no_more_and_stays_known(community, by):
    must(community.send([community.deactivate(ADA, {"hub": HUB, "owner": ADA.owner}[by])]))
    assert community.read_meter(ADA.meter_id).state == layout.DEACTIVATED
    assert (community.read_user(ADA.owner).meters, community.read_user(ADA.owner).meters_ever) == (0, 1)
    assert refused(community.enrol(ADA)) == "already_exists"


def test_the_owner_endorses_a_key_that_replaces_a_lost_one(community):
    must(community.submit_once(ADA))
    before = community.read_meter(ADA.meter_id)
    outcome = must(community.rotate_once(ADA, NEXT_KEY, ADA.owner, flags=2, last_seal_hash=bytes(32)))
    after = community.read_meter(ADA.meter_id)
    assert after == replace(
        before, key=bytes(NEXT_KEY.pubkey()), key_epoch=2, flags=2, sequence=0,
        high_production_wh=before.production_wh, high_until_unix_s=before.closed_until_unix_s,
    )  # fmt: skip
    assert outcome.events == [Event(calls.ROTATE_METER_KEY, bytes(16), 0, after.encode()).encode()]
    renewed = replace(ADA, key=NEXT_KEY)
    must(community.submit_once(renewed))
    assert refused(community.submit_once(ADA)) == "key_differs"


# -- pauses and settings


def test_while_paused_keys_can_be_changed_and_meters_stopped(community):
    must(community.send([community.pause(1, HUB)]))
    assert community.read_config().state == layout.PAUSED
    must(community.send([community.configure(hub=EMMY.pubkey())]))
    must(community.send([community.configure()]))
    must(community.send([community.set_status(ADA, layout.SUSPENDED)]))
    must(community.send([community.deactivate(ADA, ADA.owner)]))
    must(community.send([community.pause(0)]))
    assert community.read_config().state == layout.RUNNING


def test_a_new_hub_and_a_new_admin_take_over_at_once(community):
    must(community.send([community.configure(new_admin=EMMY, hub=OTTO.owner.pubkey(), capacity_w_max=7)]))
    config = community.read_config()
    assert (config.admin, config.hub) == (bytes(EMMY.pubkey()), bytes(OTTO.owner.pubkey()))
    assert (config.capacity_w_max, config.domain, config.grid_mint) == (7, DOMAIN, bytes(community.mint))
    assert refused(community.submit_once(ADA)) == "not_the_hub"
    assert refused(community.send([community.pause(1)])) == "not_the_admin"
    must(
        community.send([ed25519(community.sealed(ADA)), community.submit(ADA).with_account("hub", OTTO.owner.pubkey())])
    )
    must(community.send([community.pause(1, EMMY)]))


def test_an_upgrade_authority_who_is_not_the_admin_has_no_say_in_settings(community):
    must(community.send([community.configure(new_admin=EMMY)]))
    assert refused(community.send([community.configure()])) == "not_the_admin"


# -- the tests' own words


def test_the_tests_write_seals_and_statements_as_the_protocol_does(community):
    statement, seal = community.statement(NEW).encode(), community.seal(ADA).encode()
    assert encode_enrolment(decode_enrolment(statement)) == statement == Statement.decode(statement).encode()
    assert encode_seal(decode_seal(seal)) == seal == Seal.decode(seal).encode()


def test_the_tests_list_accounts_as_the_page_does():
    page = (ROOT / "docs" / "program.md").read_text().splitlines()
    for number, shape in calls.SHAPES.items():
        _, _, name, _, listed, _ = next(line for line in page if line.startswith(f"| {number} |")).split("|")
        assert name.strip() == NAMES_OF_CALLS[number]
        words = [each.replace("`", "").split() for each in listed.split(",")]
        assert shape.split() == [":".join(each) for each in words]
