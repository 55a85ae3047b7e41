"""What an operator types, and what it says: on a real cluster, with keys in files."""

from __future__ import annotations

import itertools

import pytest
from typer.testing import CliRunner

from hub.chain.deployment import grid_mint_of
from hub.chain.program_cli import app
from protocol.topics import domain_of
from tests.hub.chain.cluster import keypair

_names = itertools.count(1)


class Operator:
    """Somebody at a terminal, with a key that has some SOL."""

    def __init__(self, cluster, directory):
        self.cluster = cluster
        number = next(_names)
        self.key, self.program = keypair(f"cli operator {number}"), keypair(f"cli program {number}")
        cluster.fund(self.key.pubkey(), 10)
        self.key_file, self.program_file = directory / "operator.json", directory / "program.json"
        for file, key in ((self.key_file, self.key), (self.program_file, self.program)):
            file.write_text(key.to_json())
            file.chmod(0o600)
        self.environment = {
            **cluster.environment(),
            "COMMONWATT_PROGRAM_ID_HEX": bytes(self.program.pubkey()).hex(),
        }

    def types(self, *words, **environment):
        result = CliRunner().invoke(app, [str(word) for word in words], env={**self.environment, **environment})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    def keyed(self, command, *words):
        return self.types(command, "--keypair", self.key_file, *words)


@pytest.fixture
def operator(cluster, tmp_path):
    return Operator(cluster, tmp_path)


def test_a_program_is_deployed_initialized_looked_at_paused_and_configured(operator, cluster):
    deploy = ("deploy", "--program-keypair", operator.program_file, "--yes")
    deployed = operator.keyed(*deploy)
    assert deployed.exit_code == 0, deployed.output
    assert "kept on the chain" in deployed.output and "SOL (" in deployed.output, "the cost comes first"
    assert f"COMMONWATT_PROGRAM_ID_HEX={bytes(operator.program.pubkey()).hex()}" in deployed.output
    assert "already" in operator.keyed(*deploy).output

    status = operator.types("status")
    assert status.exit_code == 1 and "not initialized" in status.output

    roles = ("--hub", cluster.hub.pubkey(), "--issuer", cluster.issuer.pubkey())
    initialize = ("initialize", *roles, "--validator", cluster.validator.pubkey(), "--yes")
    initialized = operator.keyed(*initialize)
    assert initialized.exit_code == 0, initialized.output
    domain = domain_of(cluster.community_id, cluster.genesis_hash, bytes(operator.program.pubkey()))
    assert str(grid_mint_of(operator.key.pubkey(), domain)) in initialized.output
    assert "already" in operator.keyed(*initialize).output

    status = operator.types("status")
    assert status.exit_code == 0, status.output
    for said in ("It is running", domain.hex(), "only the program can mint it", "members with a meter"):
        assert said in status.output

    assert operator.keyed("pause", "--yes").exit_code == 0
    assert "PAUSED" in operator.types("status").output
    assert operator.keyed("resume", "--yes").exit_code == 0

    heir = keypair("cli heir")
    configured = operator.keyed("configure", "--hub", heir.pubkey(), "--capacity-w-max", 5_000, "--yes")
    assert configured.exit_code == 0, configured.output
    assert f"hub: {cluster.hub.pubkey()} becomes {heir.pubkey()}" in configured.output
    status = operator.types("status")
    assert status.exit_code == 1 and "not this hub's key" in status.output and "5000 W" in status.output

    final = operator.keyed("set-upgrade-authority", "--final", "--yes")
    assert final.exit_code == 0, final.output
    assert "nobody can upgrade it any more" in operator.types("status").output


def test_the_shared_program_is_good_in_every_check(cluster):
    result = CliRunner().invoke(app, ["status"], env=cluster.environment())
    assert result.exit_code == 0, result.output
    assert "WRONG" not in result.output


@pytest.mark.parametrize(
    ("environment", "words", "said"),
    [
        ({"COMMONWATT_GENESIS_HASH_HEX": "11" * 32}, ("status",), "another chain"),
        ({"COMMONWATT_PROGRAM_ID_HEX": "11" * 32}, ("status",), "not deployed"),
        ({"COMMONWATT_RPC_URL": "http://127.0.0.1:1/a-key"}, ("status",), "does not answer"),
        ({"COMMONWATT_RPC_URL": "http://node.example/"}, ("status",), "only on this machine"),
        ({"COMMONWATT_PROGRAM_ID_HEX": "nonsense!"}, ("status",), "not an address"),
        ({"COMMONWATT_GENESIS_HASH_HEX": "11" * 32}, ("pause", "--yes"), "another chain"),
        ({}, ("set-upgrade-authority", "--yes"), "one of them"),
    ],
)
def test_what_is_wrong_is_one_clear_line(operator, environment, words, said):
    keyed = () if words == ("status",) else ("--keypair", operator.key_file)
    result = operator.types(*words, *keyed, **environment)
    assert result.exit_code == 1
    assert said in result.output and "Traceback" not in result.output and "a-key" not in result.output


def test_a_key_without_money_is_told_before_anything_is_done(operator, tmp_path):
    poor = tmp_path / "poor.json"
    poor.write_text(keypair("a poor operator").to_json())
    poor.chmod(0o600)
    result = operator.types("deploy", "--keypair", poor, "--program-keypair", operator.program_file, "--yes")
    assert result.exit_code == 1 and "not enough" in result.output


def test_lookup_tables_are_listed(database_url):
    result = CliRunner().invoke(app, ["lookup-tables"], env={"COMMONWATT_DATABASE_URL": database_url})
    assert result.exit_code == 0 and result.output.startswith("0 tables")
