"""What the registry has the outbox do: broker accounts of meters, and commands to meters. Harmless to repeat.

An account is put into the state that the meter has when the job runs, whatever it was when the job was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Engine

from hub import logs
from hub.db import transaction
from hub.integrations.broker_control import BrokerControl
from hub.outbox.jobs import Handler, JobImpossible
from hub.outbox.store import Job
from hub.registry import store
from hub.registry.rules import RETIRED
from hub.registry.service import CREATE_ACCOUNT, SEND_COMMAND, broker_password
from protocol.command import split_command
from protocol.errors import ProtocolError
from protocol.topics import topic

log = logs.get_logger()


def registry_handlers(
    engine: Engine, broker: BrokerControl, broker_secret: bytes, community_id: str
) -> Mapping[str, Handler]:
    """The handlers of this domain, by kind of job."""

    def create_account(job: Job, now: datetime) -> None:
        with transaction(engine) as connection:
            meter = store.get_meter(connection, job.subject)
        if meter.state == RETIRED:
            broker.delete_account(job.subject)
            return
        broker.create_account(job.subject, broker_password(broker_secret, job.subject, meter.password_generation))
        with transaction(engine) as connection:
            store.set_broker_ready(connection, job.subject, now)

    def send_command(job: Job, now: datetime) -> None:
        message, expires_at_unix_s = _signed_command(job)
        left_s = expires_at_unix_s - int(now.timestamp())
        if left_s <= 0:
            raise JobImpossible("the command expired before the broker could take it")
        broker.publish(topic(community_id, job.subject, "commands"), message, left_s)

    return {CREATE_ACCOUNT: create_account, SEND_COMMAND: send_command}


def _signed_command(job: Job) -> tuple[bytes, int]:
    try:
        message = bytes.fromhex(job.payload["message_hex"])
        command, _, _ = split_command(message)
    except (KeyError, TypeError, ValueError, ProtocolError) as fault:
        raise JobImpossible(f"the payload is no command: {fault}") from fault
    return message, command.expires_at_unix_s
