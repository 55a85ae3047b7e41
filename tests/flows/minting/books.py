"""The books compared: what the raw readings say, what the chain holds, what the hub has written down. To the unit.

Accounts are read here from their bytes, by `docs/program.md` alone, and asked for at the level that is final.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, fields
from datetime import date
from typing import Any, Final

import base58
import httpx

from infra.local.processes import LaunchError
from simulators.sealing import START_SURPLUS_WH
from tests.flows.minting.roofs import LOST, UNITS_PER_WH, Roof
from tests.flows.minting.town import Town

CONFIG, USER, METER = b"CWCF", b"CWUS", b"CWME"
FINAL: Final = {"commitment": "finalized"}


@dataclass(frozen=True)
class MeterOnChain:
    """A Meter account, field by field."""

    state: int
    kind: int
    meter_id: str
    owner: bytes
    key: bytes
    grid_account: bytes
    key_epoch: int
    measurement: int
    flags: int
    capacity_w: int
    register_step_wh: int
    sequence: int
    closed_until_unix_s: int
    production_wh: int
    consumption_wh: int
    surplus_wh: int
    settled_wh: int
    written_off_production_wh: int
    written_off_surplus_wh: int
    base_production_wh: int
    base_surplus_wh: int
    registered_at_unix_s: int


@dataclass(frozen=True)
class UserOnChain:
    """A User account."""

    state: int
    kind: int
    wallet: bytes
    registered_at_unix_s: int
    meters: int
    meters_ever: int


@dataclass(frozen=True)
class OnChain:
    """What the cluster holds of this community."""

    meters: dict[str, MeterOnChain]
    users: dict[bytes, UserOnChain]
    grid_mint: str
    accounts: int


def read_meter(data: bytes) -> MeterOnChain:
    """320 bytes as the page on the program has them."""
    assert (data[:4], data[4], len(data)) == (METER, 1, 320)
    return MeterOnChain(
        data[6], data[7], data[40:72].rstrip(b"\0").decode(), data[72:104], data[104:136], data[136:168],
        _number(data, 168, 4), data[172], _number(data, 174, 2), _number(data, 176), _number(data, 184, 4),
        *(_number(data, at) for at in range(192, 280, 8)),
    )  # fmt: skip


def read_user(data: bytes) -> UserOnChain:
    """160 bytes likewise."""
    assert (data[:4], data[4], len(data)) == (USER, 1, 160)
    numbers = _number(data, 72), _number(data, 80, 4), _number(data, 84, 4)
    return UserOnChain(data[6], data[7], data[40:72], *numbers)


def _number(data: bytes, at: int, length: int = 8) -> int:
    return int.from_bytes(data[at : at + length], "little")


def read_chain(town: Town) -> OnChain:
    """Every account of the program, as it is final."""
    options = {"encoding": "base64", **FINAL}
    found = town.cluster.call("getProgramAccounts", str(town.chain.program_id), options)
    datas = [base64.b64decode(each["account"]["data"][0]) for each in found]
    [config] = [data for data in datas if data[:4] == CONFIG]
    meters = [read_meter(data) for data in datas if data[:4] == METER]
    users = [read_user(data) for data in datas if data[:4] == USER]
    grid_mint = base58.b58encode(config[176:208]).decode()
    by_id, by_wallet = {each.meter_id: each for each in meters}, {each.wallet: each for each in users}
    assert (len(by_id), len(by_wallet)) == (len(meters), len(users)), "nobody and nothing is there twice"
    return OnChain(by_id, by_wallet, grid_mint, len(datas))


# --- unrest


def unrest(town: Town) -> str:
    """What is still under way; empty once the hub has nothing more to do."""
    [[open_mints, open_intents, waiting]] = town.rows(
        "SELECT (SELECT count(*) FROM mints WHERE state = 'open'),"
        " (SELECT count(*) FROM chain_intents WHERE ended_at IS NULL),"
        " (SELECT count(*) FROM chain_events WHERE state <> 'processed')"
    )
    if open_mints or open_intents or waiting:
        return f"{open_mints} mints and {open_intents} intents are open, {waiting} events wait"
    try:
        chain = read_chain(town)
    except (httpx.TransportError, LaunchError) as fault:
        return f"the cluster does not answer: {fault!r}"  # its fault is not over yet
    for roof in town.roofs:
        expected, meter = roof.expected().total, chain.meters[roof.meter_id]
        if meter.settled_wh - START_SURPLUS_WH != expected.minted_wh:
            is_wh = meter.settled_wh - START_SURPLUS_WH
            return f"{roof.meter_id}: {is_wh} Wh are minted, {expected.minted_wh} Wh should be"
    return different_mirror(town, chain)


def different_mirror(town: Town, chain: OnChain) -> str:
    """Which mirror is not what the chain holds; empty if all are equal."""
    for table, kept, key in (
        ("chain_meters", chain.meters, MeterOnChain),
        ("chain_users", chain.users, UserOnChain),
    ):
        columns = [each.name for each in fields(key)]
        rows = town.rows(f"SELECT {', '.join(columns)} FROM {table}")
        mirrored = {key(*(int(v) if not isinstance(v, str | bytes) else v for v in row)) for row in rows}
        if mirrored != set(kept.values()):
            return f"{table}: {mirrored ^ set(kept.values())}"
    return ""


# --- the judgement


def judge(town: Town) -> None:
    """All books say the same, to the unit, and it is what the readings say."""
    chain = read_chain(town)
    _supply_is_what_was_earned(town, chain)
    for roof in town.roofs:
        _meter_says(roof, chain.meters[roof.meter_id])
        _covered_once(town, roof)
        _days_add_up(town, roof)
    assert not different_mirror(town, chain)
    open_intents = "SELECT count(*) FROM chain_intents WHERE ended_at IS NULL"
    town.wait_until("nothing is open, a lookup table neither", lambda: town.rows(open_intents) == [(0,)])
    assert town.rows("SELECT count(*) FROM alarms WHERE kind IN ('minting_differs', 'minting_held')") == [(0,)]


def _supply_is_what_was_earned(town: Town, chain: OnChain) -> None:
    """Per owner and in sum: GRID on the chain = accepted surplus − written off."""
    in_all_wh = 0
    for owner in {roof.owner for roof in town.roofs}:
        roofs = [roof for roof in town.roofs if roof.owner == owner]
        [grid_account] = {chain.meters[roof.meter_id].grid_account for roof in roofs}
        address = base58.b58encode(grid_account).decode()
        balance = town.cluster.call("getTokenAccountBalance", address, FINAL)["value"]["amount"]
        totals = [roof.expected().total for roof in roofs]
        earned_wh = sum(each.accepted_wh - each.written_off_wh for each in totals)
        assert int(balance) == earned_wh * UNITS_PER_WH, [roof.meter_id for roof in roofs]
        in_all_wh += earned_wh
    supply = town.cluster.call("getTokenSupply", chain.grid_mint, FINAL)["value"]["amount"]
    assert int(supply) == in_all_wh * UNITS_PER_WH
    [[minted_wh]] = town.rows("SELECT coalesce(sum(minted_wh), 0) FROM mints WHERE state = 'finalized'")
    assert minted_wh == in_all_wh


def _meter_says(roof: Roof, meter: MeterOnChain) -> None:
    expected, last = roof.expected().total, roof.book[-1]
    assert (meter.owner, meter.key) == (roof.owner, bytes(roof.key.verify_key))
    assert (meter.key_epoch, meter.sequence) == (last.key_epoch, last.sequence), "up to the last seal"
    assert (meter.closed_until_unix_s, meter.production_wh, meter.consumption_wh) == last.boundaries[-1]
    assert meter.settled_wh - meter.base_surplus_wh == expected.minted_wh
    assert meter.written_off_surplus_wh == expected.written_off_wh
    assert meter.surplus_wh - meter.base_surplus_wh == expected.accepted_wh
    assert meter.base_surplus_wh == START_SURPLUS_WH


def _covered_once(town: Town, roof: Roof) -> None:
    """Each seal lies in exactly one finalized step of minting, and no step covers a seal that does not exist."""
    rows = town.rows(
        "SELECT m.key_epoch, first_sequence, last_sequence, minted_wh, written_off_wh, surplus_wh FROM mints AS m"
        " JOIN meters USING (meter_no) WHERE meter_id = %s AND m.state = 'finalized' AND step <> 'rotate'",
        [roof.meter_id],
    )
    covered = sorted((epoch, sequence) for epoch, first, last, *_ in rows for sequence in range(first, last + 1))
    assert covered == sorted((page.key_epoch, page.sequence) for page in roof.book), roof.meter_id
    expected = roof.expected().total
    assert sum(row[3] for row in rows) == expected.minted_wh
    assert sum(row[4] for row in rows) == expected.written_off_wh
    assert sum(row[5] for row in rows) == expected.accepted_wh
    stored = town.rows(
        "SELECT s.key_epoch, sequence FROM seals AS s JOIN meters USING (meter_no) WHERE meter_id = %s", [roof.meter_id]
    )
    assert sorted(stored) == [(page.key_epoch, page.sequence) for page in roof.book if page.fate != LOST]


def _days_add_up(town: Town, roof: Roof) -> None:
    """Of each day and in all: accepted = minted + pending + held + written off, and all of it as the readings say."""
    expected = roof.expected()
    total, days = minting_of(town, roof.meter_id)
    assert _figures(total) == (expected.total.accepted_wh, expected.total.minted_wh, expected.total.written_off_wh)
    assert days.keys() == expected.by_day.keys()
    for day, balance in days.items():
        wanted = expected.by_day[day]
        assert _figures(balance) == (wanted.accepted_wh, wanted.minted_wh, wanted.written_off_wh), (roof.meter_id, day)


def _figures(balance: dict[str, Any]) -> tuple[int, int, int]:
    assert (balance["pending_wh"], balance["held_wh"], balance["taken_back_wh"], balance["earned_back_wh"]) == (0,) * 4
    return balance["accepted_wh"], balance["minted_wh"], balance["written_off_wh"]


def minting_of(town: Town, meter_id: str) -> tuple[dict[str, Any], dict[date, dict[str, Any]]]:
    """A meter's balance in all and by day, over all pages of the API."""
    days: dict[date, dict[str, Any]] = {}
    cursor = ""
    while True:
        page = town.get(f"/meters/{meter_id}/minting?limit=1000{cursor}")
        days.update({date.fromisoformat(each["day"]): each for each in page["days"]})
        if page["next_cursor"] is None:
            return page["total"], days
        cursor = f"&cursor={page['next_cursor']}"
