"""Seals that must not count, and settling and writing off that must not be."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from tests.programs.energy import calls, layout
from tests.programs.energy.community import ADA, CAPACITY_W, OTTO, REGISTER_STEP_WH, Community, must
from tests.programs.energy.ledger import START_UNIX_S, keypair
from tests.programs.energy.refusals import NEXT_KEY, Act, Case, changed, submitting, writing_off
from tests.programs.energy.signing import INTERVAL_S, ZEROS, Signed, ed25519, ed25519_elsewhere, sign
from tests.programs.energy.token_2022 import TOKEN, token_account

Arrange = Callable[[Community], Sequence[Act]]

A_QUARTER_WH = CAPACITY_W * INTERVAL_S * 11 // 36_000 + REGISTER_STEP_WH
"""The most that Ada's roof can have produced in a quarter of an hour: 2,850 Wh."""
WH_MAX = 2**53 - 1
MEMO = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
COMPUTE_BUDGET = Pubkey.from_string("ComputeBudget111111111111111111111111111111")


def signature_cases(title: str, make: Callable[[Community], tuple[Signed, Act]]) -> list[Case]:
    """An instruction that wants a signature before it is given everything but that."""

    def case(what: str, error: str, acts: Callable[[Signed, Act], Sequence[Act]]) -> Case:
        return Case(f"{title}, {what}", error, lambda community: acts(*make(community)))

    stranger = keypair("stranger")

    def two_of_one(signed: Signed, act: Act) -> Sequence[Act]:
        return [ed25519(signed, signed), act]

    def and_a_strangers(signed: Signed, act: Act) -> Sequence[Act]:
        return [ed25519(signed, sign(stranger, b"a message of his own")), act]

    def elsewhere(part: str) -> Callable[[Signed, Act], Sequence[Act]]:
        # The first instruction holds the same bytes, so the runtime is content; the second says to look there.
        return lambda signed, act: [ed25519(signed), ed25519_elsewhere(signed, part, 0), act]

    def own_number(signed: Signed, act: Act) -> Sequence[Act]:
        return [ed25519_elsewhere(signed, "message", 0), act]

    def gap_before_the_message(signed: Signed, act: Act) -> Sequence[Act]:
        data = bytearray(ed25519(signed).data)
        moved = struct.unpack_from("<H", data, 10)[0] + 4
        struct.pack_into("<H", data, 10, moved)
        at = moved - 4
        return [Instruction(ed25519(signed).program_id, bytes(data[:at]) + b"gap!" + bytes(data[at:]), []), act]

    def bytes_after(signed: Signed, act: Act) -> Sequence[Act]:
        honest = ed25519(signed)
        return [Instruction(honest.program_id, bytes(honest.data) + b"\0", []), act]

    return [
        case("nothing signed", "signature_missing", lambda _, act: [act]),
        case("signed after another instruction", "signature_missing",
             lambda signed, act: [ed25519(signed), Instruction(COMPUTE_BUDGET, b"\x02\x40\x0d\x03\0", []), act]),
        case("the bytes in a memo", "signature_missing",
             lambda signed, act: [Instruction(MEMO, b"no signature at all", []), act]),
        case("an Ed25519 instruction of no signature", "signature_malformed",
             lambda _, act: [Instruction(ed25519().program_id, b"\0\0", []), act]),
        case("signed twice", "signature_malformed", two_of_one),
        case("signed by a stranger too", "signature_malformed", and_a_strangers),
        case("signature elsewhere", "signature_malformed", elsewhere("signature")),
        case("key elsewhere", "signature_malformed", elsewhere("key")),
        case("message elsewhere", "signature_malformed", elsewhere("message")),
        case("message in the instruction of this number", "signature_malformed", own_number),
        case("a gap before the message", "signature_malformed", gap_before_the_message),
        case("bytes after the message", "signature_malformed", bytes_after),
        case("signed by a stranger", "key_differs",
             lambda signed, act: [ed25519(sign(stranger, signed.message)), act]),
    ]  # fmt: skip


def _seal_then(act: Callable[[Community], Act]) -> Callable[[Community], tuple[Signed, Act]]:
    return lambda community: (community.sealed(ADA), act(community))


