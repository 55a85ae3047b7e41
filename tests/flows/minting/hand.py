"""The hand that strikes: it holds a process at a step that it chose, kills whom it likes, and lets go.

A step is a row that is about to be written, or the COMMIT behind it, whose answer nobody will hear. The database itself
holds whoever comes there: each step has a trigger that asks for an advisory lock of its own, which is free unless the
hand has taken it. So a strike falls exactly there, however quick or slow the machine is.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import psycopg

from tests.flows.minting.town import Town

BEFORE, COMMIT = "before", "commit"
FROZEN: Final = "frozen chain"
"""Not killed but stopped for some seconds, as a machine may be; it knows nothing of the time that passed."""
FROZEN_S: Final = 3.0
CHAIN, SECOND = "hub-chain", "hub-chain-2"
FIRST_LOCK: Final = 7_000
REACHED_TIMEOUT_S: Final = 45.0
DATABASE: Final = "database"
_HELD = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = %s"

ROLLED_BACK_S: Final = 0.1
"""By then what was held has ended, and is taken back if its process is dead."""
_LEASES_RUN_OUT = (
    "UPDATE chain_intents SET leased_until = now() WHERE intent_id IN"
    " (SELECT intent_id FROM chain_intents WHERE leased_until > now() FOR UPDATE SKIP LOCKED)"
)


@dataclass(frozen=True)
class Step:
    """A row that is written on the way. `when` is the trigger's condition."""

    name: str
    table: str
    act: str
    when: str


class Hand:
    """Holds and strikes one town. Its session in PostgreSQL is made anew for each strike: the database may die."""

    def __init__(self, town: Town, steps: Sequence[Step]) -> None:
        self._town = town
        self._steps = steps
        self._session: psycopg.Connection[tuple[object, ...]] | None = None
        for statement in self._triggers():
            town.change(statement)

    def __enter__(self) -> Self:
        """Ready."""
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        """Let go, and leave one chain process."""
        self.rest()
        self.let_go()

    def hold(self, step: str, moment: str) -> None:
        """From now on whoever comes to this step stays there."""
        self.let_go()
        self._session = psycopg.connect(self._town.community.database_url, autocommit=True)
        self._session.execute("SELECT pg_advisory_lock(%s)", [self._lock_of(step, moment)])

    def wait_until_held(self, step: str, moment: str) -> None:
        """Until somebody is there."""
        lock = self._lock_of(step, moment)
        what = f"somebody comes to: {step} ({moment})"
        self._town.wait_until(what, lambda: self._town.rows(_HELD, [lock]), REACHED_TIMEOUT_S)

    def let_go(self) -> None:
        """Whoever is held goes on, if it lives."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def strike(self, victims: Sequence[str], *, let_go_first: bool) -> None:
        """SIGKILL them all, and start them again. Whoever is held goes on before they are back, or behind that."""
        town = self._town
        if FROZEN in victims:
            self._freeze()
            return
        for victim in victims:
            town.kill(victim)
        if DATABASE in victims:
            town.start(DATABASE)
        if let_go_first:
            self.let_go()
        for victim in victims:
            if victim != DATABASE:
                town.start(victim)
        self.let_go()
        if "chain" in victims:
            time.sleep(ROLLED_BACK_S)
            town.change(_LEASES_RUN_OUT)
        if "api" in victims:
            town.community.wait_until_ready("api")

    def rest(self) -> None:
        """Behind a strike: one chain process is enough."""
        second = self._town.community.processes.pop(SECOND, None)
        if second is not None:
            second.kill()
            second.wait()

    def _freeze(self) -> None:
        """Stop the chain process where it is held, let another one do its work, and wake it up meanwhile."""
        community = self._town.community
        community.processes[CHAIN].send_signal(signal.SIGSTOP)
        try:
            community.run(SECOND, "hub", "chain", environment=community.environment())
            self.let_go()
            for _ in range(round(FROZEN_S / ROLLED_BACK_S)):
                time.sleep(ROLLED_BACK_S)
                self._town.change(_LEASES_RUN_OUT)
        finally:
            community.processes[CHAIN].send_signal(signal.SIGCONT)

    def _lock_of(self, step: str, moment: str) -> int:
        number = next(number for number, each in enumerate(self._steps) if each.name == step)
        return FIRST_LOCK + 2 * number + (moment == COMMIT)

    def _triggers(self) -> Iterator[str]:
        """What the database has to be told once. A deferred trigger holds its transaction at the COMMIT."""
        yield (
            "CREATE OR REPLACE FUNCTION wait_for_the_hand() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " PERFORM pg_advisory_xact_lock_shared(TG_ARGV[0]::bigint); RETURN NEW; END $$"
        )
        for step in self._steps:
            before, commit = self._lock_of(step.name, BEFORE), self._lock_of(step.name, COMMIT)
            held = f"FOR EACH ROW WHEN ({step.when}) EXECUTE FUNCTION wait_for_the_hand"
            yield f"CREATE TRIGGER hold_{before} BEFORE {step.act} ON {step.table} {held}({before})"
            yield (
                f"CREATE CONSTRAINT TRIGGER hold_{commit} AFTER {step.act} ON {step.table}"
                f" DEFERRABLE INITIALLY DEFERRED {held}({commit})"
            )
