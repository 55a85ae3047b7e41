"""The whole walk of a member: registered by a wallet, its meter enrolled to it, live, told, refused; and nothing of it
lost, whatever is killed.

Two API processes, ingest, jobs, a broker, a mail server and a receiver of webhooks, all of them processes of their own.
What people do they do with `commonwatt member` and `commonwatt admin`.
"""

from __future__ import annotations

import email
import email.policy
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as mqtt
import psycopg
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from commonwatt.member_wallet import Wallet
from infra.local.community import Community
from infra.local.mosquitto_package import Installation
from infra.local.processes import write_secret
from infra.local.webhooks import WebhookReceiver
from protocol.topics import domain_of, topic
from simulators.sealing import SimulatedMeter, seeded_key
from tests.commonwatt.conftest import Member, Operator, refusal_of

COMMUNITY_ID = "test-community"
APIS = ("api", "api-2")
READ = "meter.read"
EMAIL = "ada@homes.example"
PASSWORD = "seven bicycles in the rain"  # noqa: S105
TIMEOUT_S = 90.0
DAY_S = 86_400
KILLED = (*APIS, "jobs", "database")
DECISIONS = 4
"""Few enough that each may be mailed within the hour."""
KINDS = ("meter.suspended", "meter.resumed")


class Watcher:
    """`commonwatt member watch --json` at one of the API processes, as a process of its own."""

    def __init__(self, member: Member, url: str, *topics: str) -> None:
        self.log = member.directory / f"watch-{url.rpartition(':')[2]}-{'-'.join(topics)}.ndjson"
        after = [word for name in topics for word in ("--after", f"{name}=0")]
        command = [
            sys.executable,
            "-m",
            "commonwatt",
            "member",
            *member.words("watch", *topics, "--json", *after, url=url),
        ]
        with self.log.open("wb") as output, self.log.with_suffix(".errors").open("wb") as errors:
            self.process = subprocess.Popen(command, stdout=output, stderr=errors, env=os.environ | {"COLUMNS": "200"})

    def updates(self, name: str) -> list[dict[str, Any]]:
        """What it printed of a topic. A line that is being written is left for later."""
        frames = [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        assert not [frame for frame in frames if frame["type"] == "resync"], "nothing here is too much"
        return [frame for frame in frames if frame["type"] == "update" and frame["topic"] == name]

    def has_left(self) -> bool:
        """Whether it has ended, as it does when it is no longer allowed."""
        return self.process.poll() is not None

    @property
    def last_word(self) -> str:
        return self.log.with_suffix(".errors").read_text().splitlines()[-1]


class Roof:
    """A meter with an account at the broker, which keeps what is published while the hub is not there."""

    def __init__(self, meter: SimulatedMeter, community: Community, password: str) -> None:
        self.meter = meter
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=meter.meter_id, protocol=mqtt.MQTTv5)
        self._client.tls_set(ca_certs=str(community.broker.ca_file))
        self._client.username_pw_set(meter.meter_id, password)
        self._client.connect(community.broker.host, community.broker.port)
        self._client.loop_start()

    def seals(self, count: int) -> None:
        """Publish the next seals; returns once the broker has them."""
        for sealed in self.meter.messages(count):
            where = topic(COMMUNITY_ID, self.meter.meter_id, "seals")
            self._client.publish(where, sealed.message, qos=1).wait_for_publish(TIMEOUT_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@dataclass
class Street:
    """Everything that runs, and everybody who takes part."""

    community: Community
    receiver: WebhookReceiver
    directory: Path
    ada: Member
    otto: Member
    admin: Operator
    roof: Roof | None = None
    watchers: list[Watcher] = field(default_factory=list)

    def member(self, name: str, wallet: str = "") -> Member:
        """Somebody who has just registered, with this wallet or a new one."""
        made = Member(self.community.api_url, self.directory / name)
        made.directory.mkdir()
        if wallet:
            write_secret(made.wallet, wallet)
        else:
            made.do("key", "new", made.wallet)
        made.do("register", "--wallet", made.wallet, "--name", name)
        return made

    def watch(self, member: Member, part: str, *topics: str) -> Watcher:
        watcher = Watcher(member, self.community.api_urls[part], *topics)
        self.watchers.append(watcher)
        return watcher

    def kill(self, part: str) -> None:
        """SIGKILL, and start again at once."""
        if part == "database":
            self.community.postgres.kill()
            self.community.postgres.start()
        else:
            self.stop_part(part)
            self.community.start_part(part)

    def stop_part(self, part: str) -> None:
        """SIGKILL."""
        process = self.community.processes.pop(f"hub-{part}")
        process.kill()
        process.wait()

    def letters(self, subject: str, address: str = EMAIL) -> list[Any]:
        """The mails to Ada, or to somebody else, whose subject begins so."""
        assert self.community.mail is not None
        files = sorted(self.community.mail.messages.glob("*.eml"))
        letters = [email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in files]
        return [each for each in letters if each["Delivered-To"] == address and each["Subject"].startswith(subject)]

    def value(self, query: str) -> Any:
        with psycopg.connect(self.community.database_url) as database:
            row = database.execute(query).fetchone()  # type: ignore[arg-type]
            return row and row[0]


def wait_until(what: str, condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s, f"waited {TIMEOUT_S:.0f} s until {what}"
        time.sleep(0.05)


def as_file(meter: SimulatedMeter) -> str:
    """The owner's wallet as solana-keygen writes it."""
    key = meter.owner_key
    return json.dumps(list(bytes(key) + bytes(key.verify_key)), separators=(",", ":"))


@contextmanager
def living_street(directory: Path, installation: Installation) -> Iterator[Street]:
    """A street with one roof, whose owner Ada is told by mail and webhook, and an operator, Otto."""
    with (
        Community(directory / "community", COMMUNITY_ID, installation, api_processes=2, mail=True) as community,
        WebhookReceiver(directory / "webhooks") as receiver,
    ):
        community.start_servers()
        community.start_hub()
        today_unix_s = int(datetime.now(UTC).timestamp()) // DAY_S * DAY_S
        meter = SimulatedMeter(
            meter_id="roof",
            key=seeded_key("roof"),
            domain=domain_of(COMMUNITY_ID),
            start_unix_s=today_unix_s - 10 * DAY_S,
        )
        admin = Operator(community.api_url, community.admin_key_file, None)  # type: ignore[arg-type]
        nobody = Member(community.api_url, directory)
        street = Street(community, receiver, directory, nobody, nobody, admin)
        street.ada = street.member("Ada", as_file(meter))
        street.otto = street.member("Otto")
        _reachable(street)
        admin.do("members", "give", street.otto.member_id, "operator", "--reason", "runs the street")
        password_file = directory / "roof.password"
        enrolment = ("register", "--enrolment", meter.enrolment().hex(), "--password-file", password_file)
        capacities = ("--production-capacity-w", 20_000, "--connection-capacity-w", 20_000)
        result = street.otto.admin(*enrolment, *capacities)
        assert result.exit_code == 0, result.output
        wait_until("the broker knows the roof", lambda: _get(street, "/meters/roof")["broker_ready"])
        street.roof = Roof(meter, community, password_file.read_text())
        try:
            yield street
        finally:
            street.roof.close()
            for watcher in street.watchers:
                watcher.process.kill()
                watcher.process.wait()


def _reachable(street: Street) -> None:
    """Ada confirms an address, by the code that is mailed to it, and names an endpoint."""
    password_file, code_file = street.directory / "password", street.directory / "code"
    write_secret(password_file, PASSWORD)
    ada = street.ada
    ada.do("email", "set", EMAIL, "--wallet", ada.wallet, "--new-password-file", password_file)
    wait_until("the code is mailed", lambda: street.letters("Confirm"))
    text = street.letters("Confirm")[0].get_content()
    write_secret(code_file, re.findall(r"^([A-Za-z0-9_-]{64})\r?$", text, re.MULTILINE)[0])
    assert EMAIL in ada.do("email", "confirm", "--code-file", code_file)
    secret_file = street.receiver.secrets_file
    ada.do("webhooks", "create", street.receiver.url, "--description", "house", "--secret-file", secret_file)


def _get(street: Street, path: str) -> Any:
    with street.community.client() as client:
        return client.get(path).raise_for_status().json()


def _bearing(member: Member) -> dict[str, str]:
    return {"Authorization": f"Bearer {member.tokens['access_token']}"}


def everything_arrived(street: Street, watchers: list[Watcher]) -> None:
    """Each socket saw each seal, once, under the next number; and what the database holds is what was published."""
    assert street.roof is not None
    published = street.roof.meter.sequence
    wait_until(
        f"{published} seals are stored",
        lambda: street.value("SELECT contiguous_sequence FROM meter_streams") == published,
    )
    told = street.value("SELECT max(sequence) FROM live_topics WHERE topic LIKE 'meters:%'")
    for watcher in watchers:
        wait_until("every update was seen", lambda watcher=watcher: len(watcher.updates("meters")) >= told)
        updates = watcher.updates("meters")
        assert [update["sequence"] for update in updates] == list(range(1, told + 1))
        assert sum(update["data"]["seals"] for update in updates if update["kind"] == READ) == published
        assert watcher.process.poll() is None
    first, *others = [watcher.updates("meters") for watcher in watchers]
    assert all(other == first for other in others), "all API processes say the same"


def told_by_webhook(street: Street, kind: str) -> list[dict[str, Any]]:
    received = street.receiver.received(kind)
    assert all(record["refusal"] == "" for record in received), received
    return received


def becomes_a_member_by_mail(street: Street) -> None:
    """Eve has no wallet: she has a link in a mail, and the password that she chose."""
    eve, address = Member(street.community.api_url, street.directory / "Eve"), "eve@homes.example"
    eve.directory.mkdir()
    password = ("--password-file", street.directory / "password")
    eve.do("register", "--name", "Eve", "--type", "consumer", "--email", address, *password)
    wait_until("the link is mailed", lambda: street.letters("Confirm", address))
    link = re.search(r"http\S+/auth/verify#\S+", street.letters("Confirm", address)[0].get_content())
    assert link is not None
    assert httpx.get(link[0]).headers["content-type"].startswith("text/html"), "people simply open it"
    write_secret(eve.directory / "link", link[0])
    confirm = ("email", "confirm", "--code-file", eve.directory / "link", *password)
    eve.do(*confirm)
    assert address in eve.do("me")
    assert refusal_of(eve.run(*confirm)) == "mail_proof_invalid"


def test_a_member_walks_from_its_wallet_to_its_meter_and_nothing_on_the_way_is_lost(
    tmp_path: Path, mosquitto_installation: Installation
) -> None:
    with living_street(tmp_path, mosquitto_installation) as street:
        assert street.roof is not None
        ada, otto = street.ada, street.otto
        assert "roof" in ada.do("meters")
        becomes_a_member_by_mail(street)
        watchers = [street.watch(ada, part, "meters", "notifications") for part in APIS]
        alerted = street.watch(otto, "api-2", "alerts")

        street.roof.seals(5)
        everything_arrived(street, watchers)
        for part in ("api", "database", "api-2"):
            street.kill(part)
            street.roof.seals(5)
        everything_arrived(street, watchers)

        # while nobody carries anything, the operator suspends the meter; what is due then is carried, once or again
        street.stop_part("jobs")
        assert street.community.mail is not None
        street.community.mail.fail(lost_answers=1)
        street.receiver.fail(cut=1)
        assert otto.admin("suspend", "roof", "--reason", "smoke").exit_code == 0
        street.community.start_part("jobs")
        wait_until("Ada is told by mail", lambda: street.letters("Meter roof is suspended"))
        wait_until("and again, for the answer was lost", lambda: len(street.letters("Meter roof is suspended")) == 2)
        first, again = street.letters("Meter roof is suspended")
        assert first["Message-ID"] == again["Message-ID"]
        wait_until("the webhook comes again", lambda: len(told_by_webhook(street, "meter.suspended")) == 2)
        cut, repeated = told_by_webhook(street, "meter.suspended")
        assert cut["headers"]["webhook-id"] == repeated["headers"]["webhook-id"]
        assert cut["payload"] == repeated["payload"]
        assert repeated["payload"]["data"]["details"]["reason"] == "smoke"
        for watcher in watchers:
            told = ["meter.registered", "meter.suspended"]
            assert _notified(watcher, told) == told

        # the role goes by one API process, and counts at the other at once
        other = street.community.api_urls["api-2"]
        assert httpx.get(f"{other}/fleet", headers=_bearing(otto)).status_code == 200
        street.admin.do("members", "take", otto.member_id, "operator", "--reason", "moved away")
        assert httpx.get(f"{other}/fleet", headers=_bearing(otto)).status_code == 403
        wait_until("the alerts end", alerted.has_left)
        assert "forbidden" in alerted.last_word

        # a refresh token that two have used ends the session: for both, everywhere
        spent = ada.tokens["refresh_token"]
        for url in (street.community.api_url, other, street.community.api_url):
            newest = ada.tokens["refresh_token"]
            answer = httpx.post(f"{url}/auth/refresh", json={"refresh_token": newest}).json()
            ada.session.write_text(json.dumps({**ada.tokens, **{name: answer[name] for name in TOKENS}}))
        refused = httpx.post(f"{other}/auth/refresh", json={"refresh_token": spent})
        assert refused.json()["code"] == "refresh_token_invalid"
        assert refusal_of(ada.run("me")) in ("unauthorized", "refresh_token_invalid")
        for watcher in watchers:
            wait_until("the sockets of the session close", watcher.has_left)
        ada.do("sign-in", "--email", EMAIL, "--password-file", street.directory / "password")
        assert Wallet.read(ada.wallet).address in ada.do("me")


TOKENS = ("access_token", "refresh_token")


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(3))
def test_dozens_of_kills_cost_no_update_no_mail_and_no_webhook(
    tmp_path: Path, mosquitto_installation: Installation, seed: int
) -> None:
    rng = random.Random(seed)
    with living_street(tmp_path, mosquitto_installation) as street:
        assert street.roof is not None
        watchers = [street.watch(street.ada, part, "meters", "notifications") for part in APIS]
        for watcher in watchers:
            wait_until("it follows", lambda watcher=watcher: watcher.log.stat().st_size)
        order = [part for part in KILLED for _ in range(12)]
        rng.shuffle(order)
        decided: list[str] = []
        for number, part in enumerate(order):
            street.roof.seals(rng.randrange(1, 8))
            if number % (len(order) // DECISIONS) == 0:
                decided.append(KINDS[len(decided) % 2])
                wait_until("a decision is taken", lambda: _decide(street, decided))
            time.sleep(rng.uniform(0, 0.6))
            street.kill(part)
        assert len(decided) == DECISIONS
        wait_until("every webhook came", lambda: _webhook_ids(street) == DECISIONS)
        wait_until("every decision was mailed", lambda: _mailed(street) == DECISIONS)
        for watcher in watchers:
            wait_until("all was seen", lambda watcher=watcher: _notified(watcher, KINDS) == decided)
            for name in ("meters", "notifications"):
                numbers = [update["sequence"] for update in watcher.updates(name)]
                assert numbers == list(range(1, len(numbers) + 1))
            assert watcher.process.poll() is None
        stored = "SELECT count(*) FROM (SELECT sequence FROM seals UNION SELECT sequence FROM quarantine) AS known"
        wait_until("every seal is stored or held", lambda: street.value(stored) == street.roof.meter.sequence)  # type: ignore[union-attr]


def _decide(street: Street, decided: list[str]) -> bool:
    """Whether the operator's newest decision is in force, however often it must be asked for."""
    action = "suspend" if decided[-1] == KINDS[0] else "resume"
    result = street.otto.admin(action, "roof", "--reason", f"decision {len(decided)}")
    return result.exit_code == 0 or "meter_not_" in result.output


def _notified(watcher: Watcher, kinds: Collection[str]) -> list[str]:
    """Which of these notifications came, in their order."""
    told = [update["data"]["kind"] for update in watcher.updates("notifications")]
    return [kind for kind in told if kind in kinds]


def _webhook_ids(street: Street) -> int:
    return len({record["headers"]["webhook-id"] for kind in KINDS for record in told_by_webhook(street, kind)})


def _mailed(street: Street) -> int:
    """How many decisions are in a mail: what comes too fast goes together, and any mail may come twice."""
    texts = [letter.get_content() for letter in street.letters("")]
    return sum(any(f"decision {number}." in text for text in texts) for number in range(1, DECISIONS + 1))
