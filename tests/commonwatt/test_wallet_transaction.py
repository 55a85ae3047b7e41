"""What a wallet is willing to sign: the two acts as the hub builds them, and nothing that differs in any part."""

from __future__ import annotations

import struct
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.compute_budget import request_heap_frame
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import Message, MessageHeader, MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from commonwatt.hub_client import CommandError
from commonwatt.wallet_transaction import COMPUTE_BUDGET, ED25519, SYSTEM, TOKEN_2022, Expected, read_transaction
from hub.chain.accounts import UserKind
from hub.chain.addresses import Addresses
from hub.chain.instructions import Signed, compute_unit_limit, compute_unit_price, register_meter, register_user
from hub.chain.messages import build_message, reference_of
from hub.chain.token_2022 import create_grid_account
from hub.signatures import SigningKey
from protocol.enrolment import KIND_SOLAR, MEASURES_GENERATION_AND_GRID, Enrolment, encode_enrolment

HUB = Pubkey.from_bytes(SigningKey(b"h" * 32).public_key)
WALLET = Pubkey.from_bytes(SigningKey(b"w" * 32).public_key)
SOMEBODY = Pubkey.from_bytes(SigningKey(b"s" * 32).public_key)
METER_KEY = SigningKey(b"m" * 32)
PROGRAM, OTHER_PROGRAM = Pubkey([9] * 32), Pubkey([8] * 32)
MINT, OTHER_MINT = Pubkey([7] * 32), Pubkey([6] * 32)
AT = Addresses(PROGRAM)
ID = UUID(int=17)
BLOCKHASH = Hash.default()
REFERENCE = reference_of(ID)


def expected(act, **changes):
    values = {"act": act, "wallet": WALLET, "program": PROGRAM, "registration_id": ID}
    return Expected(**(values | {"meter_id": "roof" if act == "meter.register" else None} | changes))


def statement(key=METER_KEY, **changes):
    fields = {"domain": b"ourtown!", "meter_id": "roof", "kind": KIND_SOLAR, "key_epoch": 1, "production_wh": 40}
    fields |= {"measurement": MEASURES_GENERATION_AND_GRID, "owner": bytes(WALLET), "public_key": key.public_key}
    fields |= {"consumption_wh": 0, "surplus_wh": 30, "valid_from_unix_s": 1_795_000_000}
    signed = encode_enrolment(Enrolment(**(fields | changes)))
    return Signed(key.public_key, signed, key.sign(signed))


def user_acts(payer=HUB, wallet=WALLET, at=AT):
    return [register_user(at, bytes(payer), bytes(wallet), UserKind.PROSUMER)]


def meter_acts(payer=HUB, wallet=WALLET, at=AT, mint=MINT, signed=None, meter_id="roof"):
    grid = create_grid_account(bytes(payer), bytes(wallet), mint, at.grid_account(bytes(wallet), mint))
    signed = signed or statement()
    return [grid, *register_meter(at, bytes(payer), bytes(wallet), meter_id, mint, signed, 5_000, 10)]


ACTS = {"user.register": user_acts, "meter.register": meter_acts}


def message(acts, payer=HUB, budget=None):
    """A message as the hub compiles it, of these instructions."""
    budget = [compute_unit_limit(60_000)] if budget is None else budget
    return bytes(to_bytes_versioned(MessageV0.try_compile(payer, [*budget, *acts], [], BLOCKHASH)))


def refusal(acts, act, **more):
    changes = more.pop("expected", {})
    with pytest.raises(CommandError, match="transaction_refused") as refused:
        read_transaction(message(acts, **more), expected(act, **changes))
    return refused.value.detail


def changed(instruction, *, program=None, data=None, accounts=None):
    """The instruction with something else in it."""
    return Instruction(
        program or instruction.program_id,
        bytes(instruction.data) if data is None else data,
        instruction.accounts if accounts is None else accounts,
    )


