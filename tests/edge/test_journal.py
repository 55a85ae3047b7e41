import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from edge.counters import GENERATION, GRID_EXPORT, GRID_IMPORT, start_counters
from edge.enrolment import enrol
from edge.errors import JournalError
from edge.identity import load_or_create_identity
from edge.journal import Intervals, Journal, Unsealed
from edge.sealing import first_chain, seal_readings
from edge.settings import Settings
from protocol.enrolment import KIND_SOLAR, MEASURES_GENERATION_AND_GRID, Enrolment
from protocol.readings import Reading, decode_readings
from protocol.seal import split_message

START = 1_800_000_000
BYTES_MAX = 2**26
KEY = SigningKey(b"k" * 32)
COUNTERS = start_counters(MEASURES_GENERATION_AND_GRID, {GENERATION: 10, GRID_IMPORT: 20, GRID_EXPORT: 5}, START)
STATEMENT = Enrolment(b"domain..", "home-17", 1, 1, 1, b"o" * 32, b"p" * 32, 10, 25, 0, START)
assert (STATEMENT.kind, STATEMENT.measurement) == (KIND_SOLAR, MEASURES_GENERATION_AND_GRID)


def enrolled(path: Path, bytes_max: int = BYTES_MAX) -> Journal:
    journal = Journal(path, bytes_max)
    journal.enrol(b"statement", COUNTERS, first_chain(STATEMENT))
    return journal


def readings(first: int, count: int) -> list[Reading]:
    return [Reading(START + i, 10 + i, 25 + i, -i, 2_300, 50_000) for i in range(first, first + count)]


def seal_all(journal: Journal) -> None:
    unsealed = journal.unsealed_readings(900)
    now = unsealed[-1].time_unix_s
    journal.append_seal(seal_readings(journal.get_chain(), unsealed, now, b"domain..", lambda b: KEY.sign(b).signature))


def test_what_was_journaled_is_there_after_reopening(tmp_path: Path) -> None:
    journal = enrolled(tmp_path / "j")
    journal.append_readings(readings(1, 15), COUNTERS)
    seal_all(journal)
    journal.append_readings(readings(16, 3), COUNTERS)
    chain = journal.get_chain()
    journal.accept_command(7, Intervals(1, 0))
    journal.close()

    again = Journal(tmp_path / "j", BYTES_MAX)
    assert again.get_chain() == chain
    assert again.get_counters() == COUNTERS
    assert again.find_unsealed() == Unsealed(3, START + 16, START + 18)
    assert again.unsealed_readings(900) == readings(16, 3)
    assert again.unconfirmed_sequences() == [1]
    assert split_message(again.find_message(1) or b"").seal.sequence == 1
    assert again.get_command_counter() == 7
    assert again.find_intervals() == Intervals(1, 0)
    again.close()


