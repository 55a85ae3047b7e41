"""The cluster that conformance tests share: hasty, so that confirming and finalizing do not take their seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulators.solana.conformance.clients import Cluster, running_cluster

SLOT_MS = 50
FINALIZED_AFTER_SLOTS = 8


@pytest.fixture(scope="session")
def solana_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("solana"), SLOT_MS, FINALIZED_AFTER_SLOTS) as cluster:
        yield cluster
