"""The agent: registers → counters → journal → seals → broker, and what comes back. It wires; others decide.

Order of effects: a reading is on the disk before it is sealed, a seal is on the disk before it is published,
and it is forgotten only when a believed receipt covers it. Whatever fails is counted, named in the log and in
the status, and tried again; nothing but its supervisor, a restart command or our own mistake ends the agent.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace

from edge import __version__
from edge.believing import REGISTER_FELL, REGISTER_JUMPED
from edge.clock import Clock
from edge.commands import verify_command
from edge.counters import CounterState, Step, advance_counters
from edge.enrolment import get_enrolment
from edge.errors import CommandError, JournalError, ModbusError, RegisterError, SettingsError
from edge.identity import Identity
from edge.journal import Intervals, Journal
from edge.modbus import HomeReader
from edge.outbox import Outbox
from edge.poll import Poll, moduli_wh, read_poll
from edge.receipts import BELIEVED, HASH_DIFFERS, HUB_IS_AHEAD, STALE, judge_receipt
from edge.sampling import make_reading, next_reading_time, reading_time, time_usable
from edge.sealing import seal_due, seal_readings
from edge.settings import Settings
from edge.transport import Hooks, Transport
from protocol.command import KIND_NAMES, RESEND, RESTART, SET_INTERVAL, Command
from protocol.committed import decode_committed
from protocol.errors import ProtocolError
from protocol.limits import READINGS_PER_SEAL_MAX
from protocol.readings import Reading

READ_ATTEMPTS = 3
"""Polls per scheduled reading, while what they say is not to be believed."""
READ_PAUSE_S = 0.5
METER_UNREADABLE = "meter_unreadable"
HUB_LOST_SEALS_AFTER_S = 60
"""A receipt behind an earlier one may be late; when nothing better follows within this, the hub has lost seals."""
ROUNDS_MISSED_MAX = 2
"""So many reading intervals without a round of sampling, and the supervisor hears no more from us."""

log = logging.getLogger(__name__)


class Agent:
    """One enrolled meter. Raises JournalError, IdentityError or SettingsError if it cannot start."""

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        journal: Journal,
        *,
        clock: Clock,
        reader: HomeReader,
        random: Callable[[], float],
        read_pause_s: float = READ_PAUSE_S,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        if settings.command_public_key is None:
            raise SettingsError("settings_missing", "hub.command_public_key: it is in the hub's answer to registration")
        get_enrolment(settings, identity, journal)
        self._settings = settings
        self._command_public_key = settings.command_public_key
        self._identity = identity
        self._journal = journal
        self._clock = clock
        self._reader = reader
        self._read_pause_s = read_pause_s
        self._monotonic_s = monotonic_s
        self._round_s = monotonic_s()
        self._stale_since_s: float | None = None
        self._unwritable: set[str] = set()
        self._counters = journal.get_counters()
        self._chain = journal.get_chain()
        sampling = settings.sampling
        configured = Intervals(sampling.interval_s, sampling.seal_interval_s)
        self._intervals = journal.find_intervals() or configured
        if self._intervals != configured:
            log.warning("intervals_set_by_command", extra=asdict(self._intervals))
        self._moduli_wh = moduli_wh(settings.modbus.meters)
        unsealed = journal.find_unsealed()
        self._last_reading_unix_s = unsealed.last_unix_s if unsealed else self._chain.last_reading_unix_s
        self.problems = {HUB_IS_AHEAD} if journal.hub_was_ahead() else set()
        self.counts: Counter[str] = Counter()
        self.outbox = Outbox(settings.mqtt.republish_after_s, random)
        self.outbox.load(journal.unconfirmed_sequences())
        hooks = Hooks(self.find_message, self.receive_receipt, self.receive_command, self.status, self._count)
        self.transport = Transport(settings, self.outbox, hooks, random)
        self.stop = asyncio.Event()
        self._wait: asyncio.Future[None] | None = None

    @property
    def last_reading_unix_s(self) -> int:
        """The time of the newest reading on the disk."""
        return self._last_reading_unix_s

    def next_reading_time(self) -> int:
        """When the next reading is scheduled."""
        return next_reading_time(self._clock.now_unix_s(), self._intervals.reading_s)

    # ── sampling ────────────────────────────────────────────────────────────────────────────────────────

    async def sample_forever(self) -> None:
        """Read at every scheduled instant and seal what is due; until cancelled."""
        while True:
            self._round_s = self._monotonic_s()
            scheduled = self.next_reading_time()
            self._wait = asyncio.ensure_future(self._clock.wait_until(scheduled))
            await asyncio.wait([self._wait])
            if not self._wait.cancelled():  # a command that sets the intervals cancels the wait
                self._wait.result()
                if self._clock.now_unix_s() >= scheduled:  # unless the clock was set back meanwhile
                    await self.sample_once(scheduled)

    def came_round_lately(self) -> bool:
        """Whether sampling goes on, by a clock that nobody sets."""
        round_max_s = READ_ATTEMPTS * (self._reader.time_max_s + self._read_pause_s)
        return self._monotonic_s() - self._round_s <= ROUNDS_MISSED_MAX * self._intervals.reading_s + round_max_s

    async def sample_once(self, scheduled_unix_s: int) -> bool:
        """One scheduled reading, and the seals that are due. Returns whether there is a reading."""
        self._problem("clock_unsynchronised", not self._clock.synchronised())
        if self._stale_since_s is not None:
            self._problem("hub_lost_seals", self._monotonic_s() - self._stale_since_s >= HUB_LOST_SEALS_AFTER_S)
        now_unix_s, problem = self._clock.now_unix_s(), "reading_without_time"
        self._problem("clock_behind_last_reading", now_unix_s <= self._last_reading_unix_s)
        if time_usable(now_unix_s, self._last_reading_unix_s):
            try:
                problem = await self._read(scheduled_unix_s)
            except JournalError as error:
                problem = error.code
                self._journaled("reading", error)
            for name in (METER_UNREADABLE, REGISTER_FELL, REGISTER_JUMPED):
                self._problem(name, name == problem)
        else:
            self._count(problem)
        while self.seal_once() and self._seal_is_due() and self._clock.now_unix_s() + 1 < self.next_reading_time():
            await self._clock.wait_until(self._clock.now_unix_s() + 1)  # each seal has its own second
        return not problem

    async def _read(self, scheduled_unix_s: int) -> str:
        """Take one reading. Returns the name of the problem if there is none to be had. Raises JournalError."""
        suspicious: Step | None = None
        problem = METER_UNREADABLE
        for attempt in range(READ_ATTEMPTS):
            if attempt:
                await asyncio.sleep(self._read_pause_s)
            time_unix_s = reading_time(scheduled_unix_s, self._clock.now_unix_s())
            if not time_usable(time_unix_s, self._last_reading_unix_s):
                self._count("reading_without_time")
                break
            try:
                poll = read_poll(self._settings.modbus.meters, await self._reader.read())
                power_max_w = self._settings.sampling.power_max_w
                step = advance_counters(self._counters, poll.registers_wh, self._moduli_wh, time_unix_s, power_max_w)
            except (ModbusError, RegisterError) as error:
                self._failed(error)
                continue
            if step.refused is None:
                self._take(poll, time_unix_s, step)
                return ""
            self._failed(step.refused)
            suspicious, problem = step, step.refused.code
        if suspicious is not None and suspicious.state != self._counters:
            self._append([], suspicious.state)  # a restart must not forget a suspicion
        return problem

    def _take(self, poll: Poll, time_unix_s: int, step: Step) -> None:
        for name in step.resets:
            self._count("register_reset")
            log.warning(
                "register_reset",
                extra={"register": name, "before_wh": self._counters.registers[name].last_wh},
            )
        reading = make_reading(
            poll,
            time_unix_s,
            step.state.production_wh,
            step.state.consumption_wh,
            last_reading_unix_s=self._last_reading_unix_s,
            interval_s=self._intervals.reading_s,
            clock_synchronised=self._clock.synchronised(),
            register_reset=bool(step.resets),
            meter_swapped=self._counters.swapped,
        )
        full = self._journal.full()
        self._problem("journal_full", full)
        state = replace(step.state, swapped=step.state.swapped or self._counters.swapped) if full else step.state
        self._append([] if full else [reading], state)
        if full:
            self._count("reading_not_journaled")
        else:
            self._count("reading")
            self._last_reading_unix_s = time_unix_s

    def _append(self, readings: list[Reading], state: CounterState) -> None:
        self._journal.append_readings(readings, state)
        self._counters = state
        self._journaled("reading")

    # ── sealing ─────────────────────────────────────────────────────────────────────────────────────────

    def _seal_is_due(self) -> bool:
        unsealed = self._journal.find_unsealed()
        return unsealed is not None and seal_due(
            unsealed.first_unix_s, unsealed.count, self._clock.now_unix_s(), self._intervals.seal_s
        )

    def seal_once(self, *, early: bool = False) -> bool:
        """Seal one message if one is due, or `early` if there is anything. Returns whether it did."""
        if not self._clock.synchronised() or HUB_IS_AHEAD in self.problems:
            return False
        try:
            self._discard_future()
            if not (early or self._seal_is_due()):
                return False
            now_unix_s = self._clock.now_unix_s()
            readings = self._journal.unsealed_readings(READINGS_PER_SEAL_MAX)
            if not readings:
                return False
            behind = now_unix_s <= self._chain.sealed_at_unix_s
            self._problem("clock_behind_last_seal", behind)
            if behind:
                return False
            sealed = seal_readings(self._chain, readings, now_unix_s, self._settings.domain, self._identity.sign)
            self._journal.append_seal(sealed)
        except JournalError as error:
            self._journaled("seal", error)
            return False
        self._journaled("seal")
        self._chain = sealed.chain
        self._count("seal")
        log.info("sealed", extra={"sequence": sealed.chain.sequence, "readings": sealed.readings})
        self.outbox.add(sealed.chain.sequence)
        self.transport.wake()
        return True

    def _discard_future(self) -> None:
        """Readings that a clock took before it was set right cannot be sealed; their energy is in the counters."""
        now_unix_s = self._clock.now_unix_s()
        if self._last_reading_unix_s <= max(now_unix_s, self._chain.last_reading_unix_s):
            return
        unsealed = self._journal.find_unsealed()
        if unsealed is None or unsealed.last_unix_s <= now_unix_s:
            return
        counters = replace(self._counters, time_unix_s=self._chain.last_reading_unix_s)
        discarded = self._journal.discard_readings_after(now_unix_s, counters)
        self._counters = counters
        unsealed = self._journal.find_unsealed()
        self._last_reading_unix_s = unsealed.last_unix_s if unsealed else self._chain.last_reading_unix_s
        self.counts["reading_from_the_future"] += discarded
        log.warning("readings_from_the_future_discarded", extra={"readings": discarded})

    # ── what comes back ─────────────────────────────────────────────────────────────────────────────────

    def find_message(self, sequence: int) -> bytes | None:
        """The message to publish; None if it is forgotten, cannot be read now, or might fork the chain."""
        if self.problems & {HUB_IS_AHEAD, HASH_DIFFERS}:
            return None
        try:
            return self._journal.find_message(sequence)
        except JournalError as error:
            self._failed(error)
            return None

    def receive_receipt(self, payload: bytes) -> None:
        """A `committed` message: forget what it covers, if it is to be believed."""
        try:
            receipt = decode_committed(payload)
        except ProtocolError as error:
            self._count("receipt_malformed")
            log.warning("receipt_malformed", extra={"why": str(error)})
            return
        try:
            confirmed_sequence = self._journal.get_confirmed_sequence()
            verdict = judge_receipt(
                receipt,
                key_epoch=self._chain.key_epoch,
                last_sequence=self._chain.sequence,
                confirmed_sequence=confirmed_sequence,
                seal_hash_of=self._journal.find_seal_hash,
            )
            self._judged(verdict)
            if verdict == STALE:  # a hub restored from a copy still knows what its ranges say
                self.outbox.forget(receipt)
                self._journal.forget_seals(confirmed_sequence, receipt.ranges)
            elif verdict == BELIEVED and (
                self.outbox.forget(receipt) or receipt.contiguous_sequence > confirmed_sequence
            ):
                self._journal.forget_seals(receipt.contiguous_sequence, receipt.ranges)
                self.transport.wake()
        except JournalError as error:
            self._journaled("receipt", error)
        else:
            self._journaled("receipt")

    def _judged(self, verdict: str) -> None:
        """Keep the problems that a receipt raises until one is believed."""
        if verdict != BELIEVED:
            self._count(verdict)
        if verdict == HUB_IS_AHEAD or (verdict == BELIEVED and HUB_IS_AHEAD in self.problems):
            self._journal.set_hub_ahead(verdict == HUB_IS_AHEAD)
        disputed = bool(self.problems & {HUB_IS_AHEAD, HASH_DIFFERS})
        for dispute in (HUB_IS_AHEAD, HASH_DIFFERS):
            if verdict in (BELIEVED, dispute):
                self._problem(dispute, verdict == dispute)
        if verdict == BELIEVED and disputed:
            self.outbox.resend(1, self._chain.sequence, self._monotonic_s())
            self.transport.wake()
        if verdict == BELIEVED:
            self._stale_since_s = None
            self._problem("hub_lost_seals", False)
        elif verdict == STALE and self._stale_since_s is None:
            self._stale_since_s = self._monotonic_s()

    def receive_command(self, payload: bytes) -> None:
        """A `commands` message: follow it, if it is the hub's, ours, new and in time."""
        try:
            command = verify_command(
                payload,
                command_public_key=self._command_public_key,
                domain=self._settings.domain,
                meter_id=self._settings.meter_id,
                last_counter=self._journal.get_command_counter(),
                now_unix_s=self._clock.now_unix_s(),
                clock_synchronised=self._clock.synchronised(),
            )
            intervals = Intervals(command.first, command.last) if command.kind == SET_INTERVAL else None
            self._journal.accept_command(command.counter, intervals)
        except CommandError as error:
            self._failed(error)
            return
        except JournalError as error:
            self._journaled("command", error)
            return
        self._journaled("command")
        log.info("command", extra={"command": KIND_NAMES[command.kind], "counter": command.counter})
        self._count("command")
        self._follow(command)
        self.transport.status_changed()

    def _follow(self, command: Command) -> None:
        if command.kind == SET_INTERVAL:
            self._intervals = Intervals(command.first, command.last)
            if self._wait is not None:
                self._wait.cancel()
        elif command.kind == RESEND:
            held = self.outbox.resend(command.first, command.last, self._monotonic_s())
            log.info("resend", extra={"first": command.first, "last": command.last, "held": held})
            self.transport.wake()
        elif command.kind == RESTART:
            self.stop.set()

    # ── being seen ──────────────────────────────────────────────────────────────────────────────────────

    def status(self) -> dict[str, object]:
        """What the agent says of itself."""
        return {
            "state": "online",
            "agent": __version__,
            "key_epoch": self._chain.key_epoch,
            "sequence": self._chain.sequence,
            "backlog_seals": len(self.outbox),
            "journal_bytes": self._journal.used_bytes(),
            "clock": "synchronised" if self._clock.synchronised() else "unsynchronised",
            "problems": sorted(self.problems),
            "counts": dict(sorted(self.counts.items())),
        }

    def _count(self, what: str) -> None:
        self.counts[what] += 1

    def _failed(self, error: ModbusError | RegisterError | JournalError | CommandError) -> None:
        self._count(error.code)
        log.warning(error.code, extra={"why": error.detail})

    def _journaled(self, what: str, error: JournalError | None = None) -> None:
        """A kind of write went well, or not: the problem lasts until each kind that failed goes well again."""
        if error is None:
            self._unwritable.discard(what)
        else:
            self._failed(error)
            self._unwritable.add(what)
        self._problem("journal_unwritable", bool(self._unwritable))

    def _problem(self, name: str, exists: bool) -> None:
        if exists == (name in self.problems):
            return
        if exists:
            self.problems.add(name)
            log.error(name)
        else:
            self.problems.discard(name)
            log.info("resolved", extra={"problem": name})
        self.transport.status_changed()
