"""Where the messages go: one file each, whole or not at all, in the order in which they came."""

import itertools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

MESSAGES_MAX = 10_000
"""Then the disk is said to be full."""


class MailboxFull(Exception):
    """There are as many messages as there may be."""


class Mailbox:
    """A directory of .eml files, whose names sort as the messages came. Above each stand the envelope's addresses, as a
    server writes them at final delivery: Return-Path and Delivered-To.
    """

    def __init__(
        self, directory: Path, messages_max: int = MESSAGES_MAX, now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._directory = directory
        self._messages_max = messages_max
        self._now_ns = now_ns
        self._numbers = itertools.count(1)
        directory.mkdir(parents=True, exist_ok=True)
        self._messages = sum(1 for _ in directory.glob("*.eml"))

    def add(self, sender: str, recipients: Sequence[str], content: bytes) -> Path:
        """Keep a message, durably, and return its file. Raises MailboxFull, OSError."""
        if self._messages >= self._messages_max:
            raise MailboxFull
        envelope = [f"Return-Path: <{sender}>", *(f"Delivered-To: {recipient}" for recipient in recipients)]
        name = f"{self._now_ns():020d}-{next(self._numbers):06d}.eml"
        part = self._directory / f".{name}.part"
        with part.open("wb") as file:
            file.write("".join(line + "\r\n" for line in envelope).encode() + content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(self._directory / name)
        folder = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._messages += 1
        return self._directory / name
