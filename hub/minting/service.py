"""Use cases of minting. Each takes the caller's transaction; the node is never asked here.

`assess` says what the next step of a meter is, or why there is none; `plan_steps` writes the steps of a round down,
together with the intents that do them; `retry` lets a meter go on that was held. What happens when an intent ends is in
`reactions.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final
from uuid import UUID, uuid4

from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.instruction import Instruction
from solders.pubkey import Pubkey
from sqlalchemy import Connection, text

from hub.audit import append_audit
from hub.chain import instructions, lookup_tables, mirrors
from hub.chain.accounts import ConfigAccount, ConfigState, MeterAccount
from hub.chain.addresses import Addresses
from hub.chain.intents import Plan, plan_intent
from hub.chain.token_2022 import create_grid_account
from hub.db import driver
from hub.errors import MintingNotHeld
from hub.minting import store
from hub.minting.days import split_by_day
from hub.minting.line import read_line
from hub.minting.packing import Packed, Wanted, pack
from hub.minting.rules import Nothing, Present, Reason, Rotate, Standing, Step, next_step, standing_refusal
from hub.minting.store import DayShare, NewMint
from hub.readings import gaps_store
from hub.readings import store as readings_store
from hub.registry import keys_service
from hub.registry import service as registry
from hub.registry.keys_store import MeterKey
from hub.registry.rules import REGISTER_QUANTUM_WH_MINTED_MAX
from hub.registry.store import Meter
from protocol.seal import SEAL_BYTES, SIGNATURE_BYTES

MINT: Final = "mint"
"""Kind of the intents."""

PRESENT_COMPUTE_UNITS: Final = 20_000
"""For presenting and settling, with room: the program's own figures are in its baseline, some 5,300."""
ROTATE_COMPUTE_UNITS: Final = 60_000
"""For a change of key, which looks for a bump: what is asked for is paid for, where a price is offered."""
CREATE_ACCOUNT_COMPUTE_UNITS: Final = 60_000
"""For looking whether the owner's account of GRID is there, and making it."""


ANY_SLOT: Final = 2**63 - 1

_NO_BUSINESS_ID: Final = UUID(int=0)
"""Stands for the one that is made when it is known which meters share a transaction."""


@dataclass(frozen=True)
class Assessment:
    """A meter, what the chain knows of it, and its next step."""

    meter: Meter
    chain: MeterAccount | None
    step: Step
    keys: Sequence[MeterKey] = ()


def assess(connection: Connection, meter_id: str, now: datetime) -> Assessment:
    """What is to be done next for this meter, or why nothing is. Raises MeterNotFound."""
    meter = registry.get_meter(connection, meter_id)
    mirror = mirrors.find_meter_mirror(connection, meter_id)
    chain = None if mirror is None else mirror.account
    assert chain is None or isinstance(chain, MeterAccount)
    standing = Standing(
        meter.kind, meter.state, meter.key_epoch, meter.owner, meter.minting_allowed, _why_not_allowed(meter)
    )
    refused = standing_refusal(standing, chain)
    if refused is not None:
        return Assessment(meter, chain, refused)
    assert mirror is not None and chain is not None
    waiting = _waiting(connection, meter.meter_no, mirror.slot)
    if waiting is not None:
        return Assessment(meter, chain, waiting)
    keys = keys_service.list_keys(connection, meter.meter_no)
    line = read_line(connection, meter.meter_no, chain.key_epoch, chain.sequence, keys)
    return Assessment(meter, chain, next_step(chain, line, int(now.timestamp())), keys)


def _why_not_allowed(meter: Meter) -> str:
    """What speaks against minting what the meter measures, if an operator has not allowed it."""
    if not meter.phases_netted:
        return "its phases are not netted; an operator must allow it first"
    if meter.register_quantum_wh > REGISTER_QUANTUM_WH_MINTED_MAX:
        return f"its register moves in steps of {meter.register_quantum_wh} Wh; an operator must allow it first"
    return "an operator has forbidden it, or must allow it first"


def _waiting(connection: Connection, meter_no: int, mirror_slot: int) -> Nothing | None:
    """What must end before the mirror can be believed to be the newest."""
    config = mirrors.find_config(connection)
    if config is None or config.state is not ConfigState.RUNNING:
        return Nothing(Reason.CHAIN_PAUSED, "the program is paused" if config else "the chain was not read yet")
    hold = store.find_hold(connection, meter_no)
    if hold is not None:
        return Nothing(Reason.HELD, f"the chain refused: {hold.error_code}")
    if store.find_open(connection, meter_no) is not None:
        return Nothing(Reason.IN_FLIGHT, "a transaction is on its way")
    newest = store.find_newest_finalized(connection, meter_no)
    if newest is not None and newest.slot is not None and newest.slot > mirror_slot:
        return Nothing(Reason.MIRROR_BEHIND, f"what slot {newest.slot} brought is not read yet")
    return None


