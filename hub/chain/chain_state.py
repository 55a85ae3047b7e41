"""Whether the chain is the one that the settings mean, with our program on it: asked at the start and every minute.

While it is not, nothing is signed; while the node is on another chain, nothing is concluded from what it says either.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Final

from solders.pubkey import Pubkey

from hub import logs, metrics
from hub.chain.accounts import ConfigAccount, decode_account
from hub.chain.addresses import LOADER_PROGRAM, Addresses
from hub.chain.rpc import Node
from hub.chain.rpc_answers import Level
from hub.errors import (
    ChainAccountMalformed,
    ChainDiffers,
    ConfigDiffers,
    HubError,
    HubKeyEmpty,
    ProgramDiffers,
    ProgramNotDeployed,
    ProgramNotInitialized,
)

CHECK_PAUSE_S: Final = 60
UNUSABLE_PAUSE_S: Final = 5
"""While something is wrong, it is looked at more often: whoever mends it waits."""
KEY_LAMPORTS_MIN: Final = 10_000_000
"""0.01 SOL: what one registration of a member and a meter takes, with the fees."""
UNUSABLE_TOLD_AFTER_S: Final = 300.0
"""A node that is away for less is nobody's night."""
USABLE: Final = "usable"
NOT_CHECKED: Final = "not_checked"

PROGRAM_TAG: Final = 2
PROGRAM_DATA_TAG: Final = 3
PROGRAM_BYTES: Final = 36
PROGRAM_DATA_HEADER_BYTES: Final = 45
"""Of the upgradeable loader's accounts, which begin with their tag as u32."""

log = logs.get_logger()


@dataclass(frozen=True)
class ChainExpected:
    """What the settings say must be there."""

    genesis_hash: bytes
    program_id: Pubkey
    domain: bytes
    hub: bytes
    """The hub's public key."""

    @property
    def addresses(self) -> Addresses:
        """Of this deployment."""
        return Addresses(self.program_id)


@dataclass(frozen=True)
class ProgramData:
    """What the loader keeps of a program. `upgrade_authority` None: nobody can change it any more."""

    slot: int
    upgrade_authority: bytes | None
    content: bytes


@dataclass
class ChainGate:
    """What the last check found, for whoever is about to sign or to conclude something."""

    reason: str = NOT_CHECKED
    detail: str = ""
    config: ConfigAccount | None = None
    same_chain: bool = field(default=False)

    @property
    def checked(self) -> bool:
        """Whether there was a check at all; before it, not even silence means anything."""
        return self.reason != NOT_CHECKED

    @property
    def usable(self) -> bool:
        """Whether anything may be signed."""
        return self.reason == USABLE


class Outage:
    """For how long nothing may be signed, and whether operators know."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._told = False

    def is_to_be_told(self, usable: bool, now_s: float) -> bool:
        """Whether it has gone on for so long that operators must hear of it: once, until it is over."""
        if usable:
            self._since_s, self._told = None, False
            return False
        if self._since_s is None:
            self._since_s = now_s
        return not self._told and now_s - self._since_s >= UNUSABLE_TOLD_AFTER_S

    def set_told(self) -> None:
        """They know."""
        self._told = True


@cache
def energy_program() -> bytes:
    """The program as this release brings it, an ELF file."""
    return files("programs.energy").joinpath("energy.so").read_bytes()


def decode_program_data(data: bytes) -> ProgramData | None:
    """The loader's ProgramData account; None if these bytes are none."""
    if len(data) < PROGRAM_DATA_HEADER_BYTES or int.from_bytes(data[:4], "little") != PROGRAM_DATA_TAG:
        return None
    authority = data[13:45] if data[12] == 1 else None
    return ProgramData(int.from_bytes(data[4:12], "little"), authority, data[PROGRAM_DATA_HEADER_BYTES:])


def holds(content: bytes, program: bytes) -> bool:
    """Whether the room for a program holds this one; behind it are zeros."""
    return content[: len(program)] == program and not any(content[len(program) :])


