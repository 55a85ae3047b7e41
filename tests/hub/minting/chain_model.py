"""The program as its page describes it, for one test's meters: takes the hub's planned transactions, or refuses them.

Written from `docs/program.md` alone, and in another way than the hub's rules: it reads the bytes of the instructions.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from solders.instruction import Instruction
from solders.pubkey import Pubkey
from sqlalchemy import Connection, Engine

from hub import signatures
from hub.chain import mirrors
from hub.chain.accounts import ConfigAccount, ConfigState, MeterAccount, MeterState
from hub.chain.addresses import ED25519_PROGRAM, Addresses
from hub.chain.intent import IntentState
from hub.chain.intents import end_intent, get_intent
from hub.db import transaction
from hub.minting import store
from hub.minting.reactions import REACTIONS
from hub.registry import keys_service
from hub.registry import service as registry
from protocol.enrolment import decode_enrolment
from protocol.seal import decode_seal
from protocol.settlement import first_closed_until

PROGRAM = Pubkey.from_bytes(b"the energy program of this test!")
AT = Addresses(PROGRAM)
HUB_KEY = hashlib.sha256(b"the hub").digest()
MINT = Pubkey.from_bytes(hashlib.sha256(b"GRID").digest())
UNITS_PER_WH = 1_000_000


class Refused(Exception):
    """What the program says, by name."""


@dataclass
class ModelChain:
    """Accounts, balances in units by token account, and how many transactions happened."""

    engine: Engine
    domain: bytes
    meters: dict[Pubkey, MeterAccount] = field(default_factory=dict)
    balances: dict[bytes, int] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    """Meters that the program refuses whatever is presented, and with what."""
    slot: int = 100
    transactions: int = 0
    sizes: list[int] = field(default_factory=list)

    def start(self, now: datetime) -> None:
        """The program is initialized."""
        config = ConfigAccount(
            AT.config(), ConfigState.RUNNING, 9, self.domain, bytes(32), HUB_KEY, bytes(32), bytes(32), bytes(MINT),
            10_000_000, 1_000,
        )  # fmt: skip
        with transaction(self.engine) as connection:
            mirrors.show(connection, config, self.slot, 0, now)

    def register(self, meter_id: str, now: datetime, capacity_w: int = 10_000, step_wh: int = 10) -> None:
        """As register_meter does, from the statement of the meter's first key."""
        with transaction(self.engine) as connection:
            meter = registry.get_meter(connection, meter_id)
            key = keys_service.list_keys(connection, meter.meter_no)[0]
            told = key.decoded
            account = MeterAccount(
                AT.meter(meter_id), MeterState.ACTIVE, told.kind, meter_id, told.owner, told.public_key,
                bytes(AT.grid_account(told.owner, MINT)), 1, told.measurement, told.flags, capacity_w, step_wh, 0,
                first_closed_until(told.valid_from_unix_s), told.production_wh, told.consumption_wh, told.surplus_wh,
                told.surplus_wh, 0, 0, told.production_wh, told.surplus_wh, int(now.timestamp()), 0, 0,
            )  # fmt: skip
            self.meters[account.address] = account
            self.slot += 1
            mirrors.show(connection, account, self.slot, 0, now)

    def meter(self, meter_id: str) -> MeterAccount:
        return self.meters[AT.meter(meter_id)]

    def minted_wh(self) -> int:
        units = sum(self.balances.values())
        assert units % UNITS_PER_WH == 0
        return units // UNITS_PER_WH

    def work(self, now: datetime, *, mirrored: bool = True) -> int:
        """Execute every planned mint, each as one transaction, and tell the hub; returns how many."""
        with transaction(self.engine) as connection:
            wanted = connection.exec_driver_sql("SELECT DISTINCT intent_id FROM mints WHERE state = 'open'").scalars()
            intent_ids = list(wanted)
        for intent_id in intent_ids:
            with transaction(self.engine) as connection:
                self._execute(connection, intent_id, now, mirrored)
        return len(intent_ids)

    def tell(self, now: datetime) -> None:
        """Bring every mirror up to date."""
        with transaction(self.engine) as connection:
            for account in self.meters.values():
                mirrors.show(connection, account, self.slot, 0, now)

    def _execute(self, connection: Connection, intent_id: UUID, now: datetime, mirrored: bool) -> None:
        intent = get_intent(connection, intent_id)
        self.slot += 1
        self.sizes.append(len(store.list_of_intent(connection, intent_id)))
        before = (dict(self.meters), dict(self.balances))
        try:
            changed = self._apply(intent.instructions, intent_id, int(now.timestamp()))
        except Refused as refusal:
            self.meters, self.balances = before
            self.refusals.append(str(refusal))
            end_intent(
                connection, intent, None, IntentState.FAILED, REACTIONS, now, error_code=str(refusal), error="refused"
            )
            return
        self.transactions += 1
        if mirrored:
            for address in changed:
                mirrors.show(connection, self.meters[address], self.slot, 0, now)
        signature = hashlib.sha512(intent_id.bytes).digest()
        end_intent(
            connection, intent, None, IntentState.FINALIZED, REACTIONS, now,
            error_code=None, ended_by=signature, slot=self.slot,
        )  # fmt: skip

    def _apply(self, instructions: tuple[Instruction, ...], business_id: UUID, clock_unix_s: int) -> set[Pubkey]:
        changed = set()
        for index, instruction in enumerate(instructions):
            if instruction.program_id != PROGRAM:
                continue
            data = bytes(instruction.data)
            named = {account.pubkey for account in instruction.accounts}
            [address] = named & self.meters.keys()
            meter = self.meters[address]
            if meter.meter_id in self.broken:
                raise Refused(self.broken[meter.meter_id])
            if data[0] in (4, 5, 6):
                assert data[1:17] == business_id.bytes
            if data[0] == 4:
                meter = self._submit(meter, _signed(instructions[index - 1], meter.key), clock_unix_s)
            elif data[0] == 5:
                meter = self._settle(meter)
            elif data[0] == 6:
                figures = struct.unpack("<QQ", data[17:])
                meter = self._write_off(meter, _signed(instructions[index - 1], meter.key), *figures, clock_unix_s)
            elif data[0] == 3:
                meter = self._rotate(meter, instructions[index - 2], instructions[index - 1])
            else:
                raise AssertionError(data[0])
            self.meters[address] = meter
            changed.add(address)
        return changed

    def _presented(self, meter: MeterAccount, data: bytes, clock_unix_s: int) -> MeterAccount:
        seal = decode_seal(data)
        if seal.domain != self.domain:
            raise Refused("domain_differs")
        if seal.sequence <= meter.sequence:
            raise Refused("sequence_not_later")
        if seal.closed_until_unix_s <= meter.closed_until_unix_s:
            raise Refused("interval_not_later")
        if seal.closed_until_unix_s > clock_unix_s + 300:
            raise Refused("from_the_future")
        new = replace(
            meter, sequence=seal.sequence, closed_until_unix_s=seal.closed_until_unix_s,
            production_wh=seal.production_wh, consumption_wh=seal.consumption_wh, surplus_wh=seal.surplus_wh,
        )  # fmt: skip
        for name in ("production_wh", "consumption_wh", "surplus_wh"):
            if getattr(new, name) < getattr(meter, name):
                raise Refused("counter_decreased")
        return new

    def _check_plausible(self, old: MeterAccount, new: MeterAccount) -> None:
        produced = new.production_wh - old.production_wh
        consumed = new.consumption_wh - old.consumption_wh
        elapsed_s = new.closed_until_unix_s - old.closed_until_unix_s
        if not _bears(old, produced, elapsed_s):
            raise Refused("over_capacity")
        if old.closed_until_unix_s < old.high_until_unix_s and new.production_wh > old.high_production_wh:
            since_mark_s = max(0, new.closed_until_unix_s - old.high_until_unix_s)
            if not _bears(old, new.production_wh - old.high_production_wh, since_mark_s):
                raise Refused("over_capacity")
        if not max(0, produced - consumed) <= new.surplus_wh - old.surplus_wh <= produced:
            raise Refused("surplus_out_of_bounds")

    def _submit(self, meter: MeterAccount, data: bytes, clock_unix_s: int) -> MeterAccount:
        new = self._presented(meter, data, clock_unix_s)
        self._check_plausible(meter, new)
        return new

    def _write_off(
        self, meter: MeterAccount, data: bytes, production: int, surplus: int, clock_unix_s: int
    ) -> MeterAccount:
        new = self._presented(meter, data, clock_unix_s)
        if production < meter.written_off_production_wh or surplus < meter.written_off_surplus_wh:
            raise Refused("write_off_decreased")
        if production > new.production_wh or surplus > new.surplus_wh:
            raise Refused("write_off_over_counter")
        gain = new.surplus_wh - meter.surplus_wh - (surplus - meter.written_off_surplus_wh)
        kept = new.production_wh - meter.production_wh - (production - meter.written_off_production_wh)
        if gain > 0 or kept > 0:
            self._check_plausible(meter, new)
            produced = new.production_wh - meter.production_wh
            if gain > max(0, produced - (new.consumption_wh - meter.consumption_wh)):
                raise Refused("write_off_gives")
        return replace(new, written_off_production_wh=production, written_off_surplus_wh=surplus)

    def _settle(self, meter: MeterAccount) -> MeterAccount:
        amount = max(0, meter.surplus_wh - meter.written_off_surplus_wh - meter.settled_wh)
        assert meter.kind in (1, 2)
        self.balances[meter.grid_account] = self.balances.get(meter.grid_account, 0) + amount * UNITS_PER_WH
        return replace(meter, settled_wh=meter.settled_wh + amount)

    def _rotate(self, meter: MeterAccount, first: Instruction, second: Instruction) -> MeterAccount:
        told = decode_enrolment(_signed(first, None))
        if told.key_epoch != meter.key_epoch + 1:
            raise Refused("epoch_differs")
        assert _signer(first) == told.public_key
        if _signer(second) not in (meter.key, meter.owner) or _signed(second, None) != _signed(first, None):
            raise Refused("endorsement_missing")
        until = first_closed_until(told.valid_from_unix_s)
        if (
            told.production_wh > meter.production_wh
            or told.consumption_wh > meter.consumption_wh
            or told.surplus_wh > meter.surplus_wh
            or until > meter.closed_until_unix_s
        ):
            raise Refused("counters_beyond")
        counters = (told.production_wh, told.consumption_wh, told.surplus_wh)
        return take_key(meter, told.public_key, told.key_epoch, until, counters)


