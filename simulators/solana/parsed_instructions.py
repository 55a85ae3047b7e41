"""Instructions as `jsonParsed` shows them: of the system, memo, associated-token and token programs, and the loader.

What a validator can read of an instruction is one table for each program: by the number that begins its data, its name,
its accounts in their order, and what follows in the data. All else is shown "partially decoded": accounts and data.
"""

import base64
from collections.abc import Callable, Mapping, Sequence

from solders.pubkey import Pubkey

from simulators.solana.parsed import LOOKUP_TABLES, SYSTEM, UPGRADEABLE_LOADER
from simulators.solana.parsed_shapes import Reader, Shape, by_number, fields
from simulators.solana.parsed_token_instructions import token_instruction
from simulators.solana.parsed_tokens import TOKEN, TOKEN_2022, Parsed

ASSOCIATED_TOKEN = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
MEMO = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
MEMO_V1 = Pubkey.from_string("Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo")


def parsed_instruction(program: Pubkey, keys: Sequence[str], data: bytes) -> Parsed | None:
    """An instruction with the addresses of its accounts; None if it can only be shown partially decoded."""
    if program not in PROGRAMS:
        return None
    name, parse = PROGRAMS[program]
    try:
        parsed = parse(keys, data)
    except (ValueError, IndexError):
        return None
    return None if parsed is None else {"program": name, "programId": str(program), "parsed": parsed}


def _u32(reader: Reader) -> int:
    return reader.number(4)


def _u64(reader: Reader) -> int:
    return reader.number(8)


def _seed(reader: Reader) -> str:
    return reader.text(8)


_key = Reader.key

SYSTEM_SHAPES: Mapping[int, Shape] = {
    0: Shape("createAccount", ("source", "newAccount"), fields(("lamports", _u64), ("space", _u64), ("owner", _key))),
    1: Shape("assign", ("account",), fields(("owner", _key))),
    2: Shape("transfer", ("source", "destination"), fields(("lamports", _u64))),
    3: Shape(
        "createAccountWithSeed",
        ("source", "newAccount"),
        fields(("base", _key), ("seed", _seed), ("lamports", _u64), ("space", _u64), ("owner", _key)),
    ),
    4: Shape("advanceNonce", ("nonceAccount", "recentBlockhashesSysvar", "nonceAuthority")),
    5: Shape(
        "withdrawFromNonce",
        ("nonceAccount", "destination", "recentBlockhashesSysvar", "rentSysvar", "nonceAuthority"),
        fields(("lamports", _u64)),
    ),
    6: Shape(
        "initializeNonce", ("nonceAccount", "recentBlockhashesSysvar", "rentSysvar"), fields(("nonceAuthority", _key))
    ),
    7: Shape("authorizeNonce", ("nonceAccount", "nonceAuthority"), fields(("newAuthorized", _key))),
    8: Shape("allocate", ("account",), fields(("space", _u64))),
    9: Shape(
        "allocateWithSeed",
        ("account",),
        fields(("base", _key), ("seed", _seed), ("space", _u64), ("owner", _key)),
    ),
    10: Shape("assignWithSeed", ("account",), fields(("base", _key), ("seed", _seed), ("owner", _key))),
    11: Shape(
        "transferWithSeed",
        ("source", "sourceBase", "destination"),
        fields(("lamports", _u64), ("sourceSeed", _seed), ("sourceOwner", _key)),
    ),
    12: Shape("upgradeNonce", ("nonceAccount",)),
}

_CREATE_ACCOUNT = ("source", "account", "wallet", "mint", "systemProgram", "tokenProgram")
ASSOCIATED_TOKEN_SHAPES: Mapping[int, Shape] = {
    0: Shape("create", _CREATE_ACCOUNT),
    1: Shape("createIdempotent", _CREATE_ACCOUNT),
    2: Shape(
        "recoverNested",
        ("nestedSource", "nestedMint", "destination", "nestedOwner", "ownerMint", "wallet", "tokenProgram"),
    ),
}

UPGRADEABLE_LOADER_SHAPES: Mapping[int, Shape] = {
    0: Shape("initializeBuffer", ("account",), optional_accounts=("authority",)),
    1: Shape(
        "write",
        ("account", "authority"),
        fields(("offset", _u32), ("bytes", lambda reader: base64.b64encode(reader.take(_u64(reader))).decode())),
    ),
    2: Shape(
        "deployWithMaxDataLen",
        (
            "payerAccount",
            "programDataAccount",
            "programAccount",
            "bufferAccount",
            "rentSysvar",
            "clockSysvar",
            "systemProgram",
            "authority",
        ),
        fields(("maxDataLen", _u64)),
    ),
    3: Shape(
        "upgrade",
        (
            "programDataAccount",
            "programAccount",
            "bufferAccount",
            "spillAccount",
            "rentSysvar",
            "clockSysvar",
            "authority",
        ),
    ),
    4: Shape("setAuthority", ("account", "authority"), optional_accounts=("newAuthority",)),
    5: Shape("close", ("account", "recipient", "authority"), optional_accounts=("programAccount",)),
    6: Shape(
        "extendProgram",
        ("programDataAccount", "programAccount"),
        fields(("additionalBytes", _u32)),
        optional_accounts=("systemProgram", "payerAccount"),
    ),
    7: Shape("setAuthorityChecked", ("account", "authority", "newAuthority")),
}

LOOKUP_TABLE_SHAPES: Mapping[int, Shape] = {
    0: Shape(
        "createLookupTable",
        ("lookupTableAccount", "lookupTableAuthority", "payerAccount", "systemProgram"),
        fields(("recentSlot", _u64), ("bumpSeed", lambda reader: reader.number(1))),
    ),
    1: Shape("freezeLookupTable", ("lookupTableAccount", "lookupTableAuthority")),
    2: Shape(
        "extendLookupTable",
        ("lookupTableAccount", "lookupTableAuthority"),
        fields(("newAddresses", lambda reader: [reader.key() for _ in range(_u64(reader))])),
        optional_accounts=("payerAccount", "systemProgram"),
    ),
    3: Shape("deactivateLookupTable", ("lookupTableAccount", "lookupTableAuthority")),
    4: Shape("closeLookupTable", ("lookupTableAccount", "lookupTableAuthority", "recipient")),
}


def _associated_token(keys: Sequence[str], data: bytes) -> Parsed | None:
    """Without data it is the first: the program began with one instruction."""
    return by_number(1, ASSOCIATED_TOKEN_SHAPES)(keys, data or b"\0")


PROGRAMS: Mapping[Pubkey, tuple[str, Callable[[Sequence[str], bytes], object]]] = {
    SYSTEM: ("system", by_number(4, SYSTEM_SHAPES)),
    TOKEN: ("spl-token", token_instruction),
    TOKEN_2022: ("spl-token", token_instruction),
    ASSOCIATED_TOKEN: ("spl-associated-token-account", _associated_token),
    MEMO: ("spl-memo", lambda _, data: data.decode()),
    MEMO_V1: ("spl-memo", lambda _, data: data.decode()),
    UPGRADEABLE_LOADER: ("bpf-upgradeable-loader", by_number(4, UPGRADEABLE_LOADER_SHAPES)),
    LOOKUP_TABLES: ("address-lookup-table", by_number(4, LOOKUP_TABLE_SHAPES)),
}
