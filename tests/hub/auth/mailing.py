"""A hub that sends mail, and people who read theirs."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import httpx

from hub.auth.jobs import auth_mail_handlers
from hub.auth.mail_proofs import TOKEN_LENGTH
from hub.integrations.mail import MailServer, mail_server_of
from hub.outbox.jobs import run_jobs_once
from hub.settings import MEMBER_SECRET_BYTES, Settings, read_secret_bytes
from tests.conftest import Post
from tests.hub.conftest import Server

GOOD = "seven lighthouses at dusk"
BETTER = "a kettle on the windy roof"
"""Passwords that nobody refuses."""

_TOKEN = re.compile(rf"(^|#)[A-Za-z0-9_-]{{{TOKEN_LENGTH}}}$")
_people = itertools.count(1)


def sending(settings: Settings, post: Post) -> Settings:
    """These settings, with this mail server."""
    server = post.server
    return settings.model_copy(
        update={
            "smtp_host": server.host,
            "smtp_port": server.port,
            "smtp_security": server.security,
            "smtp_username": server.username,
            "smtp_password_file": server.password_file,
            "smtp_ca_file": server.ca_file,
            "mail_from": "Commonwatt <hub@commonwatt.example>",
        }
    )


@dataclass(frozen=True)
class Office:
    """A running hub, its jobs, and the mail server behind them. `later` is how late it is by the clock of the jobs."""

    server: Server
    post: Post
    later: timedelta = timedelta(0)

    def at(self, later: timedelta) -> Office:
        return replace(self, later=later)

    def ask(self, path: str, body: object, **headers: str) -> httpx.Response:
        content = json.dumps(body)  # in ASCII, so that it may also hold what is no text
        return self.server.anonymous.post(path, content=content, headers=headers | {"Content-Type": "application/json"})

    def deliver(self, mail_server: MailServer | None = None) -> int:
        """Do the jobs that are due; returns how many were tried."""
        settings = self.server.settings
        handlers = auth_mail_handlers(
            self.server.engine,
            mail_server or mail_server_of(settings),
            read_secret_bytes(settings.member_secret_file, MEMBER_SECRET_BYTES),
            settings.community_id,
            settings.public_url,
        )
        return run_jobs_once(self.server.engine, handlers, lambda: datetime.now(UTC) + self.later)

    def subjects(self, address: str) -> list[str]:
        """Of the mails that came, without the community's name."""
        return [letter["Subject"].removesuffix(" (test-community)") for letter in self.post.letters(address)]

    def token(self, address: str) -> str:
        """What the newest mail shows: the part of its link behind the #, or its code."""
        lines = self.post.letters(address)[-1].get_content().splitlines()
        [token] = [line.rpartition("#")[2] for line in lines if _TOKEN.search(line)]
        return token

    def register(self, address: str, password: str = GOOD, name: str = "Ada") -> httpx.Response:
        body = {"email": address, "password": password, "name": name, "type": "prosumer"}
        return self.ask("/auth/register", body)

    def member(self, address: str | None = None, password: str = GOOD) -> tuple[str, dict[str, str]]:
        """Somebody who has registered and verified: the address and the tokens."""
        address = address or somebody()
        assert self.register(address, password).status_code == 202
        self.deliver()
        answer = self.ask("/auth/verify", {"token": self.token(address), "password": password})
        assert answer.status_code == 201, answer.text
        return address, answer.json()

    def sign_in(self, address: str, password: str = GOOD) -> httpx.Response:
        return self.ask("/auth/sign-in", {"email": address, "password": password})

    def as_member(self, tokens: dict[str, str], path: str, body: object) -> httpx.Response:
        return self.ask(path, body, Authorization=f"Bearer {tokens['access_token']}")


def somebody() -> str:
    """An address that no other test writes to."""
    return f"somebody-{next(_people)}@example.org"
