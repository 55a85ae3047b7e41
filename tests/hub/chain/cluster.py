"""A cluster with the energy program on it, for whoever's tests need one: the simulator's process, and an operator's
own way to deploy. Its genesis, program and keys are its own; members and meters are put on it directly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from hub.chain import deployment, instructions
from hub.chain.accounts import MeterAccount, UserKind, decode_account
from hub.chain.addresses import Addresses
from hub.chain.by_hand import carry_out
from hub.chain.chain_state import ChainExpected, energy_program
from hub.chain.deployment import Deployer, grid_mint_of
from hub.chain.instructions import Roles, Signed
from hub.chain.rpc import Node
from hub.chain.token_2022 import TokenName, create_grid_account, decode_token_account
from hub.settings import Settings
from hub.signatures import SigningKey
from infra.local.solana import SolanaSimulator
from protocol.enrolment import KIND_SOLAR, MEASURES_GENERATION_AND_GRID, Enrolment, encode_enrolment
from protocol.topics import domain_of

COMMUNITY_ID = "test-community"
SLOT_MS = 100
FINALIZED_AFTER_SLOTS = 4
"""Quick, and yet a blockhash is good for 15 s, so that a busy machine does not make tests fail."""
SOL = 10**9
CAPACITY_W_MAX = 1_000_000
REGISTER_STEP_WH_MAX = 10_000
START_UNIX_S = 1_790_000_100  # a quarter of an hour, some time ago
assert START_UNIX_S % 900 == 0

T = TypeVar("T")


def keypair(name: str) -> Keypair:
    """A key by its name, always the same."""
    return Keypair.from_seed(name.encode().ljust(32, b"\0")[:32])


class Cluster:
    """A simulator with the energy program deployed and initialized for COMMUNITY_ID, and what tests do on it."""

    def __init__(self, simulator: SolanaSimulator, community_id: str = COMMUNITY_ID) -> None:
        self.simulator = simulator
        self.community_id = community_id
        self.hub = keypair("hub")
        self.admin = keypair("admin")
        """Upgrade authority, too."""
        self.issuer = keypair("issuer")
        self.validator = keypair("validator")
        self.program_key = keypair("program")
        self.program_id = self.program_key.pubkey()
        self.addresses = Addresses(self.program_id)
        self.genesis_hash = self.ask(lambda node: node.genesis_hash())
        self.domain = domain_of(community_id, self.genesis_hash, bytes(self.program_id))
        self.grid_mint = grid_mint_of(self.admin.pubkey(), self.domain)
        self.roles = Roles(
            bytes(self.hub.pubkey()),
            bytes(self.issuer.pubkey()),
            bytes(self.validator.pubkey()),
            CAPACITY_W_MAX,
            REGISTER_STEP_WH_MAX,
        )

    @property
    def rpc_url(self) -> str:
        return self.simulator.url

    @property
    def expected(self) -> ChainExpected:
        return ChainExpected(self.genesis_hash, self.program_id, self.domain, bytes(self.hub.pubkey()))

    def deploy(self) -> None:
        """As an operator does it: the ordinary loader's transactions, then `initialize`."""
        self.fund(self.admin.pubkey(), 100)
        self.fund(self.hub.pubkey(), 100)

        async def work(node: Node) -> None:
            deployer = Deployer(node, self.admin, self.admin, lambda line: None)
            await deployment.deploy(deployer, self.program_key, energy_program())
            name = TokenName("GRID", "GRID", "https://community.example/grid.json")
            await deployment.initialize(node, self.admin, self.program_id, self.domain, self.roles, name, "finalized")

        self.ask(work)

    def ask(self, work: Callable[[Node], Awaitable[T]]) -> T:
        """Do something with a node of this cluster, from outside any loop."""

        async def run() -> T:
            async with Node(self.rpc_url) as node:
                return await work(node)

        return asyncio.run(run())

    def fund(self, address: Pubkey, sol: int) -> None:
        """So many SOL from the faucet, finalized."""

        async def work(node: Node) -> None:
            before = await node.lamports(address, "finalized")
            await node._client.request_airdrop(address, sol * SOL)
            while await node.lamports(address, "finalized") == before:
                await asyncio.sleep(0.05)

        self.ask(work)

    def carry_out(self, steps: Sequence[Instruction], *signers: Keypair, level: str = "finalized") -> str:
        """One transaction, paid by the hub."""
        return self.ask(lambda node: carry_out(node, steps, [self.hub, *signers], level))  # type: ignore[arg-type]

    def register_user(self, wallet: Keypair, kind: UserKind = UserKind.PROSUMER) -> None:
        """The User of a wallet, and its GRID account."""
        owner = bytes(wallet.pubkey())
        account = self.addresses.grid_account(owner, self.grid_mint)
        self.carry_out(
            [
                instructions.register_user(self.addresses, bytes(self.hub.pubkey()), owner, kind),
                create_grid_account(bytes(self.hub.pubkey()), owner, self.grid_mint, account),
            ],
            wallet,
        )

    def enrolment(self, meter_id: str, key: SigningKey, owner: bytes, **fields: int) -> Signed:
        """The statement of a meter's first key."""
        statement = encode_enrolment(
            Enrolment(
                self.domain,
                meter_id,
                fields.get("kind", KIND_SOLAR),
                fields.get("measurement", MEASURES_GENERATION_AND_GRID),
                1,
                owner,
                key.public_key,
                fields.get("production_wh", 0),
                fields.get("consumption_wh", 0),
                fields.get("surplus_wh", 0),
                fields.get("valid_from_unix_s", START_UNIX_S),
                flags=fields.get("flags", 0),
            )
        )
        return Signed(key.public_key, statement, key.sign(statement))

    def register_meter(
        self,
        meter_id: str,
        key: SigningKey,
        wallet: Keypair,
        capacity_w: int = 10_000,
        register_step_wh: int = 10,
        **fields: int,
    ) -> None:
        """A meter of a registered wallet."""
        owner = bytes(wallet.pubkey())
        steps = instructions.register_meter(
            self.addresses,
            bytes(self.hub.pubkey()),
            owner,
            meter_id,
            self.grid_mint,
            self.enrolment(meter_id, key, owner, **fields),
            capacity_w,
            register_step_wh,
        )
        self.carry_out(steps, wallet)

    def meter(self, meter_id: str) -> MeterAccount:
        """The meter as it lies on the chain, finalized."""
        at = self.addresses.meter(meter_id)
        account = self.ask(lambda node: node.find_account(at))
        assert account is not None
        decoded = decode_account(at, account.data)
        assert isinstance(decoded, MeterAccount)
        return decoded

    def grid_units(self, owner: bytes) -> int:
        """What GRID a wallet has, finalized."""
        at = self.addresses.grid_account(owner, self.grid_mint)
        account = self.ask(lambda node: node.find_account(at))
        return 0 if account is None else decode_token_account(at, account.data).amount_units

    def key_file(self) -> Path:
        """The hub's key as its process reads it."""
        file = self.simulator.directory / "hub-key.json"
        file.write_text(json.dumps(list(bytes(self.hub))))
        file.chmod(0o600)
        return file

    def settings(self, settings: Settings) -> Settings:
        """The same settings for a hub with this chain."""
        return settings.model_copy(
            update={
                "community_id": self.community_id,
                "rpc_url": self.rpc_url,
                "genesis_hash_hex": self.genesis_hash.hex(),
                "program_id_hex": bytes(self.program_id).hex(),
                "chain_key_file": self.key_file(),
            }
        )

    def environment(self) -> dict[str, str]:
        """Likewise, for a process of the hub."""
        return {
            "COMMONWATT_COMMUNITY_ID": self.community_id,
            "COMMONWATT_RPC_URL": self.rpc_url,
            "COMMONWATT_GENESIS_HASH_HEX": self.genesis_hash.hex(),
            "COMMONWATT_PROGRAM_ID_HEX": bytes(self.program_id).hex(),
            "COMMONWATT_CHAIN_KEY_FILE": str(self.key_file()),
        }


def utc_now() -> datetime:
    return datetime.now(UTC)
