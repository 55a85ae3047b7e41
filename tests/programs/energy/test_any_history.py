"""Whatever members, hubs and thieves send, the program does what the model says, and every GRID was signed for."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.programs.energy.community import Community, initialized, must
from tests.programs.energy.histories import Histories
from tests.programs.energy.ledger import Saved, program_bytes
from tests.programs.energy.liars import ADMINS, HUBS, OWNERS
from tests.programs.energy.token_2022 import create_token_account

ACTS = {
    "registered a user", "registered a meter", "rotated a key", "submitted", "submitted and settled", "wrote off",
    "settled", "set a status", "deactivated", "paused", "resumed", "configured",
}  # fmt: skip


@pytest.fixture(scope="module")
def begun() -> tuple[Community, Saved]:
    """Two members with a meter each, and token accounts for all who may become members."""
    community = initialized(program_bytes())
    ledger, hub = community.ledger, community.keys.hub.pubkey()
    for each in (*HUBS, *ADMINS):
        ledger.airdrop(each.pubkey())
    for owner in OWNERS[2:]:
        must(ledger.send([create_token_account(hub, owner.pubkey(), community.mint)]))
    return community, ledger.save()


def run(begun: tuple[Community, Saved], examples: int, steps: int) -> Counter[str]:
    done: Counter[str] = Counter()
    run_state_machine_as_test(
        type("HistoriesHere", (Histories,), {"start": begun, "done": done}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
            report_multiple_bugs=False,
        ),
    )
    return done


def test_whatever_happens_the_program_does_what_the_model_says(begun):
    done = run(begun, 12, 50)
    often = {"registered a meter", "rotated a key", "submitted", "submitted and settled", "wrote off", "settled"}
    assert often <= done.keys(), done


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_whatever_happens_for_twenty_thousand_steps(begun):
    done = run(begun, 400, 60)
    assert done["steps"] >= 20_000, done
    assert min(done[each] for each in ACTS) >= 50, done
    assert done["refused for one reason"] * 2 >= done["refused"], done
