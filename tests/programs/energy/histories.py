"""A state machine that sends the same random transactions to the program and to its model."""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from tests.programs.energy import layout
from tests.programs.energy.calls import SYSTEM, Call
from tests.programs.energy.community import (
    CAPACITY_W,
    CAPACITY_W_MAX,
    REGISTER_STEP_WH,
    REGISTER_STEP_WH_MAX,
    Community,
    Device,
)
from tests.programs.energy.error_numbers import NAMES
from tests.programs.energy.layout import Config, Meter, MeterKey, User, decode_account
from tests.programs.energy.ledger import KEYPAIRS, PAYER, Saved
from tests.programs.energy.liars import (
    ADMINS,
    EVERYBODY,
    HUBS,
    METER_IDS,
    METER_KEYS,
    OWNERS,
    STRANGER,
    Fault,
    Quarter,
    Turn,
    faults,
    few,
    lies,
    now_and_then,
    quarters,
    signature,
    spoiled,
    turns,
    which,
)
from tests.programs.energy.model import PRECOMPILE, Done, World
from tests.programs.energy.signing import INTERVAL_S, ZEROS, Seal, Signed, Statement, ed25519, sign


def world_of(community: Community) -> World:
    """The model of a community whose supply is still nothing."""
    accounts = {key: decode_account(data) for key, data in community.ledger.ours().items()}
    return World(community.program, community.mint, community.ledger.time(), accounts)


