"""A community with a chain."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from hub.settings import Settings
from tests.hub.registry.chained import Chained, with_chain


@pytest.fixture
def chained(settings: Settings, engine: Engine) -> Chained:
    """With a running program, and nobody on it."""
    made = Chained(engine, with_chain(settings))
    made.show(made.config())
    return made
