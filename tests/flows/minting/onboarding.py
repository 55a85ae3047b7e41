"""The steps of a registration on the chain, and what must be true of everybody who went through one."""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import base58

from tests.flows.minting.books import FINAL, read_chain
from tests.flows.minting.hand import BEFORE, COMMIT, FROZEN, Step
from tests.flows.minting.town import Person, Town

USER, METER = "user", "meter"
KEY_TAG: Final = b"CWMK"
EVER: Final = {"searchTransactionHistory": True}
USER_BYTES, METER_BYTES, KEY_BYTES = 160, 320, 128

STEPS: Final = (
    Step("the registration is written", "chain_registrations", "INSERT", "true"),
    Step("the rent is reserved", "rent_sponsorships", "INSERT", "true"),
    Step("the transaction is stored for the wallet", "chain_attempts", "INSERT", "true"),
    Step("it waits for the wallet", "chain_intents", "UPDATE",
         "NEW.state = 'awaiting_wallet' AND OLD.state = 'planned'"),
    Step("the wallet's signature is kept", "chain_attempts", "UPDATE",
         "OLD.wallet_signature IS NULL AND NEW.wallet_signature IS NOT NULL"),
    Step("the try is counted", "chain_attempts", "UPDATE", "NEW.sends > OLD.sends"),
    Step("the event is written", "chain_events", "INSERT", "true"),
    Step("the registration ends", "chain_registrations", "UPDATE", "OLD.outcome IS NULL AND NEW.outcome IS NOT NULL"),
    Step("the rent is settled", "rent_sponsorships", "UPDATE", "OLD.state = 'reserved' AND NEW.state <> 'reserved'"),
    Step("the account is linked", "chain_accounts", "INSERT", "true"),
)  # fmt: skip

VICTIMS: Final = {
    "chain": ("chain",),
    "chain, frozen while another works": (FROZEN,),
    "cluster": ("cluster",),
    "api": ("api",),
    "database": ("database",),
    "everything": ("api", "jobs", "chain", "cluster", "database"),
}
FAULTS: Final = {
    "none": {},
    "drop the transaction": {"dropped_transactions": 1},
    "drop the answer after executing": {"lost_answers": 1},
    "expire the blockhash": {"expired_blockhashes": True},
}


@dataclass(frozen=True)
class Point:
    """One strike, while a wallet or a meter is being registered."""

    of: str
    step: str
    moment: str
    victim: str
    fault: str


def choose(count: int, seed: int) -> list[Point]:
    """So many points, of both kinds, at different steps, with everybody dying in turn."""
    rng = random.Random(seed)
    places = [(step.name, moment) for step, moment in product(STEPS, (BEFORE, COMMIT))]
    chosen = []
    while len(chosen) < count:
        rng.shuffle(places)
        victims, faults = list(VICTIMS), list(FAULTS)
        rng.shuffle(victims)
        rng.shuffle(faults)
        for number, (step, moment) in enumerate(places):
            of = (METER, USER)[number % 2]
            chosen.append(Point(of, step, moment, victims[number % len(victims)], faults[number % len(faults)]))
    return chosen[:count]


def judge_newcomer(town: Town, person: Person, meter_id: str | None) -> None:
    """One account each, linked once, told of once; and the rent that the hub says it paid is what the accounts hold."""
    chain = read_chain(town)
    user = chain.users[person.public_key]
    meters = [each for each in chain.meters.values() if each.owner == person.public_key]
    expected = [] if meter_id is None else [meter_id]
    assert [each.meter_id for each in meters] == expected
    assert (user.meters, user.meters_ever) == (len(meters), len(meters))
    linked = town.rows(
        "SELECT kind, meter_id, state FROM chain_accounts WHERE wallet = %s ORDER BY kind", [person.public_key]
    )
    assert linked == [*((METER, each, "active") for each in expected), (USER, None, "active")]
    standings = town.get("/me/registrations", person.headers)["registrations"]
    ended = [(each["kind"], each["meter_id"], each["state"], each["rent_state"]) for each in standings]
    assert sorted(ended, key=str) == [
        *(("meter.register", each, "finalized", "paid") for each in expected),
        ("user.register", None, "finalized", "paid"),
    ]
    assert sum(int(each["rent_lamports"]) for each in standings) == _rent_held(town, person, meters)
    for each in standings:  # what the hub calls the transaction is the one that is there
        [status] = town.cluster.call("getSignatureStatuses", [each["signature"]], EVER)["value"]
        assert (status["err"], status["confirmationStatus"]) == (None, "finalized")


def _rent_held(town: Town, person: Person, meters: list[Any]) -> int:
    """The lamports in all accounts that exist because of this person."""
    found = town.cluster.call("getProgramAccounts", str(town.chain.program_id), {"encoding": "base64", **FINAL})
    mine = 0
    addresses = set()
    for each in found:
        data = base64.b64decode(each["account"]["data"][0])
        is_user = len(data) == USER_BYTES and data[40:72] == person.public_key
        is_meter = len(data) == METER_BYTES and data[72:104] == person.public_key
        if is_meter:
            addresses.add(base58.b58decode(each["pubkey"]))
        if is_user or is_meter:
            mine += int(each["account"]["lamports"])
    for each in found:
        data = base64.b64decode(each["account"]["data"][0])
        if len(data) == KEY_BYTES and data[:4] == KEY_TAG and data[72:104] in addresses:
            mine += int(each["account"]["lamports"])
    for grid_account in {meter.grid_account for meter in meters}:
        mine += int(town.cluster.call("getBalance", base58.b58encode(grid_account).decode(), FINAL)["value"])
    return mine
