"""A cluster for each pytest process, with the program on it. Tests share it: each has wallets and meters of its own."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from solders.keypair import Keypair

from infra.local.solana import SolanaSimulator
from tests.hub.chain.cluster import FINALIZED_AFTER_SLOTS, SLOT_MS, Cluster, keypair

_wallets = itertools.count(1)


@pytest.fixture(scope="session")
def shared_cluster(server_directory: Path) -> Iterator[Cluster]:
    directory = Path(tempfile.mkdtemp(prefix="solana-", dir=server_directory))  # rooms that import this have one each
    with SolanaSimulator(directory, SLOT_MS, FINALIZED_AFTER_SLOTS) as simulator:
        cluster = Cluster(simulator)
        cluster.deploy()
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """The shared cluster, without faults before and after the test."""
    shared_cluster.simulator.fail()
    yield shared_cluster
    shared_cluster.simulator.fail()


@pytest.fixture
def new_wallet() -> Callable[[], Keypair]:
    """Makes wallets that no other test of this process has."""
    return lambda: keypair(f"wallet {next(_wallets)}")
