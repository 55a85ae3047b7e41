"""Every refusal is listed in docs/errors.md with what to do about it, and nothing is listed that the hub never says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import hub.web  # noqa: F401 - brings in every module that could define an error
from hub import errors, problems
from hub.errors import HubError
from hub.live.sockets import CLOSE_CODE, CLOSE_CODES

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
CODE = re.compile("[a-z]+(_[a-z]+)*")
ROW = re.compile(r"^\| `(?P<code>[a-z_]+)` \| (?P<status>[0-9]{3}|–) \| (?P<title>[^|]+) \| (?P<todo>[^|]+) \|$", re.M)
CLOSE_ROW = re.compile(r"^\| (?P<number>[0-9]{4}) \| (?P<codes>.*`.*) \|$", re.M)
INSIDE = {
    *("settings_invalid", "lease_lost", "chain_away", "chain_refuses", "chain_answers_nonsense", "chain_lags"),
    *("chain_differs", "program_not_deployed", "program_differs", "program_not_initialized", "config_differs"),
    *("hub_key_empty", "chain_account_malformed", "chain_event_malformed", "transaction_refused"),
}


def _kinds(kind: type[HubError]) -> Iterator[type[HubError]]:
    for each in kind.__subclasses__():
        yield each
        yield from _kinds(each)


KINDS = sorted(_kinds(HubError), key=lambda kind: kind.__name__)


def _said() -> dict[str, tuple[str, str]]:
    """What the code says: status and title by code."""
    said = {kind.code: ("–" if kind.code in INSIDE else str(kind.status), kind.title) for kind in KINDS}
    said |= {code: (str(status.value), status.phrase) for status, code in problems.FRAMEWORK_CODES.items()}
    return said | {problems.INTERNAL_ERROR: ("500", problems.INTERNAL_ERROR_TITLE)}


def test_the_page_lists_what_the_hub_says_and_nothing_else():
    listed = {row["code"]: (row["status"], row["title"]) for row in ROW.finditer(PAGE)}
    assert listed == _said()


def test_every_row_of_the_page_is_read_and_no_code_is_listed_twice():
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert len(rows) == len(ROW.findall(PAGE)) == len({row["code"] for row in ROW.finditer(PAGE)})


def test_for_every_refusal_the_page_says_what_to_do():
    for row in ROW.finditer(PAGE):
        assert len(row["todo"]) > 20, row["code"]
        assert row["todo"] != row["title"]


def test_every_refusal_is_a_fact_of_its_own():
    """A class per code, a code per class, each with its own docstring, title and a status that is a refusal."""
    assert len({kind.code for kind in KINDS}) == len(KINDS)
    for kind in KINDS:
        assert CODE.fullmatch(kind.code), kind
        assert kind.__doc__ and kind.__doc__ != HubError.__doc__, kind
        assert "code" in vars(kind) and "status" in vars(kind) and "title" in vars(kind), kind
        assert kind.title[0].isupper() and not kind.title.endswith("."), kind
        assert 400 <= HTTPStatus(kind.status) < 600
        assert (kind.status == 500) == (kind.code == "settings_invalid"), "a 500 is a bug, never a named refusal"
        assert kind.__module__ == errors.__name__, "all of them in one place"
    assert HubError.code not in {kind.code for kind in KINDS}


def test_the_page_lists_with_which_codes_the_live_socket_closes():
    listed = {int(row["number"]): set(re.findall("`([a-z_]+)`", row["codes"])) for row in CLOSE_ROW.finditer(PAGE)}
    said: dict[int, set[str]] = {CLOSE_CODE: set()}
    for kind, number in CLOSE_CODES.items():
        said.setdefault(number, set()).add(kind.code)
    assert listed == said


def test_every_path_that_the_page_names_is_a_route(server):
    served = server.client.get("/openapi.json").json()["paths"]
    for method, path in re.findall(r"`(GET|POST) (/[^`]*)`", PAGE):
        described = {re.sub(r"\{[^}]*\}", "{}", each): methods for each, methods in served.items()}
        assert method.lower() in described[re.sub(r"\{[^}]*\}", "{}", path)], path


def test_every_document_that_the_page_refers_to_is_there():
    for target in re.findall(r"\]\(((?!https?:)[^)]+)\)", PAGE):
        assert (Path(__file__).parents[2] / "docs" / target).exists(), target
