"""A device takes the place of one whose key is lost."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.counters import (
    GENERATION,
    GRID_EXPORT,
    GRID_IMPORT,
    CounterState,
    advance_counters,
)
from edge.errors import EnrolmentError
from edge.predecessor import Predecessor, chain_after, continue_counters, load_predecessor, rebase_counters
from protocol.enrolment import MEASURES_GENERATION_AND_GRID, MEASURES_NET_ONLY
from protocol.seal import NO_PREDECESSOR

QUARTER = 1_800_000_000
BEFORE = Predecessor(
    key_epoch=3,
    sequence=17,
    production_wh=5_000,
    consumption_wh=7_000,
    surplus_wh=600,
    closed_until_unix_s=QUARTER,
    last_reading_unix_s=QUARTER + 300,
    last_production_wh=5_100,
    last_consumption_wh=7_050,
    seal_hash=b"\xab" * 32,
    public_key=b"\xcd" * 32,
)
POWER_MAX_W = 100_000
MEASUREMENTS = (MEASURES_GENERATION_AND_GRID, MEASURES_NET_ONLY)
registers = st.fixed_dictionaries(dict.fromkeys((GENERATION, GRID_IMPORT, GRID_EXPORT), st.integers(0, 10**12)))


def exported(**other: Any) -> dict[str, Any]:
    figures = {**BEFORE.__dict__, "seal_hash": BEFORE.seal_hash.hex(), "public_key": BEFORE.public_key.hex()}
    return {**figures, "seal_key_epoch": 3, **other}


def test_the_last_seal_of_the_predecessor_is_read_from_what_the_hub_knows(tmp_path: Path) -> None:
    (tmp_path / "last.json").write_text(json.dumps(exported()))
    assert load_predecessor(tmp_path / "last.json") == BEFORE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        json.dumps(exported(key_epoch=None)),
        json.dumps(exported(sequence=-1)),
        json.dumps(exported(sequence=True)),
        json.dumps(exported(production_wh=5_000.0)),
        json.dumps(exported(surplus_wh=5_001)),
        json.dumps(exported(last_production_wh=4_999)),
        json.dumps(exported(last_consumption_wh=6_999)),
        json.dumps(exported(sequence=0)),
        json.dumps(exported(seal_hash=NO_PREDECESSOR.hex())),
        json.dumps(exported(public_key="no hex")),
        json.dumps(exported(seal_hash=None)),
    ],
)
def test_a_file_that_is_none_is_a_named_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "last.json").write_text(text)
    with pytest.raises(EnrolmentError, match="predecessor_unreadable"):
        load_predecessor(tmp_path / "last.json")
    with pytest.raises(EnrolmentError, match="predecessor_unreadable"):
        load_predecessor(tmp_path / "nothing.json")


def test_netting_goes_on_from_the_last_reading_of_the_last_seal() -> None:
    chain = chain_after(BEFORE)
    assert (chain.key_epoch, chain.sequence, chain.last_seal_hash) == (4, 0, NO_PREDECESSOR.hex())
    assert (chain.closed_until_unix_s, chain.production_wh, chain.consumption_wh, chain.surplus_wh) == (
        QUARTER,
        5_000,
        7_000,
        600,
    )
    assert (chain.last_reading_unix_s, chain.last_production_wh, chain.last_consumption_wh) == (
        QUARTER + 300,
        5_100,
        7_050,
    )


def test_the_same_meters_have_counted_on_meanwhile() -> None:
    an_hour_later = QUARTER + 3_900
    registers_wh = {GENERATION: 6_100, GRID_IMPORT: 2_250, GRID_EXPORT: 1_000}
    state = continue_counters(MEASURES_GENERATION_AND_GRID, registers_wh, an_hour_later, BEFORE, POWER_MAX_W)
    assert (state.production_wh, state.consumption_wh, state.swapped) == (6_100, 7_350, False)


@pytest.mark.parametrize(
    "registers_wh",
    [
        {GENERATION: 5_099, GRID_IMPORT: 2_250, GRID_EXPORT: 0},  # was reset, once
        {GENERATION: 900_000, GRID_IMPORT: 2_250, GRID_EXPORT: 0},  # another, older meter
        {GENERATION: 5_100, GRID_IMPORT: 0, GRID_EXPORT: 0},
        {GENERATION: 5_100, GRID_IMPORT: 900_000, GRID_EXPORT: 0},
    ],
)
def test_registers_that_do_not_follow_from_the_counters_need_a_person(registers_wh: dict[str, int]) -> None:
    with pytest.raises(EnrolmentError, match="registers_do_not_continue"):
        continue_counters(MEASURES_GENERATION_AND_GRID, registers_wh, QUARTER + 3_900, BEFORE, POWER_MAX_W)


@given(registers, st.sampled_from(MEASUREMENTS), st.integers(-(10**6), 10**6))
def test_a_successor_that_continues_invents_no_more_than_the_time_allows(
    registers_wh: dict[str, int], measurement: int, elapsed_s: int
) -> None:
    try:
        state = continue_counters(
            measurement, registers_wh, BEFORE.last_reading_unix_s + elapsed_s, BEFORE, POWER_MAX_W
        )
    except EnrolmentError:
        return
    possible_wh = POWER_MAX_W * max(0, elapsed_s) // 3_600 + 1_000
    assert 0 <= state.production_wh - BEFORE.last_production_wh <= possible_wh
    assert 0 <= state.consumption_wh - BEFORE.last_consumption_wh <= possible_wh


@given(registers, st.sampled_from(MEASUREMENTS), st.integers(0, 500), st.integers(0, 500))
def test_a_successor_that_begins_anew_counts_nothing_but_what_its_meters_count_from_now_on(
    registers_wh: dict[str, int], measurement: int, generated: int, imported: int
) -> None:
    now = QUARTER + 3_900
    state = rebase_counters(measurement, registers_wh, now, BEFORE)
    assert (state.production_wh, state.consumption_wh) == (BEFORE.last_production_wh, BEFORE.last_consumption_wh)
    assert state.swapped
    later = dict(registers_wh)
    produces = GENERATION if measurement == MEASURES_GENERATION_AND_GRID else GRID_EXPORT
    later[produces] += generated
    later[GRID_IMPORT] += imported
    after = advance(state, later, now + 60)
    assert after.production_wh - state.production_wh == generated
    consumed = imported + (generated if measurement == MEASURES_GENERATION_AND_GRID else 0)
    assert after.consumption_wh - state.consumption_wh == consumed


def advance(state: CounterState, registers_wh: dict[str, int], now: int) -> CounterState:
    step = advance_counters(state, registers_wh, {}, now, POWER_MAX_W)
    assert step.refused is None
    return step.state


def test_a_successor_of_a_key_that_never_sealed_starts_at_its_statement() -> None:
    never = replace(BEFORE, sequence=0, seal_hash=NO_PREDECESSOR, closed_until_unix_s=QUARTER + 77)
    assert chain_after(never).closed_until_unix_s == QUARTER
