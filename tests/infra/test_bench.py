"""The comparison as a command: that it runs, counts to the reading, and compares within a round. Never how fast."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.bench.measurement import Run
from infra.bench.results import Spread, summarise
from infra.bench.subjects import SUBJECTS
from infra.local.mosquitto_package import Installation

ROOT = Path(__file__).parent.parent.parent
TIMEOUT_S = 250
QUICK_READINGS = {("hub", 60): 2400, ("script", 60): 1200, ("copy", 60): 2400}
QUICK_READINGS |= {("hub", 1): 100, ("script", 1): 40, ("copy", 1): 100}

HUB_RUN = Run(
    round_number=0,
    subject="hub",
    readings_per_seal=60,
    readings=600,
    seconds=1.0,
    readings_per_s=600.0,
    consumer_us=3.0,
    database_us=2.0,
    broker_us=1.0,
    foreign_load=0.0,
)


@pytest.fixture
def var(tmp_path: Path, mosquitto_installation: Installation) -> Path:
    """A directory for the comparison alone, with the broker that is already downloaded."""
    (tmp_path / "cache").symlink_to(ROOT / "var" / "cache")
    return tmp_path


def bench(var: Path, part: str, *options: str) -> tuple[str, dict[str, Any]]:
    """What the command shows, and what it writes."""
    done = subprocess.run(
        [sys.executable, "-m", "commonwatt", "bench", "--quick", "--only", part, "--var", str(var), *options],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((var / "bench/results.json").read_text())


@pytest.mark.parametrize("shape", ["live", pytest.param("backlog", marks=pytest.mark.long)])
def test_every_reading_of_every_subject_is_stored_exactly_once(var: Path, shape: str) -> None:
    shown, results = bench(var, "ingest", *(["--backlog"] if shape == "backlog" else []))
    assert "No reading was lost" in shown
    assert {(run["subject"], run["readings_per_seal"]): run["readings"] for run in results["runs"]} == QUICK_READINGS
    assert all(run["seconds"] > 0 for run in results["runs"])
    assert results["volumes"]["shape"] == shape
    assert results["postgresql"]["fsync"] == results["postgresql"]["synchronous_commit"] == "on"
    assert {"cores", "processor", "python", "packages"} <= results["machine"].keys()
    assert not (var / "bench/work").exists()


def test_every_update_comes_to_every_socket_of_the_hub_and_of_the_bare_server(var: Path) -> None:
    shown, results = bench(var, "live")
    assert "No delivery was lost: 200 came." in shown
    live = results["live"]
    assert {(run["subject"], run["deliveries"]) for run in live["runs"]} == {("hub", 100), ("bare", 100)}
    assert all(0 < run["p50_ms"] <= run["p95_ms"] <= run["p99_ms"] for run in live["runs"])
    assert [row["subject"] for row in live["figures"]] == ["hub", "bare"]
    assert not results["runs"]
    assert not (var / "bench/work").exists()


def test_ratios_are_taken_within_a_round_before_the_median() -> None:
    speeds = {"hub": (600.0, 300.0, 900.0), "script": (60.0, 10.0, 100.0), "copy": (1200.0, 600.0, 1800.0)}
    runs = [
        replace(HUB_RUN, subject=subject, round_number=number, readings_per_s=speeds[subject][number])
        for subject in SUBJECTS
        for number in range(3)
    ]
    hub, script, copy = summarise(runs)
    assert script.hub_speed_ratio == Spread(9.0, 10.0, 30.0)
    assert copy.hub_speed_ratio == Spread(0.5, 0.5, 0.5)
    assert hub.readings_per_s == Spread(300.0, 600.0, 900.0)
    assert hub.cpu_us == Spread(6.0, 6.0, 6.0)