MALFORMED_SEALS: dict[str, dict[str, object]] = {
    "of protocol 0": {"magic": b"CWS0"},
    "that is an enrolment": {"magic": b"CWE1"},
    "of sequence 0": {"sequence": 0},
    "of a sequence beyond 53 bits": {"sequence": WH_MAX + 1, "previous_seal_hash": b"\1" * 32},
    "that is first and has a predecessor": {"previous_seal_hash": b"\1" * 32},
    "that is second and has none": {"sequence": 2},
    "before 2020": {"closed_until_unix_s": 1_577_836_800 - INTERVAL_S},
    "sealed after 2100": {"sealed_at_unix_s": 4_102_444_801},
    "closed after it was sealed": {"sealed_at_unix_s": START_UNIX_S - 9 * INTERVAL_S - 1},
    "closed between two quarters": {"closed_until_unix_s": START_UNIX_S - 9 * INTERVAL_S + 1},
    "with a production beyond 53 bits": {"production_wh": WH_MAX + 1},
    "with a consumption beyond 53 bits": {"consumption_wh": WH_MAX + 1},
    "with a consumption of 64 bits": {"consumption_wh": 2**64 - 1},
    "with more surplus than production": {"surplus_wh": 6_001},
    "with a surplus of 64 bits": {"surplus_wh": 2**64 - 1},
}


def _resubmitted(**changes: object) -> Arrange:
    """Ada's roof has sealed once; this comes next."""

    def arrange(community: Community) -> Sequence[Act]:
        must(community.submit_once(ADA))
        return submitting(community, **changes)

    return arrange


def _again(act: Callable[[Community], Act]) -> Arrange:
    """The very seal that was submitted a moment ago."""

    def arrange(community: Community) -> Sequence[Act]:
        signed = ed25519(community.sealed(ADA))
        must(community.send([signed, community.submit(ADA)]))
        return [signed, act(community)]

    return arrange


def _too_soon(community: Community, over_s: int) -> Sequence[Act]:
    acts = submitting(community)
    community.ledger.set_time(community.read_meter(ADA.meter_id).closed_until_unix_s + INTERVAL_S - 300 - over_s)
    return acts


def _longer_message(act: Callable[[Community], Act], by: int) -> Arrange:
    def arrange(community: Community) -> Sequence[Act]:
        message = community.seal(ADA).encode()
        message = message[:by] if by < 0 else message + bytes(by)
        return [ed25519(sign(ADA.key, message)), act(community)]

    return arrange


def _with_state(state: int, acts: Arrange) -> Arrange:
    def arrange(community: Community) -> Sequence[Act]:
        gone = community.deactivate(ADA) if state == layout.DEACTIVATED else community.set_status(ADA, state)
        must(community.send([gone]))
        return acts(community)

    return arrange


def _old_key(community: Community) -> Sequence[Act]:
    acts = submitting(community)
    must(community.rotate_once(ADA, NEXT_KEY))
    return acts


def _once_more_through_time(over_wh: int, intervals: int) -> Arrange:
    """A new key begins a day earlier with the same counters: that day allows nothing, it was the old key's."""

    def arrange(community: Community) -> Sequence[Act]:
        must(community.submit_once(ADA))
        before = community.read_meter(ADA.meter_id)
        a_day_earlier = before.closed_until_unix_s - 96 * INTERVAL_S
        must(community.rotate_once(ADA, NEXT_KEY, valid_from_unix_s=a_day_earlier))
        produced_wh = REGISTER_STEP_WH + intervals * CAPACITY_W * INTERVAL_S * 11 // 36_000 + over_wh
        until_unix_s = before.closed_until_unix_s + intervals * INTERVAL_S
        seal = community.seal(
            ADA, (produced_wh, 0, produced_wh), closed_until_unix_s=until_unix_s, sealed_at_unix_s=until_unix_s
        )
        return [ed25519(sign(NEXT_KEY, seal.encode())), community.submit(ADA)]

    return arrange


