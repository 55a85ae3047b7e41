"""What docs/program.md says the program does, as pure Python over the very instructions that the chain gets.

The model names every rule that a call breaks, not the first: in which order a program looks is its own affair, but it
must refuse exactly when a rule is broken, and with the number of a broken one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.signature import Signature

from tests.programs.energy import calls, layout
from tests.programs.energy.calls import INSTRUCTIONS_SYSVAR, SYSTEM, Place, places_of
from tests.programs.energy.layout import Account, Addresses, Config, Event, Meter, MeterKey, User, bump_of
from tests.programs.energy.model_rules import (
    FUTURE_MAX_S,
    STATEMENT_AGE_MAX_S,
    U64_MAX,
    Limits,
    seal_is_well_formed,
    sealed,
    statement_is_well_formed,
)
from tests.programs.energy.signing import ED25519, INTERVAL_S, THIS_INSTRUCTION, ZEROS, Seal, Statement
from tests.programs.energy.token_2022 import TOKEN_2022, token_account

PRECOMPILE = "ed25519 itself refuses"

OURS: dict[str, type[Account]] = {"config": Config, "user": User, "meter": Meter, "meter_key": MeterKey}
FIXED = {"ixs": INSTRUCTIONS_SYSVAR, "system": SYSTEM, "token_2022": TOKEN_2022}
MADE = {(calls.INITIALIZE, "config"), (calls.REGISTER_USER, "user"), (calls.REGISTER_METER, "meter"),
        (calls.REGISTER_METER, "meter_key"), (calls.ROTATE_METER_KEY, "meter_key")}  # fmt: skip
"""Accounts that an instruction makes, so that they may not be there yet."""
WHILE_PAUSED = {calls.INITIALIZE, calls.SET_METER_STATUS, calls.DEACTIVATE_METER, calls.PAUSE, calls.CONFIGURE}


@dataclass(frozen=True)
class Refused:
    """The instruction that was refused, and every rule that it broke."""

    index: int
    errors: frozenset[str]


@dataclass(frozen=True)
class Done:
    """What the transaction told."""

    events: tuple[bytes, ...]


@dataclass
class World:
    """Everything the program can see or change. `accounts` are its own; `balances` those of GRID in units."""

    program: Pubkey
    mint: Pubkey
    now: int
    accounts: dict[Pubkey, Account] = field(default_factory=dict)
    balances: dict[Pubkey, int] = field(default_factory=dict)
    supply_units: int = 0

    def execute(self, instructions: Sequence[Instruction], payer: Pubkey) -> Done | Refused:
        """All of the instructions or none. Who signs one of them signs the transaction, and so for the writable."""
        draft = replace(self, accounts=dict(self.accounts), balances=dict(self.balances))
        metas = [meta for each in instructions for meta in each.accounts]
        signers = {meta.pubkey for meta in metas if meta.is_signer} | {payer}
        written = {meta.pubkey for meta in metas if meta.is_writable} | {payer}
        events: list[bytes] = []
        for index, instruction in enumerate(instructions):
            if instruction.program_id == ED25519:
                if not _verifies(instructions, index):
                    return Refused(index, frozenset({PRECOMPILE}))
            elif instruction.program_id == self.program:
                attempt = Attempt(draft, instructions, index, signers, written)
                attempt.run()
                if attempt.broken:
                    return Refused(index, frozenset(attempt.broken))
                events += attempt.events
        self.accounts, self.balances, self.supply_units = draft.accounts, draft.balances, draft.supply_units
        return Done(tuple(events))


def _verifies(instructions: Sequence[Instruction], index: int) -> bool:
    data = bytes(instructions[index].data)
    for number in range(data[0]):
        fields = struct.unpack_from("<7H", data, 2 + 14 * number)

        def part(at: int, where: int, length: int) -> bytes:
            source = data if where == THIS_INSTRUCTION else bytes(instructions[where].data)
            return source[at : at + length]

        signature = Signature.from_bytes(part(fields[0], fields[1], 64))
        if not signature.verify(Pubkey(part(fields[2], fields[3], 32)), part(fields[4], fields[6], fields[5])):
            return False
    return True


class Attempt:
    """One call of the program."""

    def __init__(
        self, world: World, instructions: Sequence[Instruction], index: int, signers: set[Pubkey], written: set[Pubkey]
    ) -> None:
        self.world = world
        self.instructions = instructions
        self.index = index
        self.signers = signers
        self.written = written
        self.broken: set[str] = set()
        self.events: list[bytes] = []
        self.metas: dict[str, AccountMeta] = {}
        data = bytes(instructions[index].data)
        self.number, self.data = (data[0], data[1:]) if data else (-1, b"")
        self.addresses = Addresses(world.program)

    def run(self) -> None:
        handle = HANDLERS.get(self.number)
        if handle is None:
            self.broken.add("instruction_unknown")
            return
        places = places_of(self.number)
        if len(self.data) != calls.DATA_BYTES[self.number]:
            self.broken.add("instruction_malformed")
        accounts = self.instructions[self.index].accounts
        if len(accounts) < len(places):
            self.broken.add("accounts_missing")
        if self.broken:
            return
        self.metas = {place.name: meta for place, meta in zip(places, accounts, strict=False)}
        for place in places:
            self._check_place(place)
        config = self.config()
        if config and config.state == layout.PAUSED and self.number not in WHILE_PAUSED:
            self.broken.add("paused")
        handle(self)

    # -- accounts

    def key(self, name: str) -> Pubkey:
        return self.metas[name].pubkey

    def find(self, name: str, kind: type[Account]) -> Account | None:
        account = self.world.accounts.get(self.key(name))
        return account if isinstance(account, kind) else None

    def config(self) -> Config | None:
        account = self.find("config", Config)
        return account if isinstance(account, Config) else None

    def meter(self) -> Meter | None:
        account = self.find("meter", Meter)
        return account if isinstance(account, Meter) else None

    def user(self) -> User | None:
        account = self.find("user", User)
        return account if isinstance(account, User) else None

    def refuse_if(self, error: str, broken: bool) -> None:
        if broken:
            self.broken.add(error)

    def _check_place(self, place: Place) -> None:
        key = self.key(place.name)
        self.refuse_if("signer_missing", place.signs and key not in self.signers)
        self.refuse_if("account_not_writable", place.written and key not in self.written)
        if place.name in FIXED:
            self.refuse_if("program_differs", key != FIXED[place.name])
        if place.name in OURS and (self.number, place.name) not in MADE:
            account = self.world.accounts.get(key)
            self.refuse_if("account_not_ours", account is None)
            self.refuse_if("account_type", account is not None and not isinstance(account, OURS[place.name]))

    def _signed_by_hub(self) -> None:
        config = self.config()
        self.refuse_if("not_the_hub", config is not None and bytes(self.key("hub")) != config.hub)

    def _made(self, name: str, address: Pubkey) -> None:
        self.refuse_if("account_address", self.key(name) != address)
        self.refuse_if("already_exists", self.key(name) in self.world.accounts)

    def _put(self, name: str, account: Account, business_id: bytes = bytes(16), amount_units: int = 0) -> None:
        if self.broken:
            return
        self.world.accounts[self.key(name)] = account
        if not isinstance(account, MeterKey):
            self.events.append(Event(self.number, business_id, amount_units, account.encode()).encode())

    # -- signatures

    def _signed(self, back: int = 1, missing: str = "signature_missing") -> tuple[bytes, bytes] | None:
        """Key and message of the Ed25519 instruction so many places before."""
        where = self.index - back
        if where < 0 or self.instructions[where].program_id != ED25519:
            self.broken.add(missing)
            return None
        data = bytes(self.instructions[where].data)
        if data[0] != 1:
            self.broken.add("signature_malformed")
            return None
        fields = struct.unpack_from("<7H", data, 2)
        if {fields[1], fields[3], fields[6]} != {THIS_INSTRUCTION}:
            self.broken.add("signature_malformed")
            return None
        return data[fields[2] : fields[2] + 32], data[fields[4] : fields[4] + fields[5]]

    def _seal(self) -> Seal | None:
        config, meter = self.config(), self.meter()
        signed = self._signed()
        if signed is None:
            return None
        key, message = signed
        self.refuse_if("key_differs", meter is not None and key != meter.key)
        if len(message) != 124:
            self.broken.add("seal_malformed")
            return None
        seal = Seal.decode(message)
        self.refuse_if("seal_malformed", not seal_is_well_formed(seal))
        self.refuse_if("domain_differs", config is not None and seal.domain != config.domain)
        return seal

    def _statement(self, back: int) -> Statement | None:
        config = self.config()
        signed = self._signed(back)
        if signed is None:
            return None
        key, message = signed
        if len(message) != 180:
            self.broken.add("statement_malformed")
            return None
        statement = Statement.decode(message)
        self.refuse_if("key_differs", key != statement.public_key)
        self.refuse_if("statement_malformed", not statement_is_well_formed(statement))
        self.refuse_if("domain_differs", config is not None and statement.domain != config.domain)
        return statement

    # -- instructions

    def initialize(self) -> None:
        # The machine begins after it: what is refused here is in test_initialize.py.
        self.broken.add("already_exists")

    def register_user(self) -> None:
        wallet, kind = self.key("wallet"), self.data[0]
        self._signed_by_hub()
        self.refuse_if("kind_unknown", kind not in (layout.PROSUMER, layout.CONSUMER))
        self._made("user", self.addresses.user(wallet))
        bump = bump_of(self.world.program, b"user", bytes(wallet))
        self._put("user", User(bump, layout.ACTIVE, kind, bytes(self.key("user")), bytes(wallet), self.world.now, 0, 0))

    def register_meter(self) -> None:
        capacity_w, register_step_wh = struct.unpack("<QI", self.data)
        config, user, owner = self.config(), self.user(), self.key("owner")
        self._signed_by_hub()
        self.refuse_if("wallet_differs", user is not None and user.wallet != bytes(owner))
        self.refuse_if("user_not_active", user is not None and user.state != layout.ACTIVE)
        if config:
            self.refuse_if("capacity_out_of_range", not 0 < capacity_w <= config.capacity_w_max)
            self.refuse_if("register_step_out_of_range", not 0 < register_step_wh <= config.register_step_wh_max)
        grid_account = token_account(owner, self.world.mint)
        self.refuse_if("grid_account_differs", self.key("grid_account") != grid_account)
        statement = self._statement(1)
        if statement is None or config is None or user is None:
            return
        self.refuse_if("not_the_owner", statement.owner != bytes(owner))
        self.refuse_if("epoch_differs", statement.key_epoch != 1)
        self.refuse_if("statement_malformed", statement.last_seal_hash != ZEROS)
        self.refuse_if("statement_too_old", statement.valid_from_unix_s < self.world.now - STATEMENT_AGE_MAX_S)
        self._made("meter", self.addresses.meter(statement.meter_id))
        self._made("meter_key", self.addresses.meter_key(statement.public_key))
        meter = Meter(
            bump_of(self.world.program, b"meter", statement.meter_id), layout.ACTIVE, statement.kind,
            bytes(self.key("meter")), statement.meter_id, bytes(owner), statement.public_key, bytes(grid_account),
            1, statement.measurement, statement.flags, capacity_w, register_step_wh, 0,
            statement.valid_from_unix_s // INTERVAL_S * INTERVAL_S, statement.production_wh, statement.consumption_wh,
            statement.surplus_wh, statement.surplus_wh, 0, 0, statement.production_wh, statement.surplus_wh,
            self.world.now, 0, 0,
        )  # fmt: skip
        self._put("meter", meter)
        self._put("meter_key", self._meter_key(statement))
        self._put("user", replace(user, meters=user.meters + 1, meters_ever=user.meters_ever + 1))

    def _meter_key(self, statement: Statement) -> MeterKey:
        return MeterKey(
            bump_of(self.world.program, b"key", statement.public_key), layout.ACTIVE, 0, bytes(self.key("meter_key")),
            statement.public_key, bytes(self.key("meter")), statement.key_epoch, self.world.now,
        )  # fmt: skip

    def rotate_meter_key(self) -> None:
        meter = self.meter()
        self._signed_by_hub()
        self.refuse_if("meter_deactivated", meter is not None and meter.state == layout.DEACTIVATED)
        statement = self._statement(2)
        endorsement = self._signed(1, "endorsement_missing")
        if statement is None or endorsement is None or meter is None:
            return
        key, message = endorsement
        self.refuse_if("message_differs", message != statement.encode())
        self.refuse_if("endorsement_missing", key not in (meter.key, meter.owner))
        self.refuse_if("account_address", self.key("meter") != self.addresses.meter(statement.meter_id))
        self.refuse_if("not_the_owner", statement.owner != meter.owner)
        same = (statement.kind, statement.measurement) == (meter.kind, meter.measurement)
        self.refuse_if("kind_unknown", not same)
        self.refuse_if("epoch_differs", statement.key_epoch != meter.key_epoch + 1)
        closed_until_unix_s = statement.valid_from_unix_s // INTERVAL_S * INTERVAL_S
        self.refuse_if(
            "counters_beyond",
            statement.production_wh > meter.production_wh
            or statement.consumption_wh > meter.consumption_wh
            or statement.surplus_wh > meter.surplus_wh
            or closed_until_unix_s > meter.closed_until_unix_s,
        )
        self._made("meter_key", self.addresses.meter_key(statement.public_key))
        turned = replace(
            meter, key=statement.public_key, key_epoch=statement.key_epoch, flags=statement.flags, sequence=0,
            closed_until_unix_s=closed_until_unix_s,
            production_wh=statement.production_wh, consumption_wh=statement.consumption_wh,
            surplus_wh=statement.surplus_wh,
            high_production_wh=max(meter.high_production_wh, meter.production_wh - meter.written_off_production_wh),
            high_until_unix_s=max(meter.high_until_unix_s, meter.closed_until_unix_s),
        )  # fmt: skip
        self._put("meter", turned)
        self._put("meter_key", self._meter_key(statement))

    def submit_reading(self) -> None:
        meter, seal = self.meter(), self._seal()
        self._signed_by_hub()
        if meter is None:
            return
        self.refuse_if("meter_not_active", meter.state != layout.ACTIVE)
        if seal is None:
            return
        self._later(meter, seal)
        self.broken |= Limits(meter, seal).broken() if not self.broken & {"interval_not_later"} else set()
        self._put("meter", sealed(meter, seal), self.data)

    def _later(self, meter: Meter, seal: Seal) -> None:
        self.refuse_if("sequence_not_later", seal.sequence <= meter.sequence)
        self.refuse_if("interval_not_later", seal.closed_until_unix_s <= meter.closed_until_unix_s)
        self.refuse_if("from_the_future", seal.closed_until_unix_s > self.world.now + FUTURE_MAX_S)

    def settle(self) -> None:
        config, meter = self.config(), self.meter()
        self._signed_by_hub()
        self.refuse_if("mint_differs", config is not None and bytes(self.key("grid_mint")) != config.grid_mint)
        if meter is None:
            return
        self.refuse_if("grid_account_differs", bytes(self.key("grid_account")) != meter.grid_account)
        owed_wh = max(0, meter.surplus_wh - meter.written_off_surplus_wh - meter.settled_wh)
        if meter.kind not in (layout.SOLAR, layout.WIND):
            owed_wh = 0
        amount_units = owed_wh * layout.UNITS_PER_WH
        self.refuse_if("overflow", amount_units > U64_MAX)
        if self.broken:
            return
        self._put("meter", replace(meter, settled_wh=meter.settled_wh + owed_wh), self.data, amount_units)
        account = self.key("grid_account")
        self.world.balances[account] = self.world.balances.get(account, 0) + amount_units
        self.world.supply_units += amount_units

    def write_off(self) -> None:
        business_id, production_wh, surplus_wh = struct.unpack("<16sQQ", self.data)
        meter, seal = self.meter(), self._seal()
        self._signed_by_hub()
        if meter is None or seal is None:
            return
        limits = Limits(meter, seal)
        if seal.sequence == meter.sequence and seal.sequence:
            same = (limits.produced_wh, limits.consumed_wh, limits.surplus_wh) == (0, 0, 0)
            self.refuse_if("counters_differ", not same or seal.closed_until_unix_s != meter.closed_until_unix_s)
        else:
            self._later(meter, seal)
        more_production_wh = production_wh - meter.written_off_production_wh
        more_surplus_wh = surplus_wh - meter.written_off_surplus_wh
        self.refuse_if("write_off_decreased", min(more_production_wh, more_surplus_wh) < 0)
        self.refuse_if("write_off_over_counter", production_wh > seal.production_wh or surplus_wh > seal.surplus_wh)
        gain_wh = limits.surplus_wh - more_surplus_wh
        if (gain_wh > 0 or limits.produced_wh - more_production_wh > 0) and "interval_not_later" not in self.broken:
            self.refuse_if("meter_not_active", meter.state != layout.ACTIVE)
            self.broken |= limits.broken()
            self.refuse_if("write_off_gives", gain_wh > limits.net_wh)
        written = replace(
            sealed(meter, seal), written_off_production_wh=production_wh, written_off_surplus_wh=surplus_wh
        )
        self._put("meter", written, business_id)

    def set_meter_status(self) -> None:
        meter, state = self.meter(), self.data[0]
        self._signed_by_hub()
        self.refuse_if("state_unknown", state not in (layout.ACTIVE, layout.SUSPENDED))
        if meter is None:
            return
        self.refuse_if("meter_deactivated", meter.state == layout.DEACTIVATED)
        self.refuse_if("state_unchanged", meter.state == state)
        self._put("meter", replace(meter, state=state))

    def deactivate_meter(self) -> None:
        config, meter, user = self.config(), self.meter(), self.user()
        authority = bytes(self.key("authority"))
        if meter is None or config is None:
            return
        self.refuse_if("not_the_owner", authority not in (config.hub, meter.owner))
        self.refuse_if("meter_deactivated", meter.state == layout.DEACTIVATED)
        if user is None:
            return
        self.refuse_if("wallet_differs", user.wallet != meter.owner)
        self._put("meter", replace(meter, state=layout.DEACTIVATED))
        self._put("user", replace(user, meters=user.meters - 1))

    def pause(self) -> None:
        config, paused = self.config(), self.data[0]
        authority = bytes(self.key("authority"))
        self.refuse_if("state_unknown", paused not in (0, 1))
        if config is None:
            return
        self.refuse_if("not_the_admin", authority not in ((config.hub, config.admin) if paused else (config.admin,)))
        state = layout.PAUSED if paused else layout.RUNNING
        self.refuse_if("state_unchanged", config.state == state)
        self._put("config", replace(config, state=state))

    def configure(self) -> None:
        config = self.config()
        admin, hub, issuer, validator, capacity_w_max, register_step_wh_max = struct.unpack(
            "<32s32s32s32sQI", self.data
        )
        self.refuse_if("not_the_admin", config is not None and bytes(self.key("admin")) != config.admin)
        self.refuse_if("validator_is_issuer", issuer == validator)
        self.refuse_if("not_the_admin", bytes(self.key("new_admin")) != admin)
        if config is None:
            return
        changed = replace(
            config, admin=admin, hub=hub, issuer=issuer, validator=validator, capacity_w_max=capacity_w_max,
            register_step_wh_max=register_step_wh_max,
        )  # fmt: skip
        self._put("config", changed)


HANDLERS: Mapping[int, Callable[[Attempt], None]] = {
    calls.INITIALIZE: Attempt.initialize,
    calls.REGISTER_USER: Attempt.register_user,
    calls.REGISTER_METER: Attempt.register_meter,
    calls.ROTATE_METER_KEY: Attempt.rotate_meter_key,
    calls.SUBMIT_READING: Attempt.submit_reading,
    calls.SETTLE: Attempt.settle,
    calls.WRITE_OFF: Attempt.write_off,
    calls.SET_METER_STATUS: Attempt.set_meter_status,
    calls.DEACTIVATE_METER: Attempt.deactivate_meter,
    calls.PAUSE: Attempt.pause,
    calls.CONFIGURE: Attempt.configure,
}
