"""An event is what our program printed, in a call of its own that succeeded; nobody else can tell us anything."""

from __future__ import annotations

import base64
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.chain.accounts import ConfigAccount, MeterAccount, MeterState, UserAccount
from hub.chain.events import LOG_LINES_MAX, Printed, decode_event, decode_events, read_logs
from hub.errors import ChainEventMalformed
from tests.hub.chain.telling import (
    MINT,
    OWNER,
    PROGRAM,
    SETTLE,
    STRANGER,
    SUBMIT_READING,
    TOKEN_2022,
    address_of,
    called,
    config_bytes,
    data,
    event_bytes,
    invoke,
    meter_bytes,
    success,
    told,
    user_bytes,
)

MINTED = UUID("0123456789abcdef0123456789abcdef")
ROOF = event_bytes(meter_bytes("roof"))
BARN = event_bytes(meter_bytes("barn"))


def _payloads(logs):
    return list(read_logs(logs, PROGRAM).payloads)


def test_a_mint_is_told_with_its_business_id_amount_and_the_meter_as_it_is_now():
    [event] = decode_events(told(event_bytes(meter_bytes("roof"), SETTLE, MINTED, 11_000_000_000)), PROGRAM)
    assert (event.instruction, event.business_id, event.amount_units) == (SETTLE, MINTED, 11_000_000_000)
    meter = event.account
    assert isinstance(meter, MeterAccount)
    assert (meter.address, meter.meter_id, meter.owner, meter.state) == (
        address_of("roof"),
        "roof",
        OWNER,
        MeterState.ACTIVE,
    )
    assert (meter.sequence, meter.production_wh, meter.consumption_wh, meter.surplus_wh, meter.settled_wh) == (
        7,
        12_000,
        4_000,
        9_000,
        9_000,
    )
    assert (meter.capacity_w, meter.register_step_wh, meter.closed_until_unix_s) == (10_000, 10, 1_795_089_600)


def test_a_registration_tells_of_the_meter_and_then_of_its_user_without_a_business_id():
    meter, user = decode_events(told(event_bytes(meter_bytes(), 2), event_bytes(user_bytes(meters=3), 2)), PROGRAM)
    assert isinstance(meter.account, MeterAccount)
    assert isinstance(user.account, UserAccount)
    assert (user.account.wallet, user.account.meters, user.business_id) == (OWNER, 3, None)


def test_a_configuration_is_told_whole():
    [event] = decode_events(told(event_bytes(config_bytes(state=2), 9)), PROGRAM)
    assert isinstance(event.account, ConfigAccount)
    assert (event.account.state, event.account.decimals, event.account.grid_mint) == (2, 9, MINT)


def test_counters_up_to_the_last_bit_survive():
    [event] = decode_events(told(event_bytes(meter_bytes(surplus_wh=2**64 - 1), 4, None, 2**64 - 1)), PROGRAM)
    assert isinstance(event.account, MeterAccount)
    assert (event.account.surplus_wh, event.amount_units) == (2**64 - 1, 2**64 - 1)


def test_the_meters_of_one_transaction_are_told_in_its_order():
    logs = told(ROOF) + called(STRANGER, ["Program log: hello"]) + told(BARN)
    assert [event.account.meter_id for event in decode_events(logs, PROGRAM)] == ["roof", "barn"]  # type: ignore[union-attr]


# --- who may speak ---------------------------------------------------------------------------------------------


def test_another_program_that_prints_our_event_is_not_heard():
    assert _payloads(told(ROOF, program=STRANGER)) == []


def test_a_program_that_ours_calls_is_not_heard_and_ours_goes_on_behind_it():
    logs = called(PROGRAM, [*called(TOKEN_2022, [data(BARN)], depth=2), data(ROOF)])
    assert read_logs(logs, PROGRAM) == Printed((ROOF,), complete=True)


def test_a_stranger_that_calls_our_program_is_not_heard_before_or_behind_it():
    logs = called(STRANGER, [data(BARN), *called(PROGRAM, [data(ROOF)], depth=2), data(BARN)])
    assert read_logs(logs, PROGRAM) == Printed((ROOF,), complete=True)


def test_our_program_called_by_itself_is_heard_in_order():
    logs = called(PROGRAM, [data(ROOF), *called(PROGRAM, [data(BARN)], depth=2), data(ROOF)])
    assert _payloads(logs) == [ROOF, BARN, ROOF]


@pytest.mark.parametrize(
    "line",
    [
        f"Program log: {invoke(PROGRAM)}",
        f"Program log: {invoke(PROGRAM)}\n{invoke(PROGRAM, 2)}",
        f"Program log: x\n{data(BARN)}",
        f" {invoke(PROGRAM)}",
        f"{invoke(PROGRAM)} ",
        f"Program {PROGRAM} invoke [01]",
        f"Program {PROGRAM} invoke [1]\nProgram {PROGRAM} invoke [2]",
        f"Program return: {PROGRAM} {base64.b64encode(BARN).decode()}",
    ],
)
def test_words_that_only_look_like_the_runtimes_change_nothing(line):
    """A stranger prints them, then an event; the prefix of the runtime keeps them apart."""
    assert _payloads(called(STRANGER, [line, data(BARN)])) == []
    assert _payloads(called(STRANGER, [line, data(BARN)]) + told(ROOF)) == [ROOF]


def test_an_ending_that_a_stranger_prints_does_not_end_our_call():
    logs = called(PROGRAM, [*called(STRANGER, [f"Program log: {success(STRANGER)}", data(BARN)], depth=2), data(ROOF)])
    assert _payloads(logs) == [ROOF]


