"""The file behind a token, fetched from the hub and checked by the verifier that people are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from commonwatt.verify import app as verify
from tests.flows.minting.town import Town


def fetch(town: Town, signature: str, file: Path) -> Path:
    """Everything behind a transaction, as the hub hands it out, in this file."""
    answer = town.ask("GET", f"/tokens/provenance/{signature}", town.admin)
    assert answer.status_code == httpx.codes.OK, answer.text
    file.write_bytes(answer.content)
    return file


def check(file: Path, town: Town, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """`commonwatt verify FILE --rpc URL --json`: its exit status, and what it says."""
    before = capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        verify([str(file), "--rpc", town.cluster.url, "--json"])
    said = capsys.readouterr()
    print(before.out, end="")  # what the test itself had to say
    assert said.out, said.err
    return int(ended.value.code or 0), json.loads(said.out)


def faults_of(report: dict[str, Any]) -> list[Any]:
    """Everything in it that is false."""
    return report["faults"] + [
        fault for mint in report["mints"] for fault in [*mint["faults"], *mint["evidence"]["false"]]
    ]


def missing_from(report: dict[str, Any]) -> set[tuple[str, int, int]]:
    """Which seals are not in it: meter, key epoch and sequence."""
    return {
        (mint["meter_id"], each["key_epoch"], sequence)
        for mint in report["mints"]
        for each in mint["evidence"]["missing"]
        for sequence in range(each["first_sequence"], each["last_sequence"] + 1)
    }
