"""What comes back from the hub: receipts, which let us forget, and commands. Neither is believed for its sender."""

import logging
import time
from collections.abc import Callable

from edge.bus_budget import shortest_interval_s
from edge.clock import Clock
from edge.commands import verify_command
from edge.errors import CommandError, JournalError
from edge.journal import Intervals, Journal
from edge.outbox import Outbox
from edge.receipts import BELIEVED, HASH_DIFFERS, HUB_IS_AHEAD, STALE, judge_receipt
from edge.sampler import Sampler
from edge.sealer import Sealer
from edge.settings import Settings
from edge.status import Standing
from protocol.command import KIND_NAMES, RESEND, RESTART, SET_INTERVAL, Command
from protocol.committed import decode_committed
from protocol.errors import ProtocolError

HUB_LOST_SEALS = "hub_lost_seals"
HUB_LOST_SEALS_AFTER_S = 60
"""A receipt behind an earlier one may be late; when nothing better follows within this, the hub has lost seals."""

log = logging.getLogger(__name__)


class Receiver:
    """Judges what arrives. `wake` says that something may be due to be sent, `stop` that the agent is to end."""

    def __init__(
        self,
        settings: Settings,
        command_public_key: bytes,
        journal: Journal,
        standing: Standing,
        *,
        clock: Clock,
        outbox: Outbox,
        sampler: Sampler,
        sealer: Sealer,
        wake: Callable[[], None],
        stop: Callable[[], None],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._domain = settings.domain
        self._meter_id = settings.meter_id
        self._command_public_key = command_public_key
        self._shortest_interval_s = shortest_interval_s(settings.buses)
        self._journal = journal
        self._standing = standing
        self._clock = clock
        self._outbox = outbox
        self._sampler = sampler
        self._sealer = sealer
        self._wake = wake
        self._stop = stop
        self._monotonic_s = monotonic_s
        self._stale_since_s: float | None = None
        if journal.hub_was_ahead():
            standing.problem(HUB_IS_AHEAD, True)

    def find_message(self, sequence: int) -> bytes | None:
        """The message to publish; None if it is forgotten, cannot be read now, or might fork the chain."""
        if self._standing.problems & {HUB_IS_AHEAD, HASH_DIFFERS}:
            return None
        try:
            return self._journal.find_message(sequence)
        except JournalError as error:
            self._standing.failed(error)
            return None

    def notice_lost_seals(self) -> None:
        """Name it when the hub has been behind an earlier receipt for too long."""
        if self._stale_since_s is not None:
            lost = self._monotonic_s() - self._stale_since_s >= HUB_LOST_SEALS_AFTER_S
            self._standing.problem(HUB_LOST_SEALS, lost)

    # ── receipts ────────────────────────────────────────────────────────────────────────────────────────

    def receive_receipt(self, payload: bytes) -> None:
        """A `committed` message: forget what it covers, if it is to be believed."""
        try:
            receipt = decode_committed(payload)
        except ProtocolError as error:
            self._standing.count("receipt_malformed")
            log.warning("receipt_malformed", extra={"why": str(error)})
            return
        try:
            confirmed_sequence = self._journal.get_confirmed_sequence()
            verdict = judge_receipt(
                receipt,
                key_epoch=self._sealer.chain.key_epoch,
                last_sequence=self._sealer.chain.sequence,
                confirmed_sequence=confirmed_sequence,
                seal_hash_of=self._journal.find_seal_hash,
            )
            self._judged(verdict)
            if verdict == STALE:  # a hub restored from a copy still knows what its ranges say
                if self._outbox.forget(receipt):
                    self._journal.forget_seals(confirmed_sequence, receipt.ranges)
            elif verdict == BELIEVED and (
                self._outbox.forget(receipt) or receipt.contiguous_sequence > confirmed_sequence
            ):
                self._journal.forget_seals(receipt.contiguous_sequence, receipt.ranges)
                self._wake()
        except JournalError as error:
            self._standing.journaled("receipt", error)
        else:
            self._standing.journaled("receipt")

    def _judged(self, verdict: str) -> None:
        """Keep the problems that a receipt raises until one is believed."""
        problems = self._standing.problems
        if verdict != BELIEVED:
            self._standing.count(verdict)
        if verdict in (BELIEVED, HUB_IS_AHEAD) and (verdict == HUB_IS_AHEAD) != (HUB_IS_AHEAD in problems):
            self._journal.set_hub_ahead(verdict == HUB_IS_AHEAD)
        disputed = bool(problems & {HUB_IS_AHEAD, HASH_DIFFERS})
        for dispute in (HUB_IS_AHEAD, HASH_DIFFERS):
            if verdict in (BELIEVED, dispute):
                self._standing.problem(dispute, verdict == dispute)
        if verdict == BELIEVED and disputed:
            self._outbox.resend(1, self._sealer.chain.sequence, self._monotonic_s())
            self._wake()
        if verdict == BELIEVED:
            self._stale_since_s = None
            self._standing.problem(HUB_LOST_SEALS, False)
        elif verdict == STALE and self._stale_since_s is None:
            self._stale_since_s = self._monotonic_s()

    # ── commands ────────────────────────────────────────────────────────────────────────────────────────

    def receive_command(self, payload: bytes) -> None:
        """A `commands` message: follow it, if it is the hub's, ours, new and in time."""
        try:
            command = verify_command(
                payload,
                command_public_key=self._command_public_key,
                domain=self._domain,
                meter_id=self._meter_id,
                last_counter=self._journal.get_command_counter(),
                now_unix_s=self._clock.now_unix_s(),
                clock_synchronised=self._clock.synchronised(),
            )
            intervals = Intervals(command.first, command.last) if command.kind == SET_INTERVAL else None
            fits = intervals is None or intervals.reading_s >= self._shortest_interval_s
            self._journal.accept_command(command.counter, intervals if fits else None)
        except CommandError as error:
            self._standing.failed(error)
            return
        except JournalError as error:
            self._standing.journaled("command", error)
            return
        self._standing.journaled("command")
        if not fits:
            why = f"{command.first} s: the buses need {self._shortest_interval_s} s for a reading"
            self._standing.failed(CommandError("command_interval_too_short", why))
            return
        log.info("command", extra={"command": KIND_NAMES[command.kind], "counter": command.counter})
        self._standing.count("command")
        self._follow(command)
        self._standing.on_change()

    def last_command(self) -> int:
        """The counter of the last command that was followed; 0 while nobody knows: a repeated one is refused anyway."""
        try:
            return self._journal.get_command_counter()
        except JournalError as error:
            self._standing.failed(error)
            return 0

    def _follow(self, command: Command) -> None:
        if command.kind == SET_INTERVAL:
            self._sampler.set_intervals(Intervals(command.first, command.last))
        elif command.kind == RESEND:
            held = self._outbox.resend(command.first, command.last, self._monotonic_s())
            log.info("resend", extra={"first": command.first, "last": command.last, "held": held})
            self._wake()
        elif command.kind == RESTART:
            self._stop()
