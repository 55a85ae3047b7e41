"""The program deployed once per module, and a copy of its ledger for each test."""

from __future__ import annotations

import pytest

from tests.programs.energy.community import Community, deployed, initialized
from tests.programs.energy.ledger import Saved, program_bytes


@pytest.fixture(scope="module")
def code() -> bytes:
    return program_bytes()


@pytest.fixture(scope="module")
def deployed_once(code: bytes) -> tuple[Community, Saved]:
    community = deployed(code)
    return community, community.ledger.save()


@pytest.fixture(scope="module")
def initialized_once(code: bytes) -> tuple[Community, Saved]:
    community = initialized(code)
    return community, community.ledger.save()


@pytest.fixture
def bare(deployed_once: tuple[Community, Saved]) -> Community:
    """The program and a mint, nothing initialized: to do with as a test likes."""
    community, saved = deployed_once
    community.ledger.restore(saved)
    return community


@pytest.fixture
def community(initialized_once: tuple[Community, Saved]) -> Community:
    """A running community with Ada's roof and Otto's mill: to do with as a test likes."""
    community, saved = initialized_once
    community.ledger.restore(saved)
    return community