def test_every_commit_reaches_the_disk_before_it_returns(tmp_path: Path) -> None:
    journal = enrolled(tmp_path / "j")
    pragma = {name: journal._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    assert pragma == {"journal_mode": "wal", "synchronous": 2}
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o600
    journal.close()


BURST_READINGS = 20_000
BURST = """
import asyncio, sys
from pathlib import Path
from edge.agent import Agent
from edge.clock import LaboratoryClock
from edge.confirming import Taken
from edge.counters import advance_counters
from edge.identity import load_identity
from edge.journal import Journal
from edge.home_reader import HomeReader
from edge.poll import Poll
from edge.settings import load_settings

async def main(config, readings):
    settings = load_settings(config)
    async def nobody(time_unix_s): pass
    identity, journal = load_identity(settings.key_file), Journal(settings.journal.file, settings.journal.bytes_max)
    clock = LaboratoryClock(journal.get_chain().last_reading_unix_s, nobody)
    agent = Agent(settings, identity, journal, clock=clock, reader=HomeReader(settings.buses), random=lambda: 0.5)
    for i in range(1, readings + 1):
        await clock.wait_until(clock.now_unix_s() + 1)
        poll = Poll({"generation": 100_000 + i, "grid_import": 50_000, "grid_export": 20_000})
        step = advance_counters(agent.sampler.counters, poll.registers_wh, {}, clock.now_unix_s(), 100_000)
        agent.sampler.take(Taken(poll, clock.now_unix_s(), step))
        agent.seal_once()
        print(i, flush=True)
    sys.stdin.read()

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


@pytest.mark.parametrize("kill_after", [*random.Random(17).sample(range(1, 4_000), 3), BURST_READINGS])
def test_a_burst_of_readings_cut_off_by_sigkill_loses_none_that_was_written(
    settings: Settings, config_file: Path, kill_after: int
) -> None:
    identity = load_or_create_identity(settings.key_file)
    journal = Journal(settings.journal.file, BYTES_MAX)
    registers_wh = {GENERATION: 100_000, GRID_IMPORT: 50_000, GRID_EXPORT: 20_000}
    enrol(settings, identity, journal, start_counters(settings.measurement, registers_wh, START))
    journal.close()
    written = 0
    with subprocess.Popen(
        [sys.executable, "-c", BURST, str(config_file), str(BURST_READINGS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as agent:
        assert agent.stdout is not None
        for line in agent.stdout:  # to the last line that the dead agent had said
            written = int(line)
            if written == kill_after:
                agent.send_signal(signal.SIGKILL)
    assert written >= kill_after
    survivor = Journal(settings.journal.file, BYTES_MAX)
    messages = [split_message(survivor.find_message(i) or b"") for i in survivor.unconfirmed_sequences()]
    kept = [reading for message in messages for reading in decode_readings(message.section)]
    kept += survivor.unsealed_readings(BURST_READINGS)
    assert len(messages) >= written // 900 - 1
    assert len(kept) in (written, written + 1)  # one may be written and not yet reported
    assert [r.time_unix_s for r in kept] == list(range(START + 1, START + len(kept) + 1))
    assert [r.production_wh for r in kept] == list(range(100_001, 100_001 + len(kept)))
    assert survivor.get_counters().production_wh == kept[-1].production_wh
    survivor.close()


def test_two_agents_cannot_have_one_journal(tmp_path: Path) -> None:
    journal = enrolled(tmp_path / "j")
    with pytest.raises(JournalError, match="journal_in_use"):
        Journal(tmp_path / "j", BYTES_MAX)
    journal.close()


def test_a_file_that_is_no_journal_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    with pytest.raises(JournalError, match="journal_unreadable"):
        Journal(tmp_path / "j", BYTES_MAX)
    with sqlite3.connect(tmp_path / "k") as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(JournalError, match="journal_version"):
        Journal(tmp_path / "k", BYTES_MAX)


def test_before_enrolment_there_is_nothing_to_continue(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", BYTES_MAX)
    assert journal.find_enrolment() is None
    for question in (journal.get_chain, journal.get_counters):
        with pytest.raises(JournalError, match="not_enrolled"):
            question()
    journal.close()


def test_the_journal_says_when_it_is_full_and_has_room_again_once_seals_are_committed(tmp_path: Path) -> None:
    journal = enrolled(tmp_path / "j", bytes_max=200_000)
    first, sequence = 1, 0
    while not journal.full():
        journal.append_readings(readings(first, 900), COUNTERS)
        seal_all(journal)
        first, sequence = first + 900, sequence + 1
    assert journal.unconfirmed_sequences() == list(range(1, sequence + 1))
    journal.forget_seals(sequence, [])
    assert not journal.full()
    journal.close()


def test_a_write_that_the_disk_refuses_is_a_named_error_and_changes_nothing(tmp_path: Path) -> None:
    journal = enrolled(tmp_path / "j")
    journal.append_readings(readings(1, 1), COUNTERS)
    with pytest.raises(JournalError, match="journal_write"):
        journal.append_readings(readings(1, 2), COUNTERS)
    assert journal.find_unsealed() == Unsealed(1, START + 1, START + 1)
    journal.close()


@given(st.integers(0, 12), st.lists(st.tuples(st.integers(1, 14), st.integers(0, 3)), max_size=3))
def test_forgetting_keeps_what_no_receipt_covers_and_every_hash_a_later_one_may_name(
    tmp_path_factory: pytest.TempPathFactory, contiguous: int, spans: list[tuple[int, int]]
) -> None:
    journal = enrolled(tmp_path_factory.mktemp("journal") / "j")
    for sequence in range(12):
        journal.append_readings(readings(sequence + 1, 1), COUNTERS)
        seal_all(journal)
    ranges = [(first, first + more) for first, more in spans]
    journal.forget_seals(contiguous, ranges)
    covered = {s for s in range(1, 13) if s <= contiguous or any(a <= s <= b for a, b in ranges)}
    assert journal.unconfirmed_sequences() == sorted(set(range(1, 13)) - covered)
    assert all(journal.find_seal_hash(sequence) for sequence in range(max(1, contiguous), 13))
    assert journal.get_confirmed_sequence() == contiguous
    journal.close()
