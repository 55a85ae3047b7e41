"""Files that only their owner may read, and that are on the disk, whole, before anybody relies on them."""

import os
import stat
from pathlib import Path

SECRET_FILE_MODE = 0o600


def create_secret_file(path: Path, text: str) -> None:
    """Write a file that must not be there yet; it appears whole or not at all. Raises OSError."""
    draft = _draft(path, text)
    os.link(draft, path)  # refuses to replace a file that appeared meanwhile
    draft.unlink()
    sync_directory(path.parent)


def replace_secret_file(path: Path, text: str) -> None:
    """Write a file, in place of the one that may be there; a power cut leaves the one or the other. Raises OSError."""
    _draft(path, text).replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Names of files survive a power cut from here on. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def exposed_mode(path: Path) -> int | None:
    """The mode of a file that others than its owner may use; None if it is as it must be. Raises OSError."""
    mode = stat.S_IMODE(path.stat().st_mode)
    return mode if mode & ~SECRET_FILE_MODE else None


def _draft(path: Path, text: str) -> Path:
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)  # left by a power cut before it was ever used
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SECRET_FILE_MODE), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return draft
