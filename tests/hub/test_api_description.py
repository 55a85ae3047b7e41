"""The description of the interface (OpenAPI) and the interface are the same: schemathesis asks everything and compares.

The document is the one that the hub serves. Two things are done to it first. It is closed, so that a field, a status or
a code that it does not name is a difference. And ids and ranges that exist in this hub take the place of all that
could, so that there is something to be answered.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema
from sqlalchemy import text

from hub.api_types import iso_of
from hub.auth import members_service
from hub.auth.members_store import EMAIL
from hub.auth.tokens import ACCESS_LIFE
from hub.db import transaction
from hub.minting import service as minting
from hub.notifications import service as notifications
from hub.permissions import Role
from tests.hub.minting.chain_model import PROGRAM, ModelChain
from tests.hub.registry.chained import Chained, with_chain

SEED = 20261120
WALLET = bytes(range(32))
DAY = int(datetime.now(UTC).timestamp()) // 86_400 * 86_400 - 86_400

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
"""Not among them is that everything that fits the schema is accepted: what a signature, a text or a range must be is
more than a schema can say."""

NEEDS_A_PROOF = {
    "register_meter", "rotate_key", "get_credentials", "post_seal", "post_report",
    "refresh", "sign_in_with_wallet", "register_with_wallet", "link_wallet", "unlink_wallet",
    "ask_for_challenge", "ask_for_link_challenge", "ask_for_proof_challenge",
    "register_with_email", "verify_email", "sign_in_with_password", "forget_password", "reset_password",
    "change_password", "set_email", "confirm_email", "sign_registration",
}  # fmt: skip
"""Nobody comes by a signature, a password, an address or a mailed code by chance."""

_numbers = itertools.count(1)


def _made(client, path, body):
    answer = client.post(path, json=body, headers={"Idempotency-Key": f"place-{next(_numbers)}"})
    assert answer.status_code == 201, answer.text
    return answer.json()


class Place:
    """A running hub in which something has happened, and the names of it."""

    def __init__(self, server, new_meter):
        self.server = server
        self.admin = server.member(Role.ADMIN, name="Ada")
        self.member = server.member(member_type=Role.PROSUMER, wallet=WALLET, name="Bob")
        others = [server.member(name=f"Somebody {number}") for number in range(6)]
        now = datetime.now(UTC)
        with transaction(server.engine) as connection:
            for who in (self.admin, self.member):
                address = f"{who.member_id}@example.org"
                members_service.add_identity(connection, who.member_id, EMAIL, address, None, "test", now)
            notifications.notify(connection, self.admin.member_id, "meter.registered", {"meter_id": "roof"}, now)
        domain = server.settings.domain
        self._measure(new_meter("roof", DAY, domain=domain))
        spares = [new_meter(f"spare-{number}", DAY, domain=domain) for number in range(6)]
        for number, spare in enumerate(spares):
            server.register(spare)
            server.post(f"/meters/{spare.meter_id}/suspend", {"reason": "so that its seals are held"})
            for step in range(4):
                server.post_seal(spare, spare.seal([(DAY + 60 * (step + 1), step, number)]))
            if number % 2 == 0:
                server.post(f"/meters/{spare.meter_id}/resume", {"reason": "so that it can be suspended"})
        for other in others[::2]:
            server.post(f"/members/{other.member_id}/suspend", {"reason": "so that it can be reinstated"})
        for _ in range(6):
            server.access_token(self.admin.member_id)
        with server.signed_in(self.admin.member_id) as client:
            sessions = [each["session_id"] for each in client.get("/me/sessions").json()["sessions"]]
            key = {"name": "a machine", "scopes": ["meters.read"], "expires_in_s": 3_600}
            keys = [_made(client, "/me/api-keys", key)["key_id"] for _ in range(4)]
            hook = {"url": "https://hooks.example.org/commonwatt", "description": "where we are told"}
            endpoints = [_made(client, "/me/webhooks", hook)["endpoint_id"] for _ in range(3)]
            deliveries = client.get(f"/me/webhooks/{endpoints[0]}/deliveries").json()["deliveries"]
        with server.engine.connect() as connection:
            quarantined = list(connection.execute(text("SELECT quarantine_id FROM quarantine ORDER BY 1")).scalars())
            notified = connection.execute(
                text("SELECT max(notification_id) FROM notifications WHERE member_id = :member_id"),
                {"member_id": self.admin.member_id},
            ).scalar_one()
        assert len(quarantined) == 4 * len(spares)
        members = [str(each.member_id) for each in others]
        chain = Chained(server.engine, server.settings, now)
        minted = self._mint(now)
        owner = chain.with_wallet(self.admin.member_id)
        registrations = [str(chain.ask_user(owner))]
        chain.show(chain.user(owner.wallet))
        on_roof = chain.meter(owner.wallet)
        self.reads = {
            "registration_id": registrations,
            "signature": minted,
            "meter_id": ["roof"],
            "key_epoch": [1],
            "sequence": [1, 2, 4],
            "member_id": [str(self.member.member_id), *members],
            "endpoint_id": endpoints,
            "from": [iso_of(DAY), iso_of(DAY + 3_600)],
            "to": [iso_of(DAY + 86_400), iso_of(DAY + 2 * 86_400)],
        }
        self.changes = {
            "registration_id": registrations,
            "meter_id": [spare.meter_id for spare in spares],
            "key_epoch": [1],
            "quarantine_id": quarantined,
            "member_id": members,
            "session_id": sessions,
            "key_id": keys,
            "endpoint_id": endpoints[:1],
            "delivery_id": [each["delivery_id"] for each in deliveries],
        }
        self.examples = {
            "end_session": {},
            "request_user_registration": {"wallet": owner.address},
            "request_meter_registration": {"meter_id": on_roof.meter_id},
            "create_endpoint": hook,
            "replay_given_up": {"since": iso_of(DAY)},
            "command_meter": {"kind": "restart"},
            "mark_read": {"notification_id": notified},
            "revoke_key": {"from": iso_of(DAY), "reason": "it was on the table"},
        }

    def _measure(self, meter):
        """A meter with seals, a gap among them, and a status."""
        answer = self.server.register(meter, enrolment=meter.enrolment(owner=WALLET).hex()).json()
        for number in range(4):
            message = meter.seal([(DAY + 900 * number + 60, 10 * number, 3 * number)])
            if number != 2:
                assert self.server.post_seal(meter, message).status_code == 200
        status = {
            "state": "online",
            "agent": "0.1.0",
            "clock": "synchronised",
            "transport": "https",
            "problems": ["disk_full"],
            "counts": {"reads": 3},
            "meters": [{"role": "grid", "map": "sdm630", "quantum_wh": "10"}, {"role": "solar", "map": "x"}],
        }
        basic = base64.b64encode(f"{meter.meter_id}:{answer['broker']['password']}".encode()).decode()
        report = self.server.anonymous.post(
            f"/agent/report?meter_id={meter.meter_id}",
            content=json.dumps(status),
            headers={"Authorization": f"Basic {basic}"},
        )
        assert report.json()["status_noted"] is True

    def _mint(self, now):
        """A program that runs, and the one transaction that minted of the roof's seals."""
        chain = ModelChain(self.server.engine, self.server.settings.domain)
        chain.start(now)
        chain.register("roof", now)
        with transaction(self.server.engine) as connection:
            minting.plan_steps(connection, bytes(PROGRAM), 50, now)
        assert chain.work(now) == 1
        mints = self.server.client.get("/meters/roof/mints").json()["mints"]
        return [mint["transaction_signature"] for mint in mints]

    def document(self):
        """What the hub serves."""
        answer = self.server.client.get("/openapi.json")
        assert answer.status_code == 200
        return answer.json()