# ── what is expected ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("act", sorted(ACTS))
@pytest.mark.parametrize("price", [0, 1_000])
def test_what_the_hub_builds_is_read_and_told_in_words(act, price):
    built = build_message(HUB, ACTS[act](), 60_000, price, bytes(32), ID)
    lines = dict(read_transaction(built, expected(act)))
    assert lines["by the program"] == str(PROGRAM)
    assert lines["paid by"].startswith(f"{HUB}, ")
    assert lines["takes from your wallet"] == "nothing"
    if act == "user.register":
        assert lines["it registers"] == f"your wallet {WALLET} as a prosumer on the chain"
        assert lines["its account there"] == str(AT.user(bytes(WALLET)))
    else:
        assert lines["it registers"] == "the meter roof as yours on the chain, a solar meter"
        assert lines["of at most"] == "5000 W, in steps of 10 Wh"
        assert lines["that signs with the key"] == METER_KEY.public_key.hex()
        assert lines["and began at"] == "40 Wh produced, 30 Wh of them surplus"
        assert lines["its account there"] == str(AT.meter("roof"))
        assert lines["its energy comes to"].startswith(str(AT.grid_account(bytes(WALLET), MINT)))


@pytest.mark.parametrize("act", sorted(ACTS))
def test_an_old_kind_of_message_that_says_the_same_is_read_too(act):
    legacy = bytes(Message.new_with_blockhash([compute_unit_limit(9), *ACTS[act]()], HUB, BLOCKHASH))
    assert read_transaction(legacy, expected(act)) == read_transaction(message(ACTS[act]()), expected(act))


# ── what is not ──────────────────────────────────────────────────────────────────────────────────────────────

TRANSFER = transfer(TransferParams(from_pubkey=WALLET, to_pubkey=SOMEBODY, lamports=1))
TOKEN_TRANSFER = Instruction(
    TOKEN_2022,
    bytes([12]) + struct.pack("<QB", 1, 9),
    [AccountMeta(key, False, True) for key in (SOMEBODY, MINT, HUB)] + [AccountMeta(WALLET, True, False)],
)
UNKNOWN = Instruction(OTHER_PROGRAM, b"anything", [AccountMeta(WALLET, True, False)])
HEAP = request_heap_frame(32_768)


@pytest.mark.parametrize("act", sorted(ACTS))
@pytest.mark.parametrize("extra", [TRANSFER, TOKEN_TRANSFER, UNKNOWN], ids=["lamports", "tokens", "another program"])
@pytest.mark.parametrize("place", ["before", "behind"])
def test_nothing_else_may_be_done_with_the_wallets_signature(act, extra, place):
    acts = [extra, *ACTS[act]()] if place == "before" else [*ACTS[act](), extra]
    assert refusal(acts, act)


@pytest.mark.parametrize("act", sorted(ACTS))
def test_even_a_harmless_instruction_more_is_one_too_many(act):
    harmless = Instruction(OTHER_PROGRAM, b"hello", [])
    assert "one too many" in refusal([*ACTS[act](), harmless], act)
    assert "one too many" in refusal([*ACTS[act](), ACTS[act]()[-1]], act)
    assert refusal([], act)


@pytest.mark.parametrize("act", sorted(ACTS))
def test_the_wallet_does_not_pay(act):
    assert "fee payer" in refusal(ACTS[act](payer=WALLET), act, payer=WALLET)
    assert "fee payer" in refusal(ACTS[act](), act, payer=WALLET)


@pytest.mark.parametrize("act", sorted(ACTS))
def test_the_hub_of_the_act_is_who_pays_for_it(act):
    assert refusal(ACTS[act](payer=SOMEBODY), act)


@pytest.mark.parametrize("act", sorted(ACTS))
def test_the_wallet_is_asked_for_itself_and_no_other(act):
    assert "does not ask for your wallet" in refusal(ACTS[act](wallet=SOMEBODY), act)
    assert refusal(ACTS[act](), act, expected={"wallet": SOMEBODY})


@pytest.mark.parametrize("act", sorted(ACTS))
def test_a_third_signature_is_not_expected(act):
    acts = ACTS[act]()
    acts[-1] = changed(acts[-1], accounts=[*acts[-1].accounts, AccountMeta(SOMEBODY, True, False)])
    assert "3 signatures" in refusal(acts, act)


