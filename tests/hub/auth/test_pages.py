"""What somebody sees who opens the link of a mail."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub.auth.conftest import problem
from tests.hub.auth.mailing import BETTER, GOOD, Office, somebody

READER = Path(__file__).parent / "pages" / "reader.mjs"
NODE = Path(sys.executable).parent / "node"


def opened(office: Office, link: str, *typed: str, then: str = "") -> dict[str, object]:
    """What the page says to somebody who opens it, `then` another link in the same tab, types this and presses the
    button.
    """
    ran = subprocess.run(
        [NODE, READER, office.server.url, link, json.dumps(typed), then], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


def link_of(office: Office, address: str) -> str:
    """The link in the newest mail, at the server of the test."""
    public_url = office.server.settings.public_url
    [line] = [
        line
        for line in office.post.letters(address)[-1].get_content().splitlines()
        if line.startswith(f"{public_url}/auth/")
    ]
    return line.removeprefix(public_url)


def test_somebody_opens_the_link_types_the_password_and_is_a_member(office):
    ada = somebody()
    office.register(ada)
    office.deliver()
    link = link_of(office, ada)
    wrong = opened(office, link, BETTER)
    assert str(wrong["said"]).startswith("This is not the password that was chosen with this registration.")
    assert opened(office, link[:-1], GOOD)["said"] == "This link is not whole: copy all of it from the mail."
    right = opened(office, link, GOOD)
    assert (right["kind"], right["form"]) == ("good", False)
    assert "you are a member now" in str(right["said"])
    assert right["address"] == f"{office.server.url}/auth/verify"  # the token has left the address bar
    assert right["sent"] == ["/auth/verify", "/auth/sign-out"]
    again = opened(office, link, GOOD)
    assert (again["kind"], again["form"]) == ("bad", True)
    assert "not good any more" in str(again["said"])
    tokens = office.sign_in(ada).json()
    sessions = office.server.anonymous.get(
        "/me/sessions", headers={"Authorization": f"Bearer {tokens['access_token']}"}
    )
    assert len(sessions.json()["sessions"]) == 1  # the page has left none behind


def test_somebody_tries_the_other_link_in_the_same_tab(office):
    """Only what is behind the # differs, so that a browser does not load the page again by itself."""
    ada = somebody()
    links = []
    for password in (BETTER, GOOD):
        office.register(ada, password)
        office.deliver()
        links.append(link_of(office, ada))
    right = opened(office, links[0], GOOD, then=links[1])
    assert "you are a member now" in str(right["said"])
    assert right["address"] == f"{office.server.url}/auth/verify"  # the second token has left the address bar too


def test_somebody_chooses_another_password_on_the_page(office):
    ada, _ = office.member()
    office.ask("/auth/password/forgot", {"email": ada})
    office.deliver()
    link = link_of(office, ada)
    assert opened(office, link, BETTER, "another one")["said"] == "You typed two different passwords."
    assert "too easy to guess. This is a very common password." in str(opened(office, link, "password1")["said"])
    assert opened(office, link, BETTER)["said"] == "Your password is changed. Sign in with it."
    assert office.sign_in(ada, BETTER).status_code == 200


@pytest.mark.parametrize("path", ["/auth/verify", "/auth/reset"])
def test_without_its_link_a_page_asks_for_nothing(office, path):
    seen = opened(office, path, GOOD)
    assert (seen["form"], seen["sent"]) == (False, [])
    assert "by the link in the mail" in str(seen["said"])


@pytest.mark.parametrize("path", ["/auth/verify", "/auth/reset"])
def test_a_page_may_run_its_own_script_ask_this_hub_and_nothing_else(server, path):
    answer = server.anonymous.get(path)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    directives = dict(each.split(" ", 1) for each in answer.headers["Content-Security-Policy"].split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["connect-src"] == "'self'"
    assert {directives[name] for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    for name in ("script", "style"):
        [content] = re.findall(f"<{name}[^>]*>(.*?)</{name}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert directives[f"{name}-src"] == f"'sha256-{digest}'"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert not re.search(r"\son\w+=|style=|src=|href=|innerHTML|://", answer.text)
    problem(server.anonymous.get(path, params={"token": "x"}), 422, "malformed_input")
