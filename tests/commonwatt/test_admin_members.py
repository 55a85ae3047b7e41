"""What admins and auditors do about members at the command line, and what the audit log tells whoever doubts."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from tests.commonwatt.conftest import refusal_of


def _flat(text):
    """A table without its frame, single-spaced."""
    return re.sub(r"[\s│┃]+", " ", text)


def _verified(file, *options):
    """The report of `commonwatt verify`, and its exit status."""
    command = [sys.executable, "-m", "commonwatt", "verify", file, "--json", *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return json.loads(done.stdout), done.returncode


def test_members_are_listed_and_shown_with_what_they_may(operator, newcomer):
    ada = newcomer("Ada")
    listed = _flat(operator.do("members", "list"))
    assert f"{ada.member_id} Ada prosumer active" in listed
    assert "Ada" in operator.do("members", "list", "--type", "prosumer")
    assert ada.member_id not in operator.do("members", "list", "--role", "admin")
    assert ada.member_id not in operator.do("members", "list", "--state", "suspended")
    assert "solana wallet" in operator.do("members", "show", ada.member_id)


def test_a_role_counts_from_the_next_command_and_not_a_moment_longer(operator, newcomer):
    otto = newcomer("Otto")
    assert refusal_of(otto.admin("meters"), "commonwatt admin") == "forbidden"
    said = operator.do("members", "give", otto.member_id, "operator", "--reason", "runs the street")
    assert f"Roles of {otto.member_id} now: operator." in said
    assert otto.admin("meters").exit_code == 0
    result = operator.run("members", "give", otto.member_id, "operator", "--reason", "again")
    assert refusal_of(result, "commonwatt admin") == "role_unchanged"
    said = operator.do("members", "take", otto.member_id, "operator", "--reason", "moved away")
    assert f"Roles of {otto.member_id} now: none." in said
    assert refusal_of(otto.admin("meters"), "commonwatt admin") == "forbidden"


def test_a_suspended_member_is_out_until_it_is_reinstated(operator, newcomer):
    ada = newcomer("Ada")
    assert "is suspended." in operator.do("members", "suspend", ada.member_id, "--reason", "wallet stolen")
    assert refusal_of(ada.run("me")) == "unauthorized"
    assert refusal_of(ada.run("sign-in", "--wallet", ada.wallet)) == "member_suspended"
    assert "is active." in operator.do("members", "reinstate", ada.member_id, "--reason", "new wallet")
    ada.do("sign-in", "--wallet", ada.wallet)
    assert "Ada" in ada.do("me")


def test_an_operator_decides_in_its_own_name(operator, newcomer, simulated, tmp_path):
    otto, roof = newcomer("Otto"), simulated("roof")
    operator.register(roof, tmp_path)
    operator.do("members", "give", otto.member_id, "operator", "--reason", "runs the street")
    assert otto.admin("suspend", "roof", "--reason", "smoke").exit_code == 0
    listed = _flat(operator.do("audit", "list", "--subject", "meter:roof"))
    assert f"member:{otto.member_id} meter.suspend meter:roof" in listed
    assert "smoke" in listed
    by_otto = operator.do("audit", "list", "--actor", f"member:{otto.member_id}", "--action", "meter")
    assert "meter.suspend" in by_otto
    assert "meter.register" not in by_otto
    assert refusal_of(otto.admin("audit", "list"), "commonwatt admin") == "forbidden"


def test_the_exported_log_verifies_against_a_head_that_was_kept_and_not_once_a_word_is_changed(
    operator, newcomer, tmp_path
):
    ada, file = newcomer("Ada"), tmp_path / "street.audit"
    head = re.search(r"^\d+:[0-9a-f]{64}$", operator.do("audit", "head"), re.MULTILINE)[0]
    operator.do("members", "give", ada.member_id, "auditor", "--reason", "checks the street")
    result = ada.admin("audit", "export", file)
    assert result.exit_code == 0, result.output
    report, status = _verified(file, "--head", head)
    assert (status, report["verified"]) == (0, True)
    assert report["verified_entries"] > int(head.partition(":")[0])
    assert "checks the street" in file.read_text()
    file.write_text(file.read_text().replace("checks the street", "sweeps the street"))
    report, status = _verified(file)
    assert (status, report["verified"]) == (1, False)
    part = tmp_path / "part.audit"
    ada.admin("audit", "export", part, "--from-position", "3")
    assert _verified(part)[0]["from_position"] == 3