def take_key(
    meter: MeterAccount, key: bytes, key_epoch: int, closed_until_unix_s: int, counters: tuple[int, int, int]
) -> MeterAccount:
    """What a rotation makes of a meter: where the old key stood stays as a mark."""
    production_wh, consumption_wh, surplus_wh = counters
    return replace(
        meter, key=key, key_epoch=key_epoch, sequence=0, closed_until_unix_s=closed_until_unix_s,
        production_wh=production_wh, consumption_wh=consumption_wh, surplus_wh=surplus_wh,
        high_production_wh=max(meter.high_production_wh, meter.production_wh - meter.written_off_production_wh, 0),
        high_until_unix_s=max(meter.high_until_unix_s, meter.closed_until_unix_s),
    )  # fmt: skip


def _bears(meter: MeterAccount, produced_wh: int, elapsed_s: int) -> bool:
    """Production × 3600 ≤ (capacity × elapsed) × 110 % + step × 3600."""
    return produced_wh * 3600 * 100 <= meter.capacity_w * elapsed_s * 110 + meter.register_step_wh * 3600 * 100


def _signer(instruction: Instruction) -> bytes:
    return bytes(instruction.data)[16:48]


def _signed(instruction: Instruction, key: bytes | None) -> bytes:
    """What an Ed25519 instruction holds, verified."""
    if instruction.program_id != ED25519_PROGRAM:
        raise Refused("signature_missing")
    data = bytes(instruction.data)
    signature, message = data[48:112], data[112:]
    assert signatures.verify(_signer(instruction), message, signature)
    if key is not None and _signer(instruction) != key:
        raise Refused("key_differs")
    return message


def by_owner(balances: Mapping[bytes, int], owner: bytes) -> int:
    """An owner's balance in units."""
    return balances.get(bytes(AT.grid_account(owner, MINT)), 0)