def test_what_a_call_that_failed_printed_did_not_happen():
    failed = [invoke(PROGRAM, 2), data(BARN), f"Program {PROGRAM} failed: custom program error: 0x1770"]
    assert _payloads(called(STRANGER, failed) + told(ROOF)) == [ROOF]


def test_what_is_outside_every_call_is_nobodys():
    assert _payloads([data(BARN), *told(ROOF), data(BARN)]) == [ROOF]


# --- logs that are not whole -----------------------------------------------------------------------------------


def test_truncated_logs_are_noticed_and_nothing_behind_the_cut_is_believed():
    logs = [*told(ROOF), invoke(PROGRAM), data(ROOF), "Log truncated", data(BARN), success(PROGRAM)]
    assert read_logs(logs, PROGRAM) == Printed((ROOF, ROOF), complete=False)
    with pytest.raises(ChainEventMalformed, match="not complete"):
        decode_events(logs, PROGRAM)


def test_a_stranger_cannot_speak_in_the_gap_that_truncation_leaves():
    """Behind the cut a short line may still be written: our success is missing, the stranger's event is not."""
    logs = [invoke(PROGRAM), data(ROOF), "Log truncated", data(BARN)]
    assert read_logs(logs, PROGRAM) == Printed((ROOF,), complete=False)


def test_logs_longer_than_the_runtime_keeps_are_not_read_to_their_end():
    """A node that makes them up must not make us write more than there is room for."""
    event = data(event_bytes(meter_bytes()))
    printed = read_logs([invoke(PROGRAM), *([event] * 40_000), success(PROGRAM)], PROGRAM)
    assert not printed.complete
    assert len(printed.payloads) < LOG_LINES_MAX < 2**15, "their numbers fit into a smallint"


def test_a_stranger_that_says_log_truncated_is_not_believed():
    logs = [*called(STRANGER, ["Program log: Log truncated"]), *told(ROOF)]
    assert read_logs(logs, PROGRAM) == Printed((ROOF,), complete=True)


@pytest.mark.parametrize(
    "logs",
    [
        [invoke(PROGRAM), data(ROOF)],
        [invoke(PROGRAM, 2), data(ROOF), success(PROGRAM)],
        [success(PROGRAM)],
        [invoke(STRANGER), invoke(PROGRAM, 2), data(ROOF), success(STRANGER), data(ROOF), success(PROGRAM)],
        [invoke(PROGRAM), invoke(PROGRAM), data(ROOF), success(PROGRAM), success(PROGRAM)],
    ],
)
def test_logs_that_contradict_themselves_are_not_whole(logs):
    assert not read_logs(logs, PROGRAM).complete


def test_a_transaction_without_our_program_tells_nothing():
    assert read_logs([], PROGRAM) == Printed((), complete=True)
    assert read_logs(called(STRANGER, []), PROGRAM) == Printed((), complete=True)


# --- what is no event ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        ROOF[:-1],
        ROOF + b"\0",
        b"CWEX" + ROOF[4:],
        ROOF[:4] + b"\2" + ROOF[5:],
        ROOF[:6] + b"\1" + ROOF[7:],
        ROOF[:32],
        ROOF[:32] + b"CWMX" + ROOF[36:],
        ROOF[:36] + b"\2" + ROOF[37:],
        event_bytes(meter_bytes(state=9)),
        event_bytes(bytes(39)),
        ROOF * 4,
    ],
    ids=repr,
)
def test_what_is_no_event_of_this_version_is_refused(payload):
    with pytest.raises(ChainEventMalformed):
        decode_event(payload)


def test_a_line_that_is_no_base64_is_noticed_and_not_passed_over():
    payloads = _payloads(called(PROGRAM, ["Program data: ****", "Program data: QUJD QUJD"]))
    assert len(payloads) == 2
    for payload in payloads:
        with pytest.raises(ChainEventMalformed):
            decode_event(payload)


@given(st.binary(max_size=400))
def test_no_bytes_break_the_decoder(payload):
    with pytest.raises(ChainEventMalformed):
        decode_event(payload)


@given(st.binary(min_size=1, max_size=4), st.integers(0, len(ROOF) - 1))
def test_a_changed_event_is_refused_or_says_so(noise, at):
    changed = ROOF[:at] + noise + ROOF[at + len(noise) :]
    try:
        event = decode_event(changed[: len(ROOF)])
    except ChainEventMalformed:
        return
    assert event.instruction == changed[5]


_LINES = st.sampled_from(
    [
        invoke(PROGRAM),
        invoke(PROGRAM, 2),
        invoke(STRANGER),
        invoke(STRANGER, 2),
        success(PROGRAM),
        success(STRANGER),
        f"Program {STRANGER} failed: x",
        data(ROOF),
        "Program log: x",
        "Log truncated",
    ]
)


@given(st.lists(_LINES, max_size=30))
def test_whatever_is_printed_nothing_is_heard_that_was_not_said_in_our_own_call(lines):
    """Compared with the plainest reading: between each event and the nearest call or end before it."""
    printed = read_logs(lines, PROGRAM)
    stack: list[str] = []
    possible = 0
    for line in lines:
        if line == "Log truncated":
            break
        if " invoke " in line:
            stack.append(line)
        elif line.endswith("success") or " failed" in line:
            stack = stack[:-1]
        elif line == data(ROOF) and stack and str(PROGRAM) in stack[-1]:
            possible += 1
    assert len(printed.payloads) <= possible
    assert set(printed.payloads) <= {ROOF}
    assert not (printed.complete and "Log truncated" in lines)


def test_the_numbers_of_instructions_are_those_of_the_interface():
    assert (SUBMIT_READING, SETTLE) == (4, 5)
