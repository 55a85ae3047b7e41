"""What a transaction that the hub hands out does, read from its bytes alone, and a refusal of all but two kinds of it.

A wallet's signature under a transaction lets it do whatever its programs do with that wallet. So nothing here believes
what the hub says of it: the bytes are taken apart, and every instruction, account and flag must be what docs/program.md
and Solana's own programs have for the registration of a user or a meter. Whatever else there is, is a refusal that
names it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NoReturn
from uuid import UUID

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey
from solders.message import Message, MessageV0, from_bytes_versioned, to_bytes_versioned
from solders.pubkey import Pubkey

from commonwatt.hub_client import CommandError
from protocol.enrolment import KIND_NAMES, STATEMENT_BYTES, Enrolment, decode_enrolment
from protocol.errors import ProtocolError
from protocol.seal import NO_PREDECESSOR

SYSTEM: Final = Pubkey.default()
COMPUTE_BUDGET: Final = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
ED25519: Final = Pubkey.from_string("Ed25519SigVerify111111111111111111111111111")
INSTRUCTIONS_SYSVAR: Final = Pubkey.from_string("Sysvar1nstructions1111111111111111111111111")
TOKEN_2022: Final = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
ASSOCIATED_TOKEN: Final = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")

REGISTER_USER, REGISTER_METER = 1, 2
MEMBER_TYPES: Final = {1: "prosumer", 2: "consumer"}
METER_ID_SEED_BYTES: Final = 32

_KNOWN: Final = {SYSTEM: "the system program", TOKEN_2022: "the token program", ASSOCIATED_TOKEN: "associated tokens"}
_BUDGETS: Final = {2: ("compute units at most", 5), 3: ("micro-lamports per compute unit", 9)}
"""Instructions of the compute budget that may be there, and their lengths: they cost the payer, never the wallet."""
_CREATE_IDEMPOTENT: Final = b"\x01"
_SIGNATURE_PARTS: Final = struct.Struct("<BBHHHHHHH")
_THIS_INSTRUCTION: Final = 0xFFFF
_SIGNATURE_BYTES, _KEY_BYTES = 64, 32

Lines = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Expected:
    """What somebody is willing to sign: the registration of this wallet, or of a meter of its, by this program."""

    act: Literal["user.register", "meter.register"]
    wallet: Pubkey
    program: Pubkey
    registration_id: UUID
    meter_id: str | None = None

    @property
    def reference(self) -> Pubkey:
        """The address that stands for the registration in its transaction, so that no two have the same bytes."""
        return Pubkey.from_bytes(hashlib.sha256(b"commonwatt business id" + self.registration_id.bytes).digest())


@dataclass(frozen=True)
class _Part:
    """One instruction: its program, its accounts in order, its data, and where it stands."""

    place: int
    program: Pubkey
    accounts: tuple[Pubkey, ...]
    data: bytes


def read_transaction(message: bytes, expected: Expected) -> Lines:
    """What these bytes do, as (name, words) to show. Raises CommandError `transaction_refused` for the unexpected."""
    decoded = _decode(message)
    payer = _check_signers(decoded, expected.wallet)
    budget, acts = _take_budget(_parts(decoded), expected.reference)
    if expected.act == "user.register":
        lines, used = _read_user(acts, payer, expected)
    else:
        lines, used = _read_meter(acts, payer, expected)
    used |= {payer, expected.reference, *(part.program for part in (*budget, *acts))}
    for key in decoded.account_keys:
        if key not in used:
            _refuse(f"it names the account {key}, which nothing expected uses")
    return (
        *lines,
        ("by the program", str(expected.program)),
        ("paid by", f"{payer}, rent and fee; not by you"),
        ("takes from your wallet", "nothing"),
    )


def user_address(program: Pubkey, wallet: Pubkey) -> Pubkey:
    """Where the program keeps the User of a wallet."""
    return _derive(program, b"user", bytes(wallet))


def config_address(program: Pubkey) -> Pubkey:
    """Where the program keeps its Config."""
    return _derive(program, b"config")


def grid_address(owner: Pubkey, grid_mint: Pubkey) -> Pubkey:
    """The associated token account of GRID of a wallet."""
    return _derive(ASSOCIATED_TOKEN, bytes(owner), bytes(TOKEN_2022), bytes(grid_mint))


def _decode(message: bytes) -> Message | MessageV0:
    try:
        decoded = from_bytes_versioned(message)
        whole = bytes(to_bytes_versioned(decoded))
    except ValueError as fault:
        _refuse("it is no message of a transaction", fault)
    if not isinstance(decoded, Message | MessageV0):
        _refuse("it is of a version that this program cannot read")
    if whole != message:
        _refuse("it has bytes that are no part of a message")
    if isinstance(decoded, MessageV0) and decoded.address_table_lookups:
        _refuse("it takes accounts from lookup tables, whose content it does not show")
    if len(set(decoded.account_keys)) != len(decoded.account_keys):
        _refuse("it names an account twice")
    return decoded


def _check_signers(decoded: Message | MessageV0, wallet: Pubkey) -> Pubkey:
    """Two sign: the payer, who is not the wallet, and the wallet, whose lamports no instruction may touch."""
    header, keys = decoded.header, decoded.account_keys
    signers = keys[: header.num_required_signatures]
    if wallet not in signers:
        _refuse("it does not ask for your wallet's signature")
    if signers[0] == wallet:
        _refuse("your wallet would pay for it (fee payer)")
    if len(signers) != 2:
        _refuse(f"it asks for {len(signers)} signatures, not for the payer's and yours")
    if header.num_readonly_signed_accounts != 1:
        _refuse("your wallet is not marked as read-only in it, so lamports could be moved out of it")
    return signers[0]


def _parts(decoded: Message | MessageV0) -> list[_Part]:
    keys = decoded.account_keys
    parts = []
    for place, each in enumerate(decoded.instructions):
        if max((each.program_id_index, *each.accounts)) >= len(keys):
            _refuse(f"instruction {place + 1} names an account that is not there")
        accounts = tuple(keys[index] for index in each.accounts)
        parts.append(_Part(place, keys[each.program_id_index], accounts, bytes(each.data)))
    return parts


def _take_budget(parts: Sequence[_Part], reference: Pubkey) -> tuple[list[_Part], list[_Part]]:
    """The instructions of the compute budget, which come first, each once at most; and the others.

    The first may name the reference of this registration, which the program of the compute budget does not look at.
    """
    budget = [part for part in parts if part.program == COMPUTE_BUDGET]
    if [part.place for part in budget] != list(range(len(budget))):
        _refuse("an instruction of the compute budget does not stand at the beginning")
    seen = set()
    for part in budget:
        _, length = _BUDGETS.get(part.data[0] if part.data else 0, ("", -1))
        idle = (reference,) if part.place == 0 else ()
        if len(part.data) != length or part.accounts not in ((), idle) or part.data[0] in seen:
            _refuse(f"instruction {part.place + 1} is an unexpected one of the compute budget")
        seen.add(part.data[0])
    return budget, list(parts[len(budget) :])


def _read_user(acts: Sequence[_Part], payer: Pubkey, expected: Expected) -> tuple[Lines, set[Pubkey]]:
    _check_programs(acts, [expected.program])
    [act] = acts
    wallet, program = expected.wallet, expected.program
    if act.data[:1] != bytes([REGISTER_USER]) or len(act.data) != 2:
        _refuse(f"instruction {act.place + 1} is not `register_user`")
    member_type = MEMBER_TYPES.get(act.data[1]) or _refuse(f"it registers a user of the unknown kind {act.data[1]}")
    accounts = [payer, wallet, config_address(program), user_address(program, wallet), SYSTEM]
    _check_accounts(act, accounts)
    lines = (
        ("it registers", f"your wallet {wallet} as a {member_type} on the chain"),
        ("its account there", str(accounts[3])),
    )
    return lines, set(accounts)


def _read_meter(acts: Sequence[_Part], payer: Pubkey, expected: Expected) -> tuple[Lines, set[Pubkey]]:
    _check_programs(acts, [ASSOCIATED_TOKEN, ED25519, expected.program])
    token, signed, act = acts
    wallet, program = expected.wallet, expected.program
    if act.data[:1] != bytes([REGISTER_METER]) or len(act.data) != 13:
        _refuse(f"instruction {act.place + 1} is not `register_meter`")
    capacity_w, register_step_wh = struct.unpack("<QI", act.data[1:])
    statement = _read_statement(signed)
    if statement.meter_id != expected.meter_id:
        _refuse(f"it is about the meter {statement.meter_id}, not about {expected.meter_id}")
    if statement.owner != bytes(wallet):
        _refuse(f"the meter's statement names another owner, {Pubkey(statement.owner)}")
    if statement.key_epoch != 1 or statement.last_seal_hash != NO_PREDECESSOR:
        _refuse(f"the meter's statement is of key epoch {statement.key_epoch}, not its first")
    mint = token.accounts[3] if len(token.accounts) > 3 else SYSTEM
    grid_account = grid_address(wallet, mint)
    if token.data != _CREATE_IDEMPOTENT:
        _refuse(f"instruction {token.place + 1} does something else than make your account of GRID")
    _check_accounts(token, [payer, grid_account, wallet, mint, SYSTEM, TOKEN_2022])
    meter = _derive(program, b"meter", statement.meter_id.encode().ljust(METER_ID_SEED_BYTES, b"\0"))
    accounts = [
        payer,
        wallet,
        config_address(program),
        user_address(program, wallet),
        meter,
        _derive(program, b"key", statement.public_key),
        grid_account,
        INSTRUCTIONS_SYSVAR,
        SYSTEM,
    ]
    _check_accounts(act, accounts)
    lines = (
        ("it registers", f"the meter {statement.meter_id} as yours on the chain, a {KIND_NAMES[statement.kind]} meter"),
        ("of at most", f"{capacity_w} W, in steps of {register_step_wh} Wh"),
        ("that signs with the key", statement.public_key.hex()),
        ("and began at", f"{statement.production_wh} Wh produced, {statement.surplus_wh} Wh of them surplus"),
        ("in the deployment", statement.domain.hex()),
        ("its account there", str(meter)),
        ("its energy comes to", f"{grid_account}, your account of GRID, which is made if it is not there"),
        ("GRID is the token", str(mint)),
    )
    return lines, {*accounts, mint, TOKEN_2022}


def _read_statement(part: _Part) -> Enrolment:
    """The enrolment statement, whose one signature, by the key that it names, lies with it in the instruction."""
    data = part.data
    if part.accounts or len(data) < _SIGNATURE_PARTS.size:
        _refuse(f"instruction {part.place + 1} is no check of one signature")
    count, padding, *offsets = _SIGNATURE_PARTS.unpack_from(data)
    signature_at, signature_in, key_at, key_in, message_at, message_bytes, message_in = offsets
    places = {signature_in, key_in, message_in}
    if count != 1 or padding or not places <= {_THIS_INSTRUCTION, part.place}:
        _refuse(f"instruction {part.place + 1} does not check one signature that lies in it")
    signature = data[signature_at : signature_at + _SIGNATURE_BYTES]
    key = data[key_at : key_at + _KEY_BYTES]
    signed = data[message_at : message_at + message_bytes]
    if message_bytes != STATEMENT_BYTES or len(data) != _SIGNATURE_PARTS.size + sum(map(len, (signature, key, signed))):
        _refuse(f"instruction {part.place + 1} is not about a meter's statement alone")
    try:
        statement = decode_enrolment(signed)
        VerifyKey(key).verify(signed, signature)
    except (ProtocolError, BadSignatureError, ValueError) as fault:
        _refuse(f"the meter's statement is not valid ({fault})", fault)
    if statement.public_key != key:
        _refuse("the meter's statement is signed by another key than it names")
    return statement


def _check_programs(acts: Sequence[_Part], programs: Sequence[Pubkey]) -> None:
    """Exactly these programs are called, in this order."""
    for act, program in zip(acts, programs, strict=False):
        if act.program != program:
            name = _KNOWN.get(act.program)
            _refuse(f"instruction {act.place + 1} calls {name or f'the program {act.program}'} instead of {program}")
    if len(acts) > len(programs):
        extra = acts[len(programs)]
        _refuse(f"instruction {extra.place + 1} is one too many; it calls {_KNOWN.get(extra.program) or extra.program}")
    if len(acts) < len(programs):
        _refuse(f"it has {len(acts)} instructions that do something, not {len(programs)}")


def _check_accounts(part: _Part, accounts: Sequence[Pubkey]) -> None:
    """The instruction has exactly these accounts, in this order."""
    if len(part.accounts) != len(accounts):
        _refuse(f"instruction {part.place + 1} has {len(part.accounts)} accounts, not {len(accounts)}")
    for number, (found, wanted) in enumerate(zip(part.accounts, accounts, strict=True), 1):
        if found != wanted:
            _refuse(f"account {number} of instruction {part.place + 1} is {found}, not {wanted}")


def _derive(program: Pubkey, *seeds: bytes) -> Pubkey:
    address, _ = Pubkey.find_program_address(seeds, program)
    return address


def _refuse(why: str, fault: BaseException | None = None) -> NoReturn:
    raise CommandError("transaction_refused", why) from fault
