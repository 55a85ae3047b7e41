"""jsonParsed: whatever bytes an account or an instruction holds are shown parsed or not at all, and never in pieces."""

from __future__ import annotations

import base64
import json
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from solders import system_program as system
from solders.hash import Hash
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from simulators.solana.parsed import LOOKUP_TABLES, NATIVE, SYSTEM, SYSVAR_KINDS, SYSVARS, parsed_account
from simulators.solana.parsed import UPGRADEABLE_LOADER as LOADER
from simulators.solana.parsed_instructions import ASSOCIATED_TOKEN, MEMO, PROGRAMS, parsed_instruction
from simulators.solana.parsed_tokens import EXTENSIONS, MARKERS, TOKEN, TOKEN_2022, ui_amount

KEYS = [str(Keypair().pubkey()) for _ in range(10)]
A, B, C = (Pubkey.from_string(each) for each in KEYS[:3])
OWNERS = [*NATIVE, TOKEN, TOKEN_2022, SYSVARS, Pubkey.default()]
MINT_BYTES, ACCOUNT_BYTES = 82, 165


def nine(_):
    return 9


def mint(authority: Pubkey | None = A, supply: int = 5, decimals: int = 9) -> bytes:
    option = struct.pack("<I32s", authority is not None, bytes(authority or Pubkey.default()))
    return option + struct.pack("<QBB", supply, decimals, 1) + bytes(36)


def token_account(units: int = 5, state: int = 1) -> bytes:
    return bytes(A) + bytes(B) + struct.pack("<Q", units) + bytes(36) + bytes([state]) + bytes(56)


def with_extensions(base: bytes, kind: int, *extensions: tuple[int, bytes]) -> bytes:
    written = b"".join(struct.pack("<HH", number, len(value)) + value for number, value in extensions)
    return base.ljust(ACCOUNT_BYTES, b"\0") + bytes([kind]) + written


@given(st.sampled_from(OWNERS), st.binary(max_size=400), st.sampled_from([*SYSVAR_KINDS, KEYS[0]]))
@example(TOKEN_2022, with_extensions(mint(), 1, (19, bytes(64) + b"\xff" * 40)), KEYS[0])
@example(SYSVARS, struct.pack("<Q", 2**63), "SysvarS1otHashes111111111111111111111111111")
@example(LOOKUP_TABLES, b"\1", KEYS[0])
@example(LOADER, b"\3\0\0\0", KEYS[0])
def test_no_bytes_of_an_account_break_the_answer(owner, data, address):
    shown = parsed_account(Pubkey.from_string(address), owner, data, nine)
    assert shown is None or json.loads(json.dumps(shown))["space"] == len(data)


@given(st.sampled_from(list(PROGRAMS)), st.binary(max_size=200), st.integers(0, len(KEYS)))
@example(LOOKUP_TABLES, struct.pack("<IQ", 2, 2**64 - 1), 4)
@example(MEMO, b"\xff", 0)
@example(TOKEN, b"\6\xff\0", 3)
def test_no_bytes_of_an_instruction_break_the_answer(program, data, accounts):
    shown = parsed_instruction(program, KEYS[:accounts], data)
    assert shown is None or json.loads(json.dumps(shown))["programId"] == str(program)


@given(st.sampled_from([TOKEN, TOKEN_2022]), st.integers(0, MINT_BYTES))
def test_a_mint_that_is_cut_short_is_shown_as_bytes(owner, length):
    shown = parsed_account(A, owner, mint()[:length], nine)
    assert (shown is not None) == (length == MINT_BYTES)


@pytest.mark.parametrize(
    ("units", "decimals", "text"),
    [(0, 9, "0"), (1, 9, "0.000000001"), (11 * 10**9, 9, "11"), (11_500_000_000, 9, "11.5"), (1_200, 0, "1200")],
)
def test_an_amount_is_said_without_needless_zeros(units, decimals, text):
    amount = ui_amount(units, decimals)
    assert (amount["amount"], amount["uiAmountString"], amount["decimals"]) == (str(units), text, decimals)


def test_a_token_account_of_a_mint_that_is_not_there_is_shown_as_bytes():
    assert parsed_account(C, TOKEN, token_account(), lambda _: None) is None
    shown = parsed_account(C, TOKEN, token_account(), nine)
    assert shown["program"] == "spl-token"
    info = shown["parsed"]["info"]
    assert (info["mint"], info["owner"], info["state"]) == (str(A), str(B), "initialized")
    assert set(info) == {"mint", "owner", "tokenAmount", "state", "isNative"}


def test_an_uninitialized_token_account_is_shown_as_bytes():
    assert parsed_account(C, TOKEN, token_account(state=0), nine) is None


def test_delegate_close_authority_and_native_reserve_are_shown_where_there_are_any():
    data = bytearray(token_account())
    data[72:108] = struct.pack("<I32s", 1, bytes(C))
    data[109:121] = struct.pack("<IQ", 1, 2_039_280)
    data[121:129] = struct.pack("<Q", 3)
    data[129:165] = struct.pack("<I32s", 1, bytes(B))
    info = parsed_account(C, TOKEN, bytes(data), nine)["parsed"]["info"]
    assert (info["delegate"], info["delegatedAmount"]["amount"]) == (str(C), "3")
    assert (info["closeAuthority"], info["isNative"]) == (str(B), True)
    assert info["rentExemptReserve"]["amount"] == "2039280"


