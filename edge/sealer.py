"""Sealing what is due: a seal is on the disk before it is published, and it continues the chain for ever."""

import logging
from collections.abc import Callable

from edge.clock import Clock
from edge.errors import JournalError
from edge.identity import Identity
from edge.journal import ROTATION_PENDING, Journal
from edge.receipts import HUB_IS_AHEAD
from edge.sampler import Sampler
from edge.sealing import seal_due, seal_readings
from edge.status import Standing
from protocol.limits import READINGS_PER_SEAL_MAX

log = logging.getLogger(__name__)


class Sealer:
    """The chain of one key epoch. `sealed` hears each new sequence once it is on the disk."""

    def __init__(
        self,
        domain: bytes,
        identity: Identity,
        journal: Journal,
        standing: Standing,
        *,
        clock: Clock,
        sampler: Sampler,
        sealed: Callable[[int], None],
    ) -> None:
        self._domain = domain
        self._identity = identity
        self._journal = journal
        self._standing = standing
        self._clock = clock
        self._sampler = sampler
        self._sealed = sealed
        self.chain = journal.get_chain()
        standing.problem(ROTATION_PENDING, journal.find_rotation() is not None)  # nobody changes that while we run

    def due(self) -> bool:
        """Whether there are readings to be sealed now. Raises JournalError."""
        unsealed = self._journal.find_unsealed()
        seal_interval_s = self._sampler.intervals.seal_s
        return unsealed is not None and seal_due(
            unsealed.first_unix_s, unsealed.count, self._clock.now_unix_s(), seal_interval_s
        )

    async def seal_due(self) -> None:
        """Seal what is due, before the next reading is. Each seal has its own second."""
        while self.seal_once() and self.due() and self._clock.now_unix_s() + 1 < self._sampler.next_reading_time():
            await self._clock.wait_until(self._clock.now_unix_s() + 1)

    def seal_once(self, *, early: bool = False) -> bool:
        """Seal one message if one is due, or `early` if there is anything. Returns whether it did."""
        if not self._clock.synchronised() or self._standing.problems & {HUB_IS_AHEAD, ROTATION_PENDING}:
            return False
        try:
            self._sampler.discard_future(self.chain.last_reading_unix_s)
            if not (early or self.due()):
                return False
            now_unix_s = self._clock.now_unix_s()
            readings = self._journal.unsealed_readings(READINGS_PER_SEAL_MAX)
            if not readings:
                return False
            behind = now_unix_s <= self.chain.sealed_at_unix_s
            self._standing.problem("clock_behind_last_seal", behind)
            if behind:
                return False
            sealed = seal_readings(self.chain, readings, now_unix_s, self._domain, self._identity.sign)
            self._journal.append_seal(sealed)
        except JournalError as error:
            self._standing.journaled("seal", error)
            return False
        self._standing.journaled("seal")
        self.chain = sealed.chain
        self._standing.count("seal")
        log.info("sealed", extra={"sequence": sealed.chain.sequence, "readings": sealed.readings})
        self._sealed(sealed.chain.sequence)
        return True