def _closed(document):
    """The document without its catch-all for refusals, and without room for fields that it does not name."""
    document = deepcopy(document)
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["responses"].pop("default")
    for name, schema in document["components"]["schemas"].items():
        if "properties" in schema and name != "Problem":
            schema.setdefault("additionalProperties", False)
    return document


def _told(document, place):
    """The document with the values that exist here in place of all that could, and with examples for what is rare."""
    for operations in document["paths"].values():
        for method, operation in operations.items():
            known = place.reads if method == "get" else place.changes
            for parameter in operation.get("parameters", []):
                if parameter["name"] in known and (parameter["in"] == "path" or parameter["name"] in ("from", "to")):
                    parameter["schema"] = {"enum": known[parameter["name"]]}
            if (body := place.examples.get(operation["operationId"])) is not None:
                operation["requestBody"]["content"]["application/json"]["example"] = body
    return document


def _ask_everything(place, member, examples, *, thoroughly):
    """How often each operation was answered with which status, and what differs from the document.

    Asked in a member's name, or in nobody's. Thoroughly: every boundary of every parameter and field too, one after
    another.
    """
    config = SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "base-url": place.server.url,
            "continue-on-failure": True,
            "generation": {"max-examples": examples, "deterministic": True, "no-shrink": True, "database": "none"},
            "phases": {
                "stateful": {"enabled": False},
                "coverage": {"enabled": thoroughly, "unexpected-methods": ["DELETE"]},
            },
            "checks": {"enabled": False, **{check: {"enabled": True} for check in CHECKS}},
            "cache": {"enabled": False},
        }
    )
    schema = schemathesis.openapi.from_dict(_told(_closed(place.document()), place), config=config)
    if member is not None:
        schema.auth(refresh_interval=ACCESS_LIFE.seconds // 2, retry_on=[])(_signing_in(place.server, member))
    answers, differences = Counter(), {}
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            fault = event.value if isinstance(event, events.NonFatalError) else event.exception
            differences[event.id] = f"schemathesis could not go on: {fault!r}"
        elif isinstance(event, events.ScenarioFinished):
            _note(event.recorder, answers, differences)
    return answers, list(differences.values())


def _signing_in(server, member):
    """Brings a token, and another one before it ends."""

    class SignedIn:
        def get(self, _case, _context):
            return server.access_token(member.member_id)

        def set(self, case, token, _context):
            case.headers = {**(case.headers or {}), "Authorization": f"Bearer {token}"}

    return SignedIn


def _note(recorder, answers, differences):
    for case_id, interaction in recorder.interactions.items():
        operation = recorder.cases[case_id].value.operation
        if interaction.response is not None:
            answers[operation.definition.raw["operationId"], interaction.response.status_code] += 1
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.status is Status.FAILURE:
                failure = check.failure_info.failure
                label = recorder.cases[case_id].value.operation.label
                told = f"{label}: {check.name}: {failure}\n{check.failure_info.code_sample}"
                differences.setdefault((label, check.name, str(failure)), told)


def _operations(document):
    return [operation for operations in document["paths"].values() for operation in operations.values()]


def _readings(document):
    """The operations that change nothing: whether a change is possible is a matter of chance in a short run."""
    return [operations["get"] for operations in document["paths"].values() if "get" in operations]


@pytest.fixture
def place(settings, engine, running_hub, new_meter) -> Iterator[Place]:
    with running_hub(
        with_chain(settings.model_copy(update={"smtp_host": "127.0.0.1", "mail_from": "hub@example.org"})), engine
    ) as server:
        yield Place(server, new_meter)


@pytest.fixture
def document(server):
    return server.client.get("/openapi.json").json()


def _check_for_an_admin(place, examples, *, thoroughly):
    answers, differences = _ask_everything(place, place.admin, examples, thoroughly=thoroughly)
    assert not differences, "\n\n".join(differences)
    answered = {operation for operation, status in answers if 200 <= status < 300}
    wanted = _operations(place.document()) if thoroughly else _readings(place.document())
    silent = {operation["operationId"] for operation in wanted} - answered
    assert silent <= NEEDS_A_PROOF, {name: status for name, status in sorted(answers) if name in silent}


def test_an_admin_is_answered_as_described(place):
    _check_for_an_admin(place, examples=5, thoroughly=False)


@pytest.mark.parametrize("who", ["a member", "nobody"])
def test_everybody_else_is_answered_as_described(place, who):
    member = place.member if who == "a member" else None
    answers, differences = _ask_everything(place, member, examples=2, thoroughly=False)
    assert not differences, "\n\n".join(differences)
    refused = 401 if member is None else 403
    for operation in ("list_members", "suspend_member", "list_audit", "register_meter", "list_fleet"):
        told = {status for name, status in answers if name == operation}
        assert refused in told
        assert told <= {401, refused}, "a token that schemathesis invented is told 401"


@pytest.mark.long
@pytest.mark.timeout(3_000)
def test_an_admin_is_answered_as_described_whatever_it_asks(place):
    _check_for_an_admin(place, examples=100, thoroughly=True)


@pytest.mark.long
@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("who", ["a member", "nobody"])
def test_everybody_else_is_answered_as_described_whatever_they_ask(place, who):
    _, differences = _ask_everything(place, place.member if who == "a member" else None, examples=50, thoroughly=True)
    assert not differences, "\n\n".join(differences)


def test_every_operation_reads_well_to_those_who_make_clients_of_it(document):
    operations = _operations(document)
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in names)
    known = {tag["name"] for tag in document["tags"]}
    for operation in operations:
        assert operation["summary"] and operation["description"], operation
        assert len(operation["tags"]) == 1 and set(operation["tags"]) <= known, operation["operationId"]
    assert not [name for name in document["components"]["schemas"] if "__" in name], "two models have one name"


