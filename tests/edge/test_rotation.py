"""The life of a meter's key, against an API that answers over real HTTP."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import VerifyKey

from edge.counters import GENERATION, GRID_EXPORT, GRID_IMPORT, start_counters
from edge.enrolment import enrol, get_enrolment
from edge.errors import HubRefusedError, HubUnansweredError, IdentityError, JournalError, RotationError
from edge.identity import Identity, load_identity, load_or_create_identity, next_key_file
from edge.journal import Journal
from edge.rotation import begin_rotation, discard_rotation, finish_rotation, hand_in_rotation, open_identity
from edge.sealing import seal_readings
from edge.settings import Settings, load_settings
from protocol.readings import Reading, decode_readings
from protocol.rotation import split_rotation
from protocol.seal import NO_PREDECESSOR, Seal, seal_hash, split_message

START = 1_800_000_000
ROTATIONS_BY_LINE_STEP = 7
"""Every so many lines of ours the process is killed; every single one in the long mode."""

REGISTERS_WH = {GENERATION: 1_000, GRID_IMPORT: 2_000, GRID_EXPORT: 500}


@pytest.fixture
def home(tmp_path: Path, config_text: Callable[..., str], hub: Any) -> Settings:
    """A meter that is enrolled, with three readings sealed and confirmed and two that are not sealed."""
    return enrolled_home(tmp_path, config_text(1).replace("[hub]", f'[hub]\nurl = "{hub.url}"'))


def enrolled_home(directory: Path, configuration: str) -> Settings:
    (directory / "edge.toml").write_text(configuration)
    settings = load_settings(directory / "edge.toml")
    identity = load_or_create_identity(settings.key_file)
    with opened(settings) as journal:
        counters = start_counters(settings.measurement, REGISTERS_WH, START)
        enrol(settings, identity, journal, counters)
        journal.append_readings([reading(60), reading(500), reading(900)], counters)
        seal(settings, identity, journal, START + 901)
        journal.forget_seals(1, [])
        journal.append_readings([reading(960), reading(1_020)], counters)
    return settings


def reading(second: int) -> Reading:
    return Reading(START + second, 1_000 + second, 2_500 + second // 10)


def seal(settings: Settings, identity: Identity, journal: Journal, now: int) -> Seal:
    sealed = seal_readings(journal.get_chain(), journal.unsealed_readings(900), now, settings.domain, identity.sign)
    journal.append_seal(sealed)
    message = split_message(sealed.message)
    VerifyKey(identity.public_key).verify(message.seal_bytes, message.signature)
    return message.seal


class opened:  # noqa: N801 - reads as a word in a with statement
    def __init__(self, settings: Settings) -> None:
        self.journal = Journal(settings.journal.file, settings.journal.bytes_max)

    def __enter__(self) -> Journal:
        return self.journal

    def __exit__(self, *_: object) -> None:
        self.journal.close()


def test_the_next_key_begins_exactly_where_the_last_seal_ended_and_both_keys_have_signed_that(
    home: Settings, hub: Any
) -> None:
    with opened(home) as journal:
        old, before = load_identity(home.key_file), journal.get_chain()
        statement = hand_in_rotation(home, journal)
        new, after = load_identity(home.key_file), journal.get_chain()
        assert get_enrolment(home, new, journal).key_epoch == 2

    [(path, body)] = hub.asked
    assert path == "/meters/home-17/keys"
    assert body["replacements"] == []
    said, signed, signature, endorsement = split_rotation(bytes.fromhex(body["rotation"]))
    VerifyKey(new.public_key).verify(signed, signature)
    VerifyKey(old.public_key).verify(signed, endorsement)
    assert said.public_key == statement.public_key == new.public_key != old.public_key
    assert (said.key_epoch, said.last_seal_hash.hex()) == (2, before.last_seal_hash)
    assert (said.production_wh, said.consumption_wh, said.surplus_wh, said.valid_from_unix_s) == (
        before.production_wh,
        before.consumption_wh,
        before.surplus_wh,
        before.closed_until_unix_s,
    )
    assert (after.key_epoch, after.sequence, after.last_seal_hash) == (2, 0, NO_PREDECESSOR.hex())
    assert not next_key_file(home.key_file).exists()
    assert home.key_file.stat().st_mode & 0o777 == 0o600


def test_netting_goes_on_across_the_change_of_keys_to_the_watt_hour(home: Settings, tmp_path: Path) -> None:
    """The same readings sealed with and without a rotation in between state the same counters."""
    seals = {}
    for rotated in (False, True):
        copy = copied(home, tmp_path / str(rotated))
        with opened(copy) as journal:
            if rotated:
                hand_in_rotation(copy, journal)
            journal.append_readings([reading(1_800), reading(2_000)], journal.get_counters())
            seals[rotated] = seal(copy, load_identity(copy.key_file), journal, START + 2_001)
    without, with_rotation = seals[False], seals[True]
    assert with_rotation.surplus_wh == without.surplus_wh > 0
    assert with_rotation.production_wh == without.production_wh
    assert with_rotation.consumption_wh == without.consumption_wh
    assert with_rotation.closed_until_unix_s == without.closed_until_unix_s
    assert (without.sequence, with_rotation.sequence) == (2, 1)


def copied(home: Settings, directory: Path) -> Settings:
    directory.mkdir()
    for file in home.key_file.parent.iterdir():
        if file.is_file():
            target = directory / file.name
            target.touch(mode=file.stat().st_mode & 0o777)
            target.write_bytes(file.read_bytes())
    return load_settings(directory / "edge.toml")


def test_a_key_that_never_sealed_hands_its_own_beginning_on(home: Settings) -> None:
    with opened(home) as journal:
        second = hand_in_rotation(home, journal)
        third = hand_in_rotation(home, journal)
    assert (third.key_epoch, third.last_seal_hash) == (3, NO_PREDECESSOR)
    assert (third.production_wh, third.consumption_wh, third.surplus_wh, third.valid_from_unix_s) == (
        second.production_wh,
        second.consumption_wh,
        second.surplus_wh,
        second.valid_from_unix_s,
    )


def test_nothing_rotates_while_the_hub_lacks_a_seal(home: Settings, hub: Any) -> None:
    with opened(home) as journal:
        seal(home, load_identity(home.key_file), journal, START + 1_021)
        with pytest.raises(JournalError, match="rotation_backlog"):
            hand_in_rotation(home, journal)
        assert journal.find_rotation() is None
        journal.forget_seals(2, [])
        assert hand_in_rotation(home, journal).key_epoch == 2
    assert len(hub.asked) == 1


def test_an_older_copy_of_a_journal_does_not_rotate(home: Settings) -> None:
    with opened(home) as journal:
        journal.set_hub_ahead(True)
        with pytest.raises(JournalError, match="receipt_hub_is_ahead"):
            hand_in_rotation(home, journal)


@pytest.mark.parametrize("status", [409, 422])
def test_a_rotation_that_the_hub_refuses_is_forgotten_and_the_old_key_goes_on(
    home: Settings, hub: Any, status: int
) -> None:
    hub.answer = lambda _path, _body: (status, {"code": "rotation_base_differs", "title": "No", "detail": "seal 2"})
    with opened(home) as journal:
        old = load_identity(home.key_file).public_key
        with pytest.raises(HubRefusedError, match="rotation_base_differs: No: seal 2"):
            hand_in_rotation(home, journal)
        assert journal.find_rotation() is None
        assert not next_key_file(home.key_file).exists()
        assert open_identity(home, journal).public_key == old
        assert seal(home, load_identity(home.key_file), journal, START + 1_021).sequence == 2


@pytest.mark.parametrize(
    ("status", "answer"), [(0, {}), (500, {"code": "oops"}), (404, {}), (502, b"<html>"), (201, b"no json"), (409, [])]
)
def test_while_nobody_knows_whether_the_hub_has_the_new_key_nothing_is_sealed_and_the_same_bytes_are_handed_in_again(
    home: Settings, hub: Any, status: int, answer: object
) -> None:
    hub.answer = lambda _path, _body: (status, answer)
    with opened(home) as journal:
        with pytest.raises(HubUnansweredError, match="hub_unanswered"):
            hand_in_rotation(home, journal)
        with pytest.raises(JournalError, match="rotation_pending"):
            seal(home, load_identity(home.key_file), journal, START + 1_021)
        journal.append_readings([reading(1_080)], journal.get_counters())  # the meters are read all the same
    hub.answer = lambda _path, _body: (200, {})
    with opened(home) as journal:
        assert hand_in_rotation(home, journal).key_epoch == 2
        assert journal.find_unsealed() is not None
        assert seal(home, load_identity(home.key_file), journal, START + 1_081).sequence == 1
    assert hub.asked[0] == hub.asked[1]


def test_without_a_hub_in_reach_an_operator_hands_it_in_and_says_how_it_ended(home: Settings, hub: Any) -> None:
    with opened(home) as journal:
        with pytest.raises(RotationError, match="rotation_none"):
            finish_rotation(home, journal)
        printed = begin_rotation(home, journal)
        assert begin_rotation(home, journal) == printed
        assert finish_rotation(home, journal).key_epoch == 2
        begin_rotation(home, journal)
        discard_rotation(home, journal)
        assert get_enrolment(home, open_identity(home, journal), journal).key_epoch == 2
    assert hub.asked == []


def test_a_pending_rotation_whose_key_is_gone_is_not_finished_with_another(home: Settings) -> None:
    with opened(home) as journal:
        begin_rotation(home, journal)
        next_key_file(home.key_file).unlink()
        load_or_create_identity(next_key_file(home.key_file))
        with pytest.raises(IdentityError, match="key_differs"):
            finish_rotation(home, journal)
        assert journal.get_chain().key_epoch == 1


@pytest.mark.parametrize("left", [None, "another"])
def test_the_hub_never_hears_of_a_key_that_is_gone(home: Settings, hub: Any, left: str | None) -> None:
    """Else it would take it, and nobody could ever seal with it."""
    hub.answer = lambda _path, _body: (0, {})
    with opened(home) as journal:
        with pytest.raises(HubUnansweredError):
            hand_in_rotation(home, journal)
        next_key_file(home.key_file).unlink()
        if left:
            load_or_create_identity(next_key_file(home.key_file))
        asked = len(hub.asked)
        for attempt in (begin_rotation, hand_in_rotation):
            with pytest.raises(IdentityError, match=r"key_differs|key_missing"):
                attempt(home, journal)
        assert len(hub.asked) == asked
        assert journal.find_rotation() is not None, "what became of it a person finds out, and says"
        discard_rotation(home, journal)
        hub.answer = lambda _path, _body: (201, {})
        assert hand_in_rotation(home, journal).key_epoch == 2


def test_a_meter_is_not_enrolled_anew_while_a_rotation_is_pending(
    tmp_path: Path, config_text: Callable[..., str]
) -> None:
    (tmp_path / "edge.toml").write_text(config_text(1))
    settings = load_settings(tmp_path / "edge.toml")
    identity = load_or_create_identity(settings.key_file)
    counters = start_counters(settings.measurement, REGISTERS_WH, START)
    with opened(settings) as journal:
        enrol(settings, identity, journal, counters)
        begin_rotation(settings, journal)
        before = journal.get_chain()
        with pytest.raises(JournalError, match="rotation_pending"):
            enrol(settings, identity, journal, start_counters(settings.measurement, REGISTERS_WH, START + 60))
        assert finish_rotation(settings, journal).valid_from_unix_s == START
        assert journal.get_chain().last_reading_unix_s == before.last_reading_unix_s


def test_a_receipt_of_the_epoch_before_finds_nothing_to_forget(home: Settings) -> None:
    with opened(home) as journal:
        hand_in_rotation(home, journal)
        assert (journal.get_confirmed_sequence(), journal.unconfirmed_sequences()) == (0, [])
        assert journal.find_seal_hash(1) is None


KILLED = """
import os, signal, sys
from pathlib import Path
from edge.journal import Journal
from edge.rotation import hand_in_rotation
from edge.settings import load_settings