class Histories(RuleBasedStateMachine):
    """Program and model side by side."""

    start: tuple[Community, Saved]
    done: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.community, saved = self.start
        self.community.ledger.restore(saved)
        self.world = world_of(self.community)
        self.presented: list[tuple[str, Signed]] = []
        self.signed_surplus_wh: dict[bytes, set[int]] = defaultdict(set)
        self.owed_wh: dict[bytes, int] = defaultdict(int)
        for each in self.meters():
            self.signed_surplus_wh[each.key].add(each.surplus_wh)

    # -- who there is

    def config(self) -> Config:
        config = self.world.accounts[self.community.config]
        assert isinstance(config, Config)
        return config

    def hub(self) -> Keypair:
        return KEYPAIRS[Pubkey(self.config().hub)]

    def admin(self) -> Keypair:
        return KEYPAIRS[Pubkey(self.config().admin)]

    def meters(self) -> list[Meter]:
        return [each for each in self.world.accounts.values() if isinstance(each, Meter)]

    def users(self) -> list[User]:
        return [each for each in self.world.accounts.values() if isinstance(each, User)]

    def chosen(self, number: int) -> tuple[Meter, Device]:
        meters = self.meters()
        meter = meters[number % len(meters)]
        owner, key = KEYPAIRS[Pubkey(meter.owner)], KEYPAIRS[Pubkey(meter.key)]
        return meter, Device(meter.meter_id.rstrip(b"\0").decode(), owner, key, meter.kind)

    def key_for(self, number: int, used: str) -> Keypair:
        """A meter's key: a new one, unless a thief or a muddle brings one that is known already."""
        known = {each.key for each in self.world.accounts.values() if isinstance(each, MeterKey)}
        keys = [each for each in METER_KEYS if (bytes(each.pubkey()) in known) == bool(used)]
        return keys[number % len(keys)] if keys else METER_KEYS[0]

    def acting(self) -> Community:
        """The community whose hub is the present one."""
        self.community.keys = replace(self.community.keys, hub=self.hub())
        return self.community

    # -- what is sent

    def spoiled(self, honest: Call, fault: Fault) -> Call:
        candidates = [*self.world.accounts, *EVERYBODY, self.community.mint, SYSTEM, *self.world.balances]
        return spoiled(honest, fault, candidates)

    def signs(self, key: Keypair, message: bytes, surplus_wh: int) -> Signed:
        """A key signs; what it says of its surplus is remembered, for nothing else may be minted."""
        self.signed_surplus_wh[bytes(key.pubkey())].add(surplus_wh)
        return sign(key, message)

    def send(self, name: str, acts: Sequence[Instruction | Call]) -> bool:
        """To both. They agree, on the error too, and afterwards on every byte."""
        instructions = [each.instruction() if isinstance(each, Call) else each for each in acts]
        outcome = self.community.ledger.send(instructions)
        said = self.world.execute(instructions, PAYER.pubkey())
        self.done["steps"] += 1
        if isinstance(said, Done):
            assert outcome.accepted, (name, outcome.error, outcome.logs)
            assert outcome.events == list(said.events)
            self.done[name] += 1
            return True
        error = NAMES.get(outcome.custom or 0, PRECOMPILE)
        assert not outcome.accepted, (name, said)
        assert error in said.errors, (name, said, outcome.error, outcome.logs)
        assert outcome.index == said.index, (said, outcome.error)
        self.done["refused"] += 1
        self.done["refused for one reason"] += len(said.errors) == 1
        self.done[f"refused: {error}"] += 1
        return False

    # -- members and meters

    @rule(owner=which, kind=now_and_then([0, 3], 1), fault=faults)
    def a_user_registers(self, owner: int, kind: int, fault: Fault) -> None:
        known = {each.wallet for each in self.users()}
        wallets = [each for each in OWNERS if bytes(each.pubkey()) not in known] or OWNERS
        honest = self.acting().register_user(wallets[owner % len(wallets)], kind)
        self.send("registered a user", [self.spoiled(honest, fault)])

    @rule(
        meter_id=which, owner=which, key=which, kind=st.integers(layout.SOLAR, layout.GRID_METER),
        capacity_w=now_and_then([0, CAPACITY_W_MAX, CAPACITY_W_MAX + 1, 2**63], CAPACITY_W),
        step_wh=now_and_then([0, REGISTER_STEP_WH_MAX, REGISTER_STEP_WH_MAX + 1], REGISTER_STEP_WH),
        odd=now_and_then(["owner", "epoch", "known id", "known key", "nobody's"]), fault=faults, lie=lies,
    )  # fmt: skip
    def a_meter_registers(
        self, meter_id: int, owner: int, key: int, kind: int, capacity_w: int, step_wh: int, odd: str, fault: Fault,
        lie: str,
    ) -> None:  # fmt: skip
        users = [KEYPAIRS[Pubkey(each.wallet)] for each in self.users()]
        pays = OWNERS[owner % len(OWNERS)] if odd == "nobody's" else users[owner % len(users)]
        free = [each for each in METER_IDS if self.community.addresses.meter(each) not in self.world.accounts]
        ids = METER_IDS if odd == "known id" or not free else free
        device = Device(ids[meter_id % len(ids)], pays, self.key_for(key, odd * (odd == "known key")), kind)
        acting = self.acting()
        stated = STRANGER if odd == "owner" else pays
        statement = acting.statement(replace(device, owner=stated), key_epoch=1 + (odd == "epoch"))
        signed = self.signs(device.key, statement.encode(), statement.surplus_wh)
        call = self.spoiled(acting.register_meter(device, capacity_w, step_wh), fault)
        self.send("registered a meter", [*signature(signed, lie), call])

    def next_statement(self, meter: Meter, device: Device, key: Keypair, turn: Turn) -> Statement:
        surplus_wh = max(0, meter.surplus_wh - 100 * turn.back[2])
        production_wh = max(surplus_wh, meter.production_wh - 100 * turn.back[0])
        consumption_wh = max(0, meter.consumption_wh - 100 * turn.back[1])
        start_unix_s = meter.closed_until_unix_s - turn.intervals_back * INTERVAL_S + turn.back[0]
        return self.acting().rotation(
            device, key, key_epoch=meter.key_epoch + turn.epochs, surplus_wh=surplus_wh,
            production_wh=production_wh + (turn.ahead == "production") * 10_000,
            consumption_wh=consumption_wh + (turn.ahead == "consumption") * 10_000,
            valid_from_unix_s=start_unix_s + (turn.ahead == "time") * 100 * INTERVAL_S,
            kind=meter.kind % 4 + 1 if turn.other == "kind" else meter.kind,
            measurement=2 if turn.other == "measurement" else 1,
            owner=bytes(STRANGER.pubkey()) if turn.other == "owner" else meter.owner,
            meter_id=b"elsewhere".ljust(32, b"\0") if turn.other == "meter" else meter.meter_id,
        )  # fmt: skip

    @rule(number=which, key=which, used=now_and_then(["used"]), turn=turns, fault=faults, lie=lies)
    def a_key_is_rotated(self, number: int, key: int, used: str, turn: Turn, fault: Fault, lie: str) -> None:
        meter, device = self.chosen(number)
        new = self.key_for(key, used)
        statement = self.next_statement(meter, device, new, turn)
        message = statement.encode()
        endorser = {"old": device.key, "owner": device.owner, "stranger": STRANGER, "new": new}[turn.endorser]
        endorsed = replace(statement, flags=1).encode() if turn.endorsed == "other words" else message
        pair = [signature(self.signs(new, message, statement.surplus_wh), lie), [ed25519(sign(endorser, endorsed))]]
        if turn.endorsed == "first":
            pair.reverse()
        call = self.spoiled(self.acting().rotate(device, new), fault)
        self.send("rotated a key", [*pair[0], *pair[1], call])

    # -- energy

    def next_seal(self, meter: Meter, quarter: Quarter) -> Seal:
        twist = quarter.twist
        produced_wh = quarter.produced_wh + (twist == "over capacity") * (CAPACITY_W + 1)
        net_wh = max(0, produced_wh - quarter.consumed_wh)
        surplus_wh = produced_wh if quarter.all_is_surplus else net_wh
        surplus_wh = {"too little": net_wh - 1, "too much": produced_wh + 1}.get(twist, surplus_wh)
        intervals = {"same interval": 0, "future": 2_000}.get(twist, quarter.intervals)
        sequence = meter.sequence + (0 if twist == "same sequence" else quarter.sequences)
        until_unix_s = meter.closed_until_unix_s + intervals * INTERVAL_S + (twist == "odd time") * 450
        is_first = (sequence == 1) != (twist == "predecessor")
        return Seal(
            b"CWS1", self.config().domain, sequence, until_unix_s - (twist == "sealed before"), until_unix_s,
            max(0, meter.production_wh + produced_wh - 6_000 * (twist == "production falls")),
            max(0, meter.consumption_wh + quarter.consumed_wh - 4_000 * (twist == "consumption falls")),
            max(0, meter.surplus_wh + surplus_wh), ZEROS if is_first else b"\x08" * 32, b"\x09" * 32,
        )  # fmt: skip

    def present(self, device: Device, seal: Seal) -> Signed:
        signed = self.signs(device.key, seal.encode(), seal.surplus_wh)
        self.presented.append((device.meter_id, signed))
        return signed

    @rule(number=which, quarter=quarters, also_settles=st.booleans(), fault=faults, lie=lies)
    def a_seal_is_submitted(self, number: int, quarter: Quarter, also_settles: bool, fault: Fault, lie: str) -> None:
        meter, device = self.chosen(number)
        signed = self.present(device, self.next_seal(meter, quarter))
        acting = self.acting()
        acts: list[Instruction | Call] = [*signature(signed, lie), self.spoiled(acting.submit(device), fault)]
        if also_settles:
            acts.append(acting.settle(device))
        self.send("submitted and settled" if also_settles else "submitted", acts)

    @rule(number=which, some=st.lists(quarters, min_size=1, max_size=4))
    def some_quarters_pass(self, number: int, some: list[Quarter]) -> None:
        """The hub does as it should; that the meter may be suspended or lie changes nothing in that."""
        for quarter in some:
            meter, device = self.chosen(number)
            self.set_time(max(self.world.now, meter.closed_until_unix_s + quarter.intervals * INTERVAL_S))
            signed = self.present(device, self.next_seal(meter, quarter))
            acting = self.acting()
            self.send("submitted and settled", [ed25519(signed), acting.submit(device), acting.settle(device)])

    @precondition(lambda self: self.presented)
    @rule(seal=which, number=which, own=st.booleans(), as_write_off=st.booleans())
    def an_old_seal_is_presented_again(self, seal: int, number: int, own: bool, as_write_off: bool) -> None:
        meter_id, signed = self.presented[seal % len(self.presented)]
        own_number = [each.meter_id.rstrip(b"\0").decode() for each in self.meters()].index(meter_id)
        meter, device = self.chosen(own_number if own else number)
        written_off_wh = meter.written_off_production_wh, meter.written_off_surplus_wh
        acting = self.acting()
        act = acting.write_off(device, *written_off_wh) if as_write_off else acting.submit(device)
        self.send("presented an old seal", [ed25519(signed), act])

    @rule(
        number=which, quarter=quarters, more_wh=st.tuples(*[st.sampled_from([0, 0, 10, 900, 3_000])] * 2),
        less=now_and_then([(1, 0), (0, 1)], (0, 0)), last_again=st.sampled_from(["", "", "same", "other"]),
        fault=faults, lie=lies,
    )  # fmt: skip
    def a_seal_is_written_off(
        self, number: int, quarter: Quarter, more_wh: tuple[int, int], less: tuple[int, int], last_again: str,
        fault: Fault, lie: str,
    ) -> None:  # fmt: skip
        meter, device = self.chosen(number)
        seal = self.next_seal(meter, quarter)
        if last_again:
            seal = self.next_seal(meter, Quarter(0, 0, False, 0, 0, ""))
            seal = replace(seal, consumption_wh=seal.consumption_wh + (last_again == "other"))
        production_wh = max(0, meter.written_off_production_wh + more_wh[0] - 4_000 * less[0])
        surplus_wh = max(0, meter.written_off_surplus_wh + more_wh[1] - 4_000 * less[1])
        call = self.spoiled(self.acting().write_off(device, production_wh, surplus_wh), fault)
        self.send("wrote off", [*signature(self.present(device, seal), lie), call])

    @rule(number=which, fault=faults, twice=st.booleans())
    def a_meter_is_settled(self, number: int, fault: Fault, twice: bool) -> None:
        _, device = self.chosen(number)
        acting = self.acting()
        call = self.spoiled(acting.settle(device), fault)
        self.send("settled", [call, acting.settle(device)] if twice else [call])

    # -- the hub, the admin and the clock

    @rule(number=which, state=st.sampled_from([1, 2, 1, 2, 3]), fault=faults)
    def a_status_changes(self, number: int, state: int, fault: Fault) -> None:
        _, device = self.chosen(number)
        self.send("set a status", [self.spoiled(self.acting().set_status(device, state), fault)])

    @precondition(lambda self: len(self.meters()) > 2)
    @rule(number=which, by=st.sampled_from(["hub", "owner", "stranger", "stranger"]), fault=faults)
    def a_meter_is_deactivated(self, number: int, by: str, fault: Fault) -> None:
        _, device = self.chosen(number)
        authority = {"owner": device.owner, "stranger": STRANGER, "hub": self.hub()}[by]
        self.send("deactivated", [self.spoiled(self.acting().deactivate(device, authority), fault)])

    @rule(paused=st.sampled_from([1, 1, 0, 2]), by=st.sampled_from(["hub", "admin", "stranger"]), fault=faults)
    def it_is_paused_and_goes_on(self, paused: int, by: str, fault: Fault) -> None:
        """Not paused for long, because nearly everything is refused meanwhile."""
        authority = {"hub": self.hub(), "admin": self.admin(), "stranger": STRANGER}[by]
        if self.send("paused", [self.spoiled(self.acting().pause(paused, authority), fault)]) and paused:
            self.send("settled", [self.acting().settle(self.chosen(0)[1])])
            self.send("resumed", [self.acting().pause(0, self.hub())])
            self.send("resumed", [self.acting().pause(0, self.admin())])

    @rule(
        hub=few, admin=few, by=st.sampled_from(["admin", "admin", "admin", "hub"]), same=now_and_then(["same"]),
        capacity_w_max=st.sampled_from([CAPACITY_W_MAX, 2**64 - 1]), fault=faults,
    )  # fmt: skip
    def it_is_configured(self, hub: int, admin: int, by: str, same: str, capacity_w_max: int, fault: Fault) -> None:
        acting = self.acting()
        call = acting.configure(
            {"admin": self.admin(), "hub": self.hub()}[by], ADMINS[admin % 2], HUBS[hub % 2].pubkey(),
            capacity_w_max=capacity_w_max, validator=acting.keys.issuer.pubkey() if same else None,
        )  # fmt: skip
        self.send("configured", [self.spoiled(call, fault)])

    @rule(ahead_s=st.sampled_from([60, 900, 9_000, 86_400]))
    def time_passes(self, ahead_s: int) -> None:
        self.set_time(self.world.now + ahead_s)

    @rule(number=which, over_s=st.integers(0, 1))
    def the_next_seal_is_barely_early(self, number: int, over_s: int) -> None:
        """The clock may even jump back for it: to 300 or 301 seconds before."""
        meter, _ = self.chosen(number)
        self.set_time(meter.closed_until_unix_s + INTERVAL_S - 300 - over_s)

    def set_time(self, unix_s: int) -> None:
        self.world.now = unix_s
        self.community.ledger.set_time(unix_s)

    # -- what holds after each step

    @invariant()
    def chain_and_model_are_the_same(self) -> None:
        assert self.community.ledger.ours() == {key: each.encode() for key, each in self.world.accounts.items()}
        assert self.community.supply_units() == self.world.supply_units
        for owner in OWNERS:
            account = self.community.grid_account(owner)
            assert self.community.balance_units(owner) == self.world.balances.get(account, 0)

    @invariant()
    def each_grid_was_settled_for_a_meter(self) -> None:
        """Read from the chain's bytes, not from the model."""
        minted_wh = sum(
            int(struct.unpack_from("<Q", data, 232)[0] - struct.unpack_from("<Q", data, 264)[0])
            for data in self.community.ledger.ours().values()
            if data[:4] == b"CWME"
        )
        assert self.community.supply_units() == minted_wh * layout.UNITS_PER_WH

    @invariant()
    def no_meter_is_paid_more_than_it_signed_less_what_was_written_off(self) -> None:
        """At the time: what is written off or taken back later was owed then."""
        for each in self.meters():
            owed_wh = max(
                self.owed_wh[each.address], each.base_surplus_wh, each.surplus_wh - each.written_off_surplus_wh
            )
            self.owed_wh[each.address] = owed_wh
            assert each.settled_wh <= owed_wh

    @invariant()
    def each_counter_was_signed_by_the_meters_key(self) -> None:
        for each in self.meters():
            assert each.surplus_wh in self.signed_surplus_wh[each.key]

    @invariant()
    def a_key_is_one_meters(self) -> None:
        current = [each.key for each in self.meters()]
        assert len(set(current)) == len(current)
        held = {each.key: each for each in self.world.accounts.values() if isinstance(each, MeterKey)}
        assert all(held[each.key].meter == each.address for each in self.meters())

    @invariant()
    def users_count_their_meters(self) -> None:
        for user in self.users():
            own = [each for each in self.meters() if each.owner == user.wallet]
            assert user.meters_ever == len(own)
            assert user.meters == len([each for each in own if each.state != layout.DEACTIVATED])
