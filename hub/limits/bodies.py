"""A request's body: how large it may be, and how long it may take to come."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import Message, Receive

from hub.errors import BodyTooLarge, RequestTooSlow

BODY_BYTES_MAX: Final = 64 * 1024
BODY_TIMEOUT_S: Final = 30.0
"""The largest body in this time is 2 kB a second."""


def bounded_body(receive: Receive, bytes_max: int = BODY_BYTES_MAX, timeout_s: float = BODY_TIMEOUT_S) -> Receive:
    """Receives a body of which nobody can take more than `bytes_max`, nor wait longer than `timeout_s` for its end.

    Raises BodyTooLarge, RequestTooSlow. Once the body is here, waiting for the client to leave may take as long as it
    likes.
    """
    taken = 0
    complete = False
    deadline_s = asyncio.get_running_loop().time() + timeout_s

    async def receive_bounded() -> Message:
        nonlocal taken, complete
        if complete:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline_s):
                message = await receive()
        except TimeoutError:
            raise RequestTooSlow(f"the body was not complete within {timeout_s:g} s") from None
        taken += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if taken > bytes_max:
            raise BodyTooLarge(f"more than {bytes_max} bytes")
        return message

    return receive_bounded
