"""Broker accounts of meters, as commands to Mosquitto's dynamic-security plugin and readings of its answers.

Pure: the job that owns the connection publishes to CONTROL_TOPIC as `hub-control` and listens on
RESPONSE_TOPIC. An account says who is who; what a meter may publish and read is the broker's static access
list.
"""

import json

import msgspec

from protocol.topics import check_meter_id

CONTROL_TOPIC = "$CONTROL/dynamic-security/v1"
RESPONSE_TOPIC = CONTROL_TOPIC + "/response"

_HARMLESS = {"createClient": "Client already exists", "deleteClient": "Client not found"}
"""The errors of a command that was carried out before."""


class BrokerAnswerError(ValueError):
    """The payload is not an answer of the dynamic-security plugin to one of our commands."""


class _Answer(msgspec.Struct):
    command: str
    correlation: str = msgspec.field(name="correlationData", default="")
    error: str | None = None


class _Answers(msgspec.Struct):
    responses: list[_Answer]


def create_meter_account_commands(meter_id: str, password: str) -> bytes:
    """The payload that creates a meter's account, or puts an existing one into exactly this state.

    User name and client id are the meter id. An existing meter's connection is dropped by the broker; it
    connects again.
    """
    check_meter_id(meter_id)
    account = {"username": meter_id, "clientid": meter_id, "password": password}
    return _payload(meter_id, [{"command": "createClient", **account}, {"command": "modifyClient", **account}])


def delete_meter_account_commands(meter_id: str) -> bytes:
    """The payload that removes a meter's account and drops its connection. Repeating it is harmless."""
    check_meter_id(meter_id)
    return _payload(meter_id, [{"command": "deleteClient", "username": meter_id}])


def account_errors(response: bytes) -> dict[str, list[str]]:
    """What became of each meter named in an answer: its errors, empty when its account is as commanded.

    "Already exists" and "not found" of a repeated command are no errors. Raises BrokerAnswerError.
    """
    try:
        answers = msgspec.json.decode(response, type=_Answers).responses
    except msgspec.MsgspecError as error:
        raise BrokerAnswerError(str(error)) from error
    errors: dict[str, list[str]] = {}
    for answer in answers:
        meter_errors = errors.setdefault(answer.correlation, [])
        if answer.error is not None and answer.error != _HARMLESS.get(answer.command):
            meter_errors.append(f"{answer.command}: {answer.error}")
    return errors


def _payload(meter_id: str, commands: list[dict[str, str]]) -> bytes:
    return json.dumps({"commands": [{**command, "correlationData": meter_id} for command in commands]}).encode()