@dataclass(frozen=True)
class _Ready:
    """A step that can be sent."""

    meter: Meter
    chain: MeterAccount
    step: Present | Rotate
    keys: Sequence[MeterKey]
    alone: bool
    """Whether it failed together with others, so that it now tries by itself."""


def plan_steps(connection: Connection, program_id: bytes, meters_max: int, now: datetime) -> int:
    """Plan the next step of the meters whose turn it is; returns of how many meters there was one."""
    config = mirrors.find_config(connection)
    if config is None or config.state is not ConfigState.RUNNING:
        return 0
    at = Addresses(Pubkey.from_bytes(program_id))
    wanted: list[Wanted[_Ready]] = []
    for meter_id, alone in store.take_turns(connection, meters_max, now):
        assessed = assess(connection, meter_id, now)
        if isinstance(assessed.step, Nothing) or assessed.chain is None:
            continue
        one = _Ready(assessed.meter, assessed.chain, assessed.step, assessed.keys, alone)
        own, units = _instructions(connection, at, config, one, _NO_BUSINESS_ID)
        wanted.append(Wanted(one, own, units, alone or isinstance(one.step, Rotate)))
    for packed in pack(config.hub, wanted, partial(_tables_for, connection)):
        _plan(connection, at, config, packed, now)
    return len(wanted)


def _tables_for(connection: Connection, whole: Sequence[Instruction]) -> list[AddressLookupTableAccount]:
    """The tables that make a transaction with these shorter; whether they can be used yet the sender finds out."""
    named = {account.pubkey for each in whole for account in each.accounts if not account.is_signer}
    chosen = lookup_tables.tables_for(connection, sorted(named, key=bytes))
    return lookup_tables.load_tables(connection, chosen, ANY_SLOT)


def _plan(
    connection: Connection,
    at: Addresses,
    config: ConfigAccount,
    packed: Packed[_Ready],
    now: datetime,
) -> None:
    intent_id = uuid4()
    whole: list[Instruction] = []
    meter_ids = []
    for one in packed.items:
        own, _ = _instructions(connection, at, config, one, intent_id)
        whole += own
        meter_ids.append(one.meter.meter_id)
        _keep(connection, one, intent_id, now)
    subject = f"meter:{meter_ids[0]}" if len(meter_ids) == 1 else f"meters:{len(meter_ids)}"
    plan = Plan(
        intent_id,
        MINT,
        subject,
        tuple(whole),
        packed.compute_units,
        lookup_tables=packed.tables,
        data={"meter_ids": meter_ids},
    )
    plan_intent(connection, plan, now)


def _keep(connection: Connection, one: _Ready, intent_id: UUID, now: datetime) -> None:
    """The step as a row, and what it falls on."""
    chain, step = one.chain, one.step
    if isinstance(step, Rotate):
        mint = NewMint(
            one.meter.meter_no,
            intent_id,
            store.ROTATE,
            step.key_epoch,
            0,
            0,
            chain.closed_until_unix_s,
            chain.closed_until_unix_s,
            *(0, 0, 0, 0, 0),
            chain.settled_wh,
        )
        store.insert_mint(connection, mint, (), now)
        return
    kind = store.WRITE_OFF if step.writes_off else store.SUBMIT if step.settles else store.MAKE_WAY
    mint = NewMint(
        one.meter.meter_no,
        intent_id,
        kind,
        chain.key_epoch,
        chain.sequence + 1,
        step.seal.sequence,
        chain.closed_until_unix_s,
        step.seal.closed_until_unix_s,
        step.surplus_wh if step.settles else 0,
        step.minted_wh,
        step.written_off_wh,
        step.written_off_production_wh,
        step.earned_back_wh,
        chain.settled_wh + step.minted_wh,
    )
    store.insert_mint(connection, mint, _days(connection, one.meter.meter_no, chain, step), now)
    gaps_store.set_lost_gaps_passed(driver(connection), one.meter.meter_no, chain.key_epoch, step.seal.sequence, now)