async def get_program_data(node: Node, program_id: Pubkey, level: Level = "finalized") -> ProgramData:
    """The program as it lies on the chain. Raises ProgramNotDeployed."""
    at = Addresses(program_id).program_data()
    _, (program, program_data) = await node.find_accounts([program_id, at], level)
    if (
        program is None
        or not program.executable
        or program.owner != bytes(LOADER_PROGRAM)
        or program.data[:PROGRAM_BYTES] != PROGRAM_TAG.to_bytes(4, "little") + bytes(at)
        or program_data is None
        or program_data.owner != bytes(LOADER_PROGRAM)
    ):
        raise ProgramNotDeployed(str(program_id))
    decoded = decode_program_data(program_data.data)
    if decoded is None:
        raise ProgramNotDeployed(str(program_id))
    return decoded


async def get_config(node: Node, program_id: Pubkey, level: Level = "finalized") -> ConfigAccount:
    """The Config as it lies on the chain. Raises ProgramNotInitialized, ChainAccountMalformed."""
    at = Addresses(program_id).config()
    account = await node.find_account(at, level)
    if account is None or account.owner != bytes(program_id):
        raise ProgramNotInitialized(str(program_id))
    config = decode_account(at, account.data)
    if not isinstance(config, ConfigAccount):  # only a node that lies says so
        raise ChainAccountMalformed(f"{at}: not a Config")
    return config


async def check_genesis(node: Node, genesis_hash: bytes) -> None:
    """Raises ChainDiffers unless the node's chain began with this block."""
    found = await node.genesis_hash()
    if found != genesis_hash:
        raise ChainDiffers(f"it began with {found.hex()}, not with {genesis_hash.hex()}")


async def check_program(node: Node, program_id: Pubkey, level: Level = "finalized") -> ProgramData:
    """Raises ProgramNotDeployed, or ProgramDiffers unless it is the one that this release brings."""
    program_data = await get_program_data(node, program_id, level)
    if not holds(program_data.content, energy_program()):
        found = hashlib.sha256(program_data.content.rstrip(b"\0")).hexdigest()
        expected = hashlib.sha256(energy_program().rstrip(b"\0")).hexdigest()
        raise ProgramDiffers(f"SHA-256 {found}, not {expected}")
    return program_data


async def check_config(node: Node, expected: ChainExpected) -> ConfigAccount:
    """Raises ProgramNotInitialized, or ConfigDiffers unless domain and hub are ours."""
    config = await get_config(node, expected.program_id)
    if config.domain != expected.domain:
        raise ConfigDiffers(f"its domain is {config.domain.hex()}, ours {expected.domain.hex()}")
    if config.hub != expected.hub:
        raise ConfigDiffers(f"its hub is {Pubkey.from_bytes(config.hub)}, we are {Pubkey.from_bytes(expected.hub)}")
    return config


async def check_chain_once(node: Node, expected: ChainExpected, gate: ChainGate) -> bool:
    """Look at everything, and set the gate and its gauges. Returns whether the chain is usable."""
    reason, detail, config, same_chain = USABLE, "", None, False
    try:
        await check_genesis(node, expected.genesis_hash)
        same_chain = True
        await check_program(node, expected.program_id)
        config = await check_config(node, expected)
        lamports = await node.lamports(Pubkey.from_bytes(expected.hub))
        metrics.CHAIN_KEY_LAMPORTS.set(lamports)
        if lamports < KEY_LAMPORTS_MIN:
            raise HubKeyEmpty(f"{lamports} lamports; {KEY_LAMPORTS_MIN} are the least")
    except HubError as fault:
        reason, detail = fault.code, fault.detail
        same_chain = same_chain or (gate.same_chain and not isinstance(fault, ChainDiffers))
    if reason != gate.reason:
        (log.info if reason == USABLE else log.error)("chain_checked", reason=reason, detail=detail, node=node.host)
    gate.reason, gate.detail, gate.same_chain = reason, detail, same_chain
    gate.config = config or gate.config
    metrics.CHAIN_USABLE.clear()
    metrics.CHAIN_USABLE.labels(reason).set(1)
    return gate.usable
