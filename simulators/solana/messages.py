"""Reading transactions: from the wire, and which accounts they name."""

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import base58
from solders.account import Account
from solders.message import Message, MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from simulators.solana import errors

WIRE_BYTES_MAX = 1_232
BASE64_CHARACTERS_MAX = 1_644
BASE58_CHARACTERS_MAX = 1_683
TYPE_NAME = "solana_transaction::versioned::VersionedTransaction"
MESSAGE_TYPE_NAME = "solana_message::versions::VersionedMessage"
LOOKUP_TABLE_HEADER_BYTES = 56
KEY_BYTES = 32
ADVANCE_NONCE = (4).to_bytes(4, "little")
SYSTEM_PROGRAM = Pubkey.default()

AccountOf = Callable[[Pubkey], Account | None]


@dataclass(frozen=True)
class Keys:
    """All accounts of a transaction in the order in which instructions number them, then what tables gave."""

    static: tuple[Pubkey, ...]
    loaded_writable: tuple[Pubkey, ...]
    loaded_readonly: tuple[Pubkey, ...]
    writable: tuple[Pubkey, ...]
    """Those that the transaction may change, the fee payer first."""

    @property
    def all(self) -> tuple[Pubkey, ...]:
        """Every account, once each unless the transaction names it twice."""
        return self.static + self.loaded_writable + self.loaded_readonly


def decode(text: str, encoding: str, type_name: str = TYPE_NAME) -> bytes:
    """The bytes of a transaction as a request has it. Raises RpcError in the words of a node."""
    if encoding == "base58":
        limit = BASE58_CHARACTERS_MAX
    elif encoding == "base64":
        limit = BASE64_CHARACTERS_MAX
    else:
        raise errors.invalid_params(f"unsupported encoding: {encoding}. Supported encodings: base58, base64")
    if len(text) > limit:
        size = f"{len(text)} bytes (max: encoded/raw {limit}/{WIRE_BYTES_MAX})"
        raise errors.invalid_params(f"{encoding} encoded {type_name} too large: {size}")
    try:
        wire = base64.b64decode(text, validate=True) if encoding == "base64" else base58.b58decode(text)
    except (binascii.Error, ValueError) as error:
        raise errors.invalid_params(f"invalid {encoding} encoding: {error}") from error
    if len(wire) > WIRE_BYTES_MAX:
        raise errors.invalid_params(f"decoded {type_name} too large: {len(wire)} bytes (max: {WIRE_BYTES_MAX} bytes)")
    return wire


def read_transaction(wire: bytes) -> VersionedTransaction:
    """Raises RpcError: not a transaction, or one whose parts do not fit."""
    try:
        transaction = VersionedTransaction.from_bytes(wire)
    except ValueError as error:
        raise errors.invalid_params(f"failed to deserialize {TYPE_NAME}: {error}") from error
    if not isinstance(transaction.message, Message | MessageV0):
        raise errors.invalid_params("invalid transaction: Transaction version is unsupported")
    try:
        transaction.sanitize()
    except ValueError as error:
        text = "Transaction failed to sanitize accounts offsets correctly"
        raise errors.invalid_params(f"invalid transaction: {text}") from error
    return transaction


def message_of(transaction: VersionedTransaction) -> Message | MessageV0:
    """The message of a transaction that `read_transaction` gave."""
    message = transaction.message
    assert isinstance(message, Message | MessageV0), "other versions are refused when they are read"
    return message


def message_hash(transaction: VersionedTransaction) -> bytes:
    """What identifies a message, whoever signed it and how."""
    return hashlib.sha256(to_bytes_versioned(transaction.message)).digest()


def keys_of(message: Message | MessageV0, account_of: AccountOf) -> Keys:
    """The accounts of a message. What a lookup table lacks is left out: the runtime refuses such a transaction."""
    static = tuple(message.account_keys)
    loaded_writable: list[Pubkey] = []
    loaded_readonly: list[Pubkey] = []
    if isinstance(message, MessageV0):
        for lookup in message.address_table_lookups:
            table = account_of(lookup.account_key)
            addresses = table.data[LOOKUP_TABLE_HEADER_BYTES:] if table else b""
            for indexes, loaded in (
                (lookup.writable_indexes, loaded_writable),
                (lookup.readonly_indexes, loaded_readonly),
            ):
                for index in indexes:
                    raw = addresses[KEY_BYTES * index : KEY_BYTES * (index + 1)]
                    if len(raw) == KEY_BYTES:
                        loaded.append(Pubkey.from_bytes(raw))
    header = message.header
    signers = header.num_required_signatures
    writable = [
        key
        for index, key in enumerate(static)
        if index < signers - header.num_readonly_signed_accounts
        or signers <= index < len(static) - header.num_readonly_unsigned_accounts
    ]
    return Keys(static, tuple(loaded_writable), tuple(loaded_readonly), (*writable, *loaded_writable))


def landed_keys(message: Message | MessageV0, loaded: Mapping[str, Sequence[str]]) -> Keys:
    """The accounts of a message that landed, with what its tables held then: addresses by `writable`, `readonly`."""
    own = keys_of(message, lambda _: None)
    writable = tuple(map(Pubkey.from_string, loaded["writable"]))
    return Keys(own.static, writable, tuple(map(Pubkey.from_string, loaded["readonly"])), own.writable + writable)


def find_nonce_account(message: Message | MessageV0) -> Pubkey | None:
    """The account whose nonce the message may name instead of a blockhash: its first instruction advances it."""
    if not message.instructions:
        return None
    first = message.instructions[0]
    keys = message.account_keys
    program = keys[first.program_id_index] if first.program_id_index < len(keys) else None
    if program != SYSTEM_PROGRAM or bytes(first.data)[:4] != ADVANCE_NONCE or not first.accounts:
        return None
    index = first.accounts[0]
    return keys[index] if index < len(keys) else None
