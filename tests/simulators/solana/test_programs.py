"""Programs come onto the cluster by the loader's ordinary transactions, and are there after a restart."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from solders import system_program as system
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from tests.simulators.solana.ledger_at_hand import SOL, LedgerAtHand

LOADER = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")
RENT = Pubkey.from_string("SysvarRent111111111111111111111111111111111")
CLOCK = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
PROGRAM = Path(__file__).parents[3] / "programs" / "energy" / "energy.so"
BUFFER_HEADER_BYTES, PROGRAM_BYTES, CHUNK_BYTES = 37, 36, 900
INSTRUCTION_UNKNOWN = 6000
NO_SUCH_INSTRUCTION = b"\xff"


@pytest.fixture
def hand(tmp_path):
    opened = LedgerAtHand(tmp_path)
    yield opened
    opened.ledger.close()


def _create(hand, payer, account, size_bytes):
    return system.create_account(
        system.CreateAccountParams(
            from_pubkey=payer.pubkey(),
            to_pubkey=account.pubkey(),
            lamports=hand.ledger.runtime.rent_exempt_lamports(size_bytes),
            space=size_bytes,
            owner=LOADER,
        )
    )


def _loader(data, *accounts):
    return Instruction(LOADER, data, [AccountMeta(address, signs, writes) for address, signs, writes in accounts])


def _write(hand, payer, buffer, elf):
    create = _create(hand, payer, buffer, BUFFER_HEADER_BYTES + len(elf))
    begin = _loader(struct.pack("<I", 0), (buffer.pubkey(), False, True), (payer.pubkey(), False, False))
    assert hand.do(create, begin, by=payer, also=(buffer,)).err is None
    for offset in range(0, len(elf), CHUNK_BYTES):
        chunk = elf[offset : offset + CHUNK_BYTES]
        data = struct.pack("<IIQ", 1, offset, len(chunk)) + chunk
        write = _loader(data, (buffer.pubkey(), False, True), (payer.pubkey(), True, False))
        assert hand.do(write, by=payer).err is None


def _deploy(hand, payer, elf):
    buffer, program = Keypair(), Keypair()
    _write(hand, payer, buffer, elf)
    data_address = Pubkey.find_program_address([bytes(program.pubkey())], LOADER)[0]
    deploy = _loader(
        struct.pack("<IQ", 2, 2 * len(elf)),
        (payer.pubkey(), True, True),
        (data_address, False, True),
        (program.pubkey(), False, True),
        (buffer.pubkey(), False, True),
        (RENT, False, False),
        (CLOCK, False, False),
        (system.ID, False, False),
        (payer.pubkey(), True, False),
    )
    landed = hand.do(_create(hand, payer, program, PROGRAM_BYTES), deploy, by=payer, also=(program,))
    assert landed.err is None
    assert hand.ledger.account_at(buffer.pubkey(), hand.ledger.slot) is None
    return program.pubkey()


def _call(hand, payer, program):
    never_twice_the_same = NO_SUCH_INSTRUCTION + bytes(Pubkey.new_unique())
    return hand.do(Instruction(program, never_twice_the_same, []), by=payer).err


def test_a_deployed_program_runs_from_the_next_slot_on_also_after_a_restart(hand):
    ada = hand.rich(100 * SOL)
    program = _deploy(hand, ada, PROGRAM.read_bytes())
    unknown = {"InstructionError": [0, {"Custom": INSTRUCTION_UNKNOWN}]}
    hand.pass_slots(1)
    assert _call(hand, ada, program) == unknown
    hand.reopen()
    assert _call(hand, ada, program) == unknown, "in the slot of the restart, too"


def test_an_upgraded_program_is_the_new_one_also_after_a_restart(hand):
    ada, buffer = hand.rich(100 * SOL), Keypair()
    elf = PROGRAM.read_bytes()
    program = _deploy(hand, ada, elf)
    hand.pass_slots(1)
    changed = elf + bytes(8)
    _write(hand, ada, buffer, changed)
    data_address = Pubkey.find_program_address([bytes(program)], LOADER)[0]
    upgrade = _loader(
        struct.pack("<I", 3),
        (data_address, False, True),
        (program, False, True),
        (buffer.pubkey(), False, True),
        (ada.pubkey(), False, True),
        (RENT, False, False),
        (CLOCK, False, False),
        (ada.pubkey(), True, False),
    )
    assert hand.do(upgrade, by=ada).err is None
    hand.pass_slots(1)
    hand.reopen()
    data = hand.ledger.account_at(data_address, hand.ledger.slot).data
    assert data[45 : 45 + len(changed)] == changed
    assert _call(hand, ada, program) == {"InstructionError": [0, {"Custom": INSTRUCTION_UNKNOWN}]}
