"""A member asks at the command line what its meters earned; an operator, what is stuck."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Engine

from commonwatt import verify
from hub.db import transaction
from hub.minting import service
from protocol.seal import decode_seal
from tests.commonwatt.conftest import Member, Operator, refusal_of
from tests.hub.minting.chain_model import PROGRAM, ModelChain
from tests.hub.minting.holding import hold_minting

SEAL_BYTES = 124


@dataclass(frozen=True)
class Roof:
    """A meter with four seals of sun, the third of which has not arrived, and the chain that it is on."""

    owner: Member
    engine: Engine
    chain: ModelChain
    surplus_wh: list[int]
    """What each seal adds."""

    def mint(self) -> None:
        """A round of minting, finalized."""
        now = datetime.now(UTC)
        with transaction(self.engine) as connection:
            assert service.plan_steps(connection, bytes(PROGRAM), 50, now)
        assert self.chain.work(now) == 1

    @property
    def signature(self) -> str:
        """The one transaction that minted."""
        with self.engine.connect() as connection:
            return str(connection.exec_driver_sql("SELECT signature FROM mints WHERE state = 'finalized'").scalar_one())


@pytest.fixture
def roof(operator: Operator, newcomer, simulated, tmp_path: Path) -> Roof:
    meter = simulated("roof")
    meter._power_w = [5_000, 1_000]
    owner = newcomer("ada", meter.owner_key)
    operator.register(meter, tmp_path)
    sealed = [meter.next_message() for _ in range(4)]
    for number in (0, 1, 3):
        operator.post(sealed[number])
    chain = ModelChain(operator.engine, meter.domain)
    chain.start(datetime.now(UTC))
    chain.register("roof", datetime.now(UTC))
    counters = [40_000, *(decode_seal(each.message[:SEAL_BYTES]).surplus_wh for each in sealed)]
    return Roof(owner, operator.engine, chain, [later - before for before, later in pairwise(counters)])


def row_of(output: str, name: str) -> list[str]:
    """The cells of the table's row that begins with this word."""
    [row] = [line for line in output.splitlines() if line.split("│")[1:2] and line.split("│")[1].strip() == name]
    return [cell.strip() for cell in row.split("│")[1:-1]]


def grid(surplus_wh: int) -> str:
    """1 GRID is 1 kWh."""
    return f"{surplus_wh / 1_000:.3f}".rstrip("0").rstrip(".")


def test_a_member_sees_what_is_minted_what_is_to_come_and_what_it_waits_for(roof):
    first, second, third, fourth = roof.surplus_wh
    assert min(roof.surplus_wh) > 0
    before = row_of(roof.owner.do("tokens"), "roof")
    assert before == ["roof", "0", str(first + second), str(third + fourth), "0", before[-1]]
    roof.mint()
    after = row_of(roof.owner.do("tokens"), "roof")
    assert after == ["roof", grid(first + second), "0", str(third + fourth), "0", "gap"]


def test_a_member_sees_the_transactions_of_its_meter(roof):
    roof.mint()
    [cells] = [line.split("│") for line in roof.owner.do("mints", "roof").splitlines() if roof.signature in line]
    shown = [cell.strip() for cell in cells[1:-1]]
    assert shown[:4] == ["1", "1 to 2", grid(sum(roof.surplus_wh[:2])), roof.signature]
    assert datetime.fromisoformat(shown[4]).tzinfo is not None


def test_what_was_planned_and_refused_is_no_transaction_of_a_member(roof):
    with transaction(roof.engine) as connection:
        hold_minting(connection, "roof", datetime.now(UTC))
    shown = roof.owner.do("mints", "roof")
    assert "finalized" in shown and "1 to 1" not in shown
    assert row_of(roof.owner.do("tokens"), "roof")[-1] == "held"


def test_the_bundle_behind_a_transaction_is_written_whole_and_verifies(roof, tmp_path, capsys):
    roof.mint()
    file = tmp_path / "bundle.ndjson"
    told = roof.owner.do("provenance", roof.signature, file)
    assert f"{file}: {file.stat().st_size} bytes" in told
    with pytest.raises(SystemExit) as ended:
        verify.app([str(file)])
    assert ended.value.code == 0
    assert f"{grid(sum(roof.surplus_wh[:2]))} GRID" in capsys.readouterr().out


def test_a_stranger_is_told_nothing_of_anothers_meter(roof, newcomer, tmp_path):
    roof.mint()
    bo = newcomer("bo")
    assert "roof" not in bo.do("tokens")
    assert refusal_of(bo.run("mints", "roof")) == "meter_not_found"
    file = tmp_path / "stolen"
    assert refusal_of(bo.run("provenance", roof.signature, file)) == "mint_not_found"
    assert not file.exists()


def test_a_transaction_that_minted_nothing_leaves_no_file(roof, tmp_path):
    file = tmp_path / "none"
    for signature, refusal in (
        ("5" * 88, "mint_not_found"),
        ("0" * 88, "malformed_input"),
        ("x/y", "not_found"),
        ("É" * 64, "malformed_input"),
    ):
        assert refusal_of(roof.owner.run("provenance", signature, file)) == refusal
        assert not file.exists()
        assert list(tmp_path.glob(".none*")) == []


def test_nobody_sees_tokens_without_being_signed_in(roof):
    roof.owner.session.unlink()
    for words in (["tokens"], ["mints", "roof"], ["provenance", "5" * 88, "file"]):
        assert refusal_of(roof.owner.run(*words)) == "not_signed_in"


# ── what operators see ───────────────────────────────────────────────────────────────────────────────────────


def test_an_operator_sees_where_the_surplus_of_a_meter_is(roof, operator):
    roof.mint()
    shown = operator.do("minting", "show", "roof")
    minted, held = sum(roof.surplus_wh[:2]), sum(roof.surplus_wh[2:])
    assert row_of(shown, "in all")[1:5] == [str(minted + held), str(minted), "0", str(held)]
    assert "Next: nothing: gap" in shown


def test_an_operator_sees_what_was_presented_to_the_chain(roof, operator):
    roof.mint()
    [line] = [line for line in operator.do("minting", "list", "roof").splitlines() if roof.signature in line]
    assert [word in line for word in ("submit", "finalized")] == [True, True]


def test_an_operator_lets_a_held_meter_go_on_and_its_surplus_is_minted(roof, operator):
    assert refusal_of(operator.run("minting", "retry", "roof", "--reason", "x"), "commonwatt admin") == (
        "minting_not_held"
    )
    with transaction(roof.engine) as connection:
        hold_minting(connection, "roof", datetime.now(UTC))
    assert row_of(operator.do("minting", "blocked"), "roof")[1] == "held"
    assert "Minting of roof goes on." in operator.do("minting", "retry", "roof", "--reason", "looked at it")
    roof.mint()
    assert row_of(roof.owner.do("tokens"), "roof")[1] == grid(sum(roof.surplus_wh[:2]))
