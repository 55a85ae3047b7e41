"""What a hub on this machine needs of a Solana cluster: a key with some SOL, and the energy program."""

from collections.abc import Iterator
from pathlib import Path

from solders.hash import Hash
from solders.pubkey import Pubkey

from infra.local.solana import LAMPORTS_PER_SOL, SolanaSimulator, ensure_key

HUB_SOL, DEPLOYER_SOL = 100, 100


class Chain:
    """The hub's side of a cluster. The keys are files in `secrets`; `prepare` once the cluster runs."""

    def __init__(self, cluster: SolanaSimulator, secrets: Path) -> None:
        self.cluster = cluster
        self.hub_key_file = secrets / "chain-key.json"
        self.program_key_file = secrets / "program-key.json"
        self.deployer_key_file = secrets / "deployer-key.json"
        self.issuer_key_file = secrets / "issuer-key.json"
        self.validator_key_file = secrets / "validator-key.json"
        self.genesis_hash_hex = ""

    def prepare(self) -> None:
        """Make the keys if there are none, and give those that pay something to pay with. Raises LaunchError."""
        self.genesis_hash_hex = bytes(Hash.from_string(self.cluster.call("getGenesisHash"))).hex()
        for file, sol in ((self.hub_key_file, HUB_SOL), (self.deployer_key_file, DEPLOYER_SOL)):
            address = str(ensure_key(file))
            if self.cluster.call("getBalance", address)["value"] == 0:
                self.cluster.fund(address, sol)
        ensure_key(self.issuer_key_file)
        ensure_key(self.validator_key_file)

    @property
    def program_id(self) -> Pubkey:
        """Where the energy program is."""
        return ensure_key(self.program_key_file)

    def environment(self) -> dict[str, str]:
        """The hub's settings for this cluster."""
        return {
            "COMMONWATT_RPC_URL": self.cluster.url,
            "COMMONWATT_GENESIS_HASH_HEX": self.genesis_hash_hex,
            "COMMONWATT_PROGRAM_ID_HEX": bytes(self.program_id).hex(),
            "COMMONWATT_CHAIN_KEY_FILE": str(self.hub_key_file),
        }

    def deployment(self) -> Iterator[tuple[str, tuple[str | Path, ...]]]:
        """The commands, by the names of their logs, that deploy and initialize the program; none if it is there."""
        if self.cluster.call("getAccountInfo", str(self.program_id))["value"] is not None:
            return
        deployer = ("--keypair", self.deployer_key_file)
        yield "program-deploy", ("hub", "program", "deploy", *deployer, "--program-keypair", self.program_key_file)
        yield (
            "program-initialize",
            (
                *("hub", "program", "initialize", *deployer, "--hub", str(ensure_key(self.hub_key_file))),
                *("--issuer", str(ensure_key(self.issuer_key_file))),
                *("--validator", str(ensure_key(self.validator_key_file)), "--yes"),
            ),
        )

    def spent_lamports(self) -> int:
        """What the hub has spent so far, on accounts and fees."""
        balance = self.cluster.call("getBalance", str(ensure_key(self.hub_key_file)))["value"]
        return HUB_SOL * LAMPORTS_PER_SOL - int(balance)