SUBMIT_CASES: list[Case] = [
    *signature_cases("submitting", _seal_then(lambda community: community.submit(ADA))),
    *(Case(f"a seal {what}", "seal_malformed", lambda community, changes=changes: submitting(community, **changes))  # type: ignore[misc]
      for what, changes in MALFORMED_SEALS.items()),
    Case("a seal and a byte more", "seal_malformed", _longer_message(lambda community: community.submit(ADA), 1)),
    Case("a seal and a byte less", "seal_malformed", _longer_message(lambda community: community.submit(ADA), -1)),
    Case("nothing, signed", "seal_malformed",
         lambda community: [ed25519(sign(ADA.key, b"")), community.submit(ADA)]),
    Case("a seal of another community", "domain_differs", lambda community: submitting(community, domain=b"another!")),
    Case("a seal of no chain", "domain_differs", lambda community: submitting(community, domain=bytes(8))),
    Case("the same seal again", "sequence_not_later", _again(lambda community: community.submit(ADA))),
    Case("the same sequence, another interval", "sequence_not_later",
         _resubmitted(sequence=1, previous_seal_hash=ZEROS)),
    Case("the same interval again", "interval_not_later",
         _resubmitted(closed_until_unix_s=START_UNIX_S - 9 * INTERVAL_S)),
    Case("an earlier interval", "interval_not_later", _resubmitted(closed_until_unix_s=START_UNIX_S - 20 * INTERVAL_S)),
    Case("301 seconds ahead", "from_the_future", lambda community: _too_soon(community, 1)),
    Case("a day ahead", "from_the_future", lambda community: _too_soon(community, 86_400)),
    Case("less production", "counter_decreased",
         lambda community: submitting(community, production_wh=4_999, surplus_wh=1_000)),
    Case("less consumption", "counter_decreased", lambda community: submitting(community, consumption_wh=6_999)),
    Case("less surplus", "counter_decreased", lambda community: submitting(community, surplus_wh=999)),
    Case("a watt-hour over capacity", "over_capacity",
         lambda community: submitting(community, A_QUARTER_WH + 1, 0, A_QUARTER_WH + 1)),
    Case("all energy there is", "over_capacity", lambda community: submitting(community, production_wh=WH_MAX)),
    Case("less surplus than was net", "surplus_out_of_bounds",
         lambda community: submitting(community, 1_000, 200, 799)),
    Case("more surplus than was produced", "surplus_out_of_bounds",
         lambda community: submitting(community, 1_000, 200, 1_001)),
    Case("surplus without production", "surplus_out_of_bounds", lambda community: submitting(community, 0, 0, 1)),
    Case("a suspended meter's", "meter_not_active", _with_state(layout.SUSPENDED, submitting)),
    Case("a deactivated meter's", "meter_not_active", _with_state(layout.DEACTIVATED, submitting)),
    Case("the old key's last", "key_differs", _old_key),
    Case("the owner's own", "key_differs", lambda community: [
        ed25519(sign(ADA.owner, community.seal(ADA).encode())), community.submit(ADA)]),
    Case("Otto's seal for Ada", "key_differs",
         lambda community: [ed25519(community.sealed(OTTO)), community.submit(ADA)]),
    Case("once more through a day, a watt-hour too much", "over_capacity", _once_more_through_time(1, 1)),
    Case("once more through a day, within it", "over_capacity", _once_more_through_time(1, 0)),
]  # fmt: skip


def _leaping(community: Community) -> Sequence[Act]:
    """More energy than units can be counted: 2^64 units are 18 terawatt-hours."""
    huge = replace(ADA, meter_id="all-suns", key=keypair("all suns"))
    limit = community.configure(capacity_w_max=2**64 - 1)
    must(community.send([limit]))
    signed = ed25519(sign(huge.key, community.statement(huge).encode()))
    must(community.send([signed, community.register_meter(huge, 2**64 - 1)]))
    leap_wh = 2**64 // layout.UNITS_PER_WH + 1
    return [ed25519(community.sealed(huge, leap_wh, 0, leap_wh)), community.submit(huge), community.settle(huge)]


def _settled_elsewhere(mint: Callable[[Community], Pubkey], account: Callable[[Community], Pubkey]) -> Arrange:
    def arrange(community: Community) -> Sequence[Act]:
        must(community.submit_once(ADA))
        call = community.settle(ADA).with_account("grid_mint", mint(community))
        return [call.with_account("grid_account", account(community))]

    return arrange


def _of(owner: str) -> Callable[[Community], Pubkey]:
    return lambda community: token_account(keypair(owner).pubkey(), community.mint)


SETTLE_CASES: list[Case] = [
    Case("to Otto's account", "grid_account_differs",
         _settled_elsewhere(lambda community: community.mint, _of("otto"))),
    Case("to the hub's account", "grid_account_differs",
         _settled_elsewhere(lambda community: community.mint, _of("hub"))),
    Case("to Ada's account of another token program", "grid_account_differs",
         _settled_elsewhere(lambda community: community.mint,
                            lambda community: token_account(ADA.owner.pubkey(), community.mint, TOKEN))),
    Case("of another mint", "mint_differs",
         _settled_elsewhere(lambda _: keypair("another mint").pubkey(), _of("ada"))),
    Case("by another token program", "program_differs",
         changed(calls.SETTLE, lambda _, call: call.with_account("token_2022", TOKEN))),
    Case("more units than there can be", "overflow", _leaping),
]  # fmt: skip


