"""A member's session on this machine: two tokens in one file, and how they are used and renewed.

The access token goes with every request and lives for minutes; the refresh token buys the next pair and is worth
nothing afterwards. Whoever uses a spent one ends the whole session, for it might be stolen. So of several commands at
once only one renews, under a lock, and the file always holds the newest pair.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from commonwatt.hub_client import CommandError, object_of, read_private_file
from commonwatt.terminal import replace_secret_file

_CODE = "session_file"
_EXPIRED = "access_token_expired"


@dataclass(frozen=True)
class Tokens:
    """What is in the file. `url` is the hub that gave the tokens."""

    url: str
    member_id: str
    session_id: str
    access_token: str
    refresh_token: str

    @classmethod
    def of_answer(cls, url: str, answer: dict[str, Any]) -> Tokens:
        """From the hub's answer to a sign-in or a refresh."""
        return cls(url, *(answer[name] for name in ("member_id", "session_id", "access_token", "refresh_token")))


class MemberSession(httpx.Auth):
    """Speaks as the member who signed in; renews the tokens when the hub says that one has expired."""

    requires_response_body = True  # the refusal's code says whether renewing helps

    def __init__(self, file: Path) -> None:
        self._file = file

    def exists(self) -> bool:
        """Whether somebody has signed in here, readable to us or not."""
        try:
            return self._file.exists()
        except OSError:
            return True

    def id_at(self, url: str) -> str | None:
        """Which session of this hub's the file has. None without one, or if it cannot be read: a sign-in mends it."""
        try:
            tokens = self.read()
        except CommandError:
            return None
        return tokens.session_id if tokens.url == url else None

    def read(self) -> Tokens:
        """The tokens. Raises CommandError `not_signed_in` without a file, `session_file` if it is not one of ours."""
        if not self.exists():
            raise CommandError("not_signed_in", f"{self._file} is not there: commonwatt member sign-in")
        try:
            return Tokens(**json.loads(read_private_file(self._file, _CODE)))
        except (ValueError, TypeError) as fault:
            raise CommandError(_CODE, f"{self._file}: not the file of a session") from fault

    def keep(self, tokens: Tokens) -> None:
        """Write the tokens in place of those before. Raises CommandError `session_file`."""
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_secret_file(self._file, json.dumps(asdict(tokens)))
        except OSError as fault:
            raise CommandError(_CODE, str(fault)) from fault

    def forget(self) -> None:
        """Delete the tokens of a session that has ended."""
        try:
            self._file.unlink(missing_ok=True)
        except OSError as fault:
            raise CommandError(_CODE, str(fault)) from fault

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request with the access token, and if that has expired, once more with the next one."""
        tokens = self.read()
        response = yield _bearing(request, tokens)
        if not _is_expired(response):
            return
        with self._locked():
            newest = self.read()  # another command may have renewed them meanwhile
            if newest.access_token == tokens.access_token:
                address = request.url.copy_with(raw_path=b"/auth/refresh")
                answer = yield httpx.Request("POST", address, json={"refresh_token": newest.refresh_token})
                newest = Tokens.of_answer(newest.url, object_of(answer))
                self.keep(newest)
        yield _bearing(request, newest)

    def renew(self, refresh: Callable[[str], dict[str, Any]]) -> Tokens:
        """The next tokens, by `refresh` of the refresh token. Raises CommandError."""
        with self._locked():
            tokens = self.read()
            renewed = Tokens.of_answer(tokens.url, refresh(tokens.refresh_token))
            self.keep(renewed)
            return renewed

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            lock = self._file.with_name(f"{self._file.name}.lock").open("w")
        except OSError as fault:
            raise CommandError(_CODE, str(fault)) from fault
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _bearing(request: httpx.Request, tokens: Tokens) -> httpx.Request:
    request.headers["Authorization"] = f"Bearer {tokens.access_token}"
    return request


def _is_expired(response: httpx.Response) -> bool:
    if response.status_code != httpx.codes.UNAUTHORIZED:
        return False
    try:
        return bool(response.json().get("code") == _EXPIRED)
    except (ValueError, AttributeError):
        return False
