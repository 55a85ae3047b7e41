"""What surrounds every route: errors, limits, ids, health."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from hub.api_types import iso_of
from hub.db import create_database_engine, migrate
from hub.limits.bodies import BODY_BYTES_MAX
from infra.local.postgres import Postgres
from protocol.limits import MESSAGE_BYTES_MAX


def _problem(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem.keys() == {"type", "title", "status", "detail", "code", "request_id"}
    assert (problem["code"], problem["status"], problem["type"]) == (code, status, f"urn:commonwatt:problem:{code}")
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    return problem


def test_nobody_gets_in_without_the_token(server, new_meter):
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic YWRtaW46"},
        {"Authorization": "Bearer"},
    ):
        for path in ("/meters", "/meters/roof", "/meters/roof/readings", "/quarantine", "/openapi.json"):
            answer = server.anonymous.get(path, headers=headers)
            _problem(answer, 401, "unauthorized")
            assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="commonwatt"')
    _problem(server.anonymous.post("/meters", json=new_meter().registration()), 401, "unauthorized")


def test_what_does_not_exist_is_a_problem_too(server):
    _problem(server.client.get("/nothing"), 404, "not_found")
    _problem(server.client.get("/meters/nobody"), 404, "meter_not_found")
    _problem(server.client.delete("/meters"), 405, "method_not_allowed")


def test_invented_methods_do_not_grow_the_metrics(server):
    for number in range(5):
        server.client.request(f"INVENTED{number}", "/health")
    metrics = server.client.get("/metrics").text
    assert "INVENTED" not in metrics
    assert 'method="other"' in metrics


@pytest.mark.parametrize(
    "path", ["/meters?colour=green", "/meters/roof?x=1", "/meters/roof/latest?x=", "/quarantine?y=2"]
)
def test_an_unknown_query_parameter_is_a_mistake_not_something_to_ignore(server, path):
    _problem(server.client.get(path), 422, "malformed_input")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"reason": "\\u0000"}',
        b'{"reason": "\\ud800"}',
        b'{"reason": NaN}',
    ],
)
def test_a_body_that_is_no_such_object_is_malformed(server, new_meter, body):
    server.register(new_meter("roof"))
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    _problem(server.client.post("/meters/roof/suspend", content=body, headers=headers), 422, "malformed_input")


def test_a_body_over_the_limit_is_refused_declared_or_not(server):
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    too_much = b" " * (BODY_BYTES_MAX + 1)
    _problem(server.client.post("/meters", content=too_much, headers=headers), 413, "body_too_large")
    chunks = (b" " * 1_000 for _ in range(BODY_BYTES_MAX // 1_000 + 1))
    _problem(server.client.post("/meters", content=chunks, headers=headers), 413, "body_too_large")


def test_a_posted_seal_may_have_exactly_the_size_of_a_message(server, new_meter):
    meter = new_meter()
    server.register(meter)
    _problem(server.post_seal(meter, bytes(MESSAGE_BYTES_MAX)), 422, "seal_unverifiable")
    _problem(server.post_seal(meter, bytes(MESSAGE_BYTES_MAX + 1)), 413, "body_too_large")


def test_a_request_keeps_its_own_id_if_it_is_harmless(server):
    def get(request_id):
        return server.client.get("/health", headers={"X-Request-ID": request_id}).headers["X-Request-ID"]

    assert get("trace-17.b_C") == "trace-17.b_C"
    for hostile in ("", "x" * 65, 'a"b', "a b", "{}"):
        assert get(hostile) != hostile
        assert len(get(hostile)) == 32


def test_a_line_of_the_log_names_the_request_and_no_secret(log_lines, server, new_meter):
    meter = new_meter("roof")
    answer = server.register(meter)
    deadline_s = time.monotonic() + 10  # the line is written once the answer is sent
    while not (entries := [entry for entry in log_lines() if entry["event"] == "request"]):
        assert time.monotonic() < deadline_s
    [entry] = entries
    assert entry["request_id"] == answer.headers["X-Request-ID"]
    assert (entry["method"], entry["route"], entry["status"]) == ("POST", "/meters", 201)
    everything = json.dumps(log_lines())
    assert answer.json()["broker"]["password"] not in everything
    assert server.client.headers["Authorization"].split()[1] not in everything


def test_answers_are_not_cached_nor_sniffed(server):
    headers = server.client.get("/meters").headers
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    assert "server" not in headers or headers["server"] == "uvicorn"


def test_figures_are_by_route_template_not_by_meter(server, new_meter):
    meter = new_meter("roof-17")
    server.register(meter)
    server.client.get("/meters/roof-17")
    server.client.get("/no/such/thing")
    figures = server.anonymous.get("/metrics").text
    assert 'route="/meters/{meter_id}"' in figures
    assert "roof-17" not in figures
    assert "/no/such/thing" not in figures


def test_a_migrated_hub_is_ready(server):
    assert server.anonymous.get("/health").json() == {"status": "alive"}
    answer = server.anonymous.get("/ready")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "reasons": []})


def test_a_hub_whose_schema_is_not_the_newest_is_not_ready(server):
    with server.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    answer = server.anonymous.get("/ready")
    assert (answer.status_code, answer.json()["reasons"]) == (503, ["schema_not_current"])


def test_the_interface_describes_itself(server):
    described = server.client.get("/openapi.json").json()
    assert "/meters/{meter_id}/readings" in described["paths"]
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            refusals = {
                status: each["content"] for status, each in operation["responses"].items() if status[0] not in "23"
            }
            assert refusals.keys() >= {"default"}, f"{method} {path}"
            for status, content in refusals.items():
                told = content.keys() - ({"application/json"} if (path, status) == ("/ready", "503") else set())
                assert told == {"application/problem+json"}, f"{method} {path} {status}"
    for path, kind in {"/agent/report": "application/json", "/readings/seals": "application/octet-stream"}.items():
        assert list(described["paths"][path]["post"]["requestBody"]["content"]) == [kind]


def test_a_bug_of_ours_says_nothing_about_itself_but_to_the_log(log_lines, server, new_meter):
    server.register(new_meter("roof"))
    with server.engine.begin() as connection:
        connection.execute(text("DROP TABLE seal_gaps"))
    problem = _problem(server.client.get("/meters/roof/gaps"), 500, "internal_error")
    assert "seal_gaps" not in json.dumps(problem)
    [entry] = [entry for entry in log_lines() if entry["event"] == "request_failed"]
    assert entry["request_id"] == problem["request_id"]
    assert "UndefinedTable" in entry["exception"]


def test_a_database_that_is_away_is_told_and_everything_resumes_with_it(tmp_path, settings, running_hub, new_meter):
    with Postgres(tmp_path / "postgres") as postgres:
        migrate(postgres.url())
        engine = create_database_engine(postgres.url(), "tests")
        with running_hub(settings, engine) as server:
            server.register(new_meter("roof"))
            postgres.kill()
            answer = server.client.get("/meters")
            _problem(answer, 503, "database_away")
            assert answer.headers["Retry-After"]
            _problem(server.post("/meters", new_meter().registration()), 503, "database_away")
            assert server.anonymous.get("/health").status_code == 200
            assert server.anonymous.get("/ready").json() == {"ready": False, "reasons": ["database_away"]}
            postgres.start()
            assert server.anonymous.get("/ready").json() == {"ready": True, "reasons": []}
            assert len(server.client.get("/meters").json()["meters"]) == 1


def test_what_the_commit_refuses_was_never_answered_as_done(log_lines, server, new_meter):
    with server.engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'at the commit'; END $$"
            )
        )
        connection.execute(
            text(
                "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON meters DEFERRABLE INITIALLY DEFERRED"
                " FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        )
    _problem(server.post("/meters", new_meter().registration()), 500, "internal_error")
    assert server.client.get("/meters").json()["meters"] == []


def test_more_requests_at_once_than_threads_and_connections_are_all_answered(server, new_meter):
    meter = new_meter("roof")
    server.register(meter)
    now_unix_s = int(time.time()) // 900 * 900
    energy = f"/meters/roof/readings?from={iso_of(now_unix_s - 900)}&to={iso_of(now_unix_s)}"
    with ThreadPoolExecutor(90) as threads:
        answers = [
            threads.submit(ask)
            for _ in range(90)
            for ask in (
                lambda: server.client.get("/meters"),
                lambda: server.client.get(energy),
                lambda: server.post("/meters/roof/commands", {"kind": "restart"}),
                lambda: server.post_seal(meter, b"no seal"),
            )
        ]
        statuses = Counter(answer.result().status_code for answer in answers)
    assert statuses == {200: 180, 202: 90, 422: 90}


def test_bytes_that_are_no_http_get_an_answer_and_harm_nobody(server):
    url = server.client.base_url
    with socket.create_connection((url.host, url.port), timeout=10) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00 not http at all\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert server.anonymous.get("/health").status_code == 200
