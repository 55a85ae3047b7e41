from pathlib import Path

import pytest
from nacl.signing import VerifyKey

from edge.errors import IdentityError
from edge.identity import load_identity, load_or_create_identity


def test_a_key_is_made_once_readable_by_its_owner_alone(tmp_path: Path) -> None:
    identity = load_or_create_identity(tmp_path / "meter.key")
    assert (tmp_path / "meter.key").stat().st_mode & 0o777 == 0o600
    assert load_or_create_identity(tmp_path / "meter.key").public_key == identity.public_key
    VerifyKey(identity.public_key).verify(b"a seal", identity.sign(b"a seal"))
    assert [path.name for path in tmp_path.iterdir()] == ["meter.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o700])
def test_a_key_that_others_may_read_is_not_used(tmp_path: Path, mode: int) -> None:
    load_or_create_identity(tmp_path / "meter.key")
    (tmp_path / "meter.key").chmod(mode)
    with pytest.raises(IdentityError, match="key_exposed"):
        load_or_create_identity(tmp_path / "meter.key")


@pytest.mark.parametrize("content", [b"", b"ab" * 31, b"zz" * 32, b"\xff" * 64])
def test_a_file_that_is_no_key_is_a_named_error_that_does_not_show_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "meter.key").touch(0o600)
    (tmp_path / "meter.key").write_bytes(content)
    with pytest.raises(IdentityError, match="key_unreadable") as raised:
        load_identity(tmp_path / "meter.key")
    assert content == b"" or content.decode("latin-1") not in str(raised.value)


def test_without_a_key_nothing_is_signed(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="key_missing"):
        load_identity(tmp_path / "meter.key")
    with pytest.raises(IdentityError, match="key_unwritable"):
        load_or_create_identity(tmp_path / "nowhere" / "meter.key")
