"""Accounts as `jsonParsed` shows them: nonces, programs, lookup tables, sysvars, and the tokens' of parsed_tokens."""

import base64
import struct
from collections.abc import Callable, Mapping

from solders.hash import Hash
from solders.pubkey import Pubkey

from simulators.solana.parsed_tokens import PROGRAM_NAMES, Decimals, Parsed, parsed_token_data

SYSTEM = Pubkey.from_string("11111111111111111111111111111111")
UPGRADEABLE_LOADER = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")
LOOKUP_TABLES = Pubkey.from_string("AddressLookupTab1e1111111111111111111111111")
SYSVARS = Pubkey.from_string("Sysvar1111111111111111111111111111111111111")

NONCE_BYTES = 80
LOOKUP_TABLE_HEADER_BYTES = 56
SLOT_HASH_BYTES = 40


def parsed_account(address: Pubkey, owner: Pubkey, data: bytes, decimals_of: Decimals) -> Parsed | None:
    """The `data` of an account in a `jsonParsed` answer; None if a validator, too, would answer with the bytes."""
    try:
        if owner in PROGRAM_NAMES:
            name, parsed = PROGRAM_NAMES[owner], parsed_token_data(owner, data, decimals_of)
        elif owner == SYSVARS:
            name, parsed = "sysvar", _sysvar(str(address), data)
        elif owner in NATIVE:
            name, parse = NATIVE[owner]
            parsed = parse(data)
        else:
            return None
    except (struct.error, ValueError, IndexError):  # cut short, or not what its owner would write
        return None
    return None if parsed is None else {"program": name, "parsed": parsed, "space": len(data)}


def _nonce(data: bytes) -> Parsed | None:
    if len(data) != NONCE_BYTES or struct.unpack_from("<II", data) != (1, 1):
        return None
    return {
        "type": "initialized",
        "info": {
            "authority": _key(data, 8),
            "blockhash": str(Hash.from_bytes(data[40:72])),
            "feeCalculator": {"lamportsPerSignature": str(_u64(data, 72))},
        },
    }


def _program(data: bytes) -> Parsed | None:
    """An account of the upgradeable loader."""
    (kind,) = struct.unpack_from("<I", data)
    if kind == 0:
        return {"type": "uninitialized"}
    if kind == 1:
        authority = _optional_key(data, 4)
        return {"type": "buffer", "info": {"authority": authority, "data": _bytes(data[37 if authority else 5 :])}}
    if kind == 2:
        return {"type": "program", "info": {"programData": _key(data, 4)}}
    if kind == 3:
        authority = _optional_key(data, 12)
        info = {"slot": _u64(data, 4), "authority": authority, "data": _bytes(data[45 if authority else 13 :])}
        return {"type": "programData", "info": info}
    return None


def _lookup_table(data: bytes) -> Parsed | None:
    kind, deactivated, extended, start, has_authority = struct.unpack_from("<IQQBB", data)
    if kind == 0:
        return {"type": "uninitialized"}
    if kind != 1:
        return None
    addresses = range(LOOKUP_TABLE_HEADER_BYTES, len(data) - 31, 32)
    info: Parsed = {
        "deactivationSlot": str(deactivated),
        "lastExtendedSlot": str(extended),
        "lastExtendedSlotStartIndex": start,
        "addresses": [_key(data, at) for at in addresses],
    }
    if has_authority:
        info["authority"] = _key(data, 22)
    return {"type": "lookupTable", "info": info}


NATIVE: Mapping[Pubkey, tuple[str, Callable[[bytes], Parsed | None]]] = {
    SYSTEM: ("nonce", _nonce),
    UPGRADEABLE_LOADER: ("bpf-upgradeable-loader", _program),
    LOOKUP_TABLES: ("address-lookup-table", _lookup_table),
}


def _sysvar(address: str, data: bytes) -> Parsed | None:
    if address not in SYSVAR_KINDS:
        return None
    name, parse = SYSVAR_KINDS[address]
    return {"type": name, "info": parse(data)}


def _clock(data: bytes) -> Parsed:
    slot, epoch_start, epoch, schedule_epoch, now = struct.unpack_from("<QqQQq", data)
    return {
        "slot": slot,
        "epoch": epoch,
        "epochStartTimestamp": epoch_start,
        "leaderScheduleEpoch": schedule_epoch,
        "unixTimestamp": now,
    }


def _rent(data: bytes) -> Parsed:
    lamports, threshold, burn_percent = struct.unpack_from("<QdB", data)
    return {"lamportsPerByteYear": str(lamports), "exemptionThreshold": threshold, "burnPercent": burn_percent}


def _epoch_schedule(data: bytes) -> Parsed:
    slots, offset, warmup, first_epoch, first_slot = struct.unpack_from("<QQ?QQ", data)
    return {
        "slotsPerEpoch": slots,
        "leaderScheduleSlotOffset": offset,
        "warmup": warmup,
        "firstNormalEpoch": first_epoch,
        "firstNormalSlot": first_slot,
    }


def _slot_hashes(data: bytes) -> list[Parsed]:
    count = _u64(data, 0)
    starts = range(8, 8 + count * SLOT_HASH_BYTES, SLOT_HASH_BYTES)
    return [{"slot": _u64(data, at), "hash": str(Hash.from_bytes(data[at + 8 : at + 40]))} for at in starts]


SYSVAR_KINDS: Mapping[str, tuple[str, Callable[[bytes], object]]] = {
    "SysvarC1ock11111111111111111111111111111111": ("clock", _clock),
    "SysvarRent111111111111111111111111111111111": ("rent", _rent),
    "SysvarEpochSchedu1e111111111111111111111111": ("epochSchedule", _epoch_schedule),
    "SysvarS1otHashes111111111111111111111111111": ("slotHashes", _slot_hashes),
}


def _bytes(data: bytes) -> list[str]:
    return [base64.b64encode(data).decode(), "base64"]


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _key(data: bytes, at: int) -> str:
    return str(Pubkey.from_bytes(data[at : at + 32]))


def _optional_key(data: bytes, at: int) -> str | None:
    return _key(data, at + 1) if data[at] == 1 else None