def test_each_extension_has_the_name_and_the_fields_of_a_validator():
    fee = struct.pack("<QQH", 7, 1_000, 25)
    pointer = bytes(A) + bytes(B)
    written = {
        1: bytes(A) + bytes(32) + struct.pack("<Q", 4) + fee + fee,
        2: struct.pack("<Q", 4),
        3: bytes(A),
        6: b"\2",
        8: b"\1",
        10: bytes(A) + struct.pack("<qhqh", 1, -2, 3, 4),
        11: b"\0",
        12: bytes(32),
        14: pointer,
        15: b"\0",
        18: pointer,
        20: pointer,
        21: bytes(A) + bytes(B) + struct.pack("<QQ", 1, 2),
        22: pointer,
        23: bytes(A) + bytes(B) + struct.pack("<Q", 1),
        25: bytes(A) + struct.pack("<dqd", 1.0, 5, 2.5),
        26: bytes(A) + b"\1",
        **dict.fromkeys(MARKERS, b""),
        999: b"unheard of",
    }
    assert set(written) >= set(EXTENSIONS) - {19}
    data = with_extensions(mint(), 1, *written.items())
    shown = parsed_account(C, TOKEN_2022, data, nine)["parsed"]["info"]["extensions"]
    state = {each["extension"]: each.get("state") for each in shown}
    assert len(shown) == len(written)
    newest = {"epoch": 7, "maximumFee": 1_000, "transferFeeBasisPoints": 25}
    assert state["transferFeeConfig"]["newerTransferFee"] == newest
    assert state["transferFeeConfig"]["withdrawWithheldAuthority"] is None
    assert state["transferFeeAmount"] == {"withheldAmount": 4}
    assert state["defaultAccountState"] == {"accountState": "frozen"}
    assert state["memoTransfer"] == {"requireIncomingTransferMemos": True}
    assert state["interestBearingConfig"]["preUpdateAverageRate"] == -2
    assert state["permanentDelegate"] == {"delegate": None}
    assert state["transferHook"] == {"authority": str(A), "programId": str(B)}
    assert state["tokenGroup"] == {"updateAuthority": str(A), "mint": str(B), "size": 1, "maxSize": 2}
    assert state["scaledUiAmountConfig"]["multiplier"] == "1"
    assert state["scaledUiAmountConfig"]["newMultiplier"] == "2.5"
    assert state["pausableConfig"] == {"authority": str(A), "paused": True}
    assert state["nonTransferable"] is None
    assert state["unparseableExtension"] is None


def test_an_empty_wallet_and_an_unused_nonce_are_shown_as_bytes_and_a_nonce_in_use_parsed():
    assert parsed_account(A, SYSTEM, b"", nine) is None
    assert parsed_account(A, SYSTEM, bytes(80), nine) is None
    data = struct.pack("<II32s32sQ", 1, 1, bytes(B), bytes(Hash.default()), 5_000)
    info = parsed_account(A, SYSTEM, data, nine)["parsed"]["info"]
    assert info == {
        "authority": str(B),
        "blockhash": str(Hash.default()),
        "feeCalculator": {"lamportsPerSignature": "5000"},
    }


def test_a_program_its_data_and_a_buffer_are_told_apart():
    def shown(data):
        return parsed_account(A, LOADER, data, nine)["parsed"]

    elf = base64.b64encode(b"\x7fELF").decode()
    assert shown(struct.pack("<I32s", 2, bytes(B))) == {"type": "program", "info": {"programData": str(B)}}
    buffer = shown(struct.pack("<IB32s", 1, 1, bytes(B)) + b"\x7fELF")
    assert buffer == {"type": "buffer", "info": {"authority": str(B), "data": [elf, "base64"]}}
    final = shown(struct.pack("<IQB", 3, 9, 0) + b"\x7fELF")
    assert final == {"type": "programData", "info": {"slot": 9, "authority": None, "data": [elf, "base64"]}}


def test_a_multisig_owner_is_shown_with_its_signers():
    data = struct.pack("<BQ", 3, 5)
    alone = parsed_instruction(TOKEN, KEYS[:3], data)["parsed"]["info"]
    assert alone == {"source": KEYS[0], "destination": KEYS[1], "amount": "5", "authority": KEYS[2]}
    several = parsed_instruction(TOKEN, KEYS[:5], data)["parsed"]["info"]
    assert (several["multisigAuthority"], several["signers"]) == (KEYS[2], KEYS[3:5])
    assert parsed_instruction(TOKEN, KEYS[:2], data) is None


def test_instructions_of_the_known_programs_are_named():
    transfer = system.transfer(system.TransferParams(from_pubkey=A, to_pubkey=B, lamports=7))
    shown = parsed_instruction(SYSTEM, [str(A), str(B)], transfer.data)
    info = {"source": str(A), "destination": str(B), "lamports": 7}
    assert (shown["program"], shown["parsed"]) == ("system", {"type": "transfer", "info": info})
    assert parsed_instruction(MEMO, [], b"11 Wh")["parsed"] == "11 Wh"
    assert parsed_instruction(ASSOCIATED_TOKEN, KEYS[:6], b"")["parsed"]["type"] == "create"
    assert parsed_instruction(ASSOCIATED_TOKEN, KEYS[:6], b"\1")["parsed"]["type"] == "createIdempotent"
    assert parsed_instruction(LOADER, KEYS[:2], struct.pack("<IIQ2s", 1, 900, 2, b"ab"))["parsed"] == {
        "type": "write",
        "info": {"account": KEYS[0], "authority": KEYS[1], "offset": 900, "bytes": "YWI="},
    }
    setting = parsed_instruction(TOKEN_2022, KEYS[:2], b"\6\0\0")["parsed"]["info"]
    assert (setting["mint"], setting["authorityType"], setting["newAuthority"]) == (KEYS[0], "mintTokens", None)
    assert parsed_instruction(Pubkey.default(), KEYS[:1], b"\xff\xff\xff\xff") is None
