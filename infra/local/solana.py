"""A private Solana cluster on a loopback port: the simulator, with its ledger in a directory of this machine's own."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from infra.local.processes import (
    LOOPBACK,
    LaunchError,
    log_tail,
    pause_until,
    remembered_port,
    start_child,
    stop_child,
    write_secret,
)

START_TIMEOUT_S = 30.0
FAULTS_FILE = "faults.json"
LAMPORTS_PER_SOL = 1_000_000_000


class SolanaSimulator:
    """One cluster, a child of this process. `directory` holds ledger/ (its state and faults.json), port and solana.log.

    A slot takes `slot_ms`; what happened is finalized so many slots later. Real clusters: 400 ms and 32.
    """

    def __init__(self, directory: Path, slot_ms: int = 400, finalized_after_slots: int = 32) -> None:
        self.directory = directory.absolute()
        self.ledger = self.directory / "ledger"
        self.log = self.directory / "solana.log"
        self.slot_ms = slot_ms
        self.finalized_after_slots = finalized_after_slots
        self.port = 0
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where JSON-RPC is served; WebSockets likewise, and on the next port."""
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start the cluster, or resume it with the ledger there is; returns once it answers. Raises LaunchError."""
        if self._server is not None:
            raise LaunchError("this cluster is already running")
        self.ledger.mkdir(parents=True, exist_ok=True)
        self.port = remembered_port(self.directory / "port", neighbours=1)
        self._server = start_child(
            [
                *(sys.executable, "-m", "commonwatt", "simulate", "solana"),
                *("--directory", self.ledger, "--port", str(self.port), "--slot-ms", str(self.slot_ms)),
                *("--finalized-after-slots", str(self.finalized_after_slots)),
            ],
            log=self.log,
        )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the cluster."""
        if self._server is not None:
            stop_child(self._server)
            self._server = None

    def kill(self) -> None:
        """SIGKILL. `start` resumes on the same port, with everything that was acknowledged."""
        if self._server is None:
            raise LaunchError("there is no cluster to kill")
        self._server.kill()
        self._server.wait()
        self._server = None

    def fail(self, **faults: object) -> None:
        """Let these faults, and no others, happen from now on (simulators/solana/faults.py); none: all is well."""
        part = self.ledger / f".{FAULTS_FILE}.part"
        part.write_text(json.dumps({**faults}))
        part.rename(self.ledger / FAULTS_FILE)

    def call(self, method: str, *parameters: object) -> Any:
        """The result of one JSON-RPC request. Raises LaunchError with the cluster's words if it refuses."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
        answer = httpx.post(self.url, json=request, timeout=START_TIMEOUT_S).json()
        if "error" in answer:
            raise LaunchError(f"the cluster answered {answer['error']} to {method}")
        return answer["result"]

    def fund(self, address: str, sol: int) -> None:
        """Give an address so many SOL from the faucet, and wait until they are final. Raises LaunchError."""
        signature = self.call("requestAirdrop", address, sol * LAMPORTS_PER_SOL)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            [status] = self.call("getSignatureStatuses", [signature])["value"]
            if status is not None and status["confirmationStatus"] == "finalized":
                return
            if not pause_until(deadline_s):
                raise LaunchError(f"the cluster gave nothing to {address} within {START_TIMEOUT_S:.0f} s")

    def __enter__(self) -> "SolanaSimulator":
        """Start, for a `with` statement that stops at its end."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def _wait_until_it_answers(self) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while self._server is not None and self._server.poll() is None:
            try:
                self.call("getVersion")  # one that lags, as it may be told to, says that it is not healthy
            except httpx.TransportError:
                if not pause_until(deadline_s):
                    break
            else:
                return
        raise LaunchError(f"the cluster did not start; the end of {self.log}:\n{log_tail(self.log)}")


def ensure_key(file: Path) -> Pubkey:
    """The address of the key in this file, which is made if it is not there, as Solana's own tools keep keys."""
    if not file.exists():
        write_secret(file, Keypair().to_json())
    return Keypair.from_json(file.read_text()).pubkey()