@pytest.mark.parametrize("act", sorted(ACTS))
def test_the_wallet_stays_read_only(act):
    acts = ACTS[act]()
    accounts = [AccountMeta(each.pubkey, each.is_signer, True) for each in acts[-1].accounts]
    acts[-1] = changed(acts[-1], accounts=accounts)
    assert "read-only" in refusal(acts, act)


@pytest.mark.parametrize("act", sorted(ACTS))
def test_only_the_program_that_its_owner_named_gets_the_signature(act):
    impostor = Addresses(OTHER_PROGRAM)
    assert str(OTHER_PROGRAM) in refusal(ACTS[act](at=impostor), act)
    acts = ACTS[act]()
    acts[-1] = changed(acts[-1], program=OTHER_PROGRAM)
    assert str(OTHER_PROGRAM) in refusal(acts, act)
    assert refusal(ACTS[act](), act, expected={"program": OTHER_PROGRAM})


@pytest.mark.parametrize("act", sorted(ACTS))
@pytest.mark.parametrize("number", [0, 3, 4, 5, 8, 10, 255])
def test_no_other_instruction_of_the_program_is_meant(act, number):
    acts = ACTS[act]()
    acts[-1] = changed(acts[-1], data=bytes([number]) + bytes(acts[-1].data)[1:])
    assert "is not `register_" in refusal(acts, act)


@pytest.mark.parametrize("act", sorted(ACTS))
def test_data_of_another_length_is_another_instruction(act):
    for change in (lambda data: data + b"\0", lambda data: data[:-1], lambda data: b""):
        acts = ACTS[act]()
        acts[-1] = changed(acts[-1], data=change(bytes(acts[-1].data)))
        assert "is not `register_" in refusal(acts, act)


def test_a_user_is_a_prosumer_or_a_consumer():
    [act] = user_acts()
    assert "unknown kind 3" in refusal([changed(act, data=bytes([1, 3]))], "user.register")


@pytest.mark.parametrize("act", sorted(ACTS))
def test_every_account_of_every_instruction_is_the_one_that_belongs_there(act):
    count = 0
    for place, instruction in enumerate(ACTS[act]()):
        for number, each in enumerate(instruction.accounts):
            acts, accounts = ACTS[act](), list(instruction.accounts)
            accounts[number] = AccountMeta(Pubkey([99] * 32), False, each.is_writable)
            acts[place] = changed(instruction, accounts=accounts)
            assert refusal(acts, act)
            count += 1
        acts = ACTS[act]()
        acts[place] = changed(instruction, accounts=[*instruction.accounts, AccountMeta(MINT, False, False)])
        assert refusal(acts, act)
        if instruction.accounts:
            acts[place] = changed(instruction, accounts=instruction.accounts[:-1])
            assert refusal(acts, act)
    assert count == {"user.register": 5, "meter.register": 15}[act]


def test_a_wallet_is_not_registered_for_a_meter_nor_a_meter_for_a_wallet():
    assert refusal(meter_acts(), "user.register")
    assert refusal(user_acts(), "meter.register")


