"""The hub's key is a file that nobody else can read, as Solana's own tools keep keys."""

from __future__ import annotations

import json

import pytest
from solders.keypair import Keypair

from hub.chain.key import read_keypair
from hub.errors import SettingsInvalid

KEY = Keypair.from_seed(b"k" * 32)


def write(path, content, mode=0o600):
    path.write_text(content)
    path.chmod(mode)
    return path


def test_a_key_as_solana_keeps_it_is_read(tmp_path):
    assert read_keypair(write(tmp_path / "key", KEY.to_json())) == KEY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_key_that_others_may_read_is_refused(tmp_path, mode):
    with pytest.raises(SettingsInvalid, match="others may read it"):
        read_keypair(write(tmp_path / "key", KEY.to_json(), mode))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        "[1,2",
        json.dumps([*KEY.secret()]),
        json.dumps([*bytes(KEY)[:32], *bytes(KEY)[:32]]),
        json.dumps([*bytes(KEY)[:63], 256]),
        json.dumps([*bytes(KEY)[:63], True]),
        json.dumps([*bytes(KEY)[:63], 1.0]),
        "[" * 10_000,
    ],
)
def test_what_is_no_key_is_refused_and_not_shown(tmp_path, content):
    with pytest.raises(SettingsInvalid) as refused:
        read_keypair(write(tmp_path / "key", content))
    assert str(bytes(KEY)[0]) not in str(refused.value).removeprefix(str(tmp_path))


def test_a_missing_key_is_refused(tmp_path):
    with pytest.raises(SettingsInvalid):
        read_keypair(tmp_path / "key")
