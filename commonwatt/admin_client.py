"""The hub's REST API as an operator's program uses it: one token, safe repeats, errors by their code.

Every change carries the invocation's one Idempotency-Key, so repeating it after a lost answer performs nothing twice.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

TIMEOUT_S = 60.0
PAUSES_S = (0.5, 1.0, 2.0)
"""Before each repeat of a request that got no answer."""

_PASSING_CODES = ("database_away", "idempotency_key_in_flight")
"""Refusals of which the hub itself says that they pass."""

_VISIBLE = re.compile(r"[\x21-\x7e]+")

Parameters = Mapping[str, str | int | None]
_T = TypeVar("_T")


class AdminError(Exception):
    """What an operator must read: the hub's refusal, or why there was none. `code` is stable."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


def path_of(*parts: str | int) -> str:
    """A path of the API; a part that an operator typed stays one part."""
    return "".join("/" + quote(str(part), safe="") for part in parts)


def read_token(path: Path) -> str:
    """The admin token. Raises AdminError `token_file` if it is not there or others may read it."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as fault:
        raise AdminError("token_file", f"{path}: {fault}") from fault
    if mode & 0o077:
        raise AdminError("token_file", f"{path}: others may read it (mode {mode:04o}); make it 0600")
    if not _VISIBLE.fullmatch(token):
        raise AdminError("token_file", f"{path}: it holds no token")
    return token


class AdminClient:
    """Requests in an operator's name. Every method raises AdminError and nothing else."""

    def __init__(self, url: str, token: str, idempotency_key: str, pause: Callable[[float], None] = time.sleep) -> None:
        self._key = idempotency_key
        self._pause = pause
        try:
            address = httpx.URL(url)
            address.host.encode("idna")  # as the resolver will
        except (httpx.InvalidURL, UnicodeError) as fault:
            raise AdminError("url", f"{url}: {fault}") from fault
        if address.scheme not in ("http", "https") or not address.host:
            raise AdminError("url", f"{url}: an address such as https://hub.example is expected")
        if not _VISIBLE.fullmatch(idempotency_key):
            raise AdminError("idempotency_key", "visible ASCII characters are expected")
        self._http = httpx.Client(
            base_url=address, headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT_S, follow_redirects=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, parameters: Parameters | None = None) -> dict[str, Any]:
        """The JSON object at a path; parameters that are None are left out."""
        return self._persist(lambda: _object_of(self._http.get(path, params=_given(parameters))))

    def each(self, path: str, name: str, parameters: Parameters | None = None) -> Iterator[dict[str, Any]]:
        """The items of a paged list, page by page."""
        cursor: str | None = None
        while True:
            page = self.get(path, {**(parameters or {}), "cursor": cursor})
            yield from page[name]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Perform a change once, however often it must be sent."""
        headers = {"Idempotency-Key": self._key}
        try:
            return self._persist(lambda: _object_of(self._http.post(path, json=body, headers=headers)))
        except AdminError as fault:
            if fault.code != "no_answer":
                raise
            hint = f"perhaps it was done: `commonwatt admin --idempotency-key {self._key} …` does not do it twice"
            raise AdminError(fault.code, f"{fault.detail}; {hint}") from fault

    def download(self, path: str, parameters: Parameters, target: Path) -> int:
        """Write an answer to a file, which appears only when it is complete; returns its length in bytes."""
        partial = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            self._persist(lambda: self._stream(path, _given(parameters), partial))
            length = partial.stat().st_size
            partial.replace(target)
        except OSError as fault:
            raise AdminError("file", f"{target}: {fault}") from fault
        else:
            return length
        finally:
            partial.unlink(missing_ok=True)

    def _stream(self, path: str, parameters: dict[str, str | int], partial: Path) -> None:
        with self._http.stream("GET", path, params=parameters) as response:
            if not response.is_success:
                response.read()
                _object_of(response)
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
            except AdminError as fault:
                if fault.code not in _PASSING_CODES:
                    raise
            self._pause(pause_s)
        try:
            return request()
        except httpx.RequestError as fault:
            raise AdminError("no_answer", f"{self._http.base_url}: {fault or type(fault).__name__}") from fault


def _given(parameters: Parameters | None) -> dict[str, str | int]:
    return {name: value for name, value in (parameters or {}).items() if value is not None}


def _object_of(response: httpx.Response) -> dict[str, Any]:
    """The JSON object in an answer. Raises AdminError with the hub's code for a refusal."""
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if response.is_success and isinstance(answer, dict):
        return answer
    if isinstance(answer, dict) and isinstance(answer.get("code"), str):
        detail = ": ".join(str(answer[part]) for part in ("title", "detail") if answer.get(part))
        raise AdminError(answer["code"], detail)
    raise AdminError("unexpected_answer", f"status {response.status_code} from {response.url}; is this a hub?")
