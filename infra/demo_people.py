"""The people of the demonstration, at their own command lines: an owner with a wallet, an operator, an auditor.

Nothing is done for them behind the hub's back: they register, sign, read their mail and watch, each in a session of
their own. What they see is held against what they must see.
"""

import email
import email.policy
import json
import re
import time
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx

from infra.demo_figures import GOLDEN_HOME
from infra.local.community import Community
from infra.local.processes import LaunchError, log_tail, pause_until, stop_child, write_secret
from infra.local.webhooks import WebhookReceiver

TIMEOUT_S = 60.0
POLL_PAUSE_S = 0.1
EMAIL = "ada@homes.example"
PASSWORD = "eight homes in one street"  # noqa: S105 - of a demonstration that nobody else can reach
OPERATOR_SCOPES = ("meters.register", "meters.read")
REGISTERED, READ = "meter.registered", "meter.read"
NEIGHBOUR = "home-1"
CODE = re.compile(r"^[A-Za-z0-9_-]{64}$", re.MULTILINE)


class Person:
    """Somebody with a wallet and a session, who types commands."""

    def __init__(self, community: Community, name: str) -> None:
        self.name = name
        self.directory = community.directory / "people" / name.lower()
        self.wallet = self.directory / "wallet.json"
        self.session = self.directory / "session.json"
        self._community = community
        self.directory.mkdir(parents=True)

    def begins(self, task: str, *words: str | Path, program: str = "member") -> str:
        """Start a command, and return the name of its process: `Community.finish` gives what it says."""
        environment = {"COMMONWATT_API_URL": self._community.api_url, "COMMONWATT_SESSION_FILE": str(self.session)}
        return self._community.run(f"{self.name.lower()}-{task}", program, *words, environment=environment)

    def does(self, task: str, *words: str | Path, program: str = "member") -> str:
        """What a command says. Raises LaunchError if it fails."""
        return self._community.finish(self.begins(task, *words, program=program))

    @property
    def member_id(self) -> str:
        """Who this is at the hub."""
        return str(self._tokens()["member_id"])

    def client(self) -> httpx.Client:
        """Requests in this session, for the minutes that its access token lives."""
        headers = {"Authorization": f"Bearer {self._tokens()['access_token']}"}
        return httpx.Client(base_url=self._community.api_url, headers=headers, timeout=TIMEOUT_S)

    def _tokens(self) -> dict[str, Any]:
        return dict(json.loads(self.session.read_text()))


