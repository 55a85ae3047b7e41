"""What guards guesses: counts in the database, in short transactions of its own, before anything costly is done.

A count stays whatever becomes of the request, so it is never part of the request's own transaction.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine

from hub.db import transaction
from hub.limits import policies, store
from hub.limits.clients import network_of
from hub.limits.requests import refuse_if_over
from hub.limits.rules import Policy, Verdict


@dataclass(frozen=True)
class Guard:
    """Counts what one request asks for. `note` is told each verdict, so that the answer's headers can tell it too."""

    engine: Engine
    secret: bytes
    client_address: str
    now: datetime
    note: Callable[[Verdict], None]

    def count_client(self, policy: Policy) -> None:
        """Count the request to the client's network. Raises RateLimited."""
        self.count(policy, network_of(self.client_address))

    def count(self, policy: Policy, *subject: str) -> None:
        """Count the request to a subject, of one or more parts. Raises RateLimited."""
        with transaction(self.engine) as connection:
            verdict = store.take(connection, bucket_of(self.secret, policy, *subject), policy, self.now)
        self.note(verdict)
        refuse_if_over(verdict)

    def count_sign_in(self, account: str, known_client: str | None) -> None:
        """Count one try at a password. Raises RateLimited.

        `account` is what was typed, whether anybody has it or not. `known_client` names a session of that account that
        the client has had: its tries are counted apart, so that strangers can delay strangers and never the member.
        The client comes first: what it has used up costs the account nothing.
        """
        self.count_client(policies.SIGN_IN_BY_CLIENT)
        if known_client is not None:
            self.count(policies.SIGN_IN_BY_KNOWN_CLIENT, account, known_client)
        else:
            self.count(policies.SIGN_IN_BY_ACCOUNT_AND_CLIENT, account, network_of(self.client_address))
            self.count(policies.SIGN_IN_BY_ACCOUNT, account)

    def count_registration(self, address: str) -> None:
        """Count a request for a mail to an address that shall become somebody's. Raises RateLimited.

        `address` is what was typed, whether anybody has it or not. The client comes first here too.
        """
        self.count_client(policies.REGISTER_BY_CLIENT)
        self.count(policies.REGISTER_BY_ADDRESS_AND_CLIENT, address, network_of(self.client_address))
        self.count(policies.REGISTER_BY_ADDRESS, address)


def bucket_of(secret: bytes, policy: Policy, *subject: str) -> bytes:
    """The name of a bucket; one who reads the table and guesses addresses cannot try them without the secret."""
    parts = "".join(f"\x00{len(part)}:{part}" for part in (policy.name, *subject))
    return hmac.new(secret, b"rate-limit" + parts.encode(), hashlib.sha256).digest()[: store.BUCKET_BYTES]


def forget_sign_ins(connection: Connection, secret: bytes, account: str) -> None:
    """Let an account be tried from anywhere again: its owner has just proven to have its mailbox."""
    store.forget_bucket(connection, bucket_of(secret, policies.SIGN_IN_BY_ACCOUNT, account))


def forget_full_buckets_once(engine: Engine, now: datetime) -> int:
    """Drop the buckets that tell nothing any more."""
    with transaction(engine) as connection:
        return store.forget_full_buckets(connection, now)