OURS = tuple(f"edge/{name}.py" for name in ("rotation", "journal", "identity", "secret_file", "hub_client"))

def rotate(config, after):
    settings, lines = load_settings(Path(config)), 0

    def count(frame, event, argument):
        nonlocal lines
        if not frame.f_code.co_filename.endswith(OURS):
            return None
        if event == "line":
            lines += 1
            if lines == after:
                os.kill(os.getpid(), signal.SIGKILL)
        return count

    journal = Journal(settings.journal.file, settings.journal.bytes_max)
    sys.settrace(count)
    hand_in_rotation(settings, journal)

for order in sys.stdin:
    config, after = order.split()
    child = os.fork()
    if not child:
        rotate(config, int(after))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Rotator:
    """Processes that rotate, and that SIGKILL ends before a given line of ours; forked, since there are many."""

    def __init__(self) -> None:
        self._parent = subprocess.Popen(
            [sys.executable, "-c", KILLED],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )

    def came_to_its_end(self, config: Path, line: int) -> bool:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(f"{config} {line}\n")
        self._parent.stdin.flush()
        status = int(self._parent.stdout.readline())
        assert status in (0, -signal.SIGKILL), status
        return status == 0

    def stop(self) -> None:
        self._parent.communicate()


@pytest.fixture
def rotator() -> Iterator[Rotator]:
    made = Rotator()
    yield made
    made.stop()


