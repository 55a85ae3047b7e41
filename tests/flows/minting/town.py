"""A community with a cluster of its own, and people who have wallets: what tests of minting begin with."""

from __future__ import annotations

import base64
import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import base58
import httpx
import psycopg
from nacl.signing import SigningKey

from infra.local.community import Community
from infra.local.mosquitto_package import Installation
from infra.local.processes import log_tail
from infra.local.solana import SolanaSimulator
from protocol.topics import domain_of
from simulators.sealing import SealedMessage, seeded_key
from tests.flows.minting.roofs import Roof
from tests.hub.auth.signing_wallet import SigningWallet

COMMUNITY_ID: Final = "test-community"
SLOT_MS: Final = 40
FINALIZED_AFTER_SLOTS: Final = 4
DAY_S: Final = 86_400
DAYS_AGO: Final = 32
"""Meters begin so long ago, within the hub's age limit, so that they have much to seal."""
TIMEOUT_S: Final = 90.0
REQUEST_TIMEOUT_S: Final = 30.0
PAUSE_S: Final = 0.05
CAPACITY_W: Final = 20_000
RETRIED: Final = (429, 502, 503, 504)


@dataclass
class Person:
    """Somebody with a wallet, as a member of the community."""

    name: str
    key: SigningKey
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def wallet(self) -> SigningWallet:
        return SigningWallet(bytes(self.key))

    @property
    def public_key(self) -> bytes:
        return bytes(self.key.verify_key)