def _write_off_again(written_off: tuple[int, int], **changes: object) -> Arrange:
    """Once written off 1,000 and 900 of a seal; now this, of the last seal or one that pretends to be."""

    def arrange(community: Community) -> Sequence[Act]:
        seal = community.seal(ADA)
        must(community.send([ed25519(sign(ADA.key, seal.encode())), community.write_off(ADA, 1_000, 900)]))
        again = replace(seal, **changes)  # type: ignore[arg-type]
        return [ed25519(sign(ADA.key, again.encode())), community.write_off(ADA, *written_off)]

    return arrange


def _older(community: Community) -> Sequence[Act]:
    older = community.sealed(ADA, sequence=2, previous_seal_hash=b"\1" * 32)
    must(community.submit_once(ADA, sequence=3, previous_seal_hash=b"\1" * 32))
    return [ed25519(older), community.write_off(ADA, 0, 0)]


def _gives(written_off: tuple[int, int], *delta: int, **changes: object) -> Arrange:
    return lambda community: writing_off(community, written_off, *delta, **changes)


def _implausible_after_all(error_state: int) -> Arrange:
    return _with_state(error_state, _gives((0, 0), 1_000, 200, 800))


WRITE_OFF_CASES: list[Case] = [
    *signature_cases("writing off", _seal_then(lambda community: community.write_off(ADA, 0, 0))),
    *(Case(f"writing off by a seal {what}", "seal_malformed",
           lambda community, changes=changes: writing_off(community, (0, 0), **changes))  # type: ignore[misc]
      for what, changes in MALFORMED_SEALS.items()),
    Case("writing off by a seal and a byte more", "seal_malformed",
         _longer_message(lambda community: community.write_off(ADA, 0, 0), 1)),
    Case("writing off elsewhere", "domain_differs", _gives((0, 0), domain=b"another!")),
    Case("writing off by an older seal", "sequence_not_later", _older),
    Case("writing off an interval that is over", "interval_not_later",
         _gives((1_000, 900), closed_until_unix_s=START_UNIX_S - 10 * INTERVAL_S)),
    Case("writing off the future", "from_the_future", _gives(
        (1_000, 900), closed_until_unix_s=START_UNIX_S + INTERVAL_S, sealed_at_unix_s=START_UNIX_S + INTERVAL_S)),
    Case("writing off less production", "write_off_decreased", _write_off_again((999, 900))),
    Case("writing off less surplus", "write_off_decreased", _write_off_again((1_000, 899))),
    Case("writing off more than was produced", "write_off_over_counter", _gives((6_001, 0))),
    Case("writing off more than was surplus", "write_off_over_counter", _gives((0, 1_801))),
    Case("the last seal, with another production", "counters_differ",
         _write_off_again((1_000, 900), production_wh=6_001)),
    Case("the last seal, with another consumption", "counters_differ",
         _write_off_again((1_000, 900), consumption_wh=7_201)),
    Case("the last seal, with another surplus", "counters_differ", _write_off_again((1_000, 900), surplus_wh=1_801)),
    Case("the last seal, with another time", "counters_differ",
         _write_off_again((1_000, 900), closed_until_unix_s=START_UNIX_S - 10 * INTERVAL_S)),
    Case("the last seal, when there is none", "seal_malformed", _gives((0, 0), 0, 0, 0, sequence=0)),
    Case("a write-off that gives more than was net", "write_off_gives", _gives((0, 0), 1_000, 200, 801)),
    Case("a write-off that gives, a watt-hour short", "write_off_gives", _gives((1, 199), 1_000, 200, 1_000)),
    Case("a write-off that gives, over capacity", "over_capacity", _gives((0, 0), 3_000, 0, 3_000)),
    Case("a write-off of surplus alone, over capacity", "over_capacity", _gives((0, 3_000), 3_000, 0, 3_000)),
    Case("a write-off that gives, out of bounds", "surplus_out_of_bounds", _gives((0, 0), 1_000, 200, 1_001)),
    Case("a write-off that gives, below net", "surplus_out_of_bounds", _gives((0, 0), 1_000, 200, 700)),
    Case("a write-off that gives, with less consumption", "counter_decreased", _gives((0, 0), consumption_wh=6_999)),
    Case("a suspended meter's write-off that gives", "meter_not_active", _implausible_after_all(layout.SUSPENDED)),
    Case("a deactivated meter's write-off that gives", "meter_not_active", _implausible_after_all(layout.DEACTIVATED)),
]  # fmt: skip

CASES = [*SUBMIT_CASES, *SETTLE_CASES, *WRITE_OFF_CASES]
