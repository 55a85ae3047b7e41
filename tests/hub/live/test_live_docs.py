"""docs/live.md says what is so: its client works, its tables are complete."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hub.auth.sessions_rules import Client
from hub.auth.sessions_service import open_session
from hub.auth.tokens import issue_access_token
from hub.db import transaction
from hub.live.sockets import CLOSE_CODES
from hub.live.topics import TOPICS
from hub.permissions import Role
from hub.token_keys import read_token_keys
from tests.hub.live.conftest import orders_of, tell

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs/live.md").read_text()


def test_the_client_of_the_documentation_gets_every_update_over_tokens_that_end(server, capsys):
    ada = server.member()
    [code] = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    client: dict[str, Any] = {}
    exec(code, client)  # noqa: S102 - it is ours
    keys = read_token_keys(server.settings)
    with transaction(server.engine) as connection:
        session = open_session(
            connection, ada.member_id, "test", Client("127.0.0.1", "tests"), keys, datetime.now(UTC)
        ).session_id
    tokens: list[str] = []
    got: list[int] = []

    async def run() -> None:
        async def get_token() -> str:
            now = datetime.now(UTC)
            end = now + timedelta(seconds=2)
            tokens.append(issue_access_token(keys, ada.member_id, session, [Role.CONSUMER], now, end))
            return tokens[-1]

        async def on_update(frame: dict[str, Any]) -> None:
            got.append(frame["sequence"])

        async def on_resync(topic: str) -> None:
            raise AssertionError(topic)

        url = server.url.replace("http://", "ws://") + "/live"
        following = asyncio.create_task(client["follow"](url, get_token, {"orders": 0}, on_update, on_resync))
        async with asyncio.timeout(60):
            told = 0
            while len(tokens) < 4 or len(got) < told:
                if len(tokens) < 4:
                    told += 5
                    await asyncio.to_thread(tell, server.engine, orders_of(ada), *range(5))
                await asyncio.sleep(0.1)
        following.cancel()

    asyncio.run(run())
    assert got == list(range(1, len(got) + 1))
    assert "access_token_expired" in capsys.readouterr().out


def test_every_topic_and_close_code_is_documented():
    for name in TOPICS:
        assert f"`{name}`" in DOCUMENT, name
    for error, code in CLOSE_CODES.items():
        assert re.search(rf"^\| {code} \|.*{error.code}", DOCUMENT, re.MULTILINE), (error.code, code)


def test_every_kind_that_owners_hear_of_is_documented():
    sources = "".join(file.read_text() for file in (ROOT / "hub").rglob("*.py"))
    told = set(re.findall(r'OfMeter\([^,]+, "(meter\.[a-z_]+)"', sources))
    told |= set(re.findall(r'_tell_owner\([^,]+, meter, "(meter\.[a-z_]+)"', sources))
    assert told >= {"meter.read", "meter.registered", "meter.suspended", "meter.key_rotated"}
    assert not [kind for kind in told if f"`{kind}`" not in DOCUMENT]