class Town:
    """What runs, and what is asked of it. Requests are repeated while nobody answers, as agents and browsers do."""

    def __init__(self, community: Community) -> None:
        assert community.chain is not None
        self.community = community
        self.chain = community.chain
        self.cluster = community.chain.cluster
        self.domain = domain_of(COMMUNITY_ID, bytes.fromhex(self.chain.genesis_hash_hex), bytes(self.chain.program_id))
        self.people: list[Person] = []
        self.roofs: list[Roof] = []
        key = community.admin_key_file.read_text().strip()
        self.admin = {"Authorization": f"Bearer {key}"}

    # --- requests

    def ask(
        self, method: str, path: str, headers: Mapping[str, str], timeout_s: float = TIMEOUT_S, **more: Any
    ) -> httpx.Response:
        """Any answer but "not now"; the same request, with the same key of idempotency, until there is one."""
        once = {"Idempotency-Key": secrets.token_hex(8)} if method == "POST" else {}
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                url = f"{self.community.api_url}{path}"
                answer = httpx.request(method, url, headers={**headers, **once}, timeout=REQUEST_TIMEOUT_S, **more)
            except httpx.TransportError as fault:
                said = repr(fault)
            else:
                if answer.status_code not in RETRIED:
                    return answer
                said = answer.text
            assert time.monotonic() < deadline_s, f"{method} {path}: {said}"
            time.sleep(PAUSE_S)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Any:
        answer = self.ask("GET", path, self.admin if headers is None else headers)
        assert answer.status_code == httpx.codes.OK, (path, answer.text)
        return answer.json()

    def post(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> Any:
        answer = self.ask("POST", path, self.admin if headers is None else headers, json=body)
        assert answer.is_success, (path, answer.text)
        return answer.json()

    def take(self, *messages: SealedMessage) -> list[str]:
        """Post seals; what became of each. Returns when all are stored."""
        states = []
        for each in messages:
            answer = self.ask("POST", f"/readings/seals?meter_id={each.meter_id}", {}, content=each.message)
            assert answer.status_code == httpx.codes.OK, answer.text
            states.append(str(answer.json()["state"]))
        return states

    # --- people and their meters

    def join(self, name: str) -> Person:
        """Somebody registers with a wallet of their own."""
        person = Person(name, seeded_key(f"owner {name}"))
        with httpx.Client(base_url=self.community.api_url, timeout=REQUEST_TIMEOUT_S) as client:
            answer = person.wallet.register(client, name)
        assert answer.is_success, answer.text
        person.headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        self.people.append(person)
        return person

    def sign_in_again(self, person: Person) -> None:
        """Access tokens live for minutes only."""
        with httpx.Client(base_url=self.community.api_url, timeout=REQUEST_TIMEOUT_S) as client:
            answer = person.wallet.sign_in(client)
        assert answer.is_success, answer.text
        person.headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}

    def build(self, meter_id: str, person: Person) -> Roof:
        """A roof with a meter that is registered at the hub, and not yet on the chain."""
        midnight_unix_s = int(datetime.now(UTC).timestamp()) // DAY_S * DAY_S
        roof = Roof(meter_id, person.key, self.domain, midnight_unix_s - DAYS_AGO * DAY_S)
        self.register(roof.enrolment())
        self.roofs.append(roof)
        return roof

    def register(self, enrolment: bytes) -> None:
        body = {
            "enrolment": enrolment.hex(),
            "production_capacity_w": CAPACITY_W,
            "connection_capacity_w": CAPACITY_W,
            "register_quantum_wh": 1,
        }
        self.post("/meters", body)

    def put_on_chain(self, person: Person, meter_id: str | None = None) -> dict[str, Any]:
        """Have the wallet, or a meter of it, registered on the chain, and return how that ended."""
        registration_id = self.ask_for(person, meter_id)
        return self.see_through(person, registration_id)

    def ask_for(self, person: Person, meter_id: str | None) -> str:
        """Ask for a registration; its id."""
        path = "user" if meter_id is None else "meter"
        body = {"wallet": person.wallet.address} if meter_id is None else {"meter_id": meter_id}
        return str(self.post(f"/me/registrations/{path}", body, person.headers)["registration_id"])

    def see_through(self, person: Person, registration_id: str) -> dict[str, Any]:
        """Sign whatever there is to sign, as often as need be, until the registration has ended."""
        signed: set[str] = set()
        path = f"/me/registrations/{registration_id}"
        deadline_s = time.monotonic() + TIMEOUT_S
        while True:
            standing = self.get(path, person.headers)
            if standing["state"] in ("finalized", "failed", "expired"):
                return dict(standing)
            to_sign = standing["transaction"]
            is_new = to_sign is not None and to_sign["message"] not in signed
            if is_new and self.sign(person, registration_id, to_sign["message"]):
                signed.add(to_sign["message"])
            assert time.monotonic() < deadline_s, (standing, self.last_words())
            time.sleep(PAUSE_S)

    def sign(self, person: Person, registration_id: str, message: str) -> bool:
        """Hand in the wallet's signature; False if there is another transaction to sign by now."""
        signature = person.key.sign(base64.b64decode(message)).signature
        body = {"message": message, "signature": _base58(signature)}
        answer = self.ask("POST", f"/me/registrations/{registration_id}/signature", person.headers, json=body)
        if answer.is_success:
            return True
        assert answer.json()["code"] in ("transaction_expired", "intent_not_awaiting"), answer.text
        return False

    # --- processes

    def kill(self, part: str) -> None:
        """SIGKILL a process of the hub, the database or the cluster."""
        if part == "database":
            self.community.postgres.kill()
        elif part == "cluster":
            self.cluster.kill()
        else:
            process = self.community.processes.pop(f"hub-{part}")
            process.kill()
            process.wait()

    def start(self, part: str) -> None:
        """Start again what was killed."""
        if part == "database":
            self.community.postgres.start()
        elif part == "cluster":
            self.cluster.start()
        else:
            self.community.start_part(part)

    # --- what is there

    def rows(self, query: str, values: Any = None) -> list[tuple[Any, ...]]:
        """What the database holds."""
        with psycopg.connect(self.community.database_url) as database:
            return database.execute(query, values).fetchall()  # type: ignore[arg-type]

    def change(self, statement: str) -> None:
        with psycopg.connect(self.community.database_url) as database:
            database.execute(statement)  # type: ignore[arg-type]

    def wait_until(self, what: str, condition: Callable[[], object], timeout_s: float = TIMEOUT_S) -> None:
        """Until something is true; complains with the last lines of the chain process."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            self.community.check_alive()
            assert time.monotonic() < deadline_s, f"waited {timeout_s:.0f} s until {what}\n{self.last_words()}"
            time.sleep(PAUSE_S)

    def last_words(self) -> str:
        """The end of the chain process' log."""
        return log_tail(self.community.log / "hub-chain.log", 25)


def _base58(data: bytes) -> str:
    return base58.b58encode(data).decode()


@contextlib.contextmanager
def living_town(directory: Path, installation: Installation, **settings: str) -> Iterator[Town]:
    """A town whose hub and cluster run; nobody lives there yet."""
    cluster = SolanaSimulator(directory / "solana", SLOT_MS, FINALIZED_AFTER_SLOTS)
    chosen = {"COMMONWATT_MINT_INTERVAL_S": "1", **settings}
    with Community(directory / "community", COMMUNITY_ID, installation, cluster=cluster, settings=chosen) as community:
        community.start_servers()
        community.start_hub()
        town = Town(community)
        town.wait_until("the hub has read the program", lambda: town.rows("SELECT 1 FROM chain_config"))
        yield town
