"""The agent: registers → counters → journal → seals → hub, and what comes back. It wires; others decide.

Order of effects: a reading is on the disk before it is sealed, a seal is on the disk before it is published,
and it is forgotten only when a believed receipt covers it. Whatever fails is counted, named in the log and in
the status, and tried again; nothing but its supervisor, a restart command or our own mistake ends the agent.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable

from edge import __version__
from edge.certificate_watch import CertificateWatch
from edge.clock import Clock
from edge.credentials import credential_renewer
from edge.enrolment import get_enrolment
from edge.errors import SettingsError
from edge.identity import Identity
from edge.journal import Journal
from edge.outbox import Outbox
from edge.receiving import Receiver
from edge.sampler import READ_PAUSE_S, Reader, Sampler
from edge.sealer import Sealer
from edge.settings import Settings
from edge.status import Standing, journal_status, meters_status, transport_name
from edge.transports import Hooks, create_transport
from protocol.credential import NONCE_BYTES
from protocol.readings import Reading


class Agent:
    """One enrolled meter. Raises JournalError, IdentityError or SettingsError if it cannot start."""

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        journal: Journal,
        *,
        clock: Clock,
        reader: Reader,
        random: Callable[[], float],
        read_pause_s: float = READ_PAUSE_S,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        if settings.command_public_key is None:
            raise SettingsError("settings_missing", "hub.command_public_key: it is in the hub's answer to registration")
        get_enrolment(settings, identity, journal)
        self._settings = settings
        self._journal = journal
        self._clock = clock
        self._reader = reader
        self.stop = asyncio.Event()
        self.standing = Standing()
        self._certificate = CertificateWatch(settings, self.standing)
        uplink = settings.mqtt if settings.transport == "mqtt" else settings.https
        assert uplink is not None, "the settings name the transport and have its table"
        self.outbox = Outbox(uplink.republish_after_s, random)
        self.outbox.load(journal.unconfirmed_sequences())
        self.sampler = Sampler(
            settings,
            journal,
            self.standing,
            clock=clock,
            reader=reader,
            read_pause_s=read_pause_s,
            monotonic_s=monotonic_s,
        )
        self.sealer = Sealer(
            settings.domain, identity, journal, self.standing, clock=clock, sampler=self.sampler, sealed=self._publish
        )
        self.receiver = Receiver(
            settings,
            settings.command_public_key,
            journal,
            self.standing,
            clock=clock,
            outbox=self.outbox,
            sampler=self.sampler,
            sealer=self.sealer,
            wake=self._wake,
            stop=self.stop.set,
            monotonic_s=monotonic_s,
        )
        hooks = Hooks(
            self.receiver.find_message,
            self.receiver.receive_receipt,
            self.receiver.receive_command,
            self.status,
            self.standing.count,
            self.receiver.last_command,
            self.standing.problem,
            credential_renewer(
                settings,
                identity,
                self.sealer.chain.key_epoch,
                clock.now_unix_s,
                lambda: secrets.token_bytes(NONCE_BYTES),
            ),
        )
        self.transport = create_transport(settings, self.outbox, hooks, random)
        self.standing.on_change = self.transport.status_changed

    @property
    def problems(self) -> set[str]:
        """What is wrong now."""
        return self.standing.problems

    @property
    def counts(self) -> Counter[str]:
        """What has happened since the start."""
        return self.standing.counts

    @property
    def last_reading_unix_s(self) -> int:
        """The time of the newest reading on the disk."""
        return self.sampler.last_reading_unix_s

    @property
    def on_reading(self) -> Callable[[Reading], None]:
        """Who hears each reading once it is on the disk."""
        return self.sampler.on_reading

    @on_reading.setter
    def on_reading(self, hear: Callable[[Reading], None]) -> None:
        self.sampler.on_reading = hear

    def next_reading_time(self) -> int:
        """When the next reading is scheduled."""
        return self.sampler.next_reading_time()

    async def sample_forever(self) -> None:
        """Read at every scheduled instant and seal what is due; until cancelled."""
        while True:
            scheduled = await self.sampler.wait()
            if scheduled is not None:
                await self.sample_once(scheduled)

    async def sample_once(self, scheduled_unix_s: int) -> bool:
        """One scheduled reading, and the seals that are due. Returns whether there is a reading."""
        self.receiver.notice_lost_seals()
        self._certificate.look(self._clock.now_unix_s())
        taken = await self.sampler.sample_once(scheduled_unix_s)
        await self.sealer.seal_due()
        return taken

    def seal_once(self, *, early: bool = False) -> bool:
        """Seal one message if one is due, or `early` if there is anything. Returns whether it did."""
        return self.sealer.seal_once(early=early)

    def came_round_lately(self) -> bool:
        """Whether sampling goes on, by a clock that nobody sets."""
        return self.sampler.came_round_lately()

    def _publish(self, sequence: int) -> None:
        self.outbox.add(sequence)
        self.transport.wake()

    def _wake(self) -> None:
        self.transport.wake()

    def status(self) -> dict[str, object]:
        """What the agent says of itself."""
        return {
            "state": "online",
            "agent": __version__,
            "time_unix_s": self._clock.now_unix_s(),
            "key_epoch": self.sealer.chain.key_epoch,
            "sequence": self.sealer.chain.sequence,
            "backlog_seals": len(self.outbox),
            "last_reading_unix_s": self.sampler.last_reading_unix_s,
            **journal_status(self._journal),
            "journal_bytes_max": self._settings.journal.bytes_max,
            "clock": "synchronised" if self._clock.synchronised() else "unsynchronised",
            "transport": transport_name(self._settings),
            "meters": meters_status(self._settings.meters, self.sampler.last_poll),
            "problems": sorted(self.problems | self._reader.problems),
            "counts": dict(sorted((self.counts | Counter(self._reader.counts)).items())),
        }