class OneRotation:
    """A hub that has the old key, and takes one rotation from it, as often as it is handed in."""

    def __init__(self) -> None:
        self.taken = ""

    def __call__(self, _path: str, body: dict[str, Any]) -> tuple[int, object]:
        if self.taken in ("", body["rotation"]):
            new = not self.taken
            self.taken = body["rotation"]
            return (201 if new else 200), {}
        return 409, {"code": "rotation_base_differs"}


def kill_at_line(home: Settings, hub: Any, rotator: Rotator, directory: Path, line: int) -> bool:
    """Returns whether the process came to its end before that line."""
    hub.answer = one = OneRotation()
    copy = copied(home, directory)
    old = load_identity(copy.key_file).public_key
    ended = rotator.came_to_its_end(directory / "edge.toml", line)
    with opened(copy) as journal:  # the next start
        begun = journal.find_rotation() is not None
        identity = open_identity(copy, journal)
        enrolment = get_enrolment(copy, identity, journal)
        assert [r.time_unix_s for r in journal.unsealed_readings(9)] == [START + 960, START + 1_020]
        if begun:
            assert identity.public_key == old
            with pytest.raises(JournalError, match="rotation_pending"):
                seal(copy, identity, journal, START + 1_021)
        if begun or enrolment.key_epoch == 1:
            assert begun or not one.taken, "nobody hears of a rotation that is not journaled"
            enrolment = hand_in_rotation(copy, journal)
        successor = open_identity(copy, journal)
        assert (enrolment.key_epoch, enrolment.public_key) == (2, successor.public_key)
        assert split_rotation(bytes.fromhex(one.taken))[0].public_key == successor.public_key
        stated = seal(copy, successor, journal, START + 1_021)
        assert (stated.sequence, stated.closed_until_unix_s) == (1, START + 900)
        message = journal.find_message(1) or b""
        assert len(decode_readings(split_message(message).section)) == 2
        assert seal_hash(split_message(message).seal_bytes).hex() == journal.get_chain().last_seal_hash
    return ended


def test_a_rotation_killed_between_two_lines_is_healed_by_the_next_start(
    home: Settings, hub: Any, rotator: Rotator, tmp_path: Path
) -> None:
    kill_everywhere(home, hub, rotator, tmp_path, ROTATIONS_BY_LINE_STEP)


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_a_rotation_killed_between_any_two_lines_is_healed_by_the_next_start(
    home: Settings, hub: Any, rotator: Rotator, tmp_path: Path
) -> None:
    kill_everywhere(home, hub, rotator, tmp_path, 1)


def kill_everywhere(home: Settings, hub: Any, rotator: Rotator, directory: Path, step: int) -> None:
    line = 1
    while not kill_at_line(home, hub, rotator, directory / str(line), line):
        line += step
    assert line > 50, "it has at least so many lines"
