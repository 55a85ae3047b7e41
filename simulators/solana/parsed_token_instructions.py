"""Instructions of SPL Token and Token-2022 as `jsonParsed` shows them, with those of extensions and metadata."""

import hashlib
from collections.abc import Mapping, Sequence

from simulators.solana.parsed_shapes import Read, Reader, Shape, by_number, fields
from simulators.solana.parsed_tokens import STATES, Parsed, ui_amount

AUTHORITY_TYPES = (
    "mintTokens",
    "freezeAccount",
    "accountOwner",
    "closeAccount",
    "transferFeeConfig",
    "withheldWithdraw",
    "closeMint",
    "interestRate",
    "permanentDelegate",
    "confidentialTransferMint",
    "transferHookProgramId",
    "confidentialTransferFeeConfig",
    "metadataPointer",
    "groupPointer",
    "groupMemberPointer",
    "scaledUiAmount",
    "pause",
)
MINT_AUTHORITIES = {0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
METADATA_FIELDS = ("name", "symbol", "uri")
METADATA_BYTES = 8


def _units(reader: Reader) -> str:
    return str(reader.number(8))


def _token_amount(reader: Reader) -> Parsed:
    units = reader.number(8)
    return {"tokenAmount": ui_amount(units, reader.number(1))}


def _account_state(reader: Reader) -> Parsed:
    return {"accountState": STATES[reader.number(1)]}


def _new_mint(reader: Reader) -> Parsed:
    info: Parsed = {"decimals": reader.number(1), "mintAuthority": reader.key()}
    freezer = reader.optional_key()
    return info if freezer is None else {**info, "freezeAuthority": freezer}


def _some_keys(*names: str) -> Read:
    """Keys that are shown only if there are any."""
    return lambda reader: {name: key for name in names if (key := reader.key_or_none()) is not None}


_AMOUNT = fields(("amount", _units))
_AUTHORITY = ("authority", "multisigAuthority")
_OWNER = ("owner", "multisigOwner")
_MINTER = ("mintAuthority", "multisigMintAuthority")
_FREEZER = ("freezeAuthority", "multisigFreezeAuthority")

TOKEN_SHAPES: Mapping[int, Shape] = {
    0: Shape("initializeMint", ("mint", "rentSysvar"), _new_mint),
    1: Shape("initializeAccount", ("account", "mint", "owner", "rentSysvar")),
    3: Shape("transfer", ("source", "destination"), _AMOUNT, _AUTHORITY),
    4: Shape("approve", ("source", "delegate"), _AMOUNT, _OWNER),
    5: Shape("revoke", ("source",), signer=_OWNER),
    7: Shape("mintTo", ("mint", "account"), _AMOUNT, _MINTER),
    8: Shape("burn", ("account", "mint"), _AMOUNT, _AUTHORITY),
    9: Shape("closeAccount", ("account", "destination"), signer=_OWNER),
    10: Shape("freezeAccount", ("account", "mint"), signer=_FREEZER),
    11: Shape("thawAccount", ("account", "mint"), signer=_FREEZER),
    12: Shape("transferChecked", ("source", "mint", "destination"), _token_amount, _AUTHORITY),
    13: Shape("approveChecked", ("source", "mint", "delegate"), _token_amount, _OWNER),
    14: Shape("mintToChecked", ("mint", "account"), _token_amount, _MINTER),
    15: Shape("burnChecked", ("account", "mint"), _token_amount, _AUTHORITY),
    16: Shape("initializeAccount2", ("account", "mint", "rentSysvar"), fields(("owner", Reader.key))),
    17: Shape("syncNative", ("account",)),
    18: Shape("initializeAccount3", ("account", "mint"), fields(("owner", Reader.key))),
    20: Shape("initializeMint2", ("mint",), _new_mint),
    21: Shape("getAccountDataSize", ("mint",)),
    22: Shape("initializeImmutableOwner", ("account",)),
    25: Shape("initializeMintCloseAuthority", ("mint",), fields(("newAuthority", Reader.optional_key))),
    32: Shape("initializeNonTransferableMint", ("mint",)),
    35: Shape("initializePermanentDelegate", ("mint",), fields(("delegate", Reader.key))),
}

TOKEN_EXTENSION_SHAPES: Mapping[tuple[int, int], Shape] = {
    (28, 0): Shape("initializeDefaultAccountState", ("mint",), _account_state),
    (28, 1): Shape("updateDefaultAccountState", ("mint",), _account_state, _FREEZER),
    (39, 0): Shape("initializeMetadataPointer", ("mint",), _some_keys("authority", "metadataAddress")),
    (40, 0): Shape("initializeGroupPointer", ("mint",), _some_keys("authority", "groupAddress")),
    (44, 0): Shape("initializePausableConfig", ("mint",), _some_keys("authority")),
    (44, 1): Shape("pause", ("mint",), signer=_AUTHORITY),
    (44, 2): Shape("resume", ("mint",), signer=_AUTHORITY),
}


def _metadata_field(reader: Reader) -> str:
    number = reader.number(1)
    return METADATA_FIELDS[number] if number < len(METADATA_FIELDS) else reader.text(4)


def _discriminator(name: str) -> bytes:
    return hashlib.sha256(f"spl_token_metadata_interface:{name}".encode()).digest()[:METADATA_BYTES]


METADATA_SHAPES: Mapping[bytes, Shape] = {
    _discriminator("initialize_account"): Shape(
        "initializeTokenMetadata",
        ("metadata", "updateAuthority", "mint", "mintAuthority"),
        fields(*((name, lambda reader: reader.text(4)) for name in METADATA_FIELDS)),
    ),
    _discriminator("updating_field"): Shape(
        "updateTokenMetadataField",
        ("metadata", "updateAuthority"),
        fields(("field", _metadata_field), ("value", lambda reader: reader.text(4))),
    ),
    _discriminator("remove_key_ix"): Shape(
        "removeTokenMetadataKey",
        ("metadata", "updateAuthority"),
        fields(("idempotent", lambda reader: reader.number(1) == 1), ("key", lambda reader: reader.text(4))),
    ),
    _discriminator("update_the_authority"): Shape(
        "updateTokenMetadataAuthority",
        ("metadata", "updateAuthority"),
        fields(("newAuthority", Reader.key_or_none)),
    ),
}


def token_instruction(keys: Sequence[str], data: bytes) -> Parsed | None:
    """What an instruction says; None if it is not known. Raises ValueError or IndexError if it is cut short."""
    if data[:METADATA_BYTES] in METADATA_SHAPES:
        return METADATA_SHAPES[data[:METADATA_BYTES]].parsed(keys, Reader(data[METADATA_BYTES:]))
    if data[:1] == b"\x06":
        return _set_authority(keys, Reader(data[1:]))
    if len(data) > 1 and (data[0], data[1]) in TOKEN_EXTENSION_SHAPES:
        return TOKEN_EXTENSION_SHAPES[data[0], data[1]].parsed(keys, Reader(data[2:]))
    return by_number(1, TOKEN_SHAPES)(keys, data)


def _set_authority(keys: Sequence[str], reader: Reader) -> Parsed:
    """Whose account it is depends on which authority is set."""
    number = reader.number(1)
    shape = Shape("setAuthority", ("mint" if number in MINT_AUTHORITIES else "account",), signer=_AUTHORITY)
    parsed = shape.parsed(keys, reader)
    parsed["info"] |= {"authorityType": AUTHORITY_TYPES[number], "newAuthority": reader.optional_key()}
    return parsed