class People:
    """Who takes part, and what they find. `with`: at its end the receiver of webhooks stops."""

    def __init__(self, community: Community) -> None:
        self.ada, self.otto, self.aude = (Person(community, name) for name in ("Ada", "Otto", "Aude"))
        self.address = ""
        self._community = community
        self._receiver = WebhookReceiver(community.directory / "webhooks")
        self._operator_key = self.otto.directory / "api-key"
        self._all = (self.ada, self.otto, self.aude)

    def __enter__(self) -> "People":
        """Each makes a wallet, for which no hub is needed."""
        self._receiver.start()
        running = [person.begins("wallet", "key", "new", person.wallet) for person in self._all]
        self.address, *_ = [self._community.finish(name).strip() for name in running]
        return self

    def __exit__(self, *_: object) -> None:
        """The receiver stops; everything else is the community's."""
        self._receiver.stop()

    def join(self) -> None:
        """All register by their wallets, and the first admin gives two of them a role.

        Ada adds an e-mail address and an endpoint for webhooks, Otto makes an API key for his work.
        """
        community = self._community
        running = [
            person.begins("register", "register", "--wallet", person.wallet, "--name", person.name)
            for person in self._all
        ]
        for name in running:
            community.finish(name)
        password_file, code_file = self.ada.directory / "password", self.ada.directory / "code"
        write_secret(password_file, PASSWORD)
        adding = ("email", "set", EMAIL, "--wallet", self.ada.wallet, "--new-password-file", password_file)
        scopes = [word for scope in OPERATOR_SCOPES for word in ("--scope", scope)]
        hook = ("create", self._receiver.url, "--description", "Ada's house", "--secret-file")
        running = [
            self._give(self.otto, "operator"),
            self._give(self.aude, "auditor"),
            self.ada.begins("email", *adding),
            self.ada.begins("webhook", "webhooks", *hook, self._receiver.secrets_file),
        ]
        for name in running:
            community.finish(name)
        making = self.otto.begins("key", "api-keys", "create", "street", *scopes, "--file", self._operator_key)
        write_secret(code_file, CODE.findall(_text(self._wait_for_mail("Confirm your e-mail address")))[0])
        self.ada.does("confirm", "email", "confirm", "--code-file", code_file)
        community.finish(making)

    def _give(self, person: Person, role: str) -> str:
        key_file = str(self._community.admin_key_file)
        environment = {"COMMONWATT_API_URL": self._community.api_url, "COMMONWATT_API_KEY_FILE": key_file}
        words = ("members", "give", person.member_id, role, "--reason", "chosen by the street")
        return self._community.run(f"admin-{role}", "admin", *words, environment=environment)

    def operator_client(self) -> httpx.Client:
        """Requests as a machine of Otto's makes them: with his API key, which is good for meters alone."""
        headers = {"Authorization": f"Bearer {self._operator_key.read_text()}"}
        return httpx.Client(base_url=self._community.api_url, headers=headers, timeout=TIMEOUT_S)

    def watch(self) -> None:
        """Ada follows everything about her meters, from the first update on."""
        self.ada.begins("watch", "watch", "meters", "--json", "--after", "meters=0")

    def watch_on(self) -> Path:
        """Ada goes on watching, in words; the file that they go to."""
        name = self.ada.begins("live", "watch", "meters", "notifications")
        return self._community.log / f"{name}.log"

    def report(self, seals: int) -> tuple[dict[str, Any], list[str]]:
        """What they found after a day of so many seals of Ada's meter, and what of it is not as it must be."""
        faults: list[str] = []
        updates = self._updates(seals)
        sequences = [update["sequence"] for update in updates]
        seen_seals = _seals_in(updates)
        if sequences != list(range(1, len(updates) + 1)):
            faults.append(f"Ada's live updates are not 1, 2, 3, … but {sequences}")
        if seen_seals != seals:
            faults.append(f"Ada was told of {seen_seals} seals live, and her meter sealed {seals}")
        with self.ada.client() as client:
            seen = [meter["meter_id"] for meter in client.get("/meters").json()["meters"]]
            refused = [_refusal(client, f"/meters/{NEIGHBOUR}"), _refusal(client, "/fleet")]
        if seen != [GOLDEN_HOME]:
            faults.append(f"Ada sees the meters {seen}")
        if refused != ["404 meter_not_found", "403 forbidden"]:
            faults.append(f"Ada's neighbour and the fleet were answered {refused}")
        self._wait_for_mail(f"Meter {GOLDEN_HOME} is registered")
        faults += self._webhook_faults()
        entries, audit_faults = self._audit()
        found = {"address": self.address, "updates": len(updates), "seals_seen": seen_seals, "audit_entries": entries}
        return found, faults + audit_faults

    def _updates(self, seals: int) -> list[dict[str, Any]]:
        """What Ada's watch printed, once it has printed as much as it must, or time is over."""
        log = self._community.log / "ada-watch.log"
        deadline_s = time.monotonic() + TIMEOUT_S
        while True:
            frames = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
            updates = [frame for frame in frames if frame["type"] == "update"]
            late = not pause_until(deadline_s, POLL_PAUSE_S)
            if late or _seals_in(updates) >= seals:
                stop_child(self._community.processes.pop("ada-watch"))
                return updates

    def _webhook_faults(self) -> list[str]:
        """Whether a signed webhook told that Ada's meter is registered."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while not (received := self._receiver.received(REGISTERED)):
            if not pause_until(deadline_s, POLL_PAUSE_S):
                return ["no webhook told that Ada's meter is registered"]
        told = [each["payload"]["data"]["details"]["meter_id"] for each in received]
        refusals = [each["refusal"] for each in received if each["refusal"]]
        return [f"the receiver got {told} and refused: {refusals}"] if refusals or told != [GOLDEN_HOME] else []

    def _audit(self) -> tuple[int, list[str]]:
        """The auditor's copy of the audit log, checked by who trusts nobody: how many entries, and what is false."""
        file = self.aude.directory / "audit.ndjson"
        self.aude.does("audit", "audit", "export", file, program="admin")
        report = json.loads(self._community.finish(self._community.run("verify-audit", "verify", file, "--json")))
        if report["verified"]:
            return int(report["verified_entries"]), []
        return int(report["verified_entries"]), [f"the audit log does not verify: {report['fault']}"]

    def _wait_for_mail(self, subject: str) -> EmailMessage:
        """The first mail to Ada whose subject begins so. Raises LaunchError if none comes."""
        mail = self._community.mail
        assert mail is not None, "the demonstration has a mail server"
        deadline_s = time.monotonic() + TIMEOUT_S
        while True:
            for file in sorted(mail.messages.glob("*.eml")):
                message = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
                if message["Delivered-To"] == EMAIL and str(message["Subject"]).startswith(subject):
                    return message
            self._community.check_alive()
            if not pause_until(deadline_s, POLL_PAUSE_S):
                raise LaunchError(f"no mail came: {subject}\n{log_tail(self._community.log / 'hub-jobs.log')}")


def people_story(found: dict[str, Any], seals: int, meters: int) -> list[str]:
    """What they found, in five lines."""
    return [
        f"Ada      signed in with her wallet {found['address'][:8]}…, sees {GOLDEN_HOME} and nothing else:"
        f" {NEIGHBOUR} is 404 to her, the fleet 403",
        f"         {found['updates']} live updates, without a gap, told her of each of her {seals} seals as the day was"
        " replayed",
        "         told by e-mail and by a signed webhook that her meter is registered",
        f"Otto     an operator by role, registered the {meters} meters with an API key that is good for nothing else",
        f"Aude     an auditor by role, exported the audit log: commonwatt verify confirms its {found['audit_entries']}"
        " entries",
    ]


def _text(message: EmailMessage) -> str:
    return str(message.get_content()).replace("\r\n", "\n")


def _seals_in(updates: list[dict[str, Any]]) -> int:
    """Of how many seals they tell: one update for each batch that was stored."""
    return sum(int(update["data"]["seals"]) for update in updates if update["kind"] == READ)


def _refusal(client: httpx.Client, path: str) -> str:
    answer = client.get(path)
    return f"{answer.status_code} {answer.json().get('code')}"