_ADDED_BY_DAY = text(
    """
    SELECT day, sum(added_wh) FROM (
        SELECT (to_timestamp(closed_until_unix_s - 1) AT TIME ZONE 'UTC')::date AS day,
               surplus_wh - lag(surplus_wh, 1, CAST(:before_wh AS bigint)) OVER (ORDER BY sequence) AS added_wh
        FROM seals AS s
        WHERE meter_no = :meter_no AND key_epoch = :key_epoch AND sequence > :after AND sequence <= :last
          AND (sound OR sequence = :last)
          AND NOT (state IN ('quarantined', 'rejected') AND EXISTS (
              SELECT FROM lost_gaps AS l WHERE l.meter_no = s.meter_no AND l.key_epoch = s.key_epoch
              AND s.sequence BETWEEN l.first_sequence AND l.last_sequence))) AS added
    GROUP BY day ORDER BY day
    """
)
"""The line's seals, as `queries.py` tells it: what a step covers falls on the days on which it was accepted."""


def _days(connection: Connection, meter_no: int, chain: MeterAccount, step: Present) -> list[DayShare]:
    if not step.settles:
        return []
    values = {
        "meter_no": meter_no,
        "key_epoch": chain.key_epoch,
        "after": chain.sequence,
        "last": step.seal.sequence,
        "before_wh": chain.surplus_wh,
    }
    added = [(row[0], int(row[1])) for row in connection.execute(_ADDED_BY_DAY, values)]
    return split_by_day(added, step.written_off_wh, step.earned_back_wh)


def _instructions(
    connection: Connection,
    at: Addresses,
    config: ConfigAccount,
    one: _Ready,
    business_id: UUID,
) -> tuple[tuple[Instruction, ...], int]:
    """What does the step, and the compute units it needs at most."""
    meter_id, chain, step = one.meter.meter_id, one.chain, one.step
    if isinstance(step, Rotate):
        key = keys_service.find_key(one.keys, step.key_epoch)
        assert key.endorsement is not None, "every key but the first is endorsed"
        by = chain.key if key.endorsed_by == "old_key" else one.meter.owner
        statement = instructions.Signed(key.public_key, key.statement, key.signature)
        endorsement = instructions.Signed(by, key.statement, key.endorsement)
        return instructions.rotate_meter_key(at, config.hub, meter_id, statement, endorsement), ROTATE_COMPUTE_UNITS
    seal = _signed(connection, one.meter.meter_no, chain, step)
    if step.writes_off:
        figures = (step.written_off_production_to_wh, step.written_off_surplus_to_wh)
        own = instructions.write_off(at, config.hub, meter_id, seal, *figures, business_id)
    else:
        own = instructions.submit_reading(at, config.hub, meter_id, seal, business_id)
    if not step.minted_wh:
        return own, PRESENT_COMPUTE_UNITS
    mint = Pubkey.from_bytes(config.grid_mint)
    account = Pubkey.from_bytes(chain.grid_account)
    settles = instructions.settle(at, config.hub, meter_id, mint, account, business_id)
    if chain.settled_wh > chain.base_surplus_wh and not one.alone:  # its owner may have closed the account since
        return own + settles, PRESENT_COMPUTE_UNITS
    creates = create_grid_account(config.hub, chain.owner, mint, account)
    return (creates, *own, *settles), PRESENT_COMPUTE_UNITS + CREATE_ACCOUNT_COMPUTE_UNITS


def _signed(connection: Connection, meter_no: int, chain: MeterAccount, step: Present) -> instructions.Signed:
    """The seal as the meter signed it."""
    db = driver(connection)
    [(_, _, received_at, _)] = readings_store.list_seal_facts(db, [(meter_no, chain.key_epoch, step.seal.sequence)])
    message = readings_store.find_evidence(db, meter_no, chain.key_epoch, step.seal.sequence, received_at)
    assert message is not None, "every stored seal has its evidence"
    return instructions.Signed(chain.key, message[:SEAL_BYTES], message[SEAL_BYTES : SEAL_BYTES + SIGNATURE_BYTES])


def retry(connection: Connection, meter_id: str, reason: str, actor: str, now: datetime) -> None:
    """Let minting of a held meter go on, by itself in its next transaction. Audited.

    Raises MeterNotFound, MintingNotHeld.
    """
    meter = registry.get_meter(connection, meter_id)
    hold = store.find_hold(connection, meter.meter_no)
    if hold is None or not store.delete_hold(connection, meter.meter_no):
        raise MintingNotHeld(meter_id)
    store.set_alone(connection, [meter.meter_no], True)
    detail = {"reason": reason, "error_code": hold.error_code, "error": hold.error}
    append_audit(connection, now, actor, "minting.retry", f"meter:{meter_id}", detail)
