"""One rule for signatures: RFC 8032 with canonical S, no small-order keys or points."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

VECTORS = Path(__file__).parents[1] / "vectors"
CASES = json.loads((VECTORS / "ed25519.json").read_text(encoding="utf-8"))


def libsodium_accepts(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        VerifyKey(key).verify(message, signature)
    except (CryptoError, ValueError):
        return False
    return True


def parts(case: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(case[name]) for name in ("public_key", "message", "signature")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_libsodium_follows_the_rule(case: dict[str, Any]) -> None:
    assert libsodium_accepts(*parts(case)) == case["valid"]


def test_the_vectors_are_what_the_script_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(VECTORS))
    try:
        made = runpy.run_path(str(VECTORS / "make_ed25519.py"))["cases"]()
    finally:
        sys.modules.pop("ed25519", None)
    assert made == CASES


def test_the_vectors_hold_every_encoding_of_a_point_of_small_order() -> None:
    for where in ("key", "R"):
        assert sum(case["name"].startswith(f"small-order {where}") for case in CASES) == 14
