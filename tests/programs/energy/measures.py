"""What each instruction costs; `python -m tests.programs.energy.measures` writes it down as the baseline.

The keys are always the same, so the search for bumps takes the same number of steps each time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.programs.energy import calls
from tests.programs.energy.community import ADA, Community, deployed, initialized, must
from tests.programs.energy.ledger import program_bytes
from tests.programs.energy.refusals import HONEST, NAMES_OF_CALLS, Act

BASELINE = Path(__file__).with_name("compute_units.json")


def settling(community: Community) -> Sequence[Act]:
    must(community.submit_once(ADA))
    return [community.settle(ADA)]


MEASURED: dict[str, Callable[[Community], Sequence[Act]]] = {
    **{NAMES_OF_CALLS[number]: honest for number, honest in HONEST.items() if number != calls.SETTLE},
    "settle_meter_balance": settling,
    "settle_meter_balance of nothing": HONEST[calls.SETTLE],
}


def measure() -> dict[str, int]:
    """Compute units of each instruction, with all that it calls."""
    code = program_bytes()
    beginning = deployed(code)
    units = {"initialize": must(beginning.send([beginning.initialize()])).per_instruction[-1]}
    community = initialized(code)
    saved = community.ledger.save()
    for name, acts in MEASURED.items():
        units[name] = must(community.send(acts(community))).per_instruction[-1]
        community.ledger.restore(saved)
    return units


if __name__ == "__main__":
    BASELINE.write_text(json.dumps(measure(), indent=2) + "\n")
