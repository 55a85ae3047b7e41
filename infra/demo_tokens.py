"""What becomes of the golden home's surplus: Ada's wallet, her meter on the chain, eleven GRID, and the way back.

Ada registers herself and her meter with her own key, which never leaves her directory; the hub builds and pays. What
she has is what the chain says, and the trail from a token to the registers is checked by a program that asks nobody but
the chain.
"""

import json
import time
from typing import Any

import httpx

from infra.demo_figures import GOLDEN_HOME
from infra.demo_people import Person
from infra.local.community import Community
from infra.local.processes import LaunchError, log_tail, pause_until
from infra.local.solana import LAMPORTS_PER_SOL

TIMEOUT_S = 120.0
POLL_PAUSE_S = 0.2
GOLDEN_SURPLUS_WH = 11_000
UNITS_PER_WH = 1_000_000
NOTHING_NEW = "nothing_new"
UNITS_PER_GRID = 1_000_000_000


class Tokens:
    """Ada's tokens: register before the day, ask at noon, tell in the evening."""

    def __init__(self, community: Community, ada: Person, address: str) -> None:
        assert community.chain is not None, "the demonstration has a chain"
        self._community, self._ada, self._address = community, ada, address
        self._chain = community.chain
        self._noon_units = 0

    def register(self) -> None:
        """Ada registers herself, then her meter. Raises LaunchError with what her wallet said."""
        signing = ("--wallet", self._ada.wallet, "--program", str(self._chain.program_id), "--yes")
        self._ada.does("chain-user", "register", *signing, program="wallet")
        self._ada.does("chain-meter", "register-meter", GOLDEN_HOME, *signing, program="wallet")

    def wait_until_noon_is_minted(self) -> None:
        """Until everything that the morning left over is in Ada's wallet. Raises LaunchError if it does not come."""
        deadline_s = time.monotonic() + TIMEOUT_S
        log = self._community.log / "hub-chain.log"
        while True:
            self._noon_units = self._balance_units()
            if self._noon_units >= GOLDEN_SURPLUS_WH * UNITS_PER_WH:
                return
            self._community.check_alive()
            if not pause_until(deadline_s, POLL_PAUSE_S):
                raise LaunchError(f"{grid(self._noon_units)} GRID by noon; the end of {log}:\n{log_tail(log)}")

    def report(self) -> tuple[dict[str, Any], list[str]]:
        """What Ada has, and the trail of every mint checked; and what of it is not as it must be."""
        faults = []
        with self._ada.client() as client:
            mints = self._wait_until_all_is_minted(client)
        balance_units = self._balance_units()
        golden_units = GOLDEN_SURPLUS_WH * UNITS_PER_WH
        for when, units in (("at noon", self._noon_units), ("in the evening", balance_units)):
            if units != golden_units:
                faults.append(f"Ada had {grid(units)} GRID {when}, instead of {grid(golden_units)}")
        if sum(int(mint["amount_units"]) for mint in mints) != golden_units:
            faults.append(f"the hub says of the mints: {mints}")
        signatures = list(dict.fromkeys(mint["transaction_signature"] for mint in reversed(mints)))
        trails = [self._trail(number, signature) for number, signature in enumerate(signatures, 1)]
        faults += [f"the trail of a mint does not verify: {each}" for each in trails if not each["verified"]]
        found = {
            "balance_units": str(balance_units),
            "noon_units": str(self._noon_units),
            "program": str(self._chain.program_id),
            "transactions": [
                {
                    "signature": each["transaction"],
                    "slot": each["slot"],
                    "seals": [[part["first_sequence"], part["last_sequence"]] for part in each["mints"]],
                    "amount_units": str(sum(int(part["amount_units"]) for part in each["mints"])),
                }
                for each in trails
            ],
            "hub_lamports_spent": str(self._chain.spent_lamports()),
        }
        return found, faults

    def _wait_until_all_is_minted(self, client: httpx.Client) -> list[dict[str, Any]]:
        """The mints of Ada's meter once nothing of the day is pending any more."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while True:
            answer = client.get(f"/meters/{GOLDEN_HOME}/minting")
            if answer.status_code != httpx.codes.OK:
                raise LaunchError(f"the hub answered {answer.status_code}: {answer.text}")
            if answer.json()["next_step"]["reason"] == NOTHING_NEW:
                mints = client.get(f"/meters/{GOLDEN_HOME}/mints").json()["mints"]
                return [mint for mint in mints if mint["state"] == "finalized"]
            self._community.check_alive()
            if not pause_until(deadline_s, POLL_PAUSE_S):
                raise LaunchError(f"seals stay unminted: {answer.json()}")

    def _trail(self, number: int, signature: str) -> dict[str, Any]:
        """The bundle behind a transaction, checked with the chain, as Ada does it."""
        file = self._ada.directory / f"mint-{number}.provenance"
        self._ada.does(f"provenance-{number}", "provenance", signature, file)
        checking = ("verify", file, "--rpc", self._chain.cluster.url, "--json")
        return dict(json.loads(self._community.finish(self._community.run(f"verify-mint-{number}", *checking))))

    def _balance_units(self) -> int:
        """GRID in Ada's wallet by what the chain says, in base units."""
        found = self._chain.cluster.call(
            "getTokenAccountsByOwner",
            self._address,
            {"programId": "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb"},
            {"encoding": "jsonParsed", "commitment": "finalized"},
        )["value"]
        return sum(int(each["account"]["data"]["parsed"]["info"]["tokenAmount"]["amount"]) for each in found)


def tokens_story(found: dict[str, Any]) -> list[str]:
    """What became of the surplus, and how to follow it back, in a few lines."""
    noon, evening = (grid(int(found[name])) for name in ("noon_units", "balance_units"))
    lines = [f"Minted   {noon} GRID in Ada's wallet at noon, {evening} in the evening: 1 GRID is 1 kWh of surplus"]
    for each in found["transactions"]:
        spans, amount = ", ".join(f"{first} to {last}" for first, last in each["seals"]), int(each["amount_units"])
        if amount:
            where = f"transaction {each['signature'][:12]}… in slot {each['slot']}"
            lines.append(f"         {grid(amount)} by {where}, for seals {spans}")
    lines += [
        "         each trail verifies: registers, readings, seals, the meter's signature, the transaction, the token",
        f"         (the hub spent {int(found['hub_lamports_spent']) / LAMPORTS_PER_SOL:.6f} SOL on accounts and fees)",
    ]
    return lines


def grid(units: int) -> str:
    """GRID, of which a unit is the billionth part."""
    whole, part = divmod(units, UNITS_PER_GRID)
    return f"{whole}.{part:09}".rstrip("0").rstrip(".")
