"""A hub with a chain whose node nobody asks: mirrors written as the inbox writes them, transactions built and ended as
the chain process does. What the real one does is in `test_onboarding_end_to_end.py`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import base58
from solders.pubkey import Pubkey
from sqlalchemy import Engine, text

from hub.auth import members_service
from hub.auth.members_store import SOLANA
from hub.chain import intents, intents_store, mirrors
from hub.chain.accounts import ConfigAccount, ConfigState, MeterAccount, MeterState, UserAccount, UserKind
from hub.chain.addresses import Addresses
from hub.chain.events import ProgramEvent
from hub.chain.inbox import StoredEvent
from hub.chain.intents import Attempt, IntentState
from hub.chain.messages import build_message
from hub.chain.sender import WALLET_TOO_LATE
from hub.db import transaction
from hub.permissions import Role
from hub.registry import onboarding_reactions as reactions
from hub.registry import onboarding_service as service
from hub.registry import onboarding_store as store
from hub.registry import service as registry
from hub.registry.onboarding_rules import Terms
from hub.settings import Settings
from hub.signatures import SigningKey
from tests.hub.conftest import TestMeter

PROGRAM: Final = Pubkey.from_bytes(b"the energy program, for 32 bytes")
GENESIS: Final = b"the first block of a test's chain"[:32]
HUB_KEY: Final = SigningKey(b"the hub's key on a test's chain!")
MINT: Final = Pubkey.from_bytes(b"the mint of GRID, thirty-two by.")
NOON: Final = datetime(2026, 11, 20, 12, tzinfo=UTC)
_numbers = itertools.count(1)


def with_chain(settings: Settings) -> Settings:
    """These settings, with a chain."""
    chain = {
        "rpc_url": "http://127.0.0.1:1",
        "program_id_hex": bytes(PROGRAM).hex(),
        "genesis_hash_hex": GENESIS.hex(),
    }
    return settings.model_copy(update=chain)


@dataclass(frozen=True)
class Person:
    """A member with a wallet, which signs for itself."""

    member_id: UUID
    key: SigningKey

    @property
    def wallet(self) -> bytes:
        return self.key.public_key

    @property
    def address(self) -> str:
        return base58.b58encode(self.wallet).decode()


@dataclass
class Chained:
    """Members, meters, and a chain that does what the test says, at a time that the test decides."""

    engine: Engine
    settings: Settings
    now: datetime = NOON
    slot: int = 100

    @property
    def terms(self) -> Terms:
        return service.terms_of(self.settings)

    @property
    def at(self) -> Addresses:
        return Addresses(PROGRAM)

    # --- members and meters --------------------------------------------------------------------------------------

    def person(self, member_type: Role = Role.PROSUMER) -> Person:
        with transaction(self.engine) as connection:
            member_id = members_service.create_member(connection, member_type, "Ada", "", self.now)
        return self.with_wallet(member_id)

    def with_wallet(self, member_id: UUID) -> Person:
        """This member, with a wallet of its own from now on."""
        key = SigningKey(b"a person's wallet" + next(_numbers).to_bytes(15))
        person = Person(member_id, key)
        with transaction(self.engine) as connection:
            members_service.add_identity(
                connection, member_id, SOLANA, person.address, key.public_key, "test", self.now
            )
        return person

    def link(self, person: Person, wallet: Person) -> None:
        """The wallet is this member's from now on."""
        with transaction(self.engine) as connection:
            members_service.add_identity(
                connection, person.member_id, SOLANA, wallet.address, wallet.wallet, "test", self.now
            )

    def unlink(self, wallet: Person) -> None:
        """The wallet is nobody's from now on."""
        with transaction(self.engine) as connection:
            connection.execute(text("DELETE FROM identities WHERE public_key = :key"), {"key": wallet.wallet})

    def meter(self, owner: bytes, domain: bytes | None = None, **capacity: int) -> TestMeter:
        """A meter of this wallet, registered at the hub."""
        number = next(_numbers)
        today = int(self.now.timestamp()) // 86_400 * 86_400
        key = SigningKey(b"key of a meter on a roof" + number.to_bytes(8))
        meter = TestMeter(f"roof-{number}", key, today, domain or self.settings.domain)
        watts = {"production_capacity_w": 20_000, "connection_capacity_w": 20_000} | capacity
        with transaction(self.engine) as connection:
            registry.register_meter(
                connection,
                meter.enrolment(owner=owner),
                registry.Capacity(**watts),
                meter.domain,
                self.settings.backlog_age_max_s,
                "test",
                self.now,
            )
        return meter

    # --- what the mirrors say ------------------------------------------------------------------------------------

    def show(self, account: ConfigAccount | UserAccount | MeterAccount) -> None:
        self.slot += 1
        with transaction(self.engine) as connection:
            mirrors.show(connection, account, self.slot, 0, self.now)

    def config(self, **changes: object) -> ConfigAccount:
        config = ConfigAccount(
            self.at.config(),
            ConfigState.RUNNING,
            9,
            self.settings.domain,
            bytes([1]) * 32,
            HUB_KEY.public_key,
            bytes([2]) * 32,
            bytes([3]) * 32,
            bytes(MINT),
            1_000_000,
            1_000,
        )
        return replace(config, **changes)  # type: ignore[arg-type]

    def user(self, wallet: bytes, kind: UserKind = UserKind.PROSUMER) -> UserAccount:
        return UserAccount(self.at.user(wallet), 1, kind, wallet, 0, 0, 0)

    def meter_account(self, meter_id: str, owner: bytes, state: MeterState = MeterState.ACTIVE) -> MeterAccount:
        grid = bytes(self.at.grid_account(owner, MINT))
        known = {"address", "state", "kind", "meter_id", "owner", "key", "grid_account", "key_epoch", "measurement"}
        counters = dict.fromkeys({field.name for field in fields(MeterAccount)} - known, 0)
        return MeterAccount(
            address=self.at.meter(meter_id),
            state=state,
            kind=1,
            meter_id=meter_id,
            owner=owner,
            key=bytes(32),
            grid_account=grid,
            key_epoch=1,
            measurement=1,
            **counters,
        )

    # --- what members ask for ------------------------------------------------------------------------------------

    def ask_user(self, person: Person, address: str | None = None) -> UUID:
        with transaction(self.engine) as connection:
            return service.request_user(
                connection, person.member_id, address or person.address, self.terms, "member:x", self.now
            )

    def ask_meter(self, person: Person, meter_id: str) -> UUID:
        with transaction(self.engine) as connection:
            return service.request_meter(connection, person.member_id, meter_id, self.terms, "member:x", self.now)

    def sign(
        self, person: Person, registration_id: UUID, message: bytes | None = None, by: Person | None = None
    ) -> None:
        if message is None:
            message = self.message(registration_id)
        signature = base58.b58encode((by or person).key.sign(message)).decode()
        with transaction(self.engine) as connection:
            service.sign_registration(
                connection, person.member_id, registration_id, message, signature, "member:x", self.now
            )

    def message(self, registration_id: UUID) -> bytes:
        newest = self.intent(registration_id).newest
        assert newest is not None
        return newest.message

    def intent(self, registration_id: UUID) -> intents.Intent:
        with transaction(self.engine) as connection:
            return intents.get_intent(connection, registration_id)

    def standing(self, person: Person, registration_id: UUID) -> service.Standing:
        with transaction(self.engine) as connection:
            return service.get_standing(connection, person.member_id, registration_id)

    def sponsorship(self, registration_id: UUID) -> store.Sponsorship:
        with transaction(self.engine) as connection:
            return store.map_sponsorships(connection, [registration_id])[registration_id]

    # --- what the chain process does -----------------------------------------------------------------------------

    def build(self, registration_id: UUID) -> Attempt:
        """Sign the next attempt with the hub's key, and let it wait for the wallet."""
        with transaction(self.engine) as connection:
            intent = intents_store.find_intent_for_update(connection, registration_id)
            assert intent is not None
            payer, blockhash = Pubkey.from_bytes(HUB_KEY.public_key), b"block".ljust(24) + next(_numbers).to_bytes(8)
            message = build_message(payer, intent.instructions, intent.compute_units, 0, blockhash, registration_id)
            times = (1_000 + self.slot, self.slot, 0, None, "")
            attempt = Attempt(len(intent.attempts) + 1, message, HUB_KEY.sign(message), None, *times)
            intents_store.insert_attempt(connection, registration_id, attempt, self.now)
            if intent.state is not IntentState.AWAITING_WALLET:
                assert intents_store.change_state(connection, intent, IntentState.AWAITING_WALLET, None)
        return attempt

    def end(self, registration_id: UUID, state: IntentState, error_code: str | None = None, error: str = "") -> bool:
        """Let the intent end, with its reactions."""
        self.slot += 1
        finalized = state is IntentState.FINALIZED
        if not finalized and error_code is None:
            error_code = WALLET_TOO_LATE
        with transaction(self.engine) as connection:
            intent = intents_store.find_intent_for_update(connection, registration_id)
            assert intent is not None
            newest = intent.newest
            return intents.end_intent(
                connection,
                intent,
                None,
                state,
                reactions.REACTIONS,
                self.now,
                error_code=error_code,
                error=error,
                ended_by=newest.hub_signature if finalized and newest is not None else None,
                slot=self.slot if finalized else None,
            )

    def become_unknown(self, registration_id: UUID) -> None:
        with transaction(self.engine) as connection:
            intent = intents_store.find_intent_for_update(connection, registration_id)
            assert intent is not None
            assert intents_store.change_state(connection, intent, IntentState.UNKNOWN, None, unknown_at=self.now)
            told = ("unknown", intent.signature, None, None, "")
            intents.react(connection, intent, *told, reactions.REACTIONS, self.now)  # type: ignore[arg-type]

    def event(self, account: UserAccount | MeterAccount, signature: bytes, instruction: int) -> None:
        """What the inbox does with an event of a transaction."""
        self.slot += 1
        event = ProgramEvent(instruction, None, 0, account)
        stored = StoredEvent(base58.b58encode(signature).decode(), 0, self.slot, 0, None, event)
        with transaction(self.engine) as connection:
            before = mirrors.find_before(connection, account)
            mirrors.show(connection, account, self.slot, 0, self.now)
            for reaction in reactions.EVENT_REACTIONS:
                reaction(connection, stored, before, self.now)

    def compare(self, account: UserAccount | MeterAccount) -> None:
        """What the comparison of accounts does with one that the mirrors do not have."""
        self.slot += 1
        with transaction(self.engine) as connection:
            assert mirrors.show(connection, account, self.slot, 0, self.now)
            for reaction in reactions.ACCOUNT_REACTIONS:
                reaction(connection, account, self.slot, self.now)

    def registered(self, person: Person) -> None:
        """The person's wallet, through all of it."""
        registration_id = self.ask_user(person)
        attempt = self.build(registration_id)
        self.sign(person, registration_id)
        self.event(self.user(person.wallet), attempt.hub_signature, 1)

    # --- what there is to see ------------------------------------------------------------------------------------

    def wait(self, **duration: float) -> None:
        self.now += timedelta(**duration)

    def rows(self, query: str, **values: object) -> list[tuple[object, ...]]:
        with transaction(self.engine) as connection:
            return [tuple(row) for row in connection.execute(text(query), values)]

    def told(self) -> list[str]:
        """The kinds of what people are told, in order."""
        found = self.rows("SELECT payload ->> 'kind' FROM outbox_jobs WHERE kind = 'notification.tell' ORDER BY job_id")
        return [str(kind) for (kind,) in found if str(kind).startswith("chain.")]

    def states_told(self, person: Person) -> list[str]:
        """The states that the member's live topic told of, in order."""
        query = "SELECT data ->> 'state' FROM live_updates WHERE topic = :topic ORDER BY sequence"
        return [str(state) for (state,) in self.rows(query, topic=f"transactions:{person.member_id}")]

    def actions(self) -> list[str]:
        return [str(action) for (action,) in self.rows("SELECT action FROM audit_log ORDER BY audit_id")]