def test_every_refusal_is_a_problem_and_every_success_has_a_shape(document):
    for operation in _operations(document):
        for status, response in operation["responses"].items():
            content = response["content"]
            if status == "default" or (status >= "4" and operation["operationId"] != "get_ready"):
                assert list(content) == ["application/problem+json"], operation["operationId"]
            for kind, body in content.items():
                schema = body["schema"]
                assert schema and schema != {"type": "object"}, f"{operation['operationId']} {status} {kind}"
            assert "X-Request-ID" in response["headers"]
            assert response["description"] not in ("", "Successful Response")


def test_the_key_of_an_act_is_asked_for_wherever_it_is_needed_and_nowhere_else(document):
    from hub.permissions import REPEATABLE_ROUTES

    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            asked = [each["required"] for each in operation.get("parameters", []) if each["name"] == "Idempotency-Key"]
            needed = method == "post" and ("POST", path) not in REPEATABLE_ROUTES
            assert asked == ([True] if needed else []), f"{method} {path}"


def test_what_a_route_asks_for_is_described(document):
    schemes = document["components"]["securitySchemes"]
    assert document["paths"]["/meters"]["get"]["security"] == [{"bearer": ["meters.read"]}]
    assert document["paths"]["/health"]["get"]["security"] == []
    assert schemes["bearer"]["scheme"] == "bearer"
    for operation in _operations(document):
        guarded = [name for each in operation["security"] for name in each if name == "bearer"]
        assert ("403" in operation["responses"] and "401" in operation["responses"]) or not guarded