@pytest.mark.parametrize(
    ("what", "acts", "why"),
    [
        ("another meter", {"signed": statement(meter_id="shed"), "meter_id": "shed"}, "about the meter shed"),
        ("another meter's account", {"meter_id": "shed"}, "account 5 of instruction 4"),
        ("another meter's statement", {"signed": statement(meter_id="shed")}, "about the meter shed"),
        ("another owner", {"signed": statement(owner=bytes(SOMEBODY))}, "another owner"),
        ("a later key", {"signed": statement(key_epoch=2, last_seal_hash=bytes([1]) * 32)}, "key epoch 2"),
        ("a first key with a past", {"signed": statement(last_seal_hash=bytes([1]) * 32)}, "not its first"),
        ("a statement by another key", {"signed": statement(SigningKey(b"x" * 32), public_key=METER_KEY.public_key)},
         "signed by another key"),
        ("no signature", {"signed": Signed(METER_KEY.public_key, statement().message, bytes(64))}, "not valid"),
        ("no statement", {"signed": Signed(METER_KEY.public_key, bytes(180), METER_KEY.sign(bytes(180)))}, "not valid"),
        ("a seal", {"signed": Signed(METER_KEY.public_key, bytes(124), METER_KEY.sign(bytes(124)))}, "statement alone"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_of_a_meter_only_the_first_statement_of_ones_own_counts(what, acts, why):
    assert why in refusal(meter_acts(**acts), "meter.register"), what


def test_a_meter_is_the_one_that_was_asked_for():
    assert "not about shed" in refusal(meter_acts(), "meter.register", expected={"meter_id": "shed"})


def test_what_becomes_of_the_energy_is_not_moved_to_another_token_account():
    grid, signed, act = meter_acts()
    _, _, other = meter_acts(mint=OTHER_MINT)
    assert "account 7" in refusal([grid, signed, other], "meter.register")
    plain_create = changed(grid, data=b"\0")
    assert "something else" in refusal([plain_create, signed, act], "meter.register")
    recover = changed(grid, data=b"\2")
    assert "something else" in refusal([recover, signed, act], "meter.register")


def test_the_order_of_the_instructions_is_the_one_that_the_program_needs():
    grid, signed, act = meter_acts()
    for acts in ([signed, grid, act], [grid, act, signed], [signed, act, grid]):
        assert refusal(acts, "meter.register")


@pytest.mark.parametrize(
    "change",
    [
        {"count": 0},
        {"count": 2},
        {"padding": 1},
        {"signature_in": 0},
        {"key_in": 0},
        {"message_in": 3},
        {"signature_at": 17},
        {"message_bytes": 179},
        {"message_at": 65_000},
    ],
    ids=str,
)
def test_the_signature_lies_in_the_instruction_that_checks_it(change):
    grid, signed, act = meter_acts()
    names = ("count", "padding", "signature_at", "signature_in", "key_at", "key_in", "message_at", "message_bytes")
    names = (*names, "message_in")
    layout = struct.Struct("<BBHHHHHHH")
    values = dict(zip(names, layout.unpack_from(bytes(signed.data)), strict=True))
    data = layout.pack(*(values | change).values()) + bytes(signed.data)[layout.size :]
    assert refusal([grid, changed(signed, data=data), act], "meter.register")
    longer = bytes(signed.data) + b"\0"
    assert "statement alone" in refusal([grid, changed(signed, data=longer), act], "meter.register")
    assert refusal([grid, Instruction(ED25519, b"\0\0", []), act], "meter.register")


@pytest.mark.parametrize("act", sorted(ACTS))
@pytest.mark.parametrize(
    "budget",
    [
        [HEAP],
        [compute_unit_limit(1), compute_unit_limit(1)],
        [Instruction(COMPUTE_BUDGET, b"", [])],
        [Instruction(COMPUTE_BUDGET, b"\x02\0", [])],
        [Instruction(COMPUTE_BUDGET, bytes(compute_unit_limit(1).data), [AccountMeta(SOMEBODY, False, False)])],
        [Instruction(COMPUTE_BUDGET, bytes(compute_unit_limit(1).data), [AccountMeta(WALLET, True, False)])],
        [compute_unit_limit(1), Instruction(COMPUTE_BUDGET, bytes(compute_unit_price(1).data),
                                            [AccountMeta(REFERENCE, False, False)])],
    ],
    ids=["heap", "twice", "empty", "short", "an account", "the wallet", "the reference behind"],
)  # fmt: skip
def test_the_compute_budget_is_what_it_is_for(act, budget):
    assert "compute budget" in refusal(ACTS[act](), act, budget=budget)


@pytest.mark.parametrize("act", sorted(ACTS))
def test_the_compute_budget_comes_first(act):
    assert "at the beginning" in refusal([*ACTS[act](), compute_unit_limit(1)], act, budget=[])


def test_the_reference_is_that_of_this_registration():
    built = build_message(HUB, user_acts(), 60_000, 0, bytes(32), ID)
    with pytest.raises(CommandError, match="compute budget"):
        read_transaction(built, expected("user.register", registration_id=UUID(int=18)))


# ── other forms of message ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("act", sorted(ACTS))
def test_accounts_from_lookup_tables_are_not_taken_on_trust(act):
    table = AddressLookupTableAccount(Pubkey([5] * 32), [AT.config(), MINT, SYSTEM])
    built = bytes(to_bytes_versioned(MessageV0.try_compile(HUB, ACTS[act](), [table], BLOCKHASH)))
    with pytest.raises(CommandError, match="lookup tables"):
        read_transaction(built, expected(act))


@pytest.mark.parametrize("act", sorted(ACTS))
def test_an_account_that_nothing_uses_is_not_expected(act):
    honest = MessageV0.try_compile(HUB, ACTS[act](), [], BLOCKHASH)
    header = honest.header
    spare = MessageHeader(
        header.num_required_signatures, header.num_readonly_signed_accounts, header.num_readonly_unsigned_accounts + 1
    )
    keys = [*honest.account_keys, SOMEBODY]
    built = bytes(to_bytes_versioned(MessageV0(spare, keys, BLOCKHASH, honest.instructions, [])))
    with pytest.raises(CommandError, match=f"names the account {SOMEBODY}"):
        read_transaction(built, expected(act))


@pytest.mark.parametrize("act", sorted(ACTS))
def test_an_account_twice_is_a_trick(act):
    honest = MessageV0.try_compile(HUB, ACTS[act](), [], BLOCKHASH)
    keys = [*honest.account_keys, WALLET]
    built = bytes(to_bytes_versioned(MessageV0(honest.header, keys, BLOCKHASH, honest.instructions, [])))
    with pytest.raises(CommandError, match="twice"):
        read_transaction(built, expected(act))


@pytest.mark.parametrize("act", sorted(ACTS))
def test_bytes_before_behind_or_missing_make_it_no_message(act):
    built = message(ACTS[act]())
    for other in (built + b"\0", built[:-1], b"\0" + built, built[1:], b"", b"\xff" + built, b"\x81" + built[1:]):
        with pytest.raises(CommandError, match="transaction_refused"):
            read_transaction(other, expected(act))


def test_a_text_to_sign_in_with_is_no_transaction():
    with pytest.raises(CommandError, match="transaction_refused"):
        read_transaction(b"hub.example wants you to sign in with your Solana account:\n", expected("user.register"))


@given(st.binary(max_size=400))
def test_whatever_the_bytes_it_ends_in_a_refusal(junk):
    with pytest.raises(CommandError, match="transaction_refused"):
        read_transaction(junk, expected("user.register"))


HONEST = {act: message(acts()) for act, acts in ACTS.items()}
ACCEPTED = {act: read_transaction(HONEST[act], expected(act)) for act in ACTS}


@given(st.sampled_from(sorted(ACTS)), st.data())
def test_no_flipped_bit_makes_it_say_one_thing_and_do_another(act, data):
    """A flip is refused, or it is in what the words tell, or in what concerns only the payer and the blockhash."""
    built = bytearray(HONEST[act])
    position = data.draw(st.integers(0, len(built) * 8 - 1))
    built[position // 8] ^= 1 << position % 8
    try:
        lines = read_transaction(bytes(built), expected(act))
    except CommandError as fault:
        assert fault.code == "transaction_refused"
        return
    if lines == ACCEPTED[act]:
        parsed = MessageV0.from_bytes(bytes(built)[1:])
        honest = MessageV0.from_bytes(HONEST[act][1:])
        keys = list(parsed.account_keys)
        assert keys == list(honest.account_keys)
        assert parsed.header.num_required_signatures == honest.header.num_required_signatures
        assert [bytes(each.data) for each in parsed.instructions[1:]] == [
            bytes(each.data) for each in honest.instructions[1:]
        ]
