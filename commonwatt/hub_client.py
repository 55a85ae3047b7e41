"""The hub's REST API as a program at a terminal uses it: safe repeats, errors by their code, files that appear whole.

Who is speaking is an `httpx.Auth`: `ApiKey` here, a member's session in `member_session.py`. Every change carries the
invocation's one Idempotency-Key, so repeating it after a lost answer performs nothing twice.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

NAME = "commonwatt"
"""What members see in the list of their sessions."""
TIMEOUT_S = 60.0
PAUSES_S = (0.5, 1.0, 2.0)
"""Before each repeat of a request that got no answer."""

_PASSING_CODES = ("database_away", "idempotency_key_in_flight")
"""Refusals of which the hub itself says that they pass."""

_VISIBLE = re.compile(r"[\x21-\x7e]+")

Parameters = Mapping[str, str | int | None]
_T = TypeVar("_T")


class CommandError(Exception):
    """What the person at the terminal must read: the hub's refusal, or why there was none. `code` is stable."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class ApiKey(httpx.Auth):
    """Speaks as the owner of an API key."""

    def __init__(self, key: str) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the key with every request."""
        request.headers["Authorization"] = f"Bearer {self._key}"
        yield request


def path_of(*parts: str | int) -> str:
    """A path of the API; a part that somebody typed stays one part."""
    return "".join("/" + quote(str(part), safe="", errors="surrogateescape") for part in parts)


def read_private_file(path: Path, code: str) -> str:
    """The text in a file, without its last line break. Raises CommandError with this code if others may read it."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise CommandError(code, f"{path}: {fault}") from fault
    if mode & 0o077:
        raise CommandError(code, f"{path}: others may read it (mode {mode:04o}); make it 0600")
    return text.removesuffix("\n")


def read_secret_file(path: Path, code: str) -> str:
    """The one word in such a file. Raises CommandError with this code if it is none."""
    secret = read_private_file(path, code).strip()
    if not _VISIBLE.fullmatch(secret):
        raise CommandError(code, f"{path}: one word without spaces is expected")
    return secret


class HubClient:
    """Requests in somebody's name. Every method raises CommandError and nothing else.

    `program` is the command that began this, for the hint how to repeat it.
    """

    def __init__(
        self,
        url: str,
        auth: httpx.Auth | None,
        idempotency_key: str,
        program: str,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._key = idempotency_key
        self._program = program
        self._pause = pause
        if not _VISIBLE.fullmatch(idempotency_key):
            raise CommandError("idempotency_key", "visible ASCII characters are expected")
        self.url = url
        self._http = httpx.Client(
            base_url=address_of(url), auth=auth, timeout=TIMEOUT_S, follow_redirects=False, headers={"User-Agent": NAME}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, parameters: Parameters | None = None) -> dict[str, Any]:
        """The JSON object at a path; parameters that are None are left out."""
        return self._persist(lambda: object_of(self._http.get(path, params=_given(parameters))))

    def each(self, path: str, name: str, parameters: Parameters | None = None) -> Iterator[dict[str, Any]]:
        """The items of a paged list, page by page."""
        cursor: str | None = None
        while True:
            page = self.get(path, {**(parameters or {}), "cursor": cursor})
            yield from page[name]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def post(self, path: str, body: Mapping[str, object], act: str = "") -> dict[str, Any]:
        """Perform a change once, however often it must be sent. `act` tells several of one invocation apart."""
        key = hashlib.sha256(f"{self._key} {act}".encode()).hexdigest() if act else self._key
        headers = {"Idempotency-Key": key}
        try:
            return self._persist(lambda: object_of(self._http.post(path, json=body, headers=headers)))
        except CommandError as fault:
            if fault.code != "no_answer":
                raise
            raise CommandError(fault.code, f"{fault.detail}; {self.how_to_repeat}") from fault

    @property
    def how_to_repeat(self) -> str:
        """For whoever does not know whether a change was made, or has lost the answer to it."""
        return f"perhaps it was done: `{self._program} --idempotency-key {self._key} …` does not do it twice"

    def download(self, path: str, parameters: Parameters, target: Path) -> int:
        """Write an answer to a file, which appears only when it is complete; returns its length in bytes."""
        partial = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            self._persist(lambda: self._stream(path, _given(parameters), partial))
            length = partial.stat().st_size
            partial.replace(target)
        except OSError as fault:
            raise CommandError("file", f"{target}: {fault}") from fault
        else:
            return length
        finally:
            partial.unlink(missing_ok=True)

    def _stream(self, path: str, parameters: dict[str, str | int], partial: Path) -> None:
        with self._http.stream("GET", path, params=parameters) as response:
            if not response.is_success:
                response.read()
                object_of(response)
            with partial.open("wb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)

    def _persist(self, request: Callable[[], _T]) -> _T:
        """Ask until there is an answer that will stay, a few times."""
        for pause_s in PAUSES_S:
            try:
                return request()
            except httpx.RequestError:
                pass
            except UnicodeEncodeError as fault:
                raise CommandError("not_text", "an argument has bytes in it that are not UTF-8") from fault
            except CommandError as fault:
                if fault.code not in _PASSING_CODES:
                    raise
            self._pause(pause_s)
        try:
            return request()
        except httpx.RequestError as fault:
            raise CommandError("no_answer", f"{self._http.base_url}: {fault or type(fault).__name__}") from fault


def address_of(url: str) -> httpx.URL:
    """The hub's address. Raises CommandError `url` if it can be none."""
    try:
        address = httpx.URL(url)
        address.host.encode("idna")  # as the resolver will
    except (httpx.InvalidURL, UnicodeError) as fault:
        raise CommandError("url", f"{url}: {fault}") from fault
    if address.scheme not in ("http", "https") or not address.host:
        raise CommandError("url", f"{url}: an address such as https://hub.example is expected")
    return address


def object_of(response: httpx.Response) -> dict[str, Any]:
    """The JSON object in an answer. Raises CommandError with the hub's code for a refusal."""
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if response.is_success and isinstance(answer, dict):
        return answer
    if isinstance(answer, dict) and isinstance(answer.get("code"), str):
        detail = ": ".join(str(answer[part]) for part in ("title", "detail") if answer.get(part))
        raise CommandError(answer["code"], detail)
    raise CommandError("unexpected_answer", f"status {response.status_code} from {response.url}; is this a hub?")


def _given(parameters: Parameters | None) -> dict[str, str | int]:
    return {name: value for name, value in (parameters or {}).items() if value is not None}
